"""VGG-Face (Parkhi et al. 2015): one text file per person, one photo per line, with URLs from 2015.

A line is `id url left top right bottom pose score curation`, separated by spaces. Some copies have an additional uid,
so the URL is searched for. The detector ignored EXIF orientation, so the boxes are in the stored pixel grid.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.names import plain_name
from dataprep.sources.archive import Archive
from dataprep.sources.base import bad_line_sample, is_identity_name, named_sample
from dataprep.sources.selection import IdentityFilter
from dataprep.storage import local_copy, redact
from dataprep.types import Box, Sample
from dataprep.workspace.plan_table import SampleTable, make_photo_table

ARCHIVE_URL = "https://www.robots.ox.ac.uk/~vgg/data/vgg_face/vgg_face_dataset.tar.gz"
_COLUMNS = ("id", "url", "left", "top", "right", "bottom", "pose", "score", "curation")
_FRONTAL = 2.0  # poses above this are frontal, others are profiles
_USUAL = bytes(range(32, 127)) + b"\r\n"  # other white space splits fields or lines differently in the two readers


class VggFaceSource:
    """The lists in a directory (`files/*.txt` as published, or `*.txt`), in the release's .tar.gz, or in one person's
    .txt. `curated_only` keeps lines of the curated set, `frontal_only` lines with a frontal pose."""

    def __init__(
        self,
        lists: str | Path,
        *,
        identities: IdentityFilter | None = None,
        curated_only: bool = False,
        frontal_only: bool = False,
    ) -> None:
        self._given, self._lists = redact(str(lists)), local_copy(lists)
        self._identities, self._curated, self._frontal = identities, curated_only, frontal_only
        self.summary = ""
        if not self._lists.exists():
            raise SourceError(
                f"{lists}: no such file or directory", hint="give --lists the folder of lists or the .tar.gz"
            )

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "vggface",
            "lists": self._given,
            "identities": self._identities.describe() if self._identities else None,
            "curated_only": self._curated,
            "frontal_only": self._frontal,
        }

    def digest(self) -> str:
        state = hashlib.sha256()
        for name, data in self._files():
            state.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode("utf-8", "surrogatepass"))
        return self._identities.digest(state.hexdigest()) if self._identities else state.hexdigest()

    def samples(self) -> Iterator[Sample]:
        for person, data in self._wanted():
            yield from parse_vggface_list(person, data, curated_only=self._curated, frontal_only=self._frontal)

    def tables(self) -> Iterator[Sample | SampleTable]:
        for person, data in self._wanted():
            table = parse_vggface_table(person, data, curated_only=self._curated, frontal_only=self._frontal)
            if table is not None:
                yield table
            else:
                yield from parse_vggface_list(person, data, curated_only=self._curated, frontal_only=self._frontal)

    def _wanted(self) -> Iterator[tuple[str, bytes]]:
        wanted = self._identities.chooser() if self._identities else None
        for person, data in self._files():
            if wanted is None or wanted(plain_name(person)):
                yield person, data
        self.summary = wanted.summary() if wanted else ""

    def _files(self) -> Iterator[tuple[str, bytes]]:
        """Yield (person, content) of every list, sorted by person."""
        if self._lists.is_file() and self._lists.suffix.lower() != ".txt":
            if not len(self._archive):
                raise SourceError(f"{self._given}: the archive has no files/*.txt; is it vgg_face_dataset.tar.gz?")
            yield from self._archive.lists()
            return
        paths = [self._lists]
        if self._lists.is_dir():
            paths = sorted(self._lists.glob("files/*.txt")) or sorted(self._lists.glob("*/files/*.txt"))
            paths = paths or sorted(self._lists.glob("*.txt"))
        if not paths:
            raise SourceError(f"{self._given}: no lists (*.txt) in it; VGG-Face has one per person, under files/")
        for path in paths:
            try:
                yield path.stem, path.read_bytes()
            except OSError as error:
                raise SourceError(f"{path}: {error.strerror}") from None

    @functools.cached_property
    def _archive(self) -> Archive:
        return Archive(self._lists, r"(^|/)files/[^/]+\.txt$")


def parse_vggface_list(
    person: str, data: bytes, *, curated_only: bool = False, frontal_only: bool = False
) -> Iterator[Sample]:
    """Yield the samples of one person's list. Malformed lines become samples with a `trouble`."""
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        fields = line.split()
        if not fields:
            continue
        where = f"{person}.txt line {number}"
        at = next((i for i, field in enumerate(fields[1:3], 1) if "://" in field), None)
        if at is None or len(fields) < at + 5:
            detail = f"expected `id url left top right bottom ...`, found {len(fields)} fields"
            yield bad_line_sample(where, detail, f"{person} {line}")
            continue
        try:
            left, top, right, bottom, *more = map(float, fields[at + 1 : at + 8])
        except ValueError:
            yield bad_line_sample(
                where, f"{' '.join(fields[at + 1 : at + 8])[:80]!r} are not numbers", f"{person} {line}"
            )
            continue
        if (curated_only or frontal_only) and len(more) < 3:
            yield bad_line_sample(where, "no pose, score and curation after the box", f"{person} {line}")
            continue
        if (curated_only and more[2] != 1) or (frontal_only and not more[0] > _FRONTAL):
            continue
        box = Box(left, top, right, bottom)
        yield named_sample(person, fields[0], where, url=fields[at], box=box, box_frame="stored")


def parse_vggface_table(
    person: str, data: bytes, *, curated_only: bool = False, frontal_only: bool = False
) -> SampleTable | None:
    """Parse a list like `parse_vggface_list`, but several times as fast. Returns None unless all lines are as released."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    identity = plain_name(person)
    if not is_identity_name(identity) or data.translate(None, _USUAL) or data.count(b"\r") != data.count(b"\r\n"):
        return None
    numbers = _COLUMNS[2:]
    try:
        table = csv.read_csv(
            io.BytesIO(data),
            csv.ReadOptions(column_names=_COLUMNS, use_threads=False),
            csv.ParseOptions(delimiter=" ", quote_char=False),
            csv.ConvertOptions(
                column_types={"id": pa.string(), "url": pa.string(), **dict.fromkeys(numbers, pa.float64())},
                null_values=[],
            ),
        )
    except pa.ArrowInvalid:
        return None
    wanted = [
        pc.match_substring_regex(table["id"], "^[0-9]{1,18}$"),
        pc.match_substring(table["url"], "://"),
        *(pc.is_finite(table[name]) for name in numbers),  # only Arrow accepts `nan(1)` as a number
    ]
    if not all(pc.all(one).as_py() for one in wanted):
        return None
    if curated_only:
        table = table.filter(pc.equal(table["curation"], 1))
    if frontal_only:
        table = table.filter(pc.greater(table["pose"], _FRONTAL))
    return make_photo_table(identity, table["id"], table["url"], [table[side] for side in _COLUMNS[2:6]])
