"""Features in files: Parquet with the columns name and embedding, or .npy with the names in a .txt beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError
from dataprep.evaluate.sets import SUFFIXES, VerificationSet
from dataprep.storage import Folder

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """(n, d) features, and the images' names if the file tells them."""

    path: Path
    features: Matrix
    names: tuple[str, ...] | None


def read_dump(path: Path) -> Dump:
    """Raises RecordError for a file that is shorter than its header says, or not of (n, d) numbers."""
    if not path.is_file():
        raise RecordError(f"{path}: no such feature file: `dataprep extract` makes one")
    names: tuple[str, ...] | None
    try:
        if path.suffix == ".parquet":
            features, names = _read_parquet(path)
        else:
            features, names = np.load(path, mmap_mode="r", allow_pickle=False), _names_beside(path)
    except (ValueError, OSError, EOFError) as error:
        raise RecordError(f"{path}: not a readable feature file ({str(error)[:200]})") from None
    if not isinstance(features, np.ndarray) or features.ndim != 2 or features.dtype.kind != "f":
        raise RecordError(f"{path}: features are an array (images, dimensions) of floats")
    if names is not None and len(names) != len(features):
        raise RecordError(f"{path}: {len(features)} rows and {len(names)} names")
    return Dump(path=path, features=features, names=names)


def of_pairs(
    dump: Dump, chosen: VerificationSet, *, skip_missing: bool = False
) -> tuple[Matrix, Matrix, VerificationSet]:
    """The features of the pairs' two sides, and the set as far as it can be scored.

    By name if the file has names (suffixes of images do not count), else rows 2i and 2i + 1 are pair i. Raises
    RecordError for rows that do not fit the set, and for images without a feature unless `skip_missing`.
    """
    if dump.names is None:
        if len(dump.features) != 2 * len(chosen):
            raise RecordError(
                f"{dump.path}: {len(dump.features)} rows without names; the {len(chosen)} pairs of {chosen.path} take "
                f"{2 * len(chosen)} in the order of the pairs, or a {dump.path.stem}.txt with a name a line"
            )
        return dump.features[0::2], dump.features[1::2], chosen
    place: dict[str, int] = {}
    for i, name in enumerate(dump.names):
        if place.setdefault(_bare(name), i) != i:
            raise RecordError(f"{dump.path}: {name} stands there twice")
    used = sorted({*chosen.left.tolist(), *chosen.right.tolist()})
    missing = {i: "no feature" for i in used if _bare(chosen.names[i]) not in place}
    if missing and not skip_missing:
        first = ", ".join(chosen.names[i] for i in list(missing)[:5])
        raise RecordError(
            f"{dump.path}: {len(missing)} of {len(used)} images of {chosen.path} have no feature there: {first}"
            f"{', ...' if len(missing) > 5 else ''}; --skip-missing leaves their pairs out and says so"
        )
    kept = chosen.without(missing) if missing else chosen
    row = np.array([place.get(_bare(name), -1) for name in chosen.names], np.int64)
    return dump.features[row[kept.left]], dump.features[row[kept.right]], kept


def write_parquet(path: Path, parts: Iterable[tuple[Sequence[str], Matrix]], width: int) -> None:
    """Rows of (names, features) parts, in order; a row group each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float32(), width)
    schema = pa.schema([("name", pa.string()), ("embedding", kind)])
    with Folder(path.parent).writing(path.name) as stream, pq.ParquetWriter(stream, schema) as writer:
        for names, features in parts:
            flat = pa.array(np.ascontiguousarray(features, np.float32).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(pa.table([pa.array(list(names), pa.string()), column], schema=schema))


def write_npy(path: Path, parts: Iterable[tuple[Sequence[str], Matrix]], rows: int, width: int) -> None:
    """The rows of all parts as one array, and their names in a .txt beside it, which is written last."""
    every: list[str] = []
    with Folder(path.parent).writing(path.name) as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for names, features in parts:
            stream.write(np.ascontiguousarray(features, "<f4").tobytes())
            every += names
    Folder(path.parent).put(f"{path.stem}.txt", "".join(f"{name}\n" for name in every).encode())


def _read_parquet(path: Path) -> tuple[Matrix, tuple[str, ...]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["name", "embedding"])
    except (pa.ArrowException, KeyError) as error:
        raise RecordError(f"{path}: not Parquet with the columns name and embedding ({str(error)[:200]})") from None
    column = table.column("embedding").combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False)
    if not table.num_rows or column.null_count or len(values) % table.num_rows:
        raise RecordError(f"{path}: its embeddings are not all of one length, or there are none")
    lengths = {len(values) // table.num_rows}
    if not pa.types.is_fixed_size_list(column.type):
        lengths |= set(np.unique(np.diff(column.offsets.to_numpy())).tolist())
    if len(lengths) != 1:
        raise RecordError(f"{path}: its embeddings are not all of one length")
    return np.asarray(values, np.float32).reshape(table.num_rows, -1), tuple(table.column("name").to_pylist())


def _names_beside(path: Path) -> tuple[str, ...] | None:
    beside = path.with_suffix(".txt")
    return tuple(beside.read_text("utf-8").splitlines()) if beside.is_file() else None


def _bare(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix in SUFFIXES else str(path)
