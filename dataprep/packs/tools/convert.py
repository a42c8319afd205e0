"""Writes the faces of packs, byte for byte, into a new pack of another format or order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import decode_image, read_header
from dataprep.packs.base import FaceRecord, PackFormat, PackReader
from dataprep.packs.io import open_pack, write_pack
from dataprep.storage import staged_directory

CountCallback = Callable[[int], None]
MAX_FACE_PIXELS = 1 << 24  # an aligned face has fewer; a decompression bomb has more
_CARRIED = ("template", "recipe", "sources", "licence")  # entries of pack.json that stay true in another format


def convert_pack(
    source: str | os.PathLike[str],
    target: Path,
    *,
    pack_format: PackFormat,
    shuffle: int | None = None,
    is_excluded: Callable[[str, str], bool] | None = None,
    progress: CountCallback = lambda done: None,
) -> dict[str, Any]:
    """Write the faces of a pack into a new one at `target` without re-encoding; return its pack.json.

    Faces keep their order if the target allows any order, and their keys from one flat .rec to another. insightface's
    layout groups them by label, in ascending order. Of several labels, the first is kept. Labels without a face are
    closed up, which renumbers the labels above them. A face with a negative label (face2rec2's mark for none), or one that
    `is_excluded`, given its identity and its name without the suffix, is left out and counted in pack.json.
    """
    pack = open_pack(source)
    labels = pack.labels()
    order = np.arange(len(pack)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(pack))
    order = order[labels[order] >= 0]
    unlabelled, excluded = len(pack) - len(order), 0
    if is_excluded is not None:
        faces_out = [
            is_excluded(face.identity, os.path.splitext(face.name)[0]) for face in map(pack.face, order.tolist())
        ]
        excluded, order = sum(faces_out), order[~np.array(faces_out, bool)]
    if pack_format.layout == "insightface":
        order = order[np.argsort(labels[order], kind="stable")]
    about = {name: value for name, value in pack.metadata().items() if name in _CARRIED}
    about |= {"converted_from": os.fspath(source), "without_label": unlabelled}
    about |= {"excluded": excluded} if excluded else {}
    keep_keys = shuffle is None and pack_format.layout == "flat"
    faces = reorder_faces(pack, order, close_label_gaps(labels[order]), keep_keys=keep_keys, progress=progress)
    return publish_pack(target, faces, size=pack_image_size(pack), pack_format=pack_format, about=about)


def publish_pack(
    target: Path,
    faces: Iterator[FaceRecord],
    *,
    size: tuple[int, int],
    pack_format: PackFormat,
    about: Mapping[str, Any],
    beside: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Write a pack and the files `beside` it, and move them to `target` once complete.

    Raises RecordError if `target` exists at the start or at the end, or if a face has another size.
    """
    _check_free(target)
    height, width = size
    with staged_directory(target) as staged:
        for name, data in (beside or {}).items():
            (staged / name).write_bytes(data)
        manifest = write_pack(
            staged, _of_size(faces, size), pack_format=pack_format, height=height, width=width, about=about
        )
        os.sync()
        _check_free(target)
        os.rename(staged, target)  # replaces an empty folder at most; otherwise it fails
    return manifest


def _check_free(target: Path) -> None:
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise RecordError(f"{target} already exists", hint="remove it, or choose another place with --out")


def _of_size(faces: Iterator[FaceRecord], size: tuple[int, int]) -> Iterator[FaceRecord]:
    """The faces, each checked by its image header. A face without a readable header passes; `verify` reports it."""
    for face in faces:
        with contextlib.suppress(ImagingError):
            header = read_header(face.image, max_pixels=MAX_FACE_PIXELS)
            if (header.height, header.width) != size:
                raise RecordError(
                    f"{face.name} is {header.width}x{header.height}, the pack {size[1]}x{size[0]}",
                    hint="`dataprep repair` makes a new pack without such images",
                )
        yield face


def reorder_faces(
    pack: PackReader,
    order: Sequence[int] | npt.NDArray[np.int64],
    labels: Mapping[int, int],
    *,
    keep_keys: bool,
    progress: CountCallback,
) -> Iterator[FaceRecord]:
    """The faces of a pack at the positions of `order`, with new labels."""
    for done, position in enumerate(order, 1):
        face = pack.face(int(position))
        yield FaceRecord(
            name=face.name,
            label=labels[face.label],
            identity=face.identity,
            image=face.image,
            key=face.key if keep_keys else None,
        )
        if done % 500 == 0 or done == len(order):
            progress(done)


def close_label_gaps(labels: npt.NDArray[np.int64]) -> dict[int, int]:
    """The non-negative labels that occur, in ascending order, numbered from 0."""
    return {int(label): number for number, label in enumerate(np.unique(labels[labels >= 0]))}


def pack_image_size(pack: PackReader) -> tuple[int, int]:
    """(height, width) from `property`, else from the first image. Raises RecordError if neither is available."""
    if pack.height is not None and pack.width is not None:
        return pack.height, pack.width
    if not len(pack):
        raise RecordError(f"{pack.path} holds no images")
    try:
        pixels, _ = decode_image(pack.face(0).image)
    except ImagingError as error:
        raise RecordError(f"{pack.path} has no `property`, and its first image cannot be read: {error}") from None
    return pixels.shape[0], pixels.shape[1]
