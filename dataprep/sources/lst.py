"""The images of a .lst, insightface's or im2rec's, where they lie; with the boxes and landmarks that it has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dataprep.errors import SourceError
from dataprep.packs.lst_files import Dialect, Entry, iterate_list, recognise_list
from dataprep.sources.base import bad_line, named_sample
from dataprep.storage import file_sha256
from dataprep.types import Box, Sample


class ImageList:
    """The lines of a list. Paths are taken from `root`, else from the list's own folder; absolute ones as they are.

    An identity is the folder of the image, unless some folder has images of two labels: then it is the label.
    insightface's first column says which images are aligned; `aligned` says it for im2rec's, which has none.
    """

    def __init__(
        self,
        file: Path,
        *,
        root: Path | None = None,
        dialect: Dialect | None = None,
        aligned: bool = False,
    ) -> None:
        self._file, self._root = file, (root or file.parent).absolute()
        self.account = ""
        if not file.is_file():
            raise SourceError(f"{file}: no such file")
        if root is not None and not root.is_dir():
            raise SourceError(f"--root {root}: no such directory")
        self._dialect = recognise_list(file, dialect)
        if aligned and self._dialect == "insightface":
            raise SourceError(f"{file}: a list in insightface's dialect says of each image whether it is aligned")
        self._aligned = aligned
        self._named_by_folder, self._some_aligned = self._survey()

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "lst",
            "file": str(self._file.absolute()),
            "root": str(self._root),
            "dialect": self._dialect,
            "aligned": self._some_aligned,
        }

    def digest(self) -> str:
        return file_sha256(self._file)

    def samples(self) -> Iterator[Sample]:
        for number, entry in enumerate(iterate_list(self._file, self._dialect)):
            yield self._sample(entry, f"{self._file.name} entry {number + 1}")

    def _survey(self) -> tuple[bool, bool]:
        """Whether folders tell people apart, and whether any image is aligned."""
        labels: dict[str, float] = {}
        by_folder, aligned = True, False
        for entry in iterate_list(self._file, self._dialect):
            folder = PurePosixPath(entry.path).parent.name
            by_folder = by_folder and bool(folder) and labels.setdefault(folder, entry.labels[0]) == entry.labels[0]
            aligned = aligned or self._is_aligned(entry)
        return by_folder, aligned

    def _is_aligned(self, entry: Entry) -> bool:
        return entry.aligned if self._dialect == "insightface" else self._aligned

    def _sample(self, entry: Entry, where: str) -> Sample:
        label, path = entry.labels[0], PurePosixPath(entry.path)
        if not math.isfinite(label):
            return bad_line(where, f"the label {label} is not a number", entry)
        identity = path.parent.name if self._named_by_folder else f"{label:g}" if label % 1 else f"{int(label)}"
        if not self._named_by_folder and label < 0:
            return bad_line(where, f"the label {label:g} is negative", entry)
        return named_sample(
            identity,
            path.stem,
            where,
            path=str(self._root / path),
            aligned=self._is_aligned(entry),
            box=Box(*entry.box) if entry.box else None,
            landmarks=entry.landmarks,
        )
