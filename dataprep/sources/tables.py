"""Reads tables row by row: .csv, .tsv, .txt (a URL per line), .json and .jsonl, plain or .gz, and .parquet.

Delimiter, encoding, and whether there is a line of column names are found out, unless a `TableLayout` says them. A row
that cannot be read becomes a `TableRow` with an `error`. SourceError is raised only if the whole table is unreadable.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from dataprep.errors import SourceError
from dataprep.text import check_encoding, detect_encoding, iterate_lines

_log = logging.getLogger(__name__)

TABLE_FORMATS = ("csv", "tsv", "txt", "parquet", "json", "jsonl")
_ALIASES = {"ndjson": "jsonl", "pq": "parquet"}
_LONGEST_LINE = 1 << 20
_LARGEST_JSON = 1 << 30
_COMMENTS = 50  # lines read to find the header
_DELIMITERS = (",", "\t", ";", "|")
_AHEAD = 100  # lines of .jsonl read to find the columns
_URL = re.compile(r"\s*(https?|ftp)://\S", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLayout:
    """How a table is to be read; empty fields are found out. `columns` name the columns of a table without a line of
    names."""

    format: str = ""
    columns: tuple[str, ...] = ()
    delimiter: str = ""
    encoding: str = ""


class TableRow(NamedTuple):
    """The values of the requested columns, or the error (`trouble`) and the content of the row."""

    number: int
    values: Sequence[Any] = ()
    error: str = ""
    content: str = ""


class TableFile:
    """One file. `columns` are its column names; `where` is "line" or "row", depending on the format.

    A .csv or .tsv whose first line holds a URL has no line of names: its columns are `usual`, or else `url`, `identity`
    if there are two, and `column1`, `column2`, ... otherwise. `decided` says what was found out beyond the usual.
    """

    def __init__(self, path: Path, layout: TableLayout | None = None, *, usual: Sequence[str] = ()) -> None:
        self._layout = layout or TableLayout()
        self.path, self.format = path, self._layout.format or detect_table_format(path)
        self._usual, self._has_header = tuple(usual), True
        if self.format not in TABLE_FORMATS:
            raise SourceError(
                f"the table format {self.format!r} is not supported; the formats are {', '.join(TABLE_FORMATS)}",
                hint="give another --format",
            )
        check_encoding(self._layout.encoding or "utf-8")
        self.where = "row" if self.format in ("parquet", "json") else "line"
        try:
            self._encoding = self._layout.encoding or ("utf-8" if self.where == "row" else detect_encoding(path))
            if self.format == "txt" and not self._layout.format and any("\t" in line for line in self._head(2)):
                self.format = "tsv"  # no URL holds a TAB
            self._delimiter, self._skipped = self._find_header() if self._is_separated else (",", 0)
            self.columns = self._columns()
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"{path}: not readable ({error})") from None

    @property
    def decided(self) -> str:
        """What was found out that is not as usual, such as `separated by ';'`; empty if nothing."""
        given, told = self._layout, []
        if self._is_separated and not given.delimiter and self._delimiter != ("\t" if self.format == "tsv" else ","):
            told.append("separated by " + {"\t": "TABs"}.get(self._delimiter, repr(self._delimiter)))
        if self._is_separated and not given.columns and not self._has_header:
            told.append(f"no column names; its columns are taken as {', '.join(self.columns)}")
        if not given.encoding and self._encoding not in (
            "utf-8",
            "utf-8-sig",
            "cp1252",
        ):  # reported where it is detected
            told.append(f"read as {self._encoding}")
        return "; ".join(told)

    @property
    def _is_separated(self) -> bool:
        return self.format in ("csv", "tsv")

    def rows(self, wanted: Sequence[str]) -> Iterator[TableRow]:
        """Yield rows with the values of the columns `wanted`, numbered by line as in an editor, or from 1."""
        try:
            if self.format == "parquet":
                yield from self._parquet(wanted)
            elif self.format == "txt":
                for number, line in self._lines():
                    if line.strip():
                        yield _checked(TableRow(number, [line.strip()]))
            elif self.format in ("json", "jsonl"):
                for number, value, trouble in self._objects():
                    yield _object_row(number, value, trouble, wanted)
            else:
                yield from self._separated(wanted)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"{self.path}: not readable to its end ({error})") from None

    def _columns(self) -> list[str]:
        if self.format == "parquet":
            return [str(name) for name in self._open_parquet().schema_arrow.names]
        if self.format == "txt":
            return ["url"]
        if self.format in ("json", "jsonl"):
            objects = [value for _, value, _ in itertools.islice(self._objects(), _AHEAD) if isinstance(value, dict)]
            return list(dict.fromkeys(str(name) for value in objects for name in value))
        _, header, _ = next(self._records(), (0, list[str](), []))
        if isinstance(header, str) or any("\0" in name for name in header):
            raise SourceError(f"{self.path}: its first line is not text with column names")
        names = [name.strip() for name in header]
        if names:
            names = names[1:] if names[0] == "#" else [names[0].removeprefix("#").strip(), *names[1:]]
        self._has_header = not any(map(_URL.match, names))
        return names if self._has_header and not self._layout.columns else self._name_columns(names)

    def _name_columns(self, first: list[str]) -> list[str]:
        """The columns of a table whose `first` line is a row, or has names that are not wanted."""
        given = self._layout.columns or self._usual
        if given and len(given) != len(first) and (self._layout.columns or len(given) > len(first)):
            raise SourceError(
                f"{self.path}: its first line has {len(first)} fields, not {len(given)} ({', '.join(given)})",
                hint="name every column, in order, with --columns",
            )
        if given:
            return [*given, *(f"column{number + 1}" for number in range(len(given), len(first)))]
        links = [number for number, value in enumerate(first) if _URL.match(value)]
        others = "identity" if len(first) == 2 else ""
        return ["url" if n == links[0] else others or f"column{n + 1}" for n in range(len(first))]

    def _find_header(self) -> tuple[str, int]:
        """The delimiter, and the number of lines before the header: comments, and Excel's `sep=;`.

        A header may begin with a `#`: then the line after it has as many fields as it names columns.
        """
        usual = self._layout.delimiter or ("\t" if self.format == "tsv" else ",")
        marks = (usual,) if self._layout.delimiter else (usual, *_DELIMITERS)
        lines = self._head(_COMMENTS)
        skipped = 0
        if lines and (given := re.fullmatch(r"\ufeff?sep=(.)", lines[0].strip('"'))):
            return given[1], 1
        while skipped + 1 < len(lines) and (lines[skipped].startswith("#") or not lines[skipped].strip()):
            following, mark = lines[skipped + 1], next((mark for mark in marks if mark in lines[skipped]), "")
            if mark and not following.startswith("#"):
                names = len(lines[skipped].split(mark)) - lines[skipped].startswith(f"#{mark}")
                if names > 1 and names == len(following.split(mark)):
                    return mark, skipped
            skipped += 1
        header = lines[skipped] if skipped < len(lines) else ""
        if _URL.search(header):
            rows = [line for line in lines[skipped : skipped + 20] if line.strip()]
            return next((mark for mark in marks if all(_has_url_field(row, mark) for row in rows)), usual), skipped
        return next((mark for mark in marks if mark in header), usual), skipped

    def _separated(self, wanted: Sequence[str]) -> Iterator[TableRow]:
        places = [self.columns.index(name) for name in wanted]
        width, needed = len(self.columns), max(places, default=0) + 1  # spreadsheets leave empty last fields off

        def row(number: int, fields: list[str] | str) -> TableRow:
            if isinstance(fields, str):
                return TableRow(number, error=fields, content=f"line {number}")
            fields = [*fields, *[""] * (width - len(fields))] if len(fields) >= needed else fields
            if len(fields) < width or any(fields[width:]):
                trouble = f"{len(fields)} fields; the header has {width}"
                return TableRow(number, error=trouble, content="\t".join(fields))
            return _checked(TableRow(number, [fields[place] for place in places]))

        for number, fields, lines in itertools.islice(self._records(), int(self._has_header), None):
            whole = row(number, fields)
            if len(lines) == 1 and not whole.error:
                yield whole
                continue
            # a stray quote at the start of a field merges the lines up to the next quote, each of which is a row
            alone = {number + place: self._fields(line, width) for place, line in enumerate(lines) if line.strip()}
            rows = all(isinstance(found, list) and len(found) == width for found in alone.values())
            if whole.error or (rows and (len(alone) > 2 or any("\n" in value.strip() for value in whole.values))):
                yield from itertools.starmap(row, alone.items())
            else:
                yield whole

    def _records(self) -> Iterator[tuple[int, list[str] | str, list[str]]]:
        """Yield (number of the first line, fields or trouble, lines) of every non-blank record of a .csv or .tsv."""
        lines: list[str] = []

        def read() -> Iterator[str]:
            for _, line in itertools.islice(self._lines(), self._skipped, None):
                lines.append(line)
                yield line

        reader = csv.reader(read(), delimiter=self._delimiter)
        while True:
            lines.clear()
            number = reader.line_num + 1 + self._skipped
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, str(error), list(lines)
                continue
            if any(field.strip() for field in fields):
                yield number, fields, list(lines)

    def _fields(self, line: str, width: int) -> list[str] | str:
        """Split a single line into fields, honouring quotes if that yields a row."""
        found: list[str] | str = ""
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            try:
                (found,) = csv.reader([line], delimiter=self._delimiter, quoting=quoting)
            except csv.Error as error:
                found = str(error)
            if isinstance(found, list) and len(found) >= width:
                break
        return found

    def _objects(self) -> Iterator[tuple[int, Any, str]]:
        """Yield (number, value, trouble) of every object of a .json or .jsonl."""
        if self.format == "json":
            for number, value in enumerate(self._whole_json(), 1):
                yield number, value, ""
            return
        for number, line in self._lines():
            if line.strip():
                try:
                    yield number, json.loads(line), ""
                except (ValueError, RecursionError) as error:
                    yield number, line[:200], f"not JSON ({error})"

    def _whole_json(self) -> list[Any]:
        with self._open() as stream:
            text = stream.read(_LARGEST_JSON + 1)
        if len(text) > _LARGEST_JSON:
            raise SourceError(f"{self.path}: more than {_LARGEST_JSON >> 30} GiB of .json; .jsonl is read line by line")
        try:
            value = json.loads(text.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{self.path}: not JSON in UTF-8 ({error}); an object per line is .jsonl") from None
        if isinstance(value, dict) and value and all(isinstance(column, dict) for column in value.values()):
            return _turned(value)
        return value if isinstance(value, list) else [value]

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yield (number, text) of each line. Damaged UTF-8 becomes surrogates; lines over 1 MiB are cut."""
        if self._encoding not in ("utf-8", "utf-8-sig"):
            yield from ((number, f"{line}\n") for number, line in iterate_lines(self.path, self._encoding))
            return
        with self._open() as stream:
            line = stream.readline(_LONGEST_LINE).removeprefix(b"\xef\xbb\xbf")
            for number in itertools.count(1):
                if not line:
                    return
                yield number, line.decode("utf-8", "surrogateescape")
                while len(line) >= _LONGEST_LINE and not line.endswith(b"\n"):
                    line = stream.readline(_LONGEST_LINE)
                line = stream.readline(_LONGEST_LINE)

    def _head(self, count: int) -> list[str]:
        return [line.rstrip("\r\n") for _, line in itertools.islice(self._lines(), count)]

    def _open(self) -> IO[bytes]:
        with open(self.path, "rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
        return cast(IO[bytes], gzip.open(self.path, "rb")) if zipped else open(self.path, "rb")

    def _parquet(self, wanted: Sequence[str]) -> Iterator[TableRow]:
        import pyarrow as pa

        try:
            number = 0
            for batch in self._open_parquet().iter_batches(batch_size=4096, columns=list(dict.fromkeys(wanted))):
                columns = [batch.column(name).to_pylist() for name in wanted]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield _checked(TableRow(number, values))
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise SourceError(f"{self.path}: not a readable Parquet file ({error})") from None

    def _open_parquet(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SourceError(f"{self.path}: not a readable Parquet file ({error})") from None


def log_decisions(tables: Sequence[TableFile]) -> None:
    """Say what was found out about tables, once for those that are alike."""
    for decided, table in {table.decided: table for table in reversed(tables)}.items():
        if decided:
            _log.info("%s: %s", table.path, decided)


def detect_table_format(path: Path) -> str:
    """Return the format given by the suffix of a table, compressed or not."""
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    format = suffix.lower().removeprefix(".")
    format = _ALIASES.get(format, format)
    if format not in TABLE_FORMATS or (format == "parquet" and path.suffix.lower() == ".gz"):
        known = ", ".join(f".{name}" for name in TABLE_FORMATS)
        raise SourceError(
            f"{path}: not a known table suffix; the suffixes are {known}, and .gz of the text formats",
            hint="name the format with --format",
        )
    return format


def _has_url_field(line: str, mark: str) -> bool:
    """Whether the line has a field that is a URL, and others; a URL itself may hold commas and semicolons."""
    fields = [field.strip(' "') for field in line.split(mark)]
    return len(fields) > 1 and any(map(_URL.match, fields))


def _turned(columns: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Convert pandas' default JSON, {column: {row: value}}, to rows."""
    rows: dict[str, dict[str, Any]] = {}
    for name, values in columns.items():
        for row, value in values.items():
            rows.setdefault(row, {})[name] = value
    return list(rows.values())


def _object_row(number: int, value: Any, trouble: str, wanted: Sequence[str]) -> TableRow:
    if isinstance(value, dict) and not trouble:
        return _checked(TableRow(number, [value.get(name) for name in wanted]))
    return TableRow(number, error=trouble or "not an object with columns", content=format_value(value))


def format_value(value: Any) -> str:
    """Return any value as text, to identify rows."""
    try:
        return repr(value)
    except RecursionError:
        return "nested too deeply"


def _checked(row: TableRow) -> TableRow:
    """Return the row, or one with a trouble if any text in it is not UTF-8."""
    for value in row.values:
        if isinstance(value, bytes):
            return _checked(row._replace(values=[_text(value) for value in row.values]))
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            return TableRow(row.number, error="not UTF-8", content=format_value(row.values))
    return row


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
