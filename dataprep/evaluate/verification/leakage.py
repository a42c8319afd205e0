"""Overlap of a test set with a model's training pack: people by name, photos by content.

Photos are compared by the file's sha256 and, for re-encoded or rescaled copies, by difference hashes (dHash): at most 4
of 64 bits may differ, confirmed by at most 24 of 256 bits. Aligned faces resemble each other: the 64 bits alone took 1
of 395,028 pairs of different people in LFW for copies. With the 256 bits there were none; the nearest such pair differs
in more than 40. Copies at JPEG quality 75, at half size or 20 % brighter are found in at least 99 % of cases. A face
shifted by a pixel, or aligned again from the same photo, is mostly not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import ImagingError, RecordError
from dataprep.evaluate.verification.pair_set import VerificationSet
from dataprep.imaging.codec import decode_image
from dataprep.packs.base import PackReader, read_identities
from dataprep.packs.io import open_pack, pack_digest
from dataprep.packs.rec_reader import RecordPack

Hashes = npt.NDArray[np.uint8]

MAX_AUTO_HASHED = 100_000  # the largest pack that is hashed by default: about two minutes
_BITS, _CONFIRMED_BITS = 4, 24
_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakReport:
    """The overlap; None for what could not be determined (`unknown` has the reasons). Photos are (name in the set,
    position in the pack)."""

    pack: str | None = None
    identities: list[str] | None = None
    identical: list[tuple[str, int]] | None = None
    near_identical: list[tuple[str, int]] | None = None
    unknown: tuple[str, ...] = ()


def find_leaks(
    verification_set: VerificationSet,
    about: dict[str, Any],
    *,
    trained_on: Path | None = None,
    hash_all: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LeakReport:
    """Compare a set with `trained_on`, or with the packs named in `about` (a model file's training record).

    Packs of more than 100,000 images are compared by name only, unless `hash_all`.
    """
    if trained_on is not None:
        return _compared(trained_on, None, verification_set, hash_all, progress)
    first = [about["pack"]] if about.get("pack") else []
    paths = [Path(path) for path in about.get("packs") or first]
    digests = about.get("packs_sha256") or [about.get("pack_index_sha256"), *[None] * len(paths)][: len(paths)]
    if not paths:
        return LeakReport(unknown=("the model does not name its training pack; --trained-on PACK does",))
    found = []
    for path, digest in zip(paths, digests, strict=True):
        try:
            if not path.exists():
                raise RecordError("the model's training pack is missing")
            found.append(_compared(path, digest, verification_set, hash_all, progress))
        except RecordError as error:
            found.append(LeakReport(pack=str(path), unknown=(str(error),)))
    return found[0] if len(found) == 1 else _together(found)


def difference_hashes(data: bytes) -> Hashes | None:
    """(40,) bytes: an image's two difference hashes of 64 and 256 bits; None if it cannot be decoded."""
    from PIL import Image

    try:
        gray = Image.fromarray(decode_image(data)[0]).convert("L")
    except ImagingError:
        return None
    bits = []
    for side in (8, 16):
        small = np.asarray(gray.resize((side + 1, side), Image.Resampling.LANCZOS)).astype(np.int16)
        bits.append((small[:, 1:] > small[:, :-1]).ravel())
    return np.packbits(np.concatenate(bits))


def find_near_pairs(ours: Hashes, blocks: Iterable[Hashes]) -> Iterable[tuple[int, int]]:
    """(row in `ours`, row in all `blocks` together) of fingerprints that are near each other.

    If at most four of the 64 bits differ, at least one of five bands is equal: only such rows are compared.
    """
    start = 0
    bands = [(0, 13), (13, 26), (26, 39), (39, 52), (52, 64)]
    words = [_band(ours, band) for band in bands]
    orders = [np.argsort(word, kind="stable") for word in words]
    ranked = [word[order] for word, order in zip(words, orders, strict=True)]
    for block in blocks:
        found: set[tuple[int, int]] = set()
        for band, order, values in zip(bands, orders, ranked, strict=True):
            wanted = _band(block, band)
            first, last = (np.searchsorted(values, wanted, side=side) for side in ("left", "right"))
            theirs = np.repeat(np.arange(len(block)), last - first)
            within = np.arange(len(theirs)) - np.repeat(np.cumsum(last - first) - (last - first), last - first)
            mine = order[np.repeat(first, last - first) + within]
            near = _differing(ours[mine, :8], block[theirs, :8]) <= _BITS
            mine, theirs = mine[near], theirs[near]
            sure = _differing(ours[mine, 8:], block[theirs, 8:]) <= _CONFIRMED_BITS
            found.update(zip(mine[sure].tolist(), (theirs[sure] + start).tolist(), strict=True))
        yield from sorted(found)
        start += len(block)


def _compared(
    path: Path,
    digest: str | None,
    verification_set: VerificationSet,
    hash_all: bool,
    progress: Callable[[int, int], None],
) -> LeakReport:
    """Compare with one pack, whose digest must be `digest` unless that is None. Raises RecordError."""
    unknown: list[str] = []
    pack = open_pack(path)
    of_index = pack.index.digest() if isinstance(pack, RecordPack) else ""  # what earlier versions recorded
    if digest not in (None, of_index, pack_digest(pack)):
        raise RecordError("the pack is not the one that the model was trained on")
    people = _shared_people(pack.path, verification_set, unknown)
    if len(pack) > MAX_AUTO_HASHED and not hash_all:
        unknown.append(f"its {len(pack)} photos were not compared; --leaks full does")
        return LeakReport(pack=str(path), identities=people, unknown=tuple(unknown))
    identical, near = _shared_photos(pack, verification_set, progress)
    return LeakReport(
        pack=str(path), identities=people, identical=identical, near_identical=near, unknown=tuple(unknown)
    )


def _together(found: Sequence[LeakReport]) -> LeakReport:
    """The overlap with any of several packs: what is known of some, and the reasons why the rest is unknown."""
    people = [one.identities for one in found if one.identities is not None]
    identical = [one.identical for one in found if one.identical is not None]
    near = [one.near_identical for one in found if one.near_identical is not None]
    return LeakReport(
        pack=", ".join(str(one.pack) for one in found),
        identities=sorted(set(chain(*people))) if people else None,
        identical=[*chain(*identical)] if identical else None,
        near_identical=[*chain(*near)] if near else None,
        unknown=tuple(f"{one.pack}: {reason}" for one in found for reason in one.unknown),
    )


def _band(hashes: Hashes, band: tuple[int, int]) -> npt.NDArray[np.int64]:
    bits = np.unpackbits(hashes[:, :8], axis=1)[:, band[0] : band[1]].astype(np.int64)
    return np.asarray(bits @ (1 << np.arange(bits.shape[1])))


def _differing(one: Hashes, other: Hashes) -> npt.NDArray[np.int64]:
    return np.asarray(np.unpackbits(one ^ other, axis=1).sum(axis=1, dtype=np.int64))


def _shared_people(folder: Path, verification_set: VerificationSet, unknown: list[str]) -> list[str] | None:
    trained = read_identities(folder)
    if verification_set.identities is None:
        unknown.append("shared people: the set does not name its people")
        return None
    if trained is None:
        unknown.append("shared people: the pack has no labels.tsv")
        return None
    return sorted(set(trained) & set(verification_set.identities))


def _shared_photos(
    pack: PackReader, verification_set: VerificationSet, progress: Callable[[int, int], None]
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    digests: dict[bytes, int] = {}
    rows, prints = [], []
    used = sorted({*verification_set.left.tolist(), *verification_set.right.tolist()})
    for i in used:
        data = verification_set.images[i]
        digests.setdefault(hashlib.sha256(data).digest(), i)
        if (found := difference_hashes(data)) is not None:
            rows.append(i)
            prints.append(found)
    identical: list[tuple[str, int]] = []
    same_file: set[int] = set()

    def blocks() -> Iterable[Hashes]:
        for start in range(0, len(pack), _BLOCK):
            block = []
            for position in range(start, min(start + _BLOCK, len(pack))):
                data = pack.face(position).image
                mine = digests.get(hashlib.sha256(data).digest())
                if mine is not None:
                    identical.append((verification_set.names[mine], position))
                    same_file.add(position)
                found = difference_hashes(data)
                block.append(_no_hash() if found is None else found)
                progress(position + 1, len(pack))
            yield np.stack(block)

    ours = np.stack(prints) if prints else np.zeros((0, 40), np.uint8)
    near = [(verification_set.names[rows[i]], j) for i, j in find_near_pairs(ours, blocks()) if j not in same_file]
    return identical, near


def _no_hash() -> Hashes:
    """Stands for an image that cannot be decoded: alternating bits, which no picture has."""
    return np.full(40, 0b10101010, np.uint8)


def describe_leaks(leaks: LeakReport) -> Sequence[str]:
    """Sentences for the terminal."""
    lines = []
    if leaks.identities:
        lines.append(f"{len(leaks.identities)} people of the set are in the training pack: {_some(leaks.identities)}")
    for what, found in (("identical", leaks.identical), ("near-identical", leaks.near_identical)):
        if found:
            names = list(dict.fromkeys(name for name, _ in found))
            lines.append(f"{len(names)} photos of the set are in the training pack, {what}: {_some(names)}")
    clean = [
        what
        for what, found in (("people", leaks.identities), ("photos", leaks.identical))
        if found is not None and not found and not (what == "photos" and leaks.near_identical)
    ]
    if clean:
        lines.append(f"the training pack shares no {' and no '.join(clean)} with the set")
    return [*lines, *(f"not known: {reason}" for reason in leaks.unknown)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
