"""Lists of pairs as text, in the forms that people have.

pairs.txt: a line `folds TAB pairs-of-each-kind`, then for each fold the positives `name i j` and the negatives
`name1 i name2 j`; photo i of a name is `name/name_%04d`. Source: LFW's README, facenet data/pairs.txt. LFW's view 1 begins
with `pairs-of-each-kind` alone, RFW's lists and Kaggle's pairs.csv with no such line.
`left right label`, or the label first: Face_Pytorch's AgeDB-30 and CFP-FP lists (1 and -1), insightface's pairs_label.txt
(1 and 0). Tables with a header call the columns left, path1, file_x, ... Two lines a pair, `file fold-or-label` (0 for a
negative pair): CALFW's and CPLFW's lists.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataprep.errors import RecordError
from dataprep.packs.pair_sampling import PairList, consecutive_folds
from dataprep.text import forward_slashes, iterate_lines

_YES = ("1", "+1", "1.0", "true", "yes", "y", "same", "t")
_NO = ("0", "-1", "0.0", "-1.0", "false", "no", "n", "different", "diff", "f")
_SAME = {**dict.fromkeys(_YES, True), **dict.fromkeys(_NO, False)}
_HEADER = re.compile(r"\s*(\d{1,9})(?:\s+(\d{1,9}))?\s*")
_COLUMNS = {
    "left": ("left", "path1", "file_x", "file1", "image1", "img1", "a", "left_image", "x"),
    "right": ("right", "path2", "file_y", "file2", "image2", "img2", "b", "right_image", "y"),
    "same": ("same", "label", "decision", "issame", "is_same", "match", "target", "is_match", "positive"),
    "fold": ("fold", "split", "set"),
}
# names may hold blanks: `George W Bush 1 2`, `George W Bush 1 Bob Dole 3`
_POSITIVE, _NEGATIVE = re.compile(r"(.+?)\s+(\d+)\s+(\d+)"), re.compile(r"(.+?)\s+(\d+)\s+(.*?\D.*?)\s+(\d+)")

_Lines = Sequence[tuple[int, str]]


def read_pairs(path: Path) -> PairList:
    """The pairs of a text file in any of the forms above, recognised by its first lines; UTF-8 or another encoding of text.

    Lists without folds get ten consecutive ones. Raises RecordError with the number of a bad line.
    """
    lines = [(number, line) for number, line in iterate_lines(path, error=RecordError) if line.strip()]
    if not lines:
        raise RecordError(f"{path} holds no pairs")
    try:
        return _recognised(lines, is_table=path.suffix.lower() == ".csv")
    except RecordError as error:
        raise error.within(path) from None


def _recognised(lines: _Lines, *, is_table: bool) -> PairList:
    header = _HEADER.fullmatch(lines[0][1])
    if header is not None and len(lines) > 1:
        return _pairs_txt(lines[1:], header)
    delimiter = _delimiter(lines)
    if delimiter in (",", ";", "|") or is_table:
        return _table(lines, delimiter or ",")
    fields = [_split(line, delimiter) for _, line in lines]
    if all(len(row) == 2 for row in fields) and len(lines) > 1:
        return _two_lines_a_pair(lines, fields)
    if all(len(row) == 3 for row in fields) and _is_label(fields[0][2]):
        return _labelled(lines, [(row[0], row[1], row[2]) for row in fields])
    if all(len(row) == 3 for row in fields) and _is_label(fields[0][0]):
        return _labelled(lines, [(row[1], row[2], row[0]) for row in fields])
    if _numbered(lines[0][1], delimiter) is not None:
        return _without_header(lines, delimiter)
    number, line = next((pair for pair, row in zip(lines, fields, strict=True) if len(row) != 3), lines[0])
    raise RecordError(f"line {number}: expected `left right label`, found {line[:80]!r}")


def _delimiter(lines: _Lines) -> str:
    """The character between the fields: one that is in each of the first lines; empty for blanks."""
    first = [line for _, line in lines[:20]]
    return next((mark for mark in "\t,;|" if all(line.count(mark) >= 1 for line in first)), "")


def _split(line: str, delimiter: str) -> list[str]:
    return [field.strip() for field in line.strip().split(delimiter)] if delimiter else line.split()


def _is_label(word: str) -> bool:
    return word.strip().lower() in _SAME


def format_pair_list(pairs: PairList) -> str:
    """`left right 1` and `left right -1` lines, as Face_Pytorch reads them."""
    named = zip(pairs.left, pairs.right, pairs.issame.tolist(), strict=True)
    return "".join(f"{left} {right} {1 if same else -1}\n" for left, right, same in named)


def _pairs_txt(lines: _Lines, header: re.Match[str]) -> PairList:
    folds, each = (int(header[1]), int(header[2])) if header[2] else (1, int(header[1]))
    if not folds or not each or len(lines) != 2 * folds * each:
        raise RecordError(
            f"the first line promises {folds} folds of 2 x {each} pairs, {2 * folds * each} in all; found {len(lines)}"
        )
    left, right, same = [], [], []
    for index, (number, line) in enumerate(lines):
        positive = index % (2 * each) < each
        found = _numbered(line, "\t" if "\t" in line else "")
        if found is None or found[2] != positive:
            wanted = "`name i j`" if positive else "`name i name j`"
            _check_numbers(line, number)
            raise RecordError(
                f"line {number}: expected {wanted} ({each} pairs of each kind per fold), found {line[:80]!r}"
            )
        left.append(found[0])
        right.append(found[1])
        same.append(positive)
    issame = np.array(same)
    # view 1 has no folds, and its positive pairs come first
    fold = np.repeat(np.arange(folds), 2 * each) if header[2] else np.arange(len(lines)) % each % min(10, each)
    return PairList(left=tuple(left), right=tuple(right), issame=issame, fold=fold)


def _check_numbers(line: str, number: int) -> None:
    """Raises RecordError for a line of LFW's form whose number of a photo is none."""
    fields = _split(line, "\t" if "\t" in line else "")
    for index in (1, 2) if len(fields) == 3 else (1, 3) if len(fields) == 4 else ():
        if not fields[index].isdecimal() or len(fields[index]) > 9:
            raise RecordError(f"line {number}: {fields[index][:40]!r} is not the number of a photo")


def _numbered(line: str, delimiter: str) -> tuple[str, str, bool] | None:
    """The pair of a line `name i j` or `name1 i name2 j`: (left, right, same); None for another line."""
    if delimiter:
        fields = _split(line, delimiter)
        while fields and not fields[-1]:  # Kaggle ends positive pairs with a comma
            fields.pop()
    else:
        found = _POSITIVE.fullmatch(line.strip()) or _NEGATIVE.fullmatch(line.strip())
        fields = list(found.groups()) if found else []
    numbers = {3: (1, 2), 4: (1, 3)}.get(len(fields), ())
    if not numbers or not all(fields[at].isdecimal() and len(fields[at]) <= 9 for at in numbers):
        return None
    other = fields[0] if len(fields) == 3 else fields[2]
    return _photo(fields[0], fields[1]), _photo(other, fields[-1]), len(fields) == 3


def _photo(name: str, index: str) -> str:
    return f"{name}/{name}_{int(index):04d}"


def _without_header(lines: _Lines, delimiter: str) -> PairList:
    rows = []
    for number, line in lines:
        found = _numbered(line, delimiter)
        if found is None:
            _check_numbers(line, number)
            raise RecordError(f"line {number}: expected `name i j` or `name i name j`, found {line[:80]!r}")
        rows.append(found)
    return _listed(rows)


def _two_lines_a_pair(lines: _Lines, fields: Sequence[Sequence[str]]) -> PairList:
    rows = []
    if len(lines) % 2:
        raise RecordError(f"{len(lines)} lines `file number`; two lines make a pair")
    for (one, two), (number, line) in zip(zip(fields[::2], fields[1::2], strict=True), lines[1::2], strict=True):
        if one[1] != two[1] or not one[1].isdecimal():
            raise RecordError(f"line {number}: the two lines of a pair need one number, found {line[:80]!r}")
        rows.append((one[0], two[0], one[1] != "0"))
    return _listed(rows)


def _labelled(lines: _Lines, rows: Sequence[tuple[str, str, str]]) -> PairList:
    named = zip(rows, lines, strict=True)
    return _listed([(left, right, _same(label, number)) for (left, right, label), (number, _) in named])


def _listed(rows: Sequence[tuple[str, str, bool]]) -> PairList:
    return PairList(
        left=tuple(forward_slashes(row[0]) for row in rows),
        right=tuple(forward_slashes(row[1]) for row in rows),
        issame=np.array([row[2] for row in rows], bool),
        fold=consecutive_folds(len(rows)),
    )


def _table(lines: _Lines, delimiter: str) -> PairList:
    """left,right,same[,fold]; a header line may give the columns another order or name. Or LFW's form with commas."""
    first = [field.strip().lower() for field in _fields(*lines[0], delimiter)]
    place = {name: next((first.index(word) for word in words if word in first), -1) for name, words in _COLUMNS.items()}
    if min(place["left"], place["right"], place["same"]) >= 0:
        lines = lines[1:]
    elif len(first) >= 3 and _is_label(first[2]):
        place = {"left": 0, "right": 1, "same": 2, "fold": 3}
    elif len(lines) > 1 and _numbered(lines[1][1], delimiter) is not None:
        return _without_header(lines if _numbered(lines[0][1], delimiter) else lines[1:], delimiter)
    else:
        raise RecordError(f"line 1: expected the columns left,right,same[,fold], found {lines[0][1][:80]!r}")
    left, right, same, fold = [], [], [], []
    for number, line in lines:
        fields = [field.strip() for field in _fields(number, line, delimiter)]
        if len(fields) <= max(place["left"], place["right"], place["same"]):
            raise RecordError(f"line {number}: too few columns in {line[:80]!r}")
        left.append(forward_slashes(fields[place["left"]]))
        right.append(forward_slashes(fields[place["right"]]))
        same.append(_same(fields[place["same"]], number))
        fold.append(fields[place["fold"]] if 0 <= place["fold"] < len(fields) else "")
    given = len([name for name in fold if name])
    if given not in (0, len(fold)):
        raise RecordError(f"only {given} of {len(fold)} lines name a fold; all or none must")
    order = {name: i for i, name in enumerate(sorted(set(fold), key=lambda name: (len(name), name)))}
    folds = np.array([order[name] for name in fold], np.int64) if given else consecutive_folds(len(left))
    return PairList(left=tuple(left), right=tuple(right), issame=np.array(same, bool), fold=folds)


def _fields(number: int, line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise RecordError(f"line {number}: not valid CSV ({error}): {line[:80]!r}") from None


def _same(word: str, number: int) -> bool:
    found = _SAME.get(word.strip().lower())
    if found is None:
        raise RecordError(f"line {number}: {word[:40]!r} is not a label; 1 means same person, 0 or -1 different")
    return found
