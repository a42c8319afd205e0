"""The source protocol, and the conversion of a source's names into safe file names."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from dataprep.names import casefold_name, is_safe, plain_name
from dataprep.reasons import Reason
from dataprep.types import Sample
from dataprep.workspace.plan_table import SampleTable

# identity of the samples that replace unusable lines; no list can use it
UNUSABLE_IDENTITY = "_unusable"


class Source(Protocol):
    """A published list or a folder. `samples` may be called repeatedly and yields the same samples in the same order.

    `account` is a message after a complete pass, for example on table rows without a photo. Two samples may have the
    same key: the plan numbers them (workspace/plan_merge.py), so that a list may grow.
    """

    summary: str

    def describe(self) -> dict[str, Any]:
        """Return kind and options, as stored in the plan."""
        ...

    def digest(self) -> str:
        """Return a digest that changes whenever the samples may have changed."""
        ...

    def samples(self) -> Iterator[Sample]: ...


@runtime_checkable
class TableSource(Source, Protocol):
    """A source of millions of samples that also yields well-formed lists as tables with the plan's columns."""

    def tables(self) -> Iterator[Sample | SampleTable]: ...


def iterate_samples(source: Source) -> Iterator[Sample | SampleTable]:
    """Return all samples of a source, in the form that is fastest to plan."""
    return source.tables() if isinstance(source, TableSource) else source.samples()


def named_sample(identity: str, name: str, where: str, **fields: Any) -> Sample:
    """Return the sample `identity/name`, both in plain form, or one marked BAD_NAME if they are not valid file names.

    `name` may have several components, separated by `/`. `where` is the position in the list.
    """
    identity, name = plain_name(identity), plain_name(name)
    if not is_identity_name(identity) or not (is_safe(name) if "/" not in name else all(map(is_safe, name.split("/")))):
        return unsafe_sample(identity, name, where)
    return Sample(key=f"{identity}/{name}", identity=identity, **fields)


def unsafe_sample(identity: str, name: str, where: str) -> Sample:
    """Return the sample that represents a line with unusable names, so that it is counted."""
    shown = f"{identity}/{name}"
    detail = f"{where}: {ascii(shown)[1:-1][:80]!r} cannot be a file name"
    return _stand_in(Reason.BAD_NAME, shown, detail)


def bad_line_sample(where: str, detail: str, content: object = "") -> Sample:
    """Return the sample that represents a malformed line. `content` identifies it when lines move."""
    return _stand_in(Reason.BAD_LINE, str(content) or where, f"{where}: {detail}")


def _stand_in(trouble: Reason, content: str, detail: str) -> Sample:
    """The key is a hash of the line's content, not its number, so it stays the same when the list grows."""
    short = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    shown = detail.encode("utf-8", "replace").decode()[:300]
    return Sample(
        key=f"{UNUSABLE_IDENTITY}/{trouble.code}-{short}", identity=UNUSABLE_IDENTITY, error=trouble, detail=shown
    )


@functools.lru_cache(maxsize=1 << 16)
def is_identity_name(name: str) -> bool:
    """Whether a plain name is a valid identity in a plan."""
    return is_safe(name) and casefold_name(name) != UNUSABLE_IDENTITY
