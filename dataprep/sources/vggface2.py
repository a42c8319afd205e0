"""VGGFace2 (Cao et al. 2018) as released: loosely cropped photos in a folder per person, with tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.errors import SourceError
from dataprep.sources.folder import FolderSource, make_usable_names, rename_identities
from dataprep.sources.vggface2_tables import ClassNames, CoordinateTable, read_class_names
from dataprep.storage import file_sha256
from dataprep.types import Box, Sample

SPLITS = ("train", "test", "all")
_CLASS = re.compile(r"n\d{6,}")


class VggFace2Source:
    """The photos under ROOT/train/n000002/ and ROOT/test/ or, if neither exists, ROOT/n000002/.

    Boxes and landmarks come from `boxes` and `landmarks`, or else from loose_bb_*.csv and loose_landmark_*.csv in ROOT
    or its folders meta, bb_landmark and meta/bb_landmark, or in the same places in ROOT's parent. Photos without a row
    have neither. After `samples`, `account` reports table rows without a photo. With `names` (identity_meta.csv), an
    identity is a name instead of n000002.
    """

    def __init__(
        self,
        root: Path,
        *,
        split: str = "train",
        boxes: Sequence[Path] = (),
        landmarks: Sequence[Path] = (),
        names: Path | None = None,
    ) -> None:
        if not root.is_dir():
            raise SourceError(f"{root}: no such directory")
        self._root, self._split, self._names = root.absolute(), split, names
        self._folders = [root / part for part in ("train", "test") if split in (part, "all") and (root / part).is_dir()]
        if not self._folders:
            if not any(_CLASS.fullmatch(path.name) for path in root.iterdir()):
                raise SourceError(f"{root}: no {'train' if split == 'all' else split}/ and no n000002/ in it")
            self._folders = [root]
        whose = "" if self._folders == [root] else split.replace("all", "")
        self._boxes = _tables(root, boxes, f"loose_bb*{whose}.csv")
        self._landmarks = _tables(root, landmarks, f"loose_landmark*{whose}.csv")
        self.summary = ""

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "vggface2",
            "root": str(self._root),
            "split": self._split,
            "boxes": [str(path) for path in self._boxes],
            "landmarks": [str(path) for path in self._landmarks],
            "names": str(self._names) if self._names else None,
        }

    def digest(self) -> str:
        tables = [*self._boxes, *self._landmarks, *([self._names] if self._names else [])]
        parts = [FolderSource(folder).digest() for folder in self._folders] + [file_sha256(table) for table in tables]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def samples(self) -> Iterator[Sample]:
        boxes, landmarks = CoordinateTable(self._boxes, 4), CoordinateTable(self._landmarks, 10)
        listed = read_class_names(self._names) if self._names else ClassNames({}, 0)
        names = make_usable_names(listed.by_class)
        count = with_box = with_landmarks = unnamed = 0

        def annotated() -> Iterator[Sample]:
            nonlocal count, with_box, with_landmarks, unnamed
            for sample in self._photos():
                count += 1
                box, points = boxes.lookup(sample.key), landmarks.lookup(sample.key)
                with_box += box is not None
                with_landmarks += points is not None
                unnamed += sample.identity not in names
                yield replace(
                    sample,
                    box=None if box is None else _box(box),
                    landmarks=None if points is None else tuple((x, y) for x, y in points.reshape(5, 2).tolist()),
                )

        yield from rename_identities(annotated(), names)
        told = [("boxes", boxes, with_box), ("landmarks", landmarks, with_landmarks)]
        lines = [
            f"the tables have {what} for {found} of {count} photos, and {table.count_unused} rows without a photo"
            + (f", {table.malformed} malformed rows" if table.malformed else "")
            for what, table, found in told
            if len(table) or table.malformed
        ] or [f"no loose_bb*.csv and no loose_landmark*.csv in {self._root} or beside it; faces will be detected"]
        if listed.malformed:
            lines.append(f"{listed.malformed} malformed rows of names")
        if self._names and unnamed:
            lines.append(f"no name for the people in {unnamed} photos, who keep their class such as n000001")
        self.summary = "; ".join(lines)

    def _photos(self) -> Iterator[Sample]:
        for folder in self._folders:
            for sample in FolderSource(folder).samples():
                if _CLASS.fullmatch(sample.identity) or sample.error:
                    yield sample


def _tables(root: Path, given: Sequence[Path], pattern: str) -> list[Path]:
    missing = [path for path in given if not path.is_file()]
    if missing:
        raise SourceError(f"{missing[0]}: no such file")
    if given:
        return [path.absolute() for path in given]
    for folder in (root.absolute(), root.absolute().parent):
        places = (folder, folder / "meta", folder / "bb_landmark", folder / "meta/bb_landmark")
        found = sorted(path for place in places for path in place.glob(pattern))
        if found:
            return found
    return []


def _box(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> Box:
    left, top, width, height = numbers.tolist()
    return Box(left, top, left + width, top + height)
