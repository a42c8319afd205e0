"""The face record that all pack formats share, and the sidecar files of every pack.

`property` is insightface's one line `num_classes,height,width`. `labels.tsv` lists label, identity and image count.
`pack.json` holds counts, hashes and how the pack was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dataprep import __version__
from dataprep.errors import RecordError
from dataprep.names import is_safe

# labels are stored as float32, which is exact only for integers up to this
MAX_LABEL = 1 << 24
_WITHOUT = "remove the file to continue without it"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRecord:
    """One aligned face: `name` is its path in lists, `identity` the person's name, `image` the file's bytes.

    `key` is the record's key if the face comes from a flat .rec, so that another flat .rec can keep it.
    """

    name: str
    label: int
    identity: str
    image: bytes
    key: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFormat:
    """How a pack is laid out. `style` applies to .rec only. `max_part` limits the size of a part in bytes (None: one
    part); a record that must be split may exceed it slightly."""

    container: str = "rec"
    record_layout: str = "insightface"
    max_part: int | None = None

    @property
    def layout(self) -> str:
        return self.record_layout if self.container == "rec" else self.container


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """What a writer produced: counts by kind, and the sha256 of each file."""

    counts: dict[str, int]
    files: dict[str, str]


class PackReader(Protocol):
    """Read access to a pack of any format. `height` and `width` are None if the pack does not record them."""

    path: Path
    layout: str  # insightface, flat, webdataset, folder or parquet
    height: int | None
    width: int | None

    def __len__(self) -> int: ...

    def labels(self) -> npt.NDArray[np.int64]:
        """The label of every face, in order."""
        ...

    def face(self, position: int) -> FaceRecord: ...

    def metadata(self) -> dict[str, Any]:
        """The contents of pack.json; empty for packs without one."""
        ...


def safe_path(path: str) -> str:
    """A listed path that cannot leave its folder; components that no file system accepts become their hash."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(part if is_safe(part) else f"unsafe-{_digest(part)}" for part in parts)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


class LabelCounter:
    """Counts faces by label as they pass and checks the labels. Call `finish` after the last face."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._counts: dict[int, int] = {}

    def check_grouped(self, faces: Iterable[FaceRecord]) -> Iterator[FaceRecord]:
        """Pass faces through. RecordError unless labels count up from 0 without gaps and equal labels are adjacent."""
        for face in faces:
            seen = len(self._counts)
            if face.label < 0 or not seen - 1 <= face.label <= seen:
                raise RecordError(
                    f"{face.name}: label {face.label} after {seen - 1}; labels must be grouped and count up from 0"
                )
            self._count(face)
            yield face

    def check_any_order(self, faces: Iterable[FaceRecord]) -> Iterator[FaceRecord]:
        """Pass faces through; only `finish` checks for gaps."""
        for face in faces:
            if face.label < 0:
                raise RecordError(f"{face.name}: label {face.label}; labels count up from 0")
            self._count(face)
            yield face

    def write_sidecars(self, folder: Path, *, height: int, width: int) -> dict[str, int]:
        """Write property and labels.tsv; return the counts. RecordError if a label below the last has no face."""
        classes = max(self._counts, default=-1) + 1
        if len(self._counts) != classes:
            gap = next(label for label in range(classes) if label not in self._counts)
            raise RecordError(f"label {gap} has no face, although labels go up to {classes - 1}")
        (folder / "property").write_text(f"{classes},{height},{width}\n")
        lines = (f"{label}\t{self._names[label]}\t{self._counts[label]}\n" for label in range(classes))
        (folder / "labels.tsv").write_text("".join(lines), "utf-8")
        return {"images": sum(self._counts.values()), "identities": classes}

    def _count(self, face: FaceRecord) -> None:
        if face.label >= MAX_LABEL:
            raise RecordError(f"label {face.label}: a .rec stores labels as float32, exact only below {MAX_LABEL}")
        for name in (face.identity, face.name):
            if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name):
                raise RecordError(
                    f"{name!a}: lists are TAB-separated UTF-8, so names cannot contain control characters"
                )
        self._names.setdefault(face.label, face.identity)
        self._counts[face.label] = self._counts.get(face.label, 0) + 1


class PackProperty(NamedTuple):
    """The contents of the file `property`; all None if there is no such file."""

    num_classes: int | None = None
    height: int | None = None
    width: int | None = None


def find_missing_labels(labels: npt.NDArray[np.int64], classes: int, shown: int = 5) -> tuple[int, list[int]]:
    """How many labels in 0..classes-1 are missing, and the first few. Allocates nothing of untrusted size `classes`."""
    present = np.unique(labels[(labels >= 0) & (labels < classes)])
    first = np.setdiff1d(np.arange(min(classes, len(present) + shown)), present)[:shown]
    return classes - len(present), first.tolist()


def read_property(folder: Path) -> PackProperty:
    """The first line of `property`, if the file exists. Extra lines (rec2shufrec adds some) are ignored."""
    path = folder / "property"
    try:
        classes, height, width = (int(field) for field in path.read_text("ascii").splitlines()[0].split(","))
    except FileNotFoundError:
        return PackProperty()
    except (OSError, ValueError, IndexError):
        raise RecordError(f"{path}: expected one line `num_classes,height,width`") from None
    if min(classes, height, width) < 0:
        raise RecordError(f"{path}: expected one line `num_classes,height,width` without negative numbers")
    return PackProperty(classes, height, width)


def read_identities(folder: Path) -> list[str] | None:
    """The identities in labels.tsv in label order, or None if there is no such file."""
    path = folder / "labels.tsv"
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not readable ({error})", hint=_WITHOUT) from None
    names = []
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines):
        fields = line.split("\t")
        if len(fields) < 2 or fields[0] != str(number):
            raise RecordError(
                f"{path}, line {number + 1}: expected `{number} TAB identity TAB count`, found {line[:60]!r}",
                hint=_WITHOUT,
            )
        names.append(safe_path(fields[1]) or f"{number:06d}")
    return names


def read_pack_json(folder: Path) -> dict[str, Any]:
    """pack.json, or an empty dictionary if there is none."""
    path = folder / "pack.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not readable ({error})", hint=_WITHOUT) from None
    if not isinstance(found, dict):
        raise RecordError(f"{path}: expected a JSON object", hint=_WITHOUT)
    return found


def write_pack_json(
    folder: Path, written: WriteResult, *, pack_format: PackFormat, height: int, width: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write pack.json. `about` adds facts beyond the files: template, recipe, sources, licence."""
    manifest = {
        "made_by": f"dataprep {__version__}",
        "format": pack_format.container,
        "layout": pack_format.layout,
        "counts": written.counts,
        "colour_order": "the images are ordinary files; decoded by this project as RGB",
        "height": height,
        "width": width,
        **about,
        "files": dict(sorted(written.files.items())),
    }
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "pack.json").write_bytes(text.encode("utf-8", "backslashreplace"))
    return manifest
