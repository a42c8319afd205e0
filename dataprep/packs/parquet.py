"""Images in Parquet files, as the Hugging Face hub keeps them: a column of images and one of labels or names.

An image is a struct of `bytes` and `path`, or the bytes alone. Names of labels are in the schema's metadata (ClassLabel).
Source: datasets features/image.py and features.py, https://huggingface.co/docs/hub/datasets-image
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import make_portable
from dataprep.packs.base import FaceRecord, safe_path
from dataprep.tar import image_extension

_LABELS = ("label", "labels", "identity", "identity_id", "person", "person_id", "name", "class", "target", "cls", "id")


class ParquetPack:
    """The faces in one .parquet, or in all of a folder, for reading. The label is a whole number of 0 or more, or a name;
    names get labels in their order."""

    layout = "parquet"
    height: int | None = None
    width: int | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = list_parquet(path)
        self._image, self._label, self._names = _columns(self.files[0])
        given = [_read(file, self._label) for file in self.files]
        self._counts = [len(values) for values in given]
        self._numbers, self._identities = _labels([value for values in given for value in values], self._names, path)

    def __len__(self) -> int:
        return len(self._numbers)

    def labels(self) -> npt.NDArray[np.int64]:
        return self._numbers

    def place(self, position: int) -> tuple[Path, int]:
        """The file that holds an image, and the number of its row there."""
        for file, count in zip(self.files, self._counts, strict=True):
            if position < count:
                return file, position
            position -= count
        raise IndexError(position)

    def face(self, position: int) -> FaceRecord:
        """Raises RecordError for a row without an image."""
        file, row = self.place(position)
        try:
            image = make_portable(read_parquet_image(file, row))
        except ImagingError as error:
            raise RecordError(f"{file}, row {row + 1}: {error.detail}") from None
        identity, name = self.named(position)
        stem = Path(name).stem if name else f"{position:08d}"
        return FaceRecord(
            name=f"{identity}/{stem}.{image_extension(image)}",
            label=int(self._numbers[position]),
            identity=identity,
            image=image,
        )

    def named(self, position: int) -> tuple[str, str]:
        """The identity of an image, and the name of its file if the table has it."""
        label = int(self._numbers[position])
        identity = self._identities[label] if label < len(self._identities) else f"{label:06d}"
        return identity, Path(safe_path(self._paths[position] or "")).name

    @functools.cached_property
    def _paths(self) -> list[str | None]:
        return [path for file in self.files for path in _paths(file, self._image)]

    def metadata(self) -> dict[str, Any]:
        return {}


def list_parquet(path: Path) -> list[Path]:
    """The .parquet files of a folder or its `data/`, or `path` itself; empty if there are none."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))


def read_parquet_image(file: Path, row: int) -> bytes:
    """The bytes of the image in a row. Raises RecordError."""
    group, first = _group_of(file, row)
    value = _read_group(file, group)[row - first]
    data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, "")
    if not isinstance(data, bytes):
        raise RecordError(
            f"{file}, row {row + 1}: it holds no image, only {name!r}" if name else f"{file}, row {row + 1}: no image",
            hint="the table must hold the images themselves: datasets' embed_external_files=True writes them",
        )
    return data


def _group_of(file: Path, row: int) -> tuple[int, int]:
    """The number of the row group that holds a row, and the number of its first row."""
    first = 0
    for group, count in enumerate(_group_sizes(file)):
        if row < first + count:
            return group, first
        first += count
    raise RecordError(f"{file}: there is no row {row + 1}; it has {first}")


@functools.lru_cache(maxsize=64)
def _group_sizes(file: Path) -> tuple[int, ...]:
    about = _open(file).metadata
    return tuple(about.row_group(number).num_rows for number in range(about.num_row_groups))


@functools.lru_cache(maxsize=1)  # rows are read in order; a group may have hundreds of megabytes
def _read_group(file: Path, group: int) -> Sequence[Any]:
    import pyarrow as pa

    image, _, _ = _columns(file)
    try:
        return _open(file).read_row_group(group, columns=[image])[image].to_pylist()  # type: ignore[no-any-return]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RecordError(f"{file}: not readable ({error})") from None


def _paths(file: Path, image: str) -> list[str | None]:
    opened = _open(file)
    if not any(column.path == f"{image}.path" for column in map(opened.schema.column, range(len(opened.schema)))):
        return [None] * opened.metadata.num_rows
    return [value and value["path"] for value in _read(file, f"{image}.path", image)]


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RecordError(f"{file}: not a readable Parquet file ({error})") from None


def _read(file: Path, column: str, whole: str = "") -> list[Any]:
    """The values of a column, or of one field of the column `whole`."""
    import pyarrow as pa

    try:
        return _open(file).read(columns=[column])[whole or column].to_pylist()  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise RecordError(f"{file}: not readable ({error})") from None


@functools.lru_cache(maxsize=64)
def _columns(file: Path) -> tuple[str, str, tuple[str, ...]]:
    """The columns of images and of labels, and the names of the labels."""
    schema = _open(file).schema_arrow
    types = {name: str(schema.field(name).type) for name in schema.names}
    images = [name for name, type in types.items() if ("bytes: binary" in type) or type in ("binary", "large_binary")]
    lowered = {name.lower(): name for name in reversed(schema.names)}
    labels = [lowered[name] for name in _LABELS if name in lowered and lowered[name] not in images]
    if not images or not labels:
        raise RecordError(
            f"{file}: {'a column of images' if not images else 'a column of labels'} is missing; its columns are: "
            f"{', '.join(f'{name} ({type})' for name, type in types.items())[:500]}",
            hint="images are a struct of bytes and path, or binary; labels are called "
            f"{', '.join(_LABELS)}; tables of URLs are for `dataprep download urls`",
        )
    return images[0], labels[0], _class_names(schema.metadata or {}, labels[0])


def _class_names(metadata: dict[bytes, bytes], column: str) -> tuple[str, ...]:
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _labels(values: list[Any], names: Sequence[str], path: Path) -> tuple[npt.NDArray[np.int64], list[str]]:
    if all(isinstance(value, str) and value for value in values):
        found = sorted(set(values))
        place = {name: label for label, name in enumerate(found)}
        return np.array([place[value] for value in values], np.int64), [safe_path(name) or name for name in found]
    for row, value in enumerate(values):
        if type(value) is not int or not 0 <= value < 1 << 31:
            raise RecordError(f"{path}: the label of image {row + 1} is {value!r}, not a whole number of 0 or more")
    return np.array(values, np.int64), [safe_path(name) or f"{label:06d}" for label, name in enumerate(names)]
