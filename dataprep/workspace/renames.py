"""New names for people: lines `name TAB new name` in a file. People who get one name become one person."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dataprep.errors import SourceError
from dataprep.names import is_safe, plain_name
from dataprep.text import iterate_lines, similar_to

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Renames:
    """The new name of each person who gets one. All apply at once: `a` to `b` and `b` to `a` swaps them."""

    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of lines `name TAB new name`, or with a comma or semicolon for the TAB; `#` starts a comment.

        Raises SourceError for a line that is none, a name that cannot be a person's, or two new names for one person.
        """
        if not path.is_file():
            raise SourceError(f"{path}: no such file", hint="restore it, or run `dataprep lst` without --map")
        names: dict[str, str] = {}
        for number, line in iterate_lines(path):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            old, new = _parse(line, f"{path}, line {number}")
            if names.setdefault(old, new) != new:
                raise SourceError(f"{path}, line {number}: {old!r} becomes {names[old]!r} in an earlier line")
        if not names:
            raise SourceError(f"{path} has no names in it; a line is `name TAB new name`")
        return cls(names)

    def digest(self) -> str:
        """A hash of the names; empty if there are none."""
        lines = "\n".join(f"{old}\0{new}" for old, new in sorted(self.names.items()))
        return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest() if self.names else ""

    def report_unknown(self, known: Collection[str]) -> None:
        """Log the names that are nobody's, with similar ones."""
        unknown = sorted(self.names.keys() - set(known))
        for name in unknown[:5]:
            near = similar_to(name, known)
            _log.warning("%s is nobody's name here%s", name, f"; {near}" if near else "")
        if len(unknown) > 5:
            _log.warning("... and %d other names", len(unknown) - 5)


def _parse(line: str, where: str) -> tuple[str, str]:
    mark = next((mark for mark in "\t,;" if mark in line), None)
    fields = [re.sub(r'^"(.*)"$', r"\1", part.strip()) for part in line.split(mark)] if mark else [line]
    if len(fields) != 2 or not all(fields):
        raise SourceError(f"{where}: expected `name TAB new name`, found {line[:80]!r}")
    old, new = map(plain_name, fields)
    if not is_safe(new):
        raise SourceError(f"{where}: {new[:80]!r} cannot be a person's name, which is the name of a folder")
    return old, new
