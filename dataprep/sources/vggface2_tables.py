"""VGGFace2's tables of boxes, landmarks and names, in all the quoting styles of their copies.

loose_bb_*.csv is `NAME_ID,X,Y,W,H`, loose_landmark_*.csv `NAME_ID,P1X,P1Y,...,P5X,P5Y`, both in pixels of the released
photos. A row is, for example, `"n000001/0001_01",60,60,79,109`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.errors import SourceError
from dataprep.text import iterate_lines

# copies saved by a spreadsheet lack the number of samples in most rows; some use ; or tabs
_BLANK = r"""[\s"']*"""
_NAMES = re.compile(
    rf"^{_BLANK}(n\d+){_BLANK}[,;\t]\s*(.*?)\s*[,;\t](?:{_BLANK}\d+{_BLANK}[,;\t])?{_BLANK}[01]{_BLANK}[,;\t]"
    rf"""{_BLANK}[mf][\s"',;]*$""",
    re.IGNORECASE,
)
_CLASS = re.compile(rf"{_BLANK}n\d{{6}}")
_NULLS = ["", "nan", "NaN", "NA", "null", "NULL", "None", "-", "?"]


class CoordinateTable:
    """`width` numbers per photo, in memory at about 100 bytes per row, looked up by binary search."""

    def __init__(self, tables: Sequence[Path], width: int) -> None:
        read = [_read(table, width) for table in tables]
        names = np.concatenate([names for names, _, _ in read]) if read else np.zeros(0, "S1")
        order = np.argsort(names, kind="stable")
        self._names = names[order]
        self._values = np.concatenate([values for _, values, _ in read])[order] if read else np.zeros((0, width))
        self._used = np.zeros(len(names), bool)
        self.malformed = sum(malformed for _, _, malformed in read)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def count_unused(self) -> int:
        """The number of rows never looked up: their photo does not exist, or their name is a repetition."""
        return int(len(self) - self._used.sum())

    def lookup(self, name: str) -> npt.NDArray[np.float64] | None:
        """Return the numbers of a photo, NaN where missing; None if it has no row. The first row counts."""
        wanted = name.encode()
        at = int(np.searchsorted(self._names, wanted))
        if at == len(self._names) or self._names[at] != wanted:
            return None
        self._used[at] = True
        found: npt.NDArray[np.float64] = self._values[at]
        return found


class ClassNames(NamedTuple):
    """Names by class, and the number of rows that start with a class but have no name."""

    by_class: dict[str, str]
    malformed: int


def read_class_names(table: Path) -> ClassNames:
    """Read Class_ID and Name from identity_meta.csv. Names are not changed."""
    found: dict[str, str] = {}
    malformed = 0
    for _, line in iterate_lines(table):
        match = _NAMES.match(line)
        if match and (name := match[2].strip(" \"'\t")):
            found.setdefault(match[1], name)
        else:
            malformed += _CLASS.match(line) is not None
    if not found:
        raise SourceError(f"{table}: no row like `n000001, 14th_Dalai_Lama, 424, 0, m`; is it identity_meta.csv?")
    return ClassNames(found, malformed)


def _read(table: Path, width: int) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.float64], int]:
    """Return names, numbers (rows, width), and the number of rows with a wrong column count or a non-number."""
    import pyarrow as pa
    from pyarrow import csv

    malformed = 0

    def skip(row: csv.InvalidRow) -> str:
        nonlocal malformed
        malformed += 1
        return "skip"

    columns = ["name", *(f"c{i}" for i in range(width))]
    names, values = [np.zeros(0, "S1")], [np.zeros((0, width))]
    try:
        with csv.open_csv(
            table,
            read_options=csv.ReadOptions(column_names=columns, skip_rows=_head_rows(table, width), use_threads=False),
            parse_options=csv.ParseOptions(invalid_row_handler=skip),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        ) as reader:
            for batch in reader:
                numbers, wrong = _numbers(batch.columns[1:])
                names.append(_photo_names(batch.column(0)))
                values.append(numbers)
                malformed += int(wrong.sum())
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{table}: not a readable table ({error})") from None
    return np.concatenate(names), np.concatenate(values), malformed


def _head_rows(table: Path, width: int) -> int:
    """Return 1 if the table has a header, else 0. Raises SourceError if the header has the wrong number of columns."""
    with open(table, "rb") as stream:
        head = stream.readline(1000)
    if not re.match(rb'[\s"\xef\xbb\xbf]*NAME', head, re.IGNORECASE):
        return 0
    if head.count(b",") != width:
        raise SourceError(f"{table}: {head.count(b',') + 1} columns, {head[:60]!r}; expected {width + 1}")
    return 1


def _photo_names(column: Any) -> npt.NDArray[np.bytes_]:
    """Return names such as n000001/0001_01 from `""n000001/0001_01""`, `train/n000001/0001_01.jpg` and similar."""
    import pyarrow.compute as pc

    plain = pc.utf8_trim(column, characters=' "\t\ufeff')
    plain = pc.replace_substring_regex(plain, r"^(?:.*/)?([^/]+/[^/.]+)(?:\.\w+)?$", r"\1")
    return np.array([name.encode() for name in plain.to_pylist()] or [b""], "S")[: len(plain)]


def _numbers(columns: Sequence[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return numbers (rows, columns), NaN where missing, and a mask of rows with an invalid text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers, wrong = [], np.zeros(len(columns[0]), bool)
    for column in columns:
        text = pc.utf8_trim(column, characters=' "\t')
        text = pc.if_else(pc.is_in(text, pa.array(_NULLS)), "nan", text)
        try:
            numbers.append(pc.cast(text, pa.float64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            found, bad = _one_by_one(text.to_pylist())
            numbers.append(found)
            wrong |= bad
    return np.stack(numbers, axis=1), wrong


def _one_by_one(texts: Sequence[str]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    numbers, wrong = np.full(len(texts), np.nan), np.zeros(len(texts), bool)
    for position, text in enumerate(texts):
        try:
            numbers[position] = float(text)
        except ValueError:
            wrong[position] = True
    return numbers, wrong
