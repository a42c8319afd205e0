"""Tables of URLs: the meaning of the columns, and the conversion of rows to samples.

Column names recognised by default, in any case: url, image_url, img_url; identity, person, name; key; left, top, right,
bottom, or x1, y1, x2, y2; the size of the photo that a box was measured on: `height width` (IMDb-Face), original_width
and original_height, image_width and image_height, width and height. A box within 0 and 1 is in shares of the photo. A
hash is checked only if its column is given, because photos on the web change."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.errors import SourceError
from dataprep.sources.base import bad_line_sample, named_sample
from dataprep.sources.tables import TABLE_FORMATS, TableFile, TableLayout, TableRow, format_value, log_decisions
from dataprep.storage import file_sha256, local_copy, redact
from dataprep.types import Box, Sample

BOX_FORMATS = ("ltrb", "ltwh")
_GUESSES = {"url": ("url", "image_url", "img_url"), "identity": ("identity", "person", "name"), "key": ("key",)}
_EDGES = (("left", "top", "right", "bottom"), ("x1", "y1", "x2", "y2"))
_SIZES = (
    ("height width",), ("width height",), ("original_width", "original_height"), ("image_width", "image_height"),
    ("img_width", "img_height"), ("photo_width", "photo_height"), ("width", "height"), ("img_w", "img_h"),
)  # fmt: skip
_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}  # by hexadecimal digits
_TEXT = (str, int, float)
_OPTIONS = {"size": "size-columns"}
_RELATIVE = (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMapping:
    """The names of the columns. Empty names are guessed, except `hash`. `box` is one column or four; `box_format` is
    ltrb (left, top, right, bottom) or ltwh (left, top, width, height). `size` is the width and height of the photo that
    the box was measured on: two columns, or one with both numbers, the height first if its name begins with it.
    `constant` is the identity of all rows."""

    url: str = ""
    identity: str = ""
    key: str = ""
    box: tuple[str, ...] = ()
    box_format: str = "ltrb"
    size: tuple[str, ...] = ()
    hash: str = ""
    hash_algorithm: str = ""
    constant: str = ""


class UrlTableSource:
    """The rows of one table, or of a folder of tables in one format, as written by img2dataset.

    Without a key column, the key of a row is a hash of its URL, so that tables may grow.
    """

    def __init__(
        self, table: str | Path, columns: ColumnMapping | None = None, *, layout: TableLayout | None = None
    ) -> None:
        self._given, self._columns, self._layout = (
            redact(str(table)),
            columns or ColumnMapping(),
            layout or TableLayout(),
        )
        self.summary = ""
        if self._columns.box_format not in BOX_FORMATS:
            raise SourceError(
                f"the box format {self._columns.box_format!r} is not one of {', '.join(BOX_FORMATS)}",
                hint="give another --box-format",
            )
        if len(self._columns.box) not in (0, 1, 4):
            raise SourceError(
                "a box is one column with four numbers, or four columns",
                hint="give --box-column one name, or four separated by commas",
            )
        if len(self._columns.size) > 2:
            raise SourceError(
                "a size is one column with two numbers, or two columns",
                hint="give --size-columns WIDTH,HEIGHT, or the name of one column",
            )
        files = _files(local_copy(table), self._given, self._layout.format)
        self._tables = [TableFile(path, self._layout) for path in files]
        log_decisions(self._tables)
        for each in self._tables:
            _Reader(each, self._columns)  # report missing columns before planning

    def describe(self) -> dict[str, Any]:
        given = {name: getattr(self._columns, name) for name in ColumnMapping.__slots__}
        chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value}
        layout = {name: getattr(self._layout, name) for name in ("columns", "delimiter", "encoding")}
        said = {f"table_{name}": list(value) if name == "columns" else value for name, value in layout.items() if value}
        return {"kind": "urls", "table": self._given, "format": self._layout.format or None, "columns": chosen, **said}

    def digest(self) -> str:
        return hashlib.sha256("\n".join(file_sha256(table.path) for table in self._tables).encode()).hexdigest()

    def samples(self) -> Iterator[Sample]:
        for table in self._tables:
            reader = _Reader(table, self._columns)
            for row in table.rows(reader.wanted):
                yield reader.sample(row)


class _Reader:
    """Converts the rows of one table to samples. Raises SourceError, with a hint, if a column is missing."""

    def __init__(self, table: TableFile, given: ColumnMapping) -> None:
        self._table, self._given = table, given
        url, key = self._find("url", given.url), self._find("key", given.key)
        identity = "" if given.constant else self._find("identity", given.identity)
        if not url:
            raise self._missing("url", "name the column with --url-column COLUMN")
        if not identity and not given.constant:
            raise self._missing(
                "identity", "name the column with --identity-column COLUMN, or the one identity with --identity NAME"
            )
        box = self._box_columns()
        self._size_columns = self._find_size(box)
        hashed = self._find("hash", given.hash)
        places = [(name,) if name else () for name in (url, identity, key, hashed)] + [box, self._size_columns]
        self.wanted = [name for names in places for name in names]
        ends = [sum(map(len, places[: i + 1])) for i in range(len(places))]
        self._places = [slice(end - len(names), end) for end, names in zip(ends, places, strict=True)]

    def sample(self, row: TableRow) -> Sample:
        where = f"{self._table.path.name} {self._table.where} {row.number}"
        if row.error:
            return bad_line_sample(where, row.error, row.content)
        url, identity, key, digest, edges, sides = (row.values[place] for place in self._places)
        try:
            link, person = _text(url, "url"), self._given.constant or _text(identity, "identity")
            if not link or not person:
                raise ValueError("url or identity is empty")
            name = _text(key, "key") or hashlib.sha256(link.encode()).hexdigest()[:16]
            box = parse_box(edges, self._given.box_format)
            size = None if box is None else _RELATIVE if _is_relative(box) else self._size(sides)
            published = parse_hash(_text(digest, "hash"), self._given.hash_algorithm)
        except ValueError as error:
            return bad_line_sample(where, str(error), format_value(row.values))
        return named_sample(person, name, where, url=link, box=box, box_frame="stored", box_size=size, hash=published)

    def _size(self, values: Sequence[Any]) -> tuple[int, int] | None:
        """Return the (width, height) in the size columns; None if they are empty."""
        numbers = list(_numbers(values[0]) if len(values) == 1 else values)
        if all(value is None or value == "" for value in numbers):
            return None
        try:
            width, height = (int(float(value)) for value in numbers)
        except (TypeError, ValueError, OverflowError):
            width = height = 0
        if width < 1 or height < 1:
            raise ValueError(f"the size {str(numbers)[:100]} is not a width and a height")
        upside = len(self._size_columns) == 1 and self._size_columns[0].lower().startswith(("h", "row"))
        return (height, width) if upside else (width, height)

    def _find_size(self, box: tuple[str, ...]) -> tuple[str, ...]:
        """Return the given columns of the published photo's size, or guessed ones that are no part of the box."""
        if self._given.size:
            return tuple(self._find("size", name) for name in self._given.size)
        lowered = {" ".join(name.lower().split()): name for name in reversed(self._table.columns) if name not in box}
        return next(
            (tuple(lowered[n] for n in names) for names in _SIZES if box and all(n in lowered for n in names)), ()
        )

    def _find(self, what: str, given: str) -> str:
        """Return the given column, or a guessed one, or an empty string."""
        names = self._table.columns
        if given:
            if given not in names:
                raise self._missing(given, f"give an existing column with --{_OPTIONS.get(what, f'{what}-column')}")
            return given
        lowered = {name.lower(): name for name in reversed(names)}
        return next((lowered[guess] for guess in _GUESSES.get(what, ()) if guess in lowered), "")

    def _box_columns(self) -> tuple[str, ...]:
        if self._given.box:
            return tuple(self._find("box", name) for name in self._given.box)
        lowered = {name.lower(): name for name in reversed(self._table.columns)}
        for edges in _EDGES:
            found = tuple(lowered[edge] for edge in edges if edge in lowered)
            if len(found) == 4:
                return found
            if found and edges is _EDGES[0]:
                raise SourceError(
                    f"{self._table.path}: a box needs left, top, right and bottom; it has only {', '.join(found)}"
                )
        return ()

    def _missing(self, name: str, remedy: str) -> SourceError:
        if name == "url" and self._table.format == "parquet" and "image" in self._table.columns:
            remedy = f"the images are in the table itself: dataprep import rec {self._table.path.parent}"
        names = ", ".join(self._table.columns[:50]) or "none"
        shown = names[:1000].encode("utf-8", "replace").decode()
        return SourceError(f"{self._table.path}: the column {name!r} is missing; its columns are: {shown}", hint=remedy)


def _files(path: Path, given: str, format: str) -> list[Path]:
    """Return the table itself, or a folder's tables of the first format present, Parquet first."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SourceError(f"{given}: no such file")
    for kind in [format] if format else ["parquet", *TABLE_FORMATS]:
        found = sorted([*path.glob(f"*.{kind}"), *path.glob(f"*.{kind}.gz")])
        if found:
            return found
    raise SourceError(f"{given}: the folder has no tables ({', '.join(TABLE_FORMATS)})")


def _text(values: Sequence[Any], what: str) -> str:
    """Return the text of an optional column."""
    value = values[0] if values else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, _TEXT):
        raise ValueError(f"{what} is neither text nor a number")
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def parse_box(values: Sequence[Any], format: str) -> Box | None:
    """Parse a box from four values, or from one list or text `x1,y1,x2,y2`. Returns None if it is empty."""
    if len(values) == 1:
        values = _numbers(values[0])
    if all(value is None or value == "" for value in values):
        return None
    try:
        left, top, right, bottom = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"the box {str(list(values))[:100]} is not four numbers") from None
    if format == "ltwh":
        right, bottom = left + right, top + bottom
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError(f"the box {str(list(values))[:100]} is not four numbers")
    return Box(left, top, right, bottom)


def _is_relative(box: Box) -> bool:
    """Whether the box is in shares of the photo: no face has less than a pixel."""
    return 0 <= box.left < box.right <= 1 and 0 <= box.top < box.bottom <= 1


def _numbers(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        return re.sub(r"[\[\]()]", "", value).replace(",", " ").replace("x", " ").split()
    return value if isinstance(value, (list, tuple)) else [value]


def parse_hash(text: str, algorithm: str) -> str:
    """Return `algorithm:hex`. The algorithm is given, or a prefix of the text, or follows from the length."""
    if not text:
        return ""
    prefix, _, digits = text.lower().rpartition(":")
    known = _ALGORITHMS.get(len(digits), "")
    if not re.fullmatch("[0-9a-f]+", digits) or not known or any(n and n != known for n in (prefix, algorithm)):
        raise ValueError(f"the hash {text[:140]!r} is not a hexadecimal {algorithm or 'hash'}")
    return f"{known}:{digits}"
