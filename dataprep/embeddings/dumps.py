"""Writing features in the formats that `features` reads: Parquet, .npy, OpenCV's matrices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.embeddings.files import CV_32F, CV_MAT_HEADER, Float32Array
from dataprep.errors import RecordError
from dataprep.storage import Folder


def write_features(path: Path, matrix: npt.NDArray[Any], names: Sequence[str] | None = None) -> None:
    """Write (n, d) features atomically in the format of the suffix; unknown suffixes get raw float32."""
    data = np.ascontiguousarray(matrix, "<f4")
    if data.ndim != 2 or (names is not None and len(names) != len(data)):
        raise RecordError(f"{path}: {data.shape} features do not fit {len(names or ())} names")
    if path.suffix == ".parquet":
        if names is None:
            raise RecordError(f"{path}: features in Parquet need names")
        write_parquet(path, [(names, data)], data.shape[1])
        return
    if path.suffix == ".npy":
        write_npy(path, [(names, data)], *data.shape)
        return
    header = (
        CV_MAT_HEADER.pack(len(data), data.shape[1], 4 * data.shape[1], CV_32F)
        if path.suffix in (".bin", ".feat")
        else b""
    )
    Folder(path.parent).put(path.name, header + data.tobytes())
    _put_names(path, names)


def write_vector(path: Path, vector: npt.NDArray[Any]) -> None:
    """Write one feature as MegaFace's tools store it: (rows = d, cols = 1, step = 4, type = 5), then d float32."""
    data = np.ascontiguousarray(vector, "<f4")
    Folder(path.parent).put(path.name, CV_MAT_HEADER.pack(len(data), 1, 4, CV_32F) + data.tobytes())


def write_parquet(path: Path, parts: Iterable[tuple[Sequence[str], Float32Array]], width: int) -> None:
    """Write (names, features) parts in order, one row group each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float32(), width)
    schema = pa.schema([("name", pa.string()), ("embedding", kind)])
    with Folder(path.parent).writing(path.name) as stream, pq.ParquetWriter(stream, schema) as writer:
        for names, features in parts:
            flat = pa.array(np.ascontiguousarray(features, np.float32).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(pa.table([pa.array(list(names), pa.string()), column], schema=schema))


def write_npy(path: Path, parts: Iterable[tuple[Sequence[str] | None, Float32Array]], rows: int, width: int) -> None:
    """Write the rows of all parts as one array; then their names, if any, into <name>.names.txt beside it."""
    every: list[str] = []
    with Folder(path.parent).writing(path.name) as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for names, features in parts:
            stream.write(np.ascontiguousarray(features, "<f4").tobytes())
            every += names or ()
    _put_names(path, every or None)


def _put_names(path: Path, names: Sequence[str] | None) -> None:
    if names is not None:
        Folder(path.parent).put(f"{path.name}.names.txt", "".join(f"{name}\n" for name in names).encode())
