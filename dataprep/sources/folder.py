"""Photos on this disk: a folder per identity, as LFW, CASIA-WebFace and VGGFace2 come, or as people sort their own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.samples import Sample
from dataprep.sources.base import unsafe_sample
from dataprep.storage import is_safe

# what systems leave behind among photos; everything else is a sample, and validate says what it is
_LITTER = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})


class PhotoFolder:
    """The files below ROOT/identity/, in sorted order, whatever the file system's own order is.

    `aligned` says that they are faces ready to be packed, not photos to look for faces in.
    """

    def __init__(self, root: Path, *, aligned: bool = False, limit: int | None = None) -> None:
        self._root, self._aligned, self._limit = root.absolute(), aligned, limit
        if not root.is_dir():
            raise SourceError(f"{root}: no such directory")

    def describe(self) -> dict[str, Any]:
        return {"kind": "folder", "root": str(self._root), "aligned": self._aligned, "limit": self._limit}

    def digest(self) -> str:
        state = hashlib.sha256()
        for path in self._files():
            found = path.stat()
            state.update(os.fsencode(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n"))
        return state.hexdigest()

    def samples(self) -> Iterator[Sample]:
        empty = True
        for number, path in enumerate(self._files()):
            if self._limit is not None and number >= self._limit:
                return
            empty = False
            yield self._sample(path, number)
        if empty:
            raise SourceError(f"{self._root}: no photos in it; expected {self._root}/IDENTITY/PHOTO.jpg")

    def _sample(self, path: Path, number: int) -> Sample:
        parts = path.relative_to(self._root).with_suffix("").parts
        if not all(map(is_safe, parts)):
            return unsafe_sample(parts[0], "/".join(parts[1:]), f"file {number + 1}")
        return Sample(key="/".join(parts), identity=parts[0], path=str(path), aligned=self._aligned)

    def _files(self) -> Iterator[Path]:
        try:
            people = sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir() and entry.name[0] != ".")
        except OSError as error:
            raise SourceError(f"{self._root}: {error.strerror}") from None
        for person in people:
            for folder, folders, names in os.walk(self._root / person):
                folders[:] = sorted(name for name in folders if name[0] != ".")
                for name in sorted(names):
                    if name[0] != "." and name.lower() not in _LITTER:
                        yield Path(folder, name)
