"""What a source is, and how the names it gives become names that are safe on every disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

from dataprep.errors import Reason
from dataprep.samples import Sample


class Source(Protocol):
    """A published list or a folder. `samples` may be asked for again and gives the same samples in the same order."""

    def describe(self) -> dict[str, Any]:
        """Kind and options, for the record."""
        ...

    def digest(self) -> str:
        """Changes whenever the samples may have."""
        ...

    def samples(self) -> Iterator[Sample]: ...


def unsafe_sample(identity: str, name: str, where: str) -> Sample:
    """The sample that stands in for a line whose names cannot be used, so that it is accounted for."""
    shown = ascii(f"{identity}/{name}")[1:-1][:80]
    return Sample(
        key=f"_unusable/{re.sub(r'[^A-Za-z0-9_-]+', '_', where)[-120:]}",
        identity="_unusable",
        trouble=Reason.BAD_NAME,
        detail=f"{where}: {shown!r} cannot be a file name",
    )


def bad_line(where: str, detail: str) -> Sample:
    """The sample that stands in for a line that cannot be understood."""
    return Sample(
        key=f"_unusable/{re.sub(r'[^A-Za-z0-9_-]+', '_', where)[-120:]}",
        identity="_unusable",
        trouble=Reason.BAD_LINE,
        detail=f"{where}: {detail}",
    )
