"""From a pack to another one: the same faces, byte for byte, in another format, order or company."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.photo import decode
from dataprep.records.faces import Face, Form, PackReader
from dataprep.records.formats import open_pack, write_pack
from dataprep.storage import publish_directory

Tick = Callable[[int], None]
_CARRIED = ("template", "recipe", "sources", "licence")  # of pack.json, true for the same faces in another form


def convert(
    source: str | os.PathLike[str],
    target: Path,
    *,
    form: Form,
    shuffle: int | None = None,
    tick: Tick = lambda done: None,
) -> dict[str, Any]:
    """Write the faces of a pack into a new one at `target`; no image is encoded again. What its pack.json says.

    Faces keep their order and keys where the target takes any order; insightface's layout groups them by label, in the
    order in which the labels have their numbers. Labels that have no face are closed up, which changes the numbers behind.
    """
    pack = open_pack(source)
    order = np.arange(len(pack)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(pack))
    labels = pack.labels()
    if form.layout == "insightface":
        order = order[np.argsort(labels[order], kind="stable")]
    about = {name: value for name, value in pack.manifest().items() if name in _CARRIED}
    keep_keys = shuffle is None and form.layout == "flat"
    faces = ordered_faces(pack, order, closed_up(labels), keep_keys=keep_keys, tick=tick)
    return publish(
        target, faces, size=image_size(pack), form=form, about={**about, "converted_from": os.fspath(source)}
    )


def publish(
    target: Path,
    faces: Iterator[Face],
    *,
    size: tuple[int, int],
    form: Form,
    about: Mapping[str, Any],
    beside: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Write a pack, and the files `beside` it, and put them at `target` when all is whole.

    Raises RecordError if something is there already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RecordError(f"{target} is there already; remove it or name another place with --out")
    staged = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        for name, data in (beside or {}).items():
            (staged / name).write_bytes(data)
        height, width = size
        manifest = write_pack(staged, faces, form=form, height=height, width=width, about=about)
        publish_directory(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return manifest


def ordered_faces(
    pack: PackReader,
    order: Sequence[int] | npt.NDArray[np.int64],
    labels: Mapping[int, int],
    *,
    keep_keys: bool,
    tick: Tick,
) -> Iterator[Face]:
    """The faces of a pack at the positions of `order`, with new labels."""
    for done, position in enumerate(order, 1):
        face = pack.face(int(position))
        yield Face(
            name=face.name,
            label=labels[face.label],
            identity=face.identity,
            image=face.image,
            key=face.key if keep_keys else None,
        )
        if done % 500 == 0 or done == len(order):
            tick(done)


def closed_up(labels: npt.NDArray[np.int64]) -> dict[int, int]:
    """The labels that occur, in their order, numbered from 0."""
    return {int(label): number for number, label in enumerate(np.unique(labels))}


def image_size(pack: PackReader) -> tuple[int, int]:
    """(height, width) as `property` says, else of the first image. Raises RecordError if neither can be had."""
    if pack.height is not None and pack.width is not None:
        return pack.height, pack.width
    if not len(pack):
        raise RecordError(f"{pack.path} holds no images")
    try:
        pixels, _ = decode(pack.face(0).image)
    except ImagingError as error:
        raise RecordError(f"{pack.path} has no `property`, and its first image cannot be read: {error}") from None
    return pixels.shape[0], pixels.shape[1]
