"""Lists of images: the .lst files beside packs, in the field's two dialects, which look alike but differ, and `path label`.

insightface: `aligned TAB path TAB label [TAB x1 y1 x2 y2 [TAB five xs, five ys]]`, 3, 7 or 17 columns.
mxnet's im2rec: `index TAB label [TAB more labels] TAB path`, with blanks around the TABs as it takes them.
path-label: `path label`, parted by blanks, a TAB, a comma or a semicolon (Face_Pytorch, FaceX-Zoo, CelebA, arcface_paddle).
Sources: insightface (2020) src/common/face_preprocess.py parse_lst_line; mxnet tools/im2rec.py read_list, write_list.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from dataprep.errors import RecordError
from dataprep.text import forward_slashes, iterate_lines

Dialect = Literal["insightface", "mxnet", "path-label"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEntry:
    """A line of a .lst. `key` is mxnet's index, or the line number. `box` is left, top, right, bottom in pixels.
    `landmarks` are five (x, y): left eye, right eye, nose, left and right mouth corner. Labels of path-label lists are any
    whole numbers."""

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
            f"{path}: every line fits the dialects {' and '.join(found)}", hint="choose one with --dialect"
        )
    return dialect or found[0]


def iterate_lst(path: str | os.PathLike[str], dialect: Dialect) -> Iterator[ListEntry]:
    """Stream the entries of a list in the dialect from `detect_lst_dialect`; coordinates are not checked."""
    read = {"insightface": _insightface_entry, "mxnet": _mxnet_entry, "path-label": _path_label_entry}[dialect]
    for number, fields in _rows(path):
        yield read(fields, number)


def _rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Number and fields, parted by TABs, of every line that is not blank; without the TAB that some write at its end."""
    for number, line in iterate_lines(path, error=RecordError):
        fields = [field.strip() for field in line.split("\t")]
        while len(fields) > 1 and not fields[-1]:
            fields.pop()
        if fields != [""]:
            yield number, fields


_FORMS = {
    "insightface": "aligned TAB path TAB label ...",
    "mxnet": "index TAB label ... TAB path",
    "path-label": "path label",
}
_PATH_LABEL = re.compile(r"(.+?)[\s,;]+(-?\d{1,18})")


def _recognise(rows: Iterable[tuple[int, list[str]]], path: str | os.PathLike[str]) -> list[Dialect]:
    """The dialects that every line fits."""
    possible: list[Dialect] = ["insightface", "mxnet", "path-label"]
    number = 0
    for number, fields in rows:
        fitting = [dialect for dialect in possible if _fits(fields, dialect)]
        if not fitting:
            shown = "\t".join(fields)[:80]
            raise RecordError(
                f"{path}, line {number}: {shown!r} is none of `{_FORMS['insightface']}` with 3, 7 or 17 columns, "
                f"`{_FORMS['mxnet']}` and `{_FORMS['path-label']}`"
                + (f" (the lines before it are {possible[0]}'s)" if len(possible) == 1 else "")
                + "; names cannot contain TABs"
            )  # fmt: skip
        possible = fitting
    if not number:
        raise RecordError(f"{path}: the list is empty")
    return possible


def _fits(fields: list[str], dialect: Dialect) -> bool:
    if dialect == "path-label":
        found = _PATH_LABEL.fullmatch("\t".join(fields))
        # `1 a.jpg 0` is another list with blanks for TABs
        return len(fields) <= 2 and found is not None and not _is_number(found[1].split()[0])
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
        path=forward_slashes(fields[1]),
        labels=(float(int(fields[2])),),
        aligned=fields[0] == "1",
        box=(numbers[0], numbers[1], numbers[2], numbers[3]) if numbers else None,
        # five xs, then five ys, unlike most other lists
        landmarks=tuple(zip(points[:5], points[5:], strict=True)) if points else None,
    )


def _mxnet_entry(fields: list[str], number: int) -> ListEntry:
    return ListEntry(
        key=int(fields[0]), path=forward_slashes(fields[-1]), labels=tuple(float(field) for field in fields[1:-1])
    )


def _path_label_entry(fields: list[str], number: int) -> ListEntry:
    found = _PATH_LABEL.fullmatch("\t".join(fields))
    assert found is not None  # the dialect was recognised
    return ListEntry(key=number, path=forward_slashes(found[1]), labels=(float(int(found[2])),))


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
