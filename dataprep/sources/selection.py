"""Selects part of a source: some identities, up to a number of photos per identity and in total."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.names import plain_name
from dataprep.sources.base import Source
from dataprep.text import read_names
from dataprep.types import Sample


class IdentityFilter:
    """The identities to select: the first `count` of a source, or those in `names`."""

    def __init__(self, *, count: int | None = None, names: frozenset[str] = frozenset()) -> None:
        self.count, self.names = count, names

    @classmethod
    def parse(cls, text: str) -> IdentityFilter:
        """Parse a number, a file with one name per line (`#` starts a comment), or comma-separated names.

        Digits are a name if they start with 0 or are more than six, as in CASIA-WebFace.
        """
        if text == "0":
            raise SourceError("at least one identity must be selected", hint="give --identities 1 or more")
        if text.isascii() and text.isdigit() and text[0] != "0" and len(text) <= 6:
            return cls(count=int(text))
        path = Path(text)
        if "," not in text and path.is_file():
            lines = read_names(path)
        elif path.suffix == ".txt" and "," not in text:
            raise SourceError(f"{text}: no such file")
        else:
            lines = text.split(",")
        names = frozenset(
            plain_name(line.strip()) for line in lines if line.strip() and not line.lstrip().startswith("#")
        )
        if not names:
            raise SourceError(f"{text!r} contains no names of identities")
        return cls(names=names)

    def chooser(self) -> IdentityChooser:
        return IdentityChooser(self)

    def digest(self, of: str) -> str:
        """Return the digest of a source restricted to these identities."""
        asked = [of, str(self.count), *sorted(self.names)]
        return hashlib.sha256("\n".join(asked).encode("utf-8", "surrogatepass")).hexdigest()

    def describe(self) -> Any:
        if self.count is not None:
            return self.count
        named = sorted(self.names)
        return ",".join(named) if len(named) <= 20 else f"{len(named)} names"


class IdentityChooser:
    """Decides during one pass over a source, in its order, whether an identity is selected."""

    def __init__(self, identities: IdentityFilter) -> None:
        self._identities = identities
        self.met: set[str] = set()

    def __call__(self, name: str) -> bool:
        if name in self.met:
            return True
        count = self._identities.count
        wanted = name in self._identities.names if count is None else len(self.met) < count
        if wanted:
            self.met.add(name)
        return wanted

    def summary(self) -> str:
        """Report missing identities after a complete pass. Raises SourceError if all are missing."""
        missing = sorted(self._identities.names - self.met)
        if not missing:
            return ""
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        if not self.met:
            raise SourceError(f"the source has none of the identities ({shown}); names are spelt as in its lists")
        return f"{len(missing)} of {len(self._identities.names)} identities are not in the source: {shown}"


class SelectedSource:
    """A source restricted to the selected identities and photos. Lines without a usable name have no identity: they are
    skipped if `identities` is given, and otherwise count towards `limit` only."""

    def __init__(
        self,
        source: Source,
        *,
        limit: int | None = None,
        per_identity: int | None = None,
        identities: IdentityFilter | None = None,
    ) -> None:
        for option, value in (("limit", limit), ("per_identity", per_identity)):
            if value is not None and value < 1:
                raise SourceError(f"{option} is {value}, but must be at least 1")
        self._source, self._limit, self._per_identity, self._identities = source, limit, per_identity, identities
        self.summary = ""

    def describe(self) -> dict[str, Any]:
        chosen = {"limit": self._limit, "per_identity": self._per_identity}
        people = {"identities": self._identities.describe()} if self._identities else {}
        return {**self._source.describe(), **chosen, **people}

    def digest(self) -> str:
        return self._identities.digest(self._source.digest()) if self._identities else self._source.digest()

    def samples(self) -> Iterator[Sample]:
        wanted = self._identities.chooser() if self._identities else None
        counts: Counter[str] = Counter()
        total = 0
        self.summary = ""
        for sample in self._source.samples():
            if wanted and (sample.error or not wanted(sample.identity)):
                continue
            if self._per_identity is not None and not sample.error:
                counts[sample.identity] += 1
                if counts[sample.identity] > self._per_identity:
                    continue
            yield sample
            total += 1
            if total == self._limit:
                return
        self.summary = "\n".join(filter(None, [self._source.summary, wanted.summary() if wanted else ""]))
