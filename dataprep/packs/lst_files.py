"""The .lst files beside packs, in the field's two dialects, which look alike but differ.

insightface: `aligned TAB path TAB label [TAB x1 y1 x2 y2 [TAB five xs, five ys]]`, 3, 7 or 17 columns.
mxnet's im2rec: `index TAB label [TAB more labels] TAB path`.
Sources: insightface (2020) src/common/face_preprocess.py parse_lst_line; mxnet tools/im2rec.py read_list, write_list.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from dataprep.errors import RecordError

Dialect = Literal["insightface", "mxnet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEntry:
    """A line of a .lst. `key` is mxnet's index, or the line number. `box` is left, top, right, bottom in pixels.
    `landmarks` are five (x, y): left eye, right eye, nose, left and right mouth corner."""

    key: int
    path: str
    labels: tuple[float, ...]
    aligned: bool = True
    box: tuple[float, float, float, float] | None = None
    landmarks: tuple[tuple[float, float], ...] | None = None


def format_insightface_line(name: str, label: int) -> str:
    """`1 TAB path TAB label`: an aligned image."""
    return f"1\t{_checked(name)}\t{label}\n"


def format_mxnet_line(key: int, label: int, name: str) -> str:
    """`index TAB label TAB path`, the label as im2rec prints it."""
    return f"{key}\t{label:f}\t{_checked(name)}\n"


def read_lst(path: str | os.PathLike[str], dialect: Dialect | None = None) -> tuple[Dialect, list[ListEntry]]:
    """The dialect and the entries of a .lst. Without `dialect`, it is recognised from all lines together.

    Raises RecordError naming a line that fits no dialect, does not fit `dialect`, or has non-finite coordinates.
    """
    chosen = detect_lst_dialect(path, dialect)
    entries = list(iterate_lst(path, chosen))
    for entry in entries:
        if not all(map(math.isfinite, (*(entry.box or ()), *(v for point in entry.landmarks or () for v in point)))):
            raise RecordError(f"{path}, line {entry.key}: a coordinate is not finite")
    return chosen, entries


def detect_lst_dialect(path: str | os.PathLike[str], dialect: Dialect | None = None) -> Dialect:
    """The dialect that every line fits; must equal `dialect` if given. Streams the file. Raises RecordError."""
    found = _recognise(_rows(path), path)
    if dialect and dialect not in found:
        raise RecordError(
            f"{path}: the list is in {found[0]}'s dialect ({_FORMS[found[0]]}), not in {dialect}'s ({_FORMS[dialect]})"
        )
    if not dialect and len(found) > 1:
        raise RecordError(
            f"{path}: every line fits both dialects", hint="choose with --dialect insightface or --dialect mxnet"
        )
    return dialect or found[0]


def iterate_lst(path: str | os.PathLike[str], dialect: Dialect) -> Iterator[ListEntry]:
    """Stream the entries of a list in the dialect from `detect_lst_dialect`; coordinates are not checked."""
    read = _insightface_entry if dialect == "insightface" else _mxnet_entry
    for number, fields in _rows(path):
        yield read(fields, number)


def _rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of every non-blank line."""
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                text = line.decode("utf-8").removesuffix("\n").removesuffix("\r")
                if text.strip():
                    yield number, text.split("\t")
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}, line {number}: not UTF-8 text ({error.reason})") from None


_FORMS = {"insightface": "aligned TAB path TAB label ...", "mxnet": "index TAB label ... TAB path"}


def _recognise(rows: Iterable[tuple[int, list[str]]], path: str | os.PathLike[str]) -> list[Dialect]:
    """The dialects that every line fits."""
    possible: list[Dialect] = ["insightface", "mxnet"]
    number = 0
    for number, fields in rows:
        fitting = [dialect for dialect in possible if _fits(fields, dialect)]
        if not fitting:
            shown = "\t".join(fields)[:80]
            raise RecordError(
                f"{path}, line {number}: {shown!r} is neither `{_FORMS['insightface']}` with 3, 7 or 17 columns nor "
                f"`{_FORMS['mxnet']}`" + (f" (the lines before it are {possible[0]}'s)" if len(possible) == 1 else "")
                + "; names cannot contain TABs"
            )  # fmt: skip
        possible = fitting
    if not number:
        raise RecordError(f"{path}: the list is empty")
    return possible


def _fits(fields: list[str], dialect: Dialect) -> bool:
    if dialect == "mxnet":
        return len(fields) >= 3 and _is_whole(fields[0]) and all(map(_is_number, fields[1:-1])) and fields[-1] != ""
    return (
        len(fields) in (3, 7, 17)
        and fields[0] in ("0", "1")
        and fields[1] != ""
        and _is_whole(fields[2])
        and all(map(_is_number, fields[3:]))
    )


def _insightface_entry(fields: list[str], number: int) -> ListEntry:
    numbers = [float(field) for field in fields[3:]]
    points = numbers[4:]
    return ListEntry(
        key=number,
        path=fields[1],
        labels=(float(int(fields[2])),),
        aligned=fields[0] == "1",
        box=(numbers[0], numbers[1], numbers[2], numbers[3]) if numbers else None,
        # five xs, then five ys, unlike most other lists
        landmarks=tuple(zip(points[:5], points[5:], strict=True)) if points else None,
    )


def _mxnet_entry(fields: list[str], number: int) -> ListEntry:
    return ListEntry(key=int(fields[0]), path=fields[-1], labels=tuple(float(field) for field in fields[1:-1]))


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python's own digit separator


def _checked(name: str) -> str:
    if "\t" in name or "\n" in name or "\r" in name:
        raise RecordError(f"{name!r}: a .lst is TAB-separated, so a path in it cannot hold TABs or line breaks")
    return name
