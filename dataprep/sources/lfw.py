"""LFW (Huang et al. 2007) as unpacked: lfw, lfw_funneled, lfw-deepfunneled or lfw-a, NAME/NAME_0001.jpg."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataprep.errors import RecordError, SourceError
from dataprep.packs.pair_lists import read_pairs
from dataprep.sources.base import unsafe_sample
from dataprep.sources.folder import PhotoFolder
from dataprep.storage import file_sha256
from dataprep.types import Sample

# the release has so many (http://vis-www.cs.umass.edu/lfw)
PEOPLE, PHOTOS = 5749, 13233
_INSIDE = ("lfw", "lfw-deepfunneled", "lfw_deepfunneled", "lfw_funneled", "lfw-funneled", "lfw2", "lfw-a", "lfw_a")
_NUMBER = re.compile(r"(.+)_(\d{4})")


class Lfw:
    """The photos of ROOT, or of the one folder in it that archives of LFW unpack to.

    Who is in a photo stands in its name; a photo in somebody else's folder gets the trouble BAD_NAME. `pairs` (pairs.txt;
    found in ROOT if it lies there) must find all its photos: without them no test on LFW has its 6,000 pairs.
    """

    def __init__(self, root: Path, *, pairs: Path | None = None, aligned: bool = False) -> None:
        if not root.is_dir():
            raise SourceError(f"{root}: no such directory")
        inside = next((root / name for name in _INSIDE if (root / name).is_dir() and _is_lfw(root / name)), root)
        if not _is_lfw(inside):
            raise SourceError(
                f"{root}: no NAME/NAME_0001.jpg in it, so it is not LFW; `dataprep import folder` takes photos of any name"
            )
        self._folder, self._root = PhotoFolder(inside, aligned=aligned), inside
        beside = (place / "pairs.txt" for place in (root, inside, root.parent))
        self._pairs = pairs or next((path for path in beside if path.is_file()), None)
        self.account = ""

    def describe(self) -> dict[str, Any]:
        return {**self._folder.describe(), "kind": "lfw", "pairs": str(self._pairs) if self._pairs else None}

    def digest(self) -> str:
        return self._folder.digest() + (file_sha256(self._pairs) if self._pairs else "")

    def samples(self) -> Iterator[Sample]:
        if self._pairs:
            self._check(self._pairs)
        people, photos = set(), 0
        for sample in self._folder.samples():
            folder, _, name = sample.key.partition("/")
            match = _NUMBER.fullmatch(name)
            if sample.trouble or (match and match[1] == folder):
                people.add(sample.identity)
                photos += 1
                yield sample
            else:
                yield unsafe_sample(folder, name, f"{sample.path} is not called {folder}_0001 or the like")
        self.account = f"{len(people)} of LFW's {PEOPLE} people, {photos} of its {PHOTOS} photos"

    def _check(self, path: Path) -> None:
        try:
            pairs = read_pairs(path)
        except RecordError as error:
            raise SourceError(f"--pairs {error}") from None
        missing = sorted(name for name in {*pairs.left, *pairs.right} if not self._has(name))
        if missing:
            raise SourceError(
                f"{path} speaks of {len(missing)} photos that are not in {self._root}, {missing[0]} the first: unpack the "
                "whole archive, or move pairs.txt away to import what is there"
            )

    def _has(self, name: str) -> bool:
        return any((self._root / f"{name}{suffix}").is_file() for suffix in ("", ".jpg", ".png", ".jpeg"))


def _is_lfw(root: Path) -> bool:
    """Whether some folder in it has a photo under its own name."""
    folders = (path for path in root.iterdir() if path.is_dir())
    return any(any(folder.glob(f"{_escaped(folder.name)}_[0-9][0-9][0-9][0-9].*")) for folder in folders)


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
