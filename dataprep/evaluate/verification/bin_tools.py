"""Verification sets as .bin: building from pairs and faces, unpacking to images and a list, and inspecting."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.errors import ImagingError, RecordError
from dataprep.evaluate.verification.pair_set import VerificationSet
from dataprep.imaging.codec import read_header
from dataprep.imaging.sniff import identify_format
from dataprep.packs.io import open_pack
from dataprep.packs.pair_lists import format_pair_list
from dataprep.packs.pair_sampling import PairList, consecutive_folds, level_folds, make_pairs
from dataprep.packs.verification_bin import bin_image_names, count_bin_elements, read_bin, write_bin
from dataprep.storage import Folder, file_sha256, publish_directory, staged_directory

_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "bmp": ".bmp", "gif": ".gif"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BinReport:
    """The contents of a .bin: element types (bytes or ndarray), image forms as `112x112 jpeg`, and folds with pairs of
    one kind only. `refolded` counts pairs that moved to a different fold than in the list they were built from."""

    pairs: int
    positives: int
    distinct: int
    elements: dict[str, int]
    forms: dict[str, int]
    one_kind: list[int]
    sha256: str
    refolded: int = 0
    folds: int = 10


def build_bin(verification_set: VerificationSet, out: Path) -> BinReport:
    """Write a .bin like insightface's lfw2pack: the files' unmodified bytes, in the order of the pairs, fold by fold.

    A .bin stores no folds; readers take ten consecutive stretches. Pairs that this moves are counted.
    Raises RecordError for a file that is not an image, or if there are no pairs.
    """
    if not len(verification_set):
        raise RecordError(f"{verification_set.path}: no pairs are left")
    order = np.argsort(verification_set.fold, kind="stable")
    refolded = int((verification_set.fold[order] != consecutive_folds(len(verification_set))).sum())
    sides = np.stack([verification_set.left[order], verification_set.right[order]], axis=1).ravel().tolist()
    read: dict[int, bytes] = {}
    for i in sides:
        if i not in read:
            read[i] = verification_set.images[i]
            if identify_format(read[i]) not in _SUFFIXES:
                raise RecordError(
                    f"{verification_set.path}: {verification_set.names[i]} is not an image",
                    hint="--skip-missing skips missing files only",
                )
    write_bin(out, [read[i] for i in sides], verification_set.issame[order].tolist())
    return replace(inspect_bin(out), refolded=refolded)


def make_bin(faces: Path, out: Path, *, pairs: int, folds: int, seed: int) -> BinReport:
    """Write a .bin of pairs drawn from a pack or a folder of aligned faces: half positive, in folds that share nobody.

    There are fewer folds where there are few people. A .bin stores no folds, so their number stands in OUT.json beside it,
    which `dataprep test` reads. Raises RecordError if the people are too few.
    """
    pack = open_pack(faces)
    photos: dict[str, list[str]] = {}
    for position, label in enumerate(pack.labels().tolist()):
        if label >= 0:
            photos.setdefault(str(label), []).append(str(position))
    drawn = level_folds(make_pairs(photos, folds=folds, seed=seed, at_most=pairs), at_most=pairs, seed=seed)
    sides = [int(side) for two in zip(drawn.left, drawn.right, strict=True) for side in two]
    read = {side: pack.face(side).image for side in sorted(set(sides))}
    for side, image in read.items():
        if identify_format(image) not in _SUFFIXES:
            raise RecordError(
                f"{faces}: {pack.face(side).name} is not an image", hint="`dataprep verify` finds all of them"
            )
    write_bin(out, [read[side] for side in sides], drawn.issame.tolist())
    about: dict[str, Any] = {
        "made_from": str(faces),
        "folds": int(drawn.fold.max()) + 1,
        "seed": seed,
        "sha256": file_sha256(out),
    }
    Folder(out.parent).put_json(f"{out.name}.json", about)
    return replace(inspect_bin(out), folds=about["folds"], one_kind=[])  # each fold has both kinds


def unpack_bin(path: Path, out: Path) -> Path:
    """Write the images as 00001.jpg, ... without re-encoding, and `L R 1|-1` lines to <name>_pair.txt; return its path.

    Source: Face_Pytorch utils/load_images_from_bin.py. Suffixes follow the content. Raises RecordError if `out` exists.
    """
    if out.exists():
        raise RecordError(f"{out} already exists", hint="remove it, or unpack into another folder")
    images, same = read_bin(path)
    names = []
    for name, image in zip(bin_image_names(len(images)), images, strict=True):
        suffix = _SUFFIXES.get(identify_format(image))
        if suffix is None:
            raise RecordError(f"{path}: image {name} is {identify_format(image)}, not an image of a known type")
        names.append(name + suffix)
    with staged_directory(out) as staged:
        for name, image in zip(names, images, strict=True):
            (staged / name).write_bytes(image)
        pairs = PairList(
            left=tuple(names[0::2]), right=tuple(names[1::2]), issame=same, fold=consecutive_folds(len(same))
        )
        listed = f"{path.stem}_pair.txt"
        (staged / listed).write_text(format_pair_list(pairs))
        publish_directory(staged, out)
    return out / listed


def inspect_bin(path: Path) -> BinReport:
    """Inspect a .bin. Raises RecordError if it cannot be read; damaged images in it are counted."""
    images, same = read_bin(path)
    forms: Counter[str] = Counter()
    for image in images:
        try:
            header = read_header(image)
            forms[f"{header.width}x{header.height} {header.format}"] += 1
        except ImagingError as error:
            forms[f"unreadable ({error.reason.code})"] += 1
    folds = consecutive_folds(len(same))
    kinds = [same[folds == fold] for fold in range(10)]
    return BinReport(
        pairs=len(same),
        positives=int(same.sum()),
        distinct=len(set(images)),
        elements=count_bin_elements(path),
        forms=dict(forms.most_common()),
        one_kind=[i + 1 for i, kind in enumerate(kinds) if len(kind) and (kind.all() or not kind.any())],
        sha256=file_sha256(path),
    )
