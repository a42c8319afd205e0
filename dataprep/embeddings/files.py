"""Feature files: one embedding per row, in the formats this field uses.

* `.parquet`: columns `name` (string) and `embedding` (list of float32).
* `.npy`: (n, d) floats.
* `.bin`, `.feat`: OpenCV's matrix: a header of four int32 (rows, cols, step in bytes, type 5 = float32), then values.
  MegaFace's tools write one vector as rows = d, cols = 1, step = 4 (insightface's gen_megaface.py); a matrix has
  rows = n, cols = d, step = 4 d.
* any other suffix, or `dim` given: raw float32, (-1, dim), VGGFace2's dump.
* a folder, with names: one `.bin` vector per name, `<folder>/<name><suffix>`, as MegaFace's devkit expects.

Names for a file without names come from a text file beside it (`x.npy`, `x.npy.names.txt`: one name per line). Files
are mapped, not loaded. The embeddings of Parquet are first unpacked into a temporary file, a batch at a time.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

CV_MAT_HEADER = struct.Struct("<4i")
CV_32F = 5
_BATCH_BYTES = 1 << 24  # embeddings per Parquet batch
_UNPACKED = 64  # a Parquet file may unpack to this multiple of its size plus _FREE bytes: embeddings hardly compress
_FREE = 1 << 26
# everything numpy raises for headers that are cut off, damaged or forged, deliberately or not
_BAD_NPY = (ValueError, EOFError, OSError, TypeError, KeyError, OverflowError, MemoryError, RecursionError, SyntaxError,
            tokenize.TokenError)  # fmt: skip


class FeatureRows(Protocol):
    """Embeddings, read a block at a time."""

    path: Path
    dim: int

    @property
    def names(self) -> Sequence[str] | None: ...
    def __len__(self) -> int: ...
    def take(self, rows: IntArray) -> Float32Array: ...
    def release(self) -> None:
        """Free the memory used by reading; the file can be read again."""


class Features:
    """A whole file of features. Mapped files are read when rows are taken; only `release` bounds the memory used."""

    def __init__(
        self,
        path: Path,
        matrix: npt.NDArray[Any],
        names: Sequence[str] | None = None,
        *,
        order: IntArray | None = None,
        mapped: mmap.mmap | None = None,
    ) -> None:
        self.path, self.matrix, self.names = path, matrix, names
        self.dim = int(matrix.shape[1])
        self.mapped = mapped
        self._order = order

    def __len__(self) -> int:
        return len(self.matrix) if self._order is None else len(self._order)

    def take(self, rows: IntArray) -> Float32Array:
        """(len(rows), dim) float32, unmodified."""
        chosen = rows if self._order is None else self._order[rows]
        if len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1 and (np.diff(chosen) == 1).all():
            return np.ascontiguousarray(self.matrix[int(chosen[0]) : int(chosen[-1]) + 1], np.float32)
        return np.ascontiguousarray(self.matrix[chosen], np.float32)

    def select(self, names: Sequence[str]) -> Features:
        """The rows of these names, in this order. RecordError if the file lacks names, repeats one, or misses one."""
        if self.names is None:
            raise RecordError(f"{self.path} holds no names; use a Parquet file, or put a text file of names beside it")
        if list(self.names) == list(names):
            return self
        position = {name: row for row, name in enumerate(self.names)}
        if len(position) != len(self.names):
            raise RecordError(f"{self.path}: a name occurs twice, so rows cannot be chosen by name")
        missing = [name for name in names if name not in position]
        if missing:
            raise RecordError(
                f"{self.path} has no feature for {len(missing)} of {len(names)} names, the first is {missing[0]!r}"
            )
        order = np.array([position[name] for name in names], np.int64)
        return Features(self.path, self.matrix, list(names), order=order, mapped=self.mapped)

    def release(self) -> None:
        if self.mapped is not None:
            self.mapped.madvise(mmap.MADV_DONTNEED)


class FeatureFolder:
    """A folder with one single-vector file per name. Raises RecordError for a file that is missing or damaged."""

    def __init__(self, path: Path, names: Sequence[str], suffix: str) -> None:
        if not names:
            raise RecordError(f"{path}: no names were given to read features for")
        self.path, self.names, self._suffix = path, names, suffix
        self.dim = len(read_vector(self._file(0)))

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: IntArray) -> Float32Array:
        return np.stack([read_vector(self._file(int(row)), self.dim) for row in rows])

    def release(self) -> None:
        pass

    def _file(self, row: int) -> Path:
        return self.path / (self.names[row].lstrip("/") + self._suffix)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRows:
    """Rows of length one where `present`; all other rows are zero."""

    rows: Float32Array
    present: BoolArray


def read_features(path: str | Path, dim: int | None = None) -> Features:
    """Open a feature file by its suffix; `dim` is for raw float32. The values are not read yet.

    Raises RecordError for files that are missing, shorter than their header says, or of another kind.
    """
    path = Path(path)
    if path.is_dir():
        raise RecordError(f"{path} is a folder; a list of its features is needed")
    if not path.is_file():
        raise RecordError(f"{path}: no such feature file", hint="make one with `dataprep extract`")
    if path.suffix == ".parquet":
        found = _read_parquet(path)
    elif path.suffix == ".npy":
        found = _read_npy(path)
    elif path.suffix in (".bin", ".feat") and dim is None:
        found = _map(path, *_mat_shape(path), np.dtype("<f4"), CV_MAT_HEADER.size)
    else:
        found = _read_raw(path, dim)
    if dim is not None and found.dim != dim:
        raise RecordError(f"{path} holds features of {found.dim} values, not {dim}")
    return found


def read_vector(path: Path, dim: int | None = None) -> Float32Array:
    """(d,) float32. RecordError if the file is missing or is not one vector (of `dim` values, if given)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from None
    rows, columns = _mat_header(path, data[: CV_MAT_HEADER.size], len(data))
    if rows != 1 or (dim is not None and columns != dim):
        raise RecordError(f"{path}: {rows} x {columns} values, not one feature" + (f" of {dim}" if dim else ""))
    return np.frombuffer(data, "<f4", offset=CV_MAT_HEADER.size)


def normalise_rows(features: FeatureRows, rows: IntArray, *, zeros: bool = False) -> UnitRows:
    """Rows divided by their length. RecordError for a row with NaN or infinity and, unless `zeros`, a row of zeros."""
    found = features.take(rows)
    norms = check_norms(features, rows, found, zeros=zeros)
    present = norms > 0
    found = found / np.where(present, norms, 1).astype(np.float32)[:, None]
    return UnitRows(rows=found, present=present)


def check_norms(features: FeatureRows, rows: IntArray, found: Float32Array, *, zeros: bool) -> FloatArray:
    """The lengths of rows taken from `features`; RecordError names a row that is not finite, or zero unless `zeros`."""
    norms: FloatArray = np.sqrt(np.einsum("ij,ij->i", found, found, dtype=np.float64))
    bad = ~np.isfinite(norms)
    if bad.any():
        raise RecordError(f"{_where(features, rows, bad)} holds NaN or infinity: {_count(bad)}; recompute the features")
    if not zeros and not norms.all():
        bad = norms == 0
        raise RecordError(
            f"{_where(features, rows, bad)} is all zeros: {_count(bad)}; it has no direction to compare",
            hint="--exclude-missing leaves such rows out and counts them",
        )
    return norms


def _where(features: FeatureRows, rows: IntArray, bad: BoolArray) -> str:
    row = int(rows[int(bad.argmax())])
    name = f" ({features.names[row]})" if features.names is not None else ""
    return f"{features.path}: row {row}{name}"


def _count(bad: BoolArray) -> str:
    return f"one of {int(bad.sum())} among the {len(bad)} rows read last"


def _mat_header(path: Path, header: bytes, size: int) -> tuple[int, int]:
    """(n, d) of a file in OpenCV's format; a vector is one row."""
    if len(header) < CV_MAT_HEADER.size:
        raise RecordError(f"{path}: {size} bytes are too few for the header (rows, cols, step, type)")
    rows, columns, step, kind = CV_MAT_HEADER.unpack(header)
    if kind != CV_32F or rows < 1 or columns < 1 or step != 4 * columns:
        raise RecordError(
            f"{path}: rows {rows}, cols {columns}, step {step}, type {kind} is not a header of float32 features "
            "(step = 4 cols, type = 5)",
            hint="for raw float32, add --dim",
        )
    expected = CV_MAT_HEADER.size + 4 * rows * columns
    if size != expected:
        word = "shorter" if size < expected else "longer"
        raise RecordError(f"{path} is {word} than its header says: {size} bytes for {rows} x {columns}, not {expected}")
    return (1, rows) if columns == 1 else (rows, columns)


def _mat_shape(path: Path) -> tuple[int, int]:
    with open(path, "rb") as stream:
        return _mat_header(path, stream.read(CV_MAT_HEADER.size), os.fstat(stream.fileno()).st_size)


def _read_raw(path: Path, dim: int | None) -> Features:
    if dim is None:
        raise RecordError(f"{path}: not .parquet, .npy or .bin", hint="for raw float32, add --dim")
    size = path.stat().st_size
    if size == 0 or size % (4 * dim):
        raise RecordError(f"{path}: {size} bytes are not a whole number of float32 rows of {dim} values")
    return _map(path, size // (4 * dim), dim, np.dtype("<f4"), 0)


def _read_npy(path: Path) -> Features:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except _BAD_NPY as error:
        raise RecordError(f"{path}: not a readable .npy, or shorter than its header says ({error})") from None
    if not isinstance(found, np.memmap):
        raise RecordError(f"{path}: an .npz of several arrays; features are one array, in an .npy")
    if found.ndim != 2 or found.dtype.kind != "f" or not found.size:
        raise RecordError(f"{path}: {found.dtype} of shape {found.shape}; features are floats of shape (n, d)")
    if not found.flags.c_contiguous:
        return Features(path, found, _names_beside(path, len(found)))
    return _map(path, len(found), found.shape[1], found.dtype, found.offset)


def _map(path: Path, rows: int, columns: int, dtype: np.dtype[Any], offset: int) -> Features:
    with open(path, "rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    matrix: npt.NDArray[Any] = np.ndarray((rows, columns), dtype, mapped, offset)
    return Features(path, matrix, _names_beside(path, rows), mapped=mapped)


def _names_beside(path: Path, rows: int) -> list[str] | None:
    beside = path.with_name(path.name + ".names.txt")
    if not beside.is_file():
        return None
    try:
        names = beside.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{beside}: not a readable list of names in UTF-8 ({error})") from None
    if len(names) != rows:
        raise RecordError(f"{beside} holds {len(names)} names for the {rows} rows of {path.name}")
    return names


def _read_parquet(path: Path) -> Features:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as opened:
            rows, width = _parquet_shape(path, opened)
            names: list[str] = []
            with tempfile.TemporaryFile() as unpacked:
                batch = max(1, min(1 << 14, _BATCH_BYTES // (4 * width)))
                for part in opened.iter_batches(batch, columns=["name", "embedding"]):
                    names += _names_of(path, part["name"])
                    unpacked.write(_embeddings_of(path, part["embedding"], width).data)
                if len(names) != rows:
                    raise RecordError(f"{path}: {len(names)} rows, but its footer says {rows}")
                unpacked.flush()
                mapped = mmap.mmap(unpacked.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise RecordError(f"{path}: not a readable Parquet file with name and embedding ({error})") from None
    matrix: npt.NDArray[Any] = np.ndarray((rows, width), np.float32, mapped)
    return Features(path, matrix, names, mapped=mapped)


def _parquet_shape(path: Path, opened: Any) -> tuple[int, int]:
    """(n, d) from the footer; RecordError for columns of other types, and for files that unpack to far more data."""
    import pyarrow as pa

    schema, footer = opened.schema_arrow, opened.metadata
    if any(schema.names.count(name) != 1 for name in ("name", "embedding")):
        raise RecordError(f"{path}: features in Parquet need the columns name and embedding")
    name, kind = schema.field("name").type, schema.field("embedding").type
    name = name.value_type if pa.types.is_dictionary(name) else name
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not (pa.types.is_string(name) or pa.types.is_large_string(name)) or not (
        lists and pa.types.is_floating(kind.value_type)
    ):
        raise RecordError(f"{path}: name is {name} and embedding {kind}; expected strings and lists of float32")
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    values = sum(column.num_values for column in columns if column.path_in_schema.split(".")[0] == "embedding")
    unpacked = max(
        4 * values,
        sum(column.total_uncompressed_size for column in columns if column.path_in_schema in ("name", "embedding")),
    )
    if unpacked > _UNPACKED * path.stat().st_size + _FREE:
        raise RecordError(
            f"{path}: {path.stat().st_size} bytes unpack to {unpacked}: they repeat the same values, so they are not "
            "features"
        )
    if footer.num_rows < 1 or values < footer.num_rows:
        raise RecordError(f"{path}: it holds no rows, or rows without values")
    return footer.num_rows, values // footer.num_rows


def _names_of(path: Path, column: Any) -> list[str]:
    if column.null_count:
        raise RecordError(f"{path}: it holds rows without a name")
    names: list[str] = column.to_pylist()
    return names


def _embeddings_of(path: Path, column: Any, width: int) -> Float32Array:
    """(rows of the batch, width) float32."""
    if column.null_count:
        raise RecordError(f"{path}: it holds rows without an embedding")
    values = column.flatten()
    if values.null_count:
        raise RecordError(f"{path}: the embeddings hold nulls")
    if set(column.value_lengths().unique().to_pylist()) != {width}:
        raise RecordError(f"{path}: the embeddings are empty or differ in length")
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False), np.float32)
