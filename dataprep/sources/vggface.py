"""VGG-Face (Parkhi et al. 2015): one text file per person, one photo per line, behind URLs of 2015.

A line reads `id url left top right bottom pose score curation`, separated by blanks; some copies have a uid as well, so
the URL is looked for. The detector that drew the boxes knew nothing of EXIF: they are in the stored pixel grid.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.samples import Box, Sample
from dataprep.sources.base import bad_line, unsafe_sample
from dataprep.storage import is_safe

ARCHIVE_URL = "https://www.robots.ox.ac.uk/~vgg/data/vgg_face/vgg_face_dataset.tar.gz"
_LARGEST_LIST = 16 << 20


class VggFace:
    """The lists in a directory (searched as published: `files/*.txt`, else `*.txt`) or in the release's .tar.gz."""

    def __init__(self, lists: Path, *, limit: int | None = None, per_identity: int | None = None) -> None:
        self._lists, self._limit, self._per_identity = lists, limit, per_identity
        if not lists.exists():
            raise SourceError(f"{lists}: no such file or directory; --lists takes the folder of lists or the .tar.gz")

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "vggface",
            "lists": str(self._lists),
            "limit": self._limit,
            "per_identity": self._per_identity,
        }

    def digest(self) -> str:
        state = hashlib.sha256()
        for name, data in self._files():
            state.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
        return state.hexdigest()

    def samples(self) -> Iterator[Sample]:
        total = 0
        for person, data in self._files():
            for number, sample in enumerate(parse_list(person, data)):
                if self._per_identity is not None and number >= self._per_identity:
                    break
                if self._limit is not None and total >= self._limit:
                    return
                total += 1
                yield sample

    def _files(self) -> Iterator[tuple[str, bytes]]:
        """(person, content) of every list, sorted by person."""
        if self._lists.is_dir():
            paths = sorted(self._lists.glob("files/*.txt")) or sorted(self._lists.glob("*/files/*.txt"))
            paths = paths or sorted(self._lists.glob("*.txt"))
            if not paths:
                raise SourceError(f"{self._lists}: no lists (*.txt) in it; VGG-Face has one per person, under files/")
            for path in paths:
                yield path.stem, path.read_bytes()
            return
        yield from self._archived()

    def _archived(self) -> Iterator[tuple[str, bytes]]:
        """Read members one by one; nothing is unpacked to the disk, so no name or link in the archive can do harm."""
        try:
            with tarfile.open(self._lists, "r:*") as archive:
                members = sorted(
                    (m for m in archive if m.isfile() and m.name.endswith(".txt") and "/files/" in f"/{m.name}"),
                    key=lambda m: Path(m.name).stem,
                )
                if not members:
                    raise SourceError(f"{self._lists}: an archive without files/*.txt; is it vgg_face_dataset.tar.gz?")
                for member in members:
                    if member.size > _LARGEST_LIST:
                        raise SourceError(
                            f"{self._lists}: {member.name} has {member.size} bytes; a list has about 150,000"
                        )
                    stream = archive.extractfile(member)
                    assert stream is not None
                    yield Path(member.name).stem, stream.read()
        except (tarfile.TarError, EOFError, OSError) as error:
            raise SourceError(f"{self._lists}: not a readable archive of lists ({error})") from None


def parse_list(person: str, data: bytes) -> Iterator[Sample]:
    """The samples of one person's list; lines that make no sense come out as samples with their trouble."""
    seen: dict[str, int] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        where = f"{person}.txt line {number}"
        at = next((i for i, field in enumerate(fields[1:3], 1) if "://" in field), None)
        if at is None or len(fields) < at + 5:
            yield bad_line(where, f"expected `id url left top right bottom ...`, found {len(fields)} fields")
            continue
        try:
            left, top, right, bottom = (float(field) for field in fields[at + 1 : at + 5])
        except ValueError:
            yield bad_line(where, f"the box {' '.join(fields[at + 1 : at + 5])!r} is not four numbers")
            continue
        name = fields[0]
        if not (is_safe(person) and is_safe(name)):
            yield unsafe_sample(person, name, where)
            continue
        again = seen[name] = seen.get(name, 0) + 1
        if again > 1:
            name = f"{name}~{again}"
        yield Sample(
            key=f"{person}/{name}",
            identity=person,
            url=fields[at],
            box=Box(left, top, right, bottom),
            box_frame="stored",
        )
