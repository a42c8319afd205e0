"""The meta files of IJB-B and IJB-C, as insightface distributes them (`<IJBX>/meta/`).

Space-separated without a header: `face_tid_mid` (image, template, media), `template_pair_label` (template, template,
0 or 1), `name_5pts_score` (image, ten landmark numbers, detector score; its rows are those of face_tid_mid, in order).
Comma-separated with a header: the galleries (S1 and S2 of IJB-B, G1 and G2 of IJB-C) and `1N_probe_mixed`, whose first
two columns are template and subject. A line that is not valid raises RecordError with file, line and field.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError

Int32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

IJB_GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateMedia:
    """One row per face: its template and media numbers, the detector's score, and the image's name."""

    template: Int32Array
    media: Int32Array
    score: Float32Array
    image: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.template)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplatePairs:
    """Pairs of template numbers; `same` is true if they show one person."""

    left: Int32Array
    right: Int32Array
    issame: BoolArray

    def __len__(self) -> int:
        return len(self.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """Templates, ascending and unique, and the subjects they show."""

    name: str
    template: Int32Array
    subject: Int32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaColumn:
    """A field's name and type; `kind` is an Arrow type name."""

    name: str
    kind: str


_FACE = [
    MetaColumn(name="image", kind="string"),
    MetaColumn(name="template", kind="int32"),
    MetaColumn(name="media", kind="int32"),
]
_PAIR = [
    MetaColumn(name="first template", kind="int32"),
    MetaColumn(name="second template", kind="int32"),
    MetaColumn(name="label", kind="int8"),
]
_SCORE = [
    MetaColumn(name="image", kind="string"),
    *(MetaColumn(name=f"{axis}{point}", kind="float32") for point in range(1, 6) for axis in "xy"),
    MetaColumn(name="score", kind="float32"),
]


def find_ijb_protocol(folder: Path, protocol: str | None = None) -> str:
    """ijbb or ijbc: the given one, or the one whose face_tid_mid is in the folder."""
    found = [name for name in IJB_GALLERIES if (folder / f"{name}_face_tid_mid.txt").is_file()]
    if protocol is not None and protocol not in found:
        raise RecordError(
            f"{folder} holds no {protocol}_face_tid_mid.txt", hint="pass the benchmark's meta folder with --meta"
        )
    if protocol is None and len(found) != 1:
        what = "files of both benchmarks" if found else "no ijbb_ or ijbc_face_tid_mid.txt"
        raise RecordError(
            f"{folder} holds {what}", hint="choose the folder with --meta and the benchmark with --protocol"
        )
    return protocol or found[0]


def list_meta_files(folder: Path, protocol: str, *, one_to_many: bool) -> list[Path]:
    """The files that a protocol reads; the first two describe the faces."""
    names = ["face_tid_mid.txt", "name_5pts_score.txt"]
    names += (
        [f"1N_gallery_{name}.csv" for name in IJB_GALLERIES[protocol]] + ["1N_probe_mixed.csv"]
        if one_to_many
        else ["template_pair_label.txt"]
    )
    return [folder / f"{protocol}_{name}" for name in names]


def read_template_media(tid_mid: Path, scores: Path) -> TemplateMedia:
    """The faces of a benchmark; RecordError if the two files do not list the same images in the same order."""
    faces = _read(tid_mid, _FACE)
    scored = _read(scores, _SCORE)
    if len(faces) != len(scored):
        raise RecordError(f"{tid_mid.name} lists {len(faces)} faces, but {scores} lists {len(scored)}")
    differs = faces["image"].to_numpy() != scored["image"].to_numpy()
    if differs.any():
        line = int(differs.argmax())
        raise RecordError(
            f"{scores}: line {line + 1} is {scored['image'][line].as_py()!r}, but {tid_mid.name} has "
            f"{faces['image'][line].as_py()!r}: both must list the same images in the same order"
        )
    score = scored["score"].to_numpy()
    bad = ~np.isfinite(score) | (score < 0)
    if bad.any():
        raise RecordError(f"{scores}: line {int(bad.argmax()) + 1}: score: {score[bad][0]} is not a detector score")
    return TemplateMedia(
        template=faces["template"].to_numpy(),
        media=faces["media"].to_numpy(),
        score=score,
        image=tuple(faces["image"].to_pylist()),
    )


def read_template_pairs(path: Path) -> TemplatePairs:
    """The pairs of the 1:1 protocol: 15.7 million for IJB-C."""
    table = _read(path, _PAIR)
    label = table["label"].to_numpy()
    bad = (label != 0) & (label != 1)
    if bad.any():
        raise RecordError(f"{path}: line {int(bad.argmax()) + 1}: label: {label[bad][0]} is neither 0 nor 1")
    same = label == 1
    if same.all() or not same.any():
        raise RecordError(f"{path}: all {len(same)} pairs are of one kind; both kinds are needed")
    return TemplatePairs(
        left=table["first template"].to_numpy(), right=table["second template"].to_numpy(), issame=same
    )


def read_subjects(path: Path, name: str) -> Subjects:
    """A gallery or the probes of the 1:N protocol; lines that repeat a template must repeat its subject."""
    templates, subjects = [], []
    with _opened(path) as stream:
        lines = csv.reader(stream)
        try:
            next(lines, None)
            for number, line in enumerate(lines, 2):
                if len(line) < 2:
                    raise RecordError(f"{path}: line {number}: {len(line)} fields; expected template and subject first")
                templates.append(_number(path, number, "template", line[0]))
                subjects.append(_number(path, number, "subject", line[1]))
        except csv.Error as error:
            raise RecordError(f"{path}: line {lines.line_num}: not valid CSV ({error})") from None
    if not templates:
        raise RecordError(f"{path}: no templates are listed")
    unique, first, inverse = np.unique(np.array(templates, np.int32), return_index=True, return_inverse=True)
    subject = np.array(subjects, np.int32)
    differs = subject != subject[first][inverse]
    if differs.any():
        row = int(differs.argmax())
        raise RecordError(f"{path}: line {row + 2}: subject: template {templates[row]} had another subject before")
    return Subjects(name=name, template=unique, subject=subject[first])


def _read(path: Path, columns: Sequence[MetaColumn]) -> Any:
    """A table of one array per column. Arrow is fast, but its errors are vague, so they are located line by line."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    if not path.is_file():
        raise RecordError(f"{path}: no such file; it belongs to the benchmark's meta folder")
    if not path.stat().st_size:
        raise RecordError(f"{path}: the file is empty")
    try:
        table = arrow.read_csv(
            path,
            read_options=arrow.ReadOptions(column_names=[column.name for column in columns], block_size=1 << 23),
            parse_options=arrow.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
            convert_options=arrow.ConvertOptions(
                column_types={column.name: getattr(pa, column.kind)() for column in columns},
                null_values=[], strings_can_be_null=False,
            ),
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        _explain(path, columns)
        raise RecordError(f"{path}: {error}") from None
    return table


def _explain(path: Path, columns: Sequence[MetaColumn]) -> None:
    """Raise RecordError for the first line that does not fit the columns."""
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            fields = line.rstrip("\r\n").split(" ")
            if len(fields) != len(columns):
                names = ", ".join(column.name for column in columns)
                raise RecordError(f"{path}: line {number}: {len(fields)} fields; expected {names}, one space apart")
            for column, field in zip(columns, fields, strict=True):
                if column.kind.startswith("int"):
                    _number(path, number, column.name, field, bits=int(column.kind[3:]))
                elif column.kind == "float32":
                    try:
                        float(field)
                    except ValueError:
                        raise RecordError(f"{path}: line {number}: {column.name}: {field!r} is not a number") from None


def _number(path: Path, line: int, what: str, field: str, bits: int = 32) -> int:
    try:
        value = int(field)
    except ValueError:
        raise RecordError(f"{path}: line {line}: {what}: {field!r} is not a number") from None
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise RecordError(f"{path}: line {line}: {what}: {field} is out of range")
    return value


def _opened(path: Path) -> Any:
    try:
        return open(path, encoding="utf-8", errors="replace", newline="")
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; it belongs to the benchmark's meta folder") from None
