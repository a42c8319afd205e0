"""The training data: one or more packs of any format, addressed by position as one."""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import read_header
from dataprep.packs.base import PackReader, find_missing_labels, read_identities, read_property
from dataprep.packs.io import open_pack, pack_digest
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.recordio import unpack_image

LABEL_MERGE_MODES = ("offset", "name")

_COLOUR_ORDERS = ("", "RGB", "the images are ordinary files; decoded by this project as RGB")
_LARGEST_SIDE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class PackDataset:
    """Encoded faces by position, over the concatenated packs. `labels` (n,) cover 0..num_classes-1 without gaps.

    `height` and `width` are the size of the faces, in pixels.
    """

    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]
    num_classes: int
    height: int
    width: int
    images: PackImages
    contents: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[bytes, int]:
        """(bytes of the image file, label). Raises RecordError, which names the pack and the image."""
        return self.images[position], int(self.labels[position])

    def digest(self) -> str:
        """A sha256 of images and labels. It does not depend on where the packs are stored."""
        head = f"{self.num_classes},{self.height},{self.width}\n" + "".join(f"{each}\n" for each in self.contents)
        return hashlib.sha256(head.encode() + self.labels.tobytes()).hexdigest()


class PackImages:
    """The encoded images without labels. Pickled for loader processes, which reopen the files."""

    def __init__(self, packs: Sequence[_Readable]) -> None:
        self._packs = packs
        self._ends = list(accumulate(map(len, packs)))

    def __getitem__(self, position: int) -> bytes:
        number, image = self._place(position)
        try:
            return self._packs[number].image(image)
        except RecordError as error:
            hint = "run `dataprep repair` to recover the readable records"
            raise RecordError(f"{self.name(position)}: {error}", hint=hint) from None

    def name(self, position: int) -> str:
        """Pack and image, for messages."""
        number, image = self._place(position)
        return f"{self._packs[number].path}: image {image}"

    def _place(self, position: int) -> tuple[int, int]:
        number = bisect.bisect_right(self._ends, position)
        return number, position - (self._ends[number - 1] if number else 0)


class _Readable(Protocol):
    path: Path

    def __len__(self) -> int: ...

    def image(self, position: int) -> bytes: ...


class _Records:
    """The offsets of the images in a .rec, without keys, names and lists."""

    def __init__(self, pack: RecordPack) -> None:
        self.path, self._records = pack.path, pack.records
        self._offsets = pack.index.offsets[pack.positions]

    def __len__(self) -> int:
        return len(self._offsets)

    def image(self, position: int) -> bytes:
        return unpack_image(self._records.at(int(self._offsets[position]))).image


class _PackReaderImages:
    """A pack of shards or a folder."""

    def __init__(self, pack: PackReader) -> None:
        self.path, self._pack = pack.path, pack

    def __len__(self) -> int:
        return len(self._pack)

    def image(self, position: int) -> bytes:
        return self._pack.face(position).image


def open_dataset(packs: Sequence[str | os.PathLike[str]], *, merge_labels: str = "offset") -> PackDataset:
    """Open several packs as one. `join` sets how labels are merged: `offset` keeps the packs' identities distinct; `name`
    unifies identities with equal names in labels.tsv. Raises RecordError for labels or sizes that do not fit.
    """
    if merge_labels not in LABEL_MERGE_MODES:
        raise RecordError(f"unknown way to join packs: {merge_labels!r}; choose from {', '.join(LABEL_MERGE_MODES)}")
    if not packs:
        raise RecordError("no pack was given")
    opened = [open_pack(pack) for pack in packs]
    labels = [check_labels(pack) for pack in opened]
    for pack in opened:
        _check_colours(pack)
    _check_templates(opened)
    sizes = [_size(pack) for pack in opened]
    for pack, size in zip(opened, sizes, strict=True):
        if size != sizes[0]:
            raise RecordError(
                f"{pack.path} holds faces of {size[1]}x{size[0]}, but {opened[0].path} of {sizes[0][1]}x{sizes[0][0]}: "
                "align them to the same size"
            )
    counts = [_classes(pack, found) for pack, found in zip(opened, labels, strict=True)]
    if merge_labels == "name" and len(opened) > 1:
        maps = _by_name(opened, counts)
    else:
        starts = [0, *accumulate(counts)]
        maps = [np.arange(count) + start for start, count in zip(starts[:-1], counts, strict=True)]
    joined = np.concatenate([new[old] for new, old in zip(maps, labels, strict=True)])
    joined.flags.writeable = False
    return PackDataset(
        paths=tuple(pack.path for pack in opened),
        labels=joined,
        num_classes=int(joined.max()) + 1,
        height=sizes[0][0],
        width=sizes[0][1],
        images=PackImages(
            [_Records(pack) if isinstance(pack, RecordPack) else _PackReaderImages(pack) for pack in opened]
        ),
        contents=tuple(map(pack_digest, opened)),
    )


def check_labels(pack: PackReader) -> npt.NDArray[np.int64]:
    """The labels of a pack. Raises RecordError unless all are in 0..num_classes-1 and each has an image."""
    labels = pack.labels()
    if not len(labels):
        raise RecordError(f"{pack.path} holds no images", hint="run `dataprep pack` again")
    classes = _classes(pack, labels)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise RecordError(
            f"{pack.path}: image {wrong[0]}: label {labels[wrong[0]]} is not among 0..{classes - 1}, as `property` requires",
            hint="run `dataprep verify` to list all errors, and `dataprep repair` to rebuild the pack",
        )
    missing, first = find_missing_labels(labels, classes)
    if missing:
        raise RecordError(
            f"{pack.path}: {missing} labels have no image, for example {first[0]}; labels must be contiguous from 0",
            hint="run `dataprep merge` to renumber them",
        )
    return labels


def _classes(pack: PackReader, labels: npt.NDArray[np.int64]) -> int:
    declared = read_property(pack.path).num_classes
    return int(labels.max()) + 1 if declared is None else declared


def _size(pack: PackReader) -> tuple[int, int]:
    """(height, width) from `property`, else from the first face."""
    if pack.height and pack.width:
        return pack.height, pack.width
    try:
        header = read_header(pack.face(0).image, max_pixels=_LARGEST_SIDE**2)
    except ImagingError as error:
        hint = "run `dataprep repair` to leave out files that are not images"
        raise RecordError(f"{pack.path}: image 0: {error}", hint=hint) from None
    return header.height, header.width


def _check_colours(pack: PackReader) -> None:
    """Raises RecordError if pack.json declares swapped red and blue channels."""
    said = str(pack.metadata().get("colour_order", ""))
    if said not in _COLOUR_ORDERS:
        raise RecordError(
            f"{pack.path}: pack.json gives the colour order {said[:60]!r}, but images must decode to RGB: pack them again"
        )


def _check_templates(packs: Sequence[PackReader]) -> None:
    stated = [(pack.path, pack.metadata()["template"]) for pack in packs if pack.metadata().get("template") is not None]
    for path, template in stated:
        if template != stated[0][1]:
            raise RecordError(
                f"{path} and {stated[0][0]} were aligned to different templates: align them to the same one"
            )


def _by_name(packs: Sequence[PackReader], counts: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """For each pack, a map from its labels to the merged labels."""
    numbers: dict[str, int] = {}
    maps = []
    for pack, count in zip(packs, counts, strict=True):
        names = read_identities(pack.path)
        if names is None or len(names) < count:
            raise RecordError(
                f"{pack.path}: no labels.tsv with the names of all {count} identities, which joining by name needs",
                hint="use --join offset to keep the packs' identities distinct",
            )
        maps.append(np.array([numbers.setdefault(name, len(numbers)) for name in names[:count]], np.int64))
    return maps
