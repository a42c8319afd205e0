"""LFW (Huang et al. 2007), unpacked: lfw, lfw_funneled, lfw-deepfunneled or lfw-a, NAME/NAME_0001.jpg."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataprep.errors import RecordError, SourceError
from dataprep.packs.pair_lists import read_pairs
from dataprep.sources.base import unsafe_sample
from dataprep.sources.folder import FolderSource
from dataprep.storage import file_sha256
from dataprep.types import Sample

# size of the release (http://vis-www.cs.umass.edu/lfw)
LFW_IDENTITIES, LFW_PHOTOS = 5749, 13233
_INSIDE = ("lfw", "lfw-deepfunneled", "lfw_deepfunneled", "lfw_funneled", "lfw-funneled", "lfw2", "lfw-a", "lfw_a")
_NUMBER = re.compile(r"(.+)_(\d{4})")


class LfwSource:
    """The photos of ROOT, or of the folder in it that the LFW archives unpack to.

    The file name of a photo names its identity; a photo in another person's folder is marked BAD_NAME. All photos in
    `pairs` (default: pairs.txt in ROOT) must exist: a test on LFW needs all 6,000 pairs.
    """

    def __init__(self, root: Path, *, pairs: Path | None = None, aligned: bool = False) -> None:
        if not root.is_dir():
            raise SourceError(f"{root}: no such directory")
        inside = next((root / name for name in _INSIDE if (root / name).is_dir() and _is_lfw(root / name)), root)
        if not _is_lfw(inside):
            raise SourceError(
                f"{root}: no NAME/NAME_0001.jpg in it, so it is not LFW",
                hint="use `dataprep import folder` for photos of any name",
            )
        self._folder, self._root = FolderSource(inside, aligned=aligned), inside
        beside = (place / "pairs.txt" for place in (root, inside, root.parent))
        self._pairs = pairs or next((path for path in beside if path.is_file()), None)
        self.summary = ""

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
            if sample.error or (match and match[1] == folder):
                people.add(sample.identity)
                photos += 1
                yield sample
            else:
                yield unsafe_sample(folder, name, f"{sample.path} is not named like {folder}_0001")
        counts = f"{len(people)} of LFW's {LFW_IDENTITIES} people, {photos} of its {LFW_PHOTOS} photos"
        self.summary = "\n".join(filter(None, [counts, self._folder.left_out]))

    def _check(self, path: Path) -> None:
        try:
            pairs = read_pairs(path)
        except RecordError as error:
            raise SourceError(str(error), hint=error.hint) from None
        missing = sorted(name for name in {*pairs.left, *pairs.right} if not self._has(name))
        if missing:
            raise SourceError(
                f"{path} lists {len(missing)} photos that are not in {self._root}; the first is {missing[0]}",
                hint="unpack the whole archive, or move pairs.txt away to import the existing photos",
            )

    def _has(self, name: str) -> bool:
        return any((self._root / f"{name}{suffix}").is_file() for suffix in ("", ".jpg", ".png", ".jpeg"))


def _is_lfw(root: Path) -> bool:
    """Whether any folder in it contains a photo named after the folder."""
    folders = (path for path in root.iterdir() if path.is_dir())
    return any(any(folder.glob(f"{_escaped(folder.name)}_[0-9][0-9][0-9][0-9].*")) for folder in folders)


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
