"""Text files that people bring (lists of names, tables, pairs), and counts in words.

One reader finds the encoding and says what it assumed:
UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one, UTF-16 without one (PowerShell's older `>`), and
otherwise Windows' Latin-1 (code page 1252), which a log message reports. Line ends may be those of any system.
"""

from __future__ import annotations

import codecs
import difflib
import gzip
import io
import logging
import os
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, cast

from dataprep.errors import DataprepError, SourceError, UsageError

_log = logging.getLogger(__name__)
_encoding: ContextVar[str] = ContextVar("encoding", default="")  # that the user named for all lists
_LONGEST_LINE = 1 << 20  # characters
_BLOCK = 1 << 20
_PLURALS = {"person": "people", "identity": "identities"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def use_encoding(name: str) -> None:
    """Read all lists and tables in this encoding from now on, in this context, instead of finding it out. Raises
    UsageError."""
    check_encoding(name)
    _encoding.set(name)


def check_encoding(name: str) -> None:
    """Raise UsageError if Python knows no encoding of this name."""
    try:
        codecs.lookup(name)
    except LookupError:
        raise UsageError(f"the encoding {name!r} is not known", hint="give another --encoding, such as utf-8") from None


def counted(count: int, noun: str) -> str:
    """A count in words: `1 photo`, `2 photos`, `3 people`."""
    return f"{count} {noun}" if count == 1 else f"{count} {_PLURALS.get(noun, noun + 's')}"


def similar_to(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: `similar: align, pack`, the nearest first; empty if none is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"similar: {', '.join(near)}" if near else ""


def iterate_lines(
    path: str | os.PathLike[str],
    encoding: str | None = None,
    *,
    error: type[DataprepError] = SourceError,
    longest: int = _LONGEST_LINE,
) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of every line, without its line end. A gzipped file is unpacked.

    `encoding` overrules the detection. Raises `error` if the file cannot be read, is not text, or has a line of more
    than `longest` characters, by default a million.
    """
    number = 0
    try:
        with _open_text(Path(path), encoding, error) as stream:
            while line := stream.readline(longest):
                number += 1
                if len(line) == longest and not line.endswith("\n"):
                    raise error(f"{path}, line {number}: longer than {longest:,} characters; this is not a list")
                yield number, line.removesuffix("\n")
    except UnicodeError as unreadable:
        raise error(f"{path}, line {number + 1}: not {encoding} text ({unreadable})") from None
    except (OSError, EOFError, LookupError) as unreadable:
        raise error(f"{path}: {getattr(unreadable, 'strerror', None) or unreadable}") from None


def forward_slashes(path: str) -> str:
    """A path of a list with the slashes of this system: a list written on Windows has backslashes alone."""
    return path if "/" in path else path.replace("\\", "/")


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """The names in a list with one per line, in order. Blank lines and lines that start with `#` are skipped."""
    names = (line.strip() for _, line in iterate_lines(path))
    return [name for name in names if name and not name.startswith("#")]


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The value in a YAML file, None if it is empty. Raises UsageError if it cannot be read or is not YAML."""
    import yaml

    text = "\n".join(line for _, line in iterate_lines(path, error=UsageError))
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date that does not exist
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} is not valid YAML ({words})") from None


def detect_encoding(path: Path, *, error: type[DataprepError] = SourceError) -> str:
    """The name of the encoding that Python decodes the file with: the one of `use_encoding`, or found out. Raises
    `error` if it is not a text file."""
    if _encoding.get():
        return _encoding.get()
    with _open_bytes(path) as stream:
        head = stream.read(4096)
        for mark, encoding in _MARKS:
            if head.startswith(mark):
                return encoding
        if b"\0" in head:
            even, odd = head[::2].count(0), head[1::2].count(0)
            if max(even, odd) * 3 > len(head) and min(even, odd) * 10 < len(head):
                return "utf-16-be" if even > odd else "utf-16-le"
            raise error(f"{path}: this is not a text file")
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while head:
                decoder.decode(head)
                head = stream.read(_BLOCK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            if _has_utf8_lines(path):
                return "utf-8"  # with a damaged line
            _log.warning("%s: not UTF-8; read as Latin-1 (Windows-1252)", path)
            return "cp1252"
    return "utf-8"


def _has_utf8_lines(path: Path) -> bool:
    """Whether any line is UTF-8 beyond ASCII, so that others are damaged, and not of another encoding."""
    with _open_bytes(path) as stream:
        while line := stream.readline(_BLOCK):
            if not line.isascii():
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError:
                    continue
                return True
    return False


def _open_text(path: Path, encoding: str | None, error: type[DataprepError]) -> IO[str]:
    chosen = encoding or detect_encoding(path, error=error)
    codecs.lookup(chosen)
    # Windows-1252 leaves five bytes undefined
    return io.TextIOWrapper(_open_bytes(path), chosen, "replace" if chosen == "cp1252" else "strict", newline=None)


def _open_bytes(path: Path) -> IO[bytes]:
    with open(path, "rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if zipped else open(path, "rb")
