"""Local photos in a folder per identity, as in LFW, CASIA-WebFace, VGGFace2 and private collections."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.imaging.image_files import LITTER_FOLDERS, is_litter
from dataprep.names import casefold_name, plain_name
from dataprep.sources.base import is_identity_name, named_sample, unsafe_sample
from dataprep.text import counted
from dataprep.types import Sample

_PACKED = (".parquet", ".tar", ".rec")
_FEW = 3  # people: a folder that is one level too high looks like this


class FolderSource:
    """The files below ROOT/identity/, in sorted order. Every file is a sample, but those that systems leave: `validate`
    says which are photos.

    `aligned` means that they are aligned faces ready to be packed, not photos for detection. Links that lead out of ROOT are
    left out, and counted in `summary`, unless `follow_links`.
    """

    def __init__(self, root: Path, *, aligned: bool = False, follow_links: bool = False) -> None:
        self._root, self._aligned, self._follow_links = root.absolute(), aligned, follow_links
        self.summary = self.left_out = ""
        if root.is_file():
            raise SourceError(
                f"{root} is a file, not a folder of photos",
                hint="unpack an archive first; for lists there are `dataprep import lst` and `dataprep download urls`, "
                "for packs `dataprep import rec`",
            )
        if not root.is_dir():
            raise SourceError(f"{root}: no such directory")
        if not _is_text(self._root):
            raise SourceError(f"{str(root)!a}: the path is not valid UTF-8; rename the folder")

    def describe(self) -> dict[str, Any]:
        linked = {"follow_links": True} if self._follow_links else {}
        return {"kind": "folder", "root": str(self._root), "aligned": self._aligned, **linked}

    def digest(self) -> str:
        state = hashlib.sha256()
        for path in _Walk(self._root, self._follow_links):
            try:
                found = path.stat()
            except OSError:  # a broken link, which `validate` reports
                found = path.lstat()
            state.update(os.fsencode(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n"))
        return state.hexdigest()

    def samples(self) -> Iterator[Sample]:
        walk, shape = _Walk(self._root, self._follow_links), _Shape()
        for number, path in enumerate(walk):
            if number == 0 and path.suffix in _PACKED:
                raise SourceError(
                    f"{path} holds many images, and is no photo",
                    hint=f"take such files in with: dataprep import rec {path.parent}",
                )
            shape.add(path.relative_to(self._root).parts)
            yield self._sample(path, number)
        if not shape.people:
            raise self._nothing(walk)
        self.left_out = "\n".join(walk.left_out())
        self.summary = "\n".join(filter(None, [self.left_out, shape.doubt(self._root)]))

    def _nothing(self, walk: _Walk) -> SourceError:
        if walk.links:
            return SourceError(
                f"{self._root}: all photos are behind links that lead out of it ({walk.first_link})",
                hint="--follow-links takes them in",
            )
        if walk.loose:
            return SourceError(
                f"{self._root}: its {walk.loose} files belong to nobody; each person needs a folder, "
                f"as in {self._root}/IDENTITY/PHOTO.jpg",
                hint="make a folder for each person; `dataprep align PHOTOS --out FACES` takes photos without people",
            )
        return SourceError(f"{self._root}: no photos in it; expected {self._root}/IDENTITY/PHOTO.jpg")

    def _sample(self, path: Path, number: int) -> Sample:
        person, *names = path.relative_to(self._root).with_suffix("").parts
        name, where = "/".join(names), f"file {number + 1}"
        if not _is_text(path):
            return unsafe_sample(person, str(path), where)
        return named_sample(person, name, where, path=str(path), aligned=self._aligned)


class _Walk:
    """Iterates over the files below ROOT/identity/, and counts what it leaves out."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self._root, self._follow_links = root, follow_links
        self._inside = os.path.join(os.path.realpath(root), "")
        self.loose = self.links = self.litter = 0
        self.first_loose = self.first_link = ""

    def __iter__(self) -> Iterator[Path]:
        try:
            entries = sorted(os.scandir(self._root), key=lambda entry: entry.name)
        except OSError as error:
            raise SourceError(f"{self._root}: {error.strerror}") from None
        people = []
        for entry in entries:
            if is_litter(entry.name):
                continue
            if entry.is_dir():
                people.append(entry.name)
            else:
                self.loose += 1
                self.first_loose = self.first_loose or entry.name
        for person in self._wanted(str(self._root), people):
            yield from self._files(os.path.join(self._root, person), frozenset())

    def left_out(self) -> list[str]:
        told = []
        if self.loose:
            told.append(
                f"left out: {counted(self.loose, 'file')} in {self._root} itself, nobody's ({self.first_loose}, ...)"
            )
        if self.links:
            told.append(
                f"left out: {counted(self.links, 'link')} out of {self._root} ({self.first_link}, ...); "
                "--follow-links takes them in"
            )
        if self.litter:
            told.append(
                f"left out: {counted(self.litter, 'folder')} of thumbnails or of an archiver (@eaDir, __MACOSX, ...)"
            )
        return told

    def _files(self, folder: str, above: frozenset[str]) -> Iterator[Path]:
        here = os.path.realpath(folder)
        if here in above:  # a link to a folder around it
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise SourceError(f"{folder}: {error.strerror}") from None
        files = [entry.name for entry in entries if not entry.is_dir() and not is_litter(entry.name)]
        for name in self._wanted(folder, files):
            yield Path(folder, name)
        for name in self._wanted(folder, [entry.name for entry in entries if entry.is_dir()]):
            yield from self._files(os.path.join(folder, name), above | {here})

    def _wanted(self, folder: str, names: Iterable[str]) -> Iterator[str]:
        """The entries that are no litter and do not lead out of the root."""
        for name in names:
            path = os.path.join(folder, name)
            if name.lower() in LITTER_FOLDERS:
                self.litter += 1
            elif name[0] == ".":
                continue
            elif not self._follow_links and os.path.islink(path) and self._leads_out(path):
                self.links += 1
                self.first_link = self.first_link or path
            else:
                yield name

    def _leads_out(self, path: str) -> bool:
        """Whether a link that is not broken leads out of the root. A folder inside it would be listed twice."""
        target = os.path.realpath(path)
        return os.path.exists(target) and (os.path.isdir(target) or not target.startswith(self._inside))


class _Shape:
    """Notes how folders are nested, and what looks as if another folder was meant."""

    def __init__(self) -> None:
        self.people: dict[str, str] = {}  # with the first folder inside; empty once a photo lies in the folder itself

    def add(self, parts: Sequence[str]) -> None:
        person, inside = parts[0], parts[1] if len(parts) > 2 else ""
        self.people[person] = inside and self.people.get(person, inside)

    def doubt(self, root: Path) -> str:
        """What looks as if another folder was meant; empty if nothing does."""
        deeper = {person: inside for person, inside in self.people.items() if inside}
        if deeper and (len(self.people) <= _FEW or len(deeper) == len(self.people)):
            person, inside = next(iter(deeper.items()))
            named = ", ".join(list(deeper)[:3])
            return (
                f"warning: every photo of {named} lies in a folder below it, such as {person}/{inside}; if {inside} is a "
                f"person, the right command is, in a new workspace: dataprep import folder {root / person}"
            )
        if len(self.people) <= _FEW:
            named = ", ".join(self.people)
            return (
                f"warning: only {counted(len(self.people), 'person')} ({named}); every folder in {root} is one person"
            )
        return ""


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
