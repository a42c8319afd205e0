"""A pack as a folder of image files, identity/name.jpg, for people to look at and for older tools.

faces.tsv (path, label, sha256) stores order and labels. A folder without it, made by any tool, is read in sorted order
with one label per sub-folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import make_portable
from dataprep.imaging.image_files import has_image_suffix, list_images
from dataprep.names import is_safe
from dataprep.packs.base import (
    FaceRecord,
    LabelCounter,
    WriteResult,
    read_identities,
    read_pack_json,
    read_property,
    safe_path,
)
from dataprep.storage import file_sha256
from dataprep.tar import image_extension


def write_folder(
    folder: Path, faces: Iterable[FaceRecord], *, height: int, width: int, max_part: int | None = None
) -> WriteResult:
    """Write identity/name.ext for every face, faces.tsv, property and labels.tsv into `folder`.

    A name already in use gets a number. A name without a suffix gets that of its content. `max_part` is ignored.
    """
    del max_part
    tally, names = LabelCounter(), _Names()
    with open(folder / "faces.tsv", "w", encoding="utf-8") as listed:
        for face in tally.check_any_order(faces):
            name = names.free(_file_name(face))
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(face.image)
            listed.write(f"{name}\t{face.label}\t{hashlib.sha256(face.image).hexdigest()}\n")
    counts = tally.write_sidecars(folder, height=height, width=width)
    return WriteResult(counts=counts, files={"faces.tsv": file_sha256(folder / "faces.tsv")})


def _file_name(face: FaceRecord) -> str:
    name = safe_path(face.name) or "face"
    return name if has_image_suffix(name) else f"{name}.{image_extension(face.image)}"


class _Names:
    """Makes names unique without checking the disk: the second use of a name gets `~2`."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def free(self, name: str) -> str:
        number = self._taken.get(name, 0) + 1
        self._taken[name] = number
        if number == 1:
            return name
        path = Path(name)
        return self.free(str(path.with_stem(f"{path.stem}~{number}")))


class FolderPack:
    """A folder of aligned faces, for reading."""

    layout = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path
        _, self.height, self.width = read_property(path)
        listed = path / "faces.tsv"
        self._faces = _read_faces_tsv(listed) if listed.is_file() else _scan_folder(path)
        self._identities = read_identities(path) or []

    def __len__(self) -> int:
        return len(self._faces)

    def labels(self) -> npt.NDArray[np.int64]:
        return np.array([label for _, label, _ in self._faces], np.int64)

    def face(self, position: int) -> FaceRecord:
        """The face at `position`, checked against its hash in faces.tsv if there is one. Raises RecordError."""
        name, label, sha256 = self._faces[position]
        try:
            if not (self.path / name).is_file():
                raise RecordError(f"{self.path / name}: no such file")
            image = (self.path / name).read_bytes()
        except OSError as error:
            raise RecordError(f"{self.path / name}: {error.strerror}") from None
        if sha256 and hashlib.sha256(image).hexdigest() != sha256:
            raise RecordError(f"{self.path / name}: its sha256 differs from the one in faces.tsv")
        identity = self._identities[label] if label < len(self._identities) else name.partition("/")[0]
        try:
            return FaceRecord(name=name, label=label, identity=identity, image=make_portable(image))
        except ImagingError as error:
            raise RecordError(f"{self.path / name} is not an image that can be read ({error.detail})") from None

    def metadata(self) -> dict[str, Any]:
        return read_pack_json(self.path)


def _read_faces_tsv(path: Path) -> list[tuple[str, int, str]]:
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not readable ({error})") from None
    found = []
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, 1):
        fields = line.split("\t")
        if (
            len(fields) != 3
            or not (fields[1].isascii() and fields[1].isdigit())
            or len(fields[1]) > 18
            or not all(map(is_safe, fields[0].split("/")))
        ):
            raise RecordError(f"{path}, line {number}: expected `path TAB label TAB sha256`, found {line[:60]!r}")
        found.append((fields[0], int(fields[1]), fields[2]))
    return found


def _scan_folder(root: Path) -> list[tuple[str, int, str]]:
    people: dict[str, list[str]] = {}
    for path in list_images(root):
        name = path.relative_to(root)
        if len(name.parts) > 1:
            people.setdefault(name.parts[0], []).append(str(name))
    faces = [(name, label, "") for label, person in enumerate(sorted(people)) for name in sorted(people[person])]
    if not faces:
        raise RecordError(f"{root}: not a pack or a folder of faces; expected a .rec, .tar files, or IDENTITY/FACE.jpg")
    return faces
