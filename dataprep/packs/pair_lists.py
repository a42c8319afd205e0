"""Lists of pairs as text: LFW's pairs.txt, `left right label` lines, and CSV.

pairs.txt: a line `folds TAB pairs-of-each-kind`, then for each fold the positives `name i j` and the negatives
`name1 i name2 j`; photo i of a name is `name/name_%04d`. Source: LFW's README, facenet data/pairs.txt.
`left right label`: Face_Pytorch's AgeDB-30 and CFP-FP lists (1 and -1), insightface's pairs_label.txt (1 and 0).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataprep.errors import RecordError
from dataprep.packs.pair_sampling import PairList, consecutive_folds

_SAME = {"1": True, "+1": True, "true": True, "same": True, "0": False, "-1": False, "false": False, "different": False}
_HEADER = re.compile(r"\s*(\d{1,9})(?:\s+(\d{1,9}))?\s*")


def read_pairs(path: Path) -> PairList:
    """The pairs of a text file in any of the three forms, recognised by how the file begins.

    Lists without folds get ten consecutive ones. Raises RecordError with the number of a bad line.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # not splitlines: a name may hold U+2028
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecordError(f"{path}: neither a .bin nor UTF-8 text") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise RecordError(f"{path} holds no pairs")
    try:
        if header := _HEADER.fullmatch(numbered[0][1]):
            return _pairs_txt(numbered[1:], header)
        if path.suffix.lower() == ".csv" or numbered[0][1].count(",") >= 2:
            return _table(numbered)
        return _lines(numbered)
    except RecordError as error:
        raise error.within(path) from None


def format_pair_list(pairs: PairList) -> str:
    """`left right 1` and `left right -1` lines, as Face_Pytorch reads them."""
    named = zip(pairs.left, pairs.right, pairs.issame.tolist(), strict=True)
    return "".join(f"{left} {right} {1 if same else -1}\n" for left, right, same in named)


def _pairs_txt(lines: Sequence[tuple[int, str]], header: re.Match[str]) -> PairList:
    if header[2] is None:
        raise RecordError(
            "the list has one fold (LFW's view 1, for development); the ten-fold protocols need view 2, which begins "
            "with the line `10 TAB 300`"
        )
    folds, each = int(header[1]), int(header[2])
    if not folds or not each or len(lines) != 2 * folds * each:
        raise RecordError(
            f"the first line promises {folds} folds of 2 x {each} pairs, {2 * folds * each} in all; found {len(lines)}"
        )
    left, right, same = [], [], []
    for index, (number, line) in enumerate(lines):
        fields = line.strip().split("\t") if "\t" in line else line.split()
        positive = index % (2 * each) < each
        if len(fields) != (3 if positive else 4):
            wanted = "`name i j`" if positive else "`name i name j`"
            raise RecordError(
                f"line {number}: expected {wanted} ({each} pairs of each kind per fold), found {line[:80]!r}"
            )
        left.append(_photo(fields[0], fields[1], number))
        right.append(_photo(fields[0] if positive else fields[2], fields[-1], number))
        same.append(positive)
    return PairList(
        left=tuple(left), right=tuple(right), issame=np.array(same), fold=np.repeat(np.arange(folds), 2 * each)
    )


def _photo(name: str, index: str, number: int) -> str:
    if not index.strip().isdecimal() or len(index) > 9:
        raise RecordError(f"line {number}: {index[:40]!r} is not the number of a photo")
    return f"{name}/{name}_{int(index):04d}"


def _lines(lines: Sequence[tuple[int, str]]) -> PairList:
    rows = []
    for number, line in lines:
        fields = line.strip().split("\t") if "\t" in line else line.split()
        if len(fields) != 3:
            raise RecordError(f"line {number}: expected `left right label`, found {line[:80]!r}")
        rows.append((fields[0], fields[1], _same(fields[2], number)))
    return PairList(
        left=tuple(row[0] for row in rows),
        right=tuple(row[1] for row in rows),
        issame=np.array([row[2] for row in rows]),
        fold=consecutive_folds(len(rows)),
    )


def _table(lines: Sequence[tuple[int, str]]) -> PairList:
    """left,right,same[,fold]; a header line may give the columns another order."""
    columns = ["left", "right", "same", "fold"]
    first = [field.strip().lower() for field in _fields(*lines[0])]
    named = {"left", "right", "same"} <= set(first)
    if named or len(first) < 3 or first[2] not in _SAME:
        if not named:
            raise RecordError(f"line 1: expected the columns left,right,same[,fold], found {lines[0][1][:80]!r}")
        columns, lines = first, lines[1:]
    place = {name: columns.index(name) for name in ("left", "right", "same", "fold") if name in columns}
    left, right, same, fold = [], [], [], []
    for number, line in lines:
        fields = [field.strip() for field in _fields(number, line)]
        if len(fields) <= max(place["left"], place["right"], place["same"]):
            raise RecordError(f"line {number}: too few columns in {line[:80]!r}")
        left.append(fields[place["left"]])
        right.append(fields[place["right"]])
        same.append(_same(fields[place["same"]], number))
        fold.append(fields[place["fold"]] if "fold" in place and place["fold"] < len(fields) else "")
    given = len([name for name in fold if name])
    if given not in (0, len(fold)):
        raise RecordError(f"only {given} of {len(fold)} lines name a fold; all or none must")
    order = {name: i for i, name in enumerate(sorted(set(fold), key=lambda name: (len(name), name)))}
    folds = np.array([order[name] for name in fold], np.int64) if given else consecutive_folds(len(left))
    return PairList(left=tuple(left), right=tuple(right), issame=np.array(same, bool), fold=folds)


def _fields(number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise RecordError(f"line {number}: not valid CSV ({error}): {line[:80]!r}") from None


def _same(word: str, number: int) -> bool:
    found = _SAME.get(word.strip().lower())
    if found is None:
        raise RecordError(f"line {number}: {word[:40]!r} is not a label; 1 means same person, 0 or -1 different")
    return found
