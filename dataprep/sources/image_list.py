"""The images listed in a .lst of insightface or im2rec, with its boxes and landmarks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dataprep.errors import SourceError
from dataprep.packs.lst_files import Dialect, ListEntry, detect_lst_dialect, iterate_lst
from dataprep.sources.base import bad_line_sample, named_sample
from dataprep.storage import file_sha256
from dataprep.types import Box, Sample


class LstSource:
    """The lines of a list. Relative paths start at `root`, by default the list's folder; none may lead out of it, since
    a list is often a stranger's.

    The identity is the image's folder, or the label if any folder has images of two labels. In insightface's dialect
    the first column marks aligned images; im2rec's has no such column, so `aligned` applies to the whole list.
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
        self._inside = os.path.join(os.path.normpath(self._root), "")
        self._really_inside = os.path.join(os.path.realpath(self._root), "")
        self.summary = ""
        if not file.is_file():
            raise SourceError(f"{file}: no such file")
        if root is not None and not root.is_dir():
            raise SourceError(f"{root}: no such directory")
        self._dialect = detect_lst_dialect(file, dialect)
        if aligned and self._dialect == "insightface":
            raise SourceError(
                f"{file}: a list in insightface's dialect marks each image as aligned or not",
                hint="leave out --aligned",
            )
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
        for number, entry in enumerate(iterate_lst(self._file, self._dialect)):
            yield self._sample(entry, f"{self._file.name} entry {number + 1}")

    def _survey(self) -> tuple[bool, bool]:
        """Return whether each folder has a single label, and whether any image is aligned."""
        labels: dict[str, float] = {}
        by_folder, aligned = True, False
        for entry in iterate_lst(self._file, self._dialect):
            folder = PurePosixPath(entry.path).parent.name
            by_folder = by_folder and bool(folder) and labels.setdefault(folder, entry.labels[0]) == entry.labels[0]
            aligned = aligned or self._is_aligned(entry)
        return by_folder, aligned

    def _is_aligned(self, entry: ListEntry) -> bool:
        return entry.aligned if self._dialect == "insightface" else self._aligned

    def _sample(self, entry: ListEntry, where: str) -> Sample:
        label, path = entry.labels[0], PurePosixPath(entry.path)
        if not math.isfinite(label):
            return bad_line_sample(where, f"the label {label} is not a number", entry)
        place = os.path.normpath(self._root / path)
        if not place.startswith(self._inside) or self._links_out(place):
            return bad_line_sample(where, f"{entry.path} leads out of {self._root}; --root names another folder", entry)
        identity = path.parent.name if self._named_by_folder else f"{label:g}" if label % 1 else f"{int(label)}"
        if not self._named_by_folder and label < 0:
            return bad_line_sample(where, f"the label {label:g} is negative", entry)
        return named_sample(
            identity,
            path.stem,
            where,
            path=place,
            aligned=self._is_aligned(entry),
            box=Box(*entry.box) if entry.box else None,
            landmarks=entry.landmarks,
        )

    def _links_out(self, place: str) -> bool:
        """Whether a file is a link, not a broken one, to what lies outside the root."""
        if not os.path.islink(place):
            return False
        target = os.path.realpath(place)
        return os.path.exists(target) and not target.startswith(self._really_inside)
