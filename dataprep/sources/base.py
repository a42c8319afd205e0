"""What a source is, and how the names it gives become names that are safe on every disk."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from dataprep.names import folded, is_safe, plain
from dataprep.reasons import Reason
from dataprep.types import Sample
from dataprep.workspace.plan_table import Table

# the identity of samples that stand for lines without a usable one; no list can use it
UNUSABLE = "_unusable"


class Source(Protocol):
    """A published list or a folder. `samples` may be asked for again and gives the same samples in the same order.

    `account` is what there is to say after a whole pass: what a table has that found no photo, say. Two samples may have
    the same key: the plan numbers them (workspace/plan_merge.py), so that a list may grow.
    """

    account: str

    def describe(self) -> dict[str, Any]:
        """Kind and options, for the record."""
        ...

    def digest(self) -> str:
        """Changes whenever the samples may have."""
        ...

    def samples(self) -> Iterator[Sample]: ...


@runtime_checkable
class TableSource(Source, Protocol):
    """A source of millions, whose samples also come as tables of the plan's columns, where its lists are well-formed."""

    def tables(self) -> Iterator[Sample | Table]: ...


def listed(source: Source) -> Iterator[Sample | Table]:
    """All samples of a source, in the form that is planned fastest."""
    return source.tables() if isinstance(source, TableSource) else source.samples()


def named_sample(identity: str, name: str, where: str, **fields: Any) -> Sample:
    """The sample `identity/name`, both in plain form; one with the trouble BAD_NAME if they cannot be names of files.

    `name` may have several components, parted by `/`. `where` is the place in the list.
    """
    identity, name = plain(identity), plain(name)
    if not is_identity(identity) or not (is_safe(name) if "/" not in name else all(map(is_safe, name.split("/")))):
        return unsafe_sample(identity, name, where)
    return Sample(key=f"{identity}/{name}", identity=identity, **fields)


def unsafe_sample(identity: str, name: str, where: str) -> Sample:
    """The sample that stands in for a line whose names cannot be used, so that it is accounted for."""
    shown = f"{identity}/{name}"
    detail = f"{where}: {ascii(shown)[1:-1][:80]!r} cannot be a file name"
    return _stand_in(Reason.BAD_NAME, shown, detail)


def bad_line(where: str, detail: str, content: object = "") -> Sample:
    """The sample that stands in for a line that cannot be understood; `content` tells it from others when lines move."""
    return _stand_in(Reason.BAD_LINE, str(content) or where, f"{where}: {detail}")


def _stand_in(trouble: Reason, content: str, detail: str) -> Sample:
    """Its key is a hash of what the line says, not its number: in a list that grew, it is the same sample."""
    short = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    shown = detail.encode("utf-8", "replace").decode()[:300]
    return Sample(key=f"{UNUSABLE}/{trouble.code}-{short}", identity=UNUSABLE, trouble=trouble, detail=shown)


@functools.lru_cache(maxsize=1 << 16)
def is_identity(name: str) -> bool:
    """Whether a plain name can be that of a person in a plan."""
    return is_safe(name) and folded(name) != UNUSABLE
