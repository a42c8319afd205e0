"""Drawn photos as files with their ground truth, and the source that lists them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.errors import SourceError
from dataprep.imaging.codec import Pixels, encode_jpeg
from dataprep.imaging.geometry import Points
from dataprep.storage import Folder
from dataprep.synth.faces import render_face
from dataprep.types import Box, Sample

_TRUTH = "truth.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnPhoto:
    """A drawn photo: upright RGB pixels, with the true face box and five landmarks."""

    pixels: Pixels
    box: Box
    landmarks: Points
    quality: int


def draw_photo(identity: int, photo: int, *, seed: int = 0, width: int = 250, height: int = 250) -> DrawnPhoto:
    """Draw photo number `photo` of person number `identity`. Equal arguments give equal pixels."""
    made = render_face(seed * 1_000_003 + identity, photo, width=width, height=height)
    quality = int(np.random.default_rng((seed, identity, photo)).integers(80, 97))
    box = Box(*(float(edge) for edge in made.box))
    return DrawnPhoto(pixels=made.pixels, box=box, landmarks=np.asarray(made.landmarks, np.float32), quality=quality)


def identity_name(identity: int) -> str:
    return f"Person_{identity:05d}"


def draw_folder(root: Path, *, identities: int, photos: int, seed: int = 0, width: int = 250, height: int = 250) -> int:
    """Write ROOT/Person_00000/0000.jpg ... and truth.csv (boxes and landmarks in pixels); return the count.

    Existing photos are kept.
    """
    rows = []
    for identity in range(identities):
        folder = Folder(root / identity_name(identity))
        for photo in range(photos):
            made = draw_photo(identity, photo, seed=seed, width=width, height=height)
            if not (folder / f"{photo:04d}.jpg").exists():
                folder.put(f"{photo:04d}.jpg", encode_jpeg(made.pixels, quality=made.quality))
            numbers = [*made.box, *made.landmarks.ravel()]
            rows.append([f"{identity_name(identity)}/{photo:04d}.jpg", *(f"{number:.2f}" for number in numbers)])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    points = [f"{axis}{i}" for i in range(1, 6) for axis in "xy"]
    writer.writerow(["path", "left", "top", "right", "bottom", *points])
    writer.writerows(rows)
    Folder(root).put(_TRUTH, text.getvalue().encode())
    return len(rows)


class SyntheticSource:
    """The source of a folder made by `draw_folder`, with the true boxes."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.summary = ""

    def describe(self) -> dict[str, Any]:
        return {"kind": "synth", "root": str(self._root)}

    def digest(self) -> str:
        from dataprep.storage import file_sha256

        return file_sha256(self._root / _TRUTH)

    def samples(self) -> Iterator[Sample]:
        try:
            with open(self._root / _TRUTH, encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    path = Path(row["path"])
                    yield Sample(
                        key=str(path.with_suffix("")),
                        identity=path.parts[0],
                        path=str(self._root / path),
                        box=Box(*(float(row[edge]) for edge in ("left", "top", "right", "bottom"))),
                        box_frame="upright",
                    )
        except (OSError, KeyError, ValueError) as error:
            hint = "run `dataprep import synth` to draw it again"
            raise SourceError(f"{self._root / _TRUTH}: {error}", hint=hint) from None
