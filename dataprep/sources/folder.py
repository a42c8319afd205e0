"""Photos on this disk: a folder per identity, as LFW, CASIA-WebFace and VGGFace2 come, or as people sort their own."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.names import folded, plain
from dataprep.sources.base import is_identity, named_sample, unsafe_sample
from dataprep.types import Sample

# what systems leave behind among photos; everything else is a sample, and validate says what it is
_LITTER = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})


class PhotoFolder:
    """The files below ROOT/identity/, in sorted order, whatever the file system's own order is.

    `aligned` says that they are faces ready to be packed, not photos to look for faces in.
    """

    def __init__(self, root: Path, *, aligned: bool = False) -> None:
        self._root, self._aligned = root.absolute(), aligned
        self.account = ""
        if not root.is_dir():
            raise SourceError(f"{root}: no such directory")
        if not _is_text(self._root):
            raise SourceError(f"{str(root)!a}: a path that is no text in UTF-8 cannot be planned; rename the folder")

    def describe(self) -> dict[str, Any]:
        return {"kind": "folder", "root": str(self._root), "aligned": self._aligned}

    def digest(self) -> str:
        state = hashlib.sha256()
        for path in self._files():
            try:
                found = path.stat()
            except OSError:  # a link to nowhere: `validate` says so
                found = path.lstat()
            state.update(os.fsencode(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n"))
        return state.hexdigest()

    def samples(self) -> Iterator[Sample]:
        empty = True
        for number, path in enumerate(self._files()):
            empty = False
            yield self._sample(path, number)
        if empty:
            raise SourceError(f"{self._root}: no photos in it; expected {self._root}/IDENTITY/PHOTO.jpg")

    def _sample(self, path: Path, number: int) -> Sample:
        person, *names = path.relative_to(self._root).with_suffix("").parts
        name, where = "/".join(names), f"file {number + 1}"
        if not _is_text(path):
            return unsafe_sample(person, str(path), where)
        return named_sample(person, name, where, path=str(path), aligned=self._aligned)

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


def renamed(samples: Iterable[Sample], names: Mapping[str, str]) -> Iterator[Sample]:
    """The samples with their identities called by `names`, which are usable; those that it does not have keep theirs."""
    for sample in samples:
        name = names.get(sample.identity)
        if name is None or sample.trouble:
            yield sample
            continue
        yield replace(sample, key=name + sample.key[len(sample.identity) :], identity=name)


def usable_names(names: Mapping[str, str]) -> dict[str, str]:
    """Folders to names in plain form, without those that cannot be names; what two folders share gets the folder behind."""
    found = {folder: plain(name) for folder, name in names.items()}
    found = {folder: name for folder, name in found.items() if is_identity(name)}
    times = Counter(map(folded, found.values()))
    return {folder: f"{name}_{folder}" if times[folded(name)] > 1 else name for folder, name in found.items()}


def _is_text(path: Path) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in str(path))
