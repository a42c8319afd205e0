"""FaceScrub (Ng and Winkler 2014): two lists of URLs with the box of each face and the sha256 of each photo.

facescrub_actors.txt and facescrub_actresses.txt are tab-separated: name, image_id, face_id, url, bbox, sha256. A photo
with several faces has a line for each; bbox is `x1,y1,x2,y2` in pixels of the photo.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.sources.base import bad_line_sample, named_sample
from dataprep.sources.tables import TableFile, TableLayout, TableRow, format_value, log_decisions
from dataprep.sources.urls import parse_box, parse_hash
from dataprep.storage import file_sha256, local_copy, redact
from dataprep.types import Sample

_COLUMNS = ("name", "image_id", "face_id", "url", "bbox", "sha256")


class FaceScrubSource:
    """The given lists, or those in a folder. Identities are named as in MegaFace, Aaron_Eckhart; the key of a face is
    Aaron_Eckhart/IMAGE_FACE. With `ignore_hashes`, photos that have changed since 2014 are kept."""

    def __init__(self, lists: Sequence[str | Path], *, ignore_hashes: bool = False) -> None:
        self._given, self._ignore_hashes = [redact(str(path)) for path in lists], ignore_hashes
        self.summary = ""
        if not lists:
            raise SourceError(
                "no lists given; FaceScrub's authors provide them on request "
                "(http://vintage.winklerbros.net/facescrub.html)",
                hint="pass facescrub_actors.txt and facescrub_actresses.txt, or their folder, with --lists",
            )
        files = [path for given in lists for path in _files(local_copy(given), str(given))]
        self._tables = [TableFile(path, TableLayout(format="tsv"), usual=_COLUMNS) for path in files]
        log_decisions(self._tables)
        for table in self._tables:
            missing = [name for name in _COLUMNS if name not in table.columns]
            if missing:
                raise SourceError(
                    f"{table.path}: not a FaceScrub list; the column {missing[0]!r} is missing in its first line, "
                    f"expected: {', '.join(_COLUMNS)}"
                )

    def describe(self) -> dict[str, Any]:
        return {"kind": "facescrub", "lists": self._given, "ignore_hashes": self._ignore_hashes}

    def digest(self) -> str:
        return hashlib.sha256("\n".join(file_sha256(table.path) for table in self._tables).encode()).hexdigest()

    def samples(self) -> Iterator[Sample]:
        for table in self._tables:
            for row in table.rows(_COLUMNS):
                yield self._sample(row, f"{table.path.name} line {row.number}")

    def _sample(self, row: TableRow, where: str) -> Sample:
        if row.error:
            return bad_line_sample(where, row.error, row.content)
        name, image, face, url, bbox, digest = (value.strip() for value in row.values)
        try:
            box = parse_box([bbox], "ltrb")
            published = "" if self._ignore_hashes else parse_hash(digest, "sha256")
        except ValueError as error:
            return bad_line_sample(where, str(error), format_value(row.values))
        if not (name and image and face and url and box):
            return bad_line_sample(where, "name, image_id, face_id, url or bbox is empty", format_value(row.values))
        person = "_".join(name.split())
        return named_sample(person, f"{image}_{face}", where, url=url, box=box, box_frame="stored", hash=published)


def _files(path: Path, given: str) -> list[Path]:
    """Return the list itself, or the lists in a folder."""
    if path.is_file():
        return [path]
    found = sorted(path.glob("facescrub_act*.txt")) or sorted(path.glob("*/facescrub_act*.txt"))
    if not found:
        what = "no facescrub_actors.txt or facescrub_actresses.txt in it" if path.is_dir() else "no such file or folder"
        raise SourceError(f"{given}: {what}; FaceScrub's authors provide the lists on request")
    return found
