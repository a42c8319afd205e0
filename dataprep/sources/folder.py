"""Local photos in a folder per identity, as in LFW, CASIA-WebFace, VGGFace2 and private collections."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.names import casefold_name, plain_name
from dataprep.sources.base import is_identity_name, named_sample, unsafe_sample
from dataprep.types import Sample

# files that operating systems leave among photos; every other file is a sample, which `validate` checks
_LITTER = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})


class FolderSource:
    """The files below ROOT/identity/, in sorted order.

    `aligned` means that they are aligned faces ready to be packed, not photos for detection.
    """

    def __init__(self, root: Path, *, aligned: bool = False) -> None:
        self._root, self._aligned = root.absolute(), aligned
        self.summary = ""
        if not root.is_dir():
            raise SourceError(f"{root}: no such directory")
        if not _is_text(self._root):
            raise SourceError(f"{str(root)!a}: the path is not valid UTF-8; rename the folder")

    def describe(self) -> dict[str, Any]:
        return {"kind": "folder", "root": str(self._root), "aligned": self._aligned}

    def digest(self) -> str:
        state = hashlib.sha256()
        for path in self._files():
            try:
                found = path.stat()
            except OSError:  # a broken link, which `validate` reports
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


def rename_identities(samples: Iterable[Sample], names: Mapping[str, str]) -> Iterator[Sample]:
    """Yield the samples with identities renamed by `names`, which must be valid. Others keep their identity."""
    for sample in samples:
        name = names.get(sample.identity)
        if name is None or sample.error:
            yield sample
            continue
        yield replace(sample, key=name + sample.key[len(sample.identity) :], identity=name)


def make_usable_names(names: Mapping[str, str]) -> dict[str, str]:
    """Return valid names by folder, in plain form. A name shared by two folders gets the folder appended."""
    found = {folder: plain_name(name) for folder, name in names.items()}
    found = {folder: name for folder, name in found.items() if is_identity_name(name)}
    times = Counter(map(casefold_name, found.values()))
    return {folder: f"{name}_{folder}" if times[casefold_name(name)] > 1 else name for folder, name in found.items()}


def _is_text(path: Path) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in str(path))
