"""CASIA-WebFace (Yi et al. 2014), unpacked: 10,575 people in numbered folders, 0000045/001.jpg."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.sources.folder import FolderSource, make_usable_names, rename_identities
from dataprep.storage import file_sha256
from dataprep.text import iterate_lines
from dataprep.types import Sample

_INSIDE = ("CASIA-WebFace", "CASIA-webface", "casia-webface")


class CasiaSource:
    """The photos of ROOT, or of the folder CASIA-WebFace in it. `names`, usually distributed as names.txt, has a line
    `0000045 Name` per person. A name shared by two folders gets the folder's digits appended."""

    def __init__(self, root: Path, *, names: Path | None = None, aligned: bool = False) -> None:
        if not root.is_dir():
            raise SourceError(f"{root}: no such directory")
        inside = next((root / name for name in _INSIDE if (root / name).is_dir()), root)
        self._folder, self._names = FolderSource(inside, aligned=aligned), names
        self.summary = ""
        if not any(path.name.isdigit() and path.is_dir() for path in inside.iterdir()):
            raise SourceError(
                f"{inside}: no numbered folders such as 0000045/, so it is not CASIA-WebFace",
                hint="use `dataprep import folder` for folders of any name, `dataprep import rec` for the .rec edition",
            )

    def describe(self) -> dict[str, Any]:
        return {**self._folder.describe(), "kind": "casia", "names": str(self._names) if self._names else None}

    def digest(self) -> str:
        parts = [self._folder.digest(), file_sha256(self._names) if self._names else ""]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def samples(self) -> Iterator[Sample]:
        names, malformed = _read_names(self._names) if self._names else ({}, 0)
        strangers: Counter[str] = Counter()
        unnamed: set[str] = set()

        def photos() -> Iterator[Sample]:
            for sample in self._folder.samples():
                if sample.error or sample.identity.isdigit():
                    if names and sample.identity not in names and not sample.error:
                        unnamed.add(sample.identity)
                    yield sample
                else:
                    strangers[sample.identity] += 1

        yield from rename_identities(photos(), names)
        told = [
            (malformed, "malformed lines of names"),
            (len(unnamed), "people without a name, listed by their digits"),
            (len(strangers), f"folders without a numeric name skipped ({next(iter(strangers), '')}, ...)"),
        ]
        counts = "; ".join(f"{count} {what}" for count, what in told if count)
        self.summary = "\n".join(filter(None, [counts, self._folder.left_out]))


def _read_names(path: Path) -> tuple[dict[str, str], int]:
    """Return names by digits, with spaces replaced by `_`, and the number of malformed lines."""
    rows = [line.replace(",", " ").split() for _, line in iterate_lines(path) if line.strip()]
    found = {row[0]: "_".join(row[1:]) for row in rows if len(row) > 1 and row[0].isdigit()}
    if not found:
        raise SourceError(f"{path}: no line like `0000045 Rachel_True`")
    return make_usable_names(found), len(rows) - len(found)
