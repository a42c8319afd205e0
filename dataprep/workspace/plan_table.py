"""The columns of a plan: converts samples to an Arrow table and back. A table of millions needs far less memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from dataprep.reasons import Reason
from dataprep.types import Box, Sample

SampleTable = Any  # pyarrow has no type hints

_CHUNK = 20_000  # samples in memory at a time


def plan_schema(names: Sequence[str] | None = None) -> Any:
    """The columns of a plan, or those of them in `names`: earlier versions lack the last three."""
    import pyarrow as pa

    fields = [
        *((name, pa.string()) for name in ("key", "identity", "url", "path", "box_frame", "error", "detail")),
        ("offset", pa.int64()),
        ("aligned", pa.bool_()),
        ("box", pa.list_(pa.float64())),
        ("landmarks", pa.list_(pa.float64())),  # x1, y1, ... x5, y5
        ("hash", pa.string()),
        ("box_size", pa.list_(pa.int32())),
    ]
    return pa.schema([field for field in fields if names is None or field[0] in names])


def samples_to_table(samples: Sequence[Sample]) -> SampleTable:
    import pyarrow as pa

    plain = ("key", "identity", "url", "path", "offset", "aligned", "box_frame", "detail", "hash")
    columns = {
        **{name: list(map(attrgetter(name), samples)) for name in plain},
        "error": [s.error.code if s.error else None for s in samples],
        "box": [s.box and list(s.box) for s in samples],
        "box_size": [s.box_size and list(s.box_size) for s in samples],
        "landmarks": [s.landmarks and [value for point in s.landmarks for value in point] for s in samples],
    }
    return pa.Table.from_pydict(columns, schema=plan_schema())


def make_photo_table(person: str, names: Any, urls: Any, boxes: Sequence[Any]) -> SampleTable:
    """Return the table of one person's photos behind URLs, from arrays of names, URLs and the four sides of the boxes
    in the stored pixel grid."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    count = len(names)
    sides = np.stack([side.to_numpy() for side in boxes], axis=1).astype(np.float64)
    given = {
        "key": pc.binary_join_element_wise(person, names, "/"),
        "url": urls,
        "box": pa.ListArray.from_arrays(np.arange(0, 4 * count + 1, 4, dtype=np.int32), sides.reshape(-1)),
    }
    same = {"identity": person, "path": "", "box_frame": "stored", "detail": "", "aligned": False, "hash": ""}
    columns = [
        given[field.name] if field.name in given else pa.repeat(pa.scalar(same.get(field.name), field.type), count)
        for field in plan_schema()
    ]
    return pa.table(columns, schema=plan_schema())


def iterate_tables(listed: Iterable[Sample | SampleTable]) -> Iterator[SampleTable]:
    """Convert to tables only: samples are collected into tables, tables pass through unchanged."""
    for single, run in itertools.groupby(listed, key=lambda one: isinstance(one, Sample)):
        if not single:
            yield from run
            continue
        while chunk := list(itertools.islice(run, _CHUNK)):
            yield samples_to_table(chunk)


def table_to_samples(table: SampleTable) -> list[Sample]:
    return [_sample(row) for row in table.to_pylist()]


def replace_column(table: SampleTable, name: str, values: Sequence[Any]) -> SampleTable:
    import pyarrow as pa

    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def table_digest(table: SampleTable) -> str:
    """Hash the values only, independent of their layout in memory or in a file."""
    import pyarrow.compute as pc

    state = hashlib.sha256()
    for name in sorted(table.column_names):
        column = table[name]
        state.update(f"{name} {column.type} {len(column)}\n".encode())
        if column.null_count:
            state.update(pc.is_null(column).to_numpy().tobytes())
            column = column.drop_null()
        if str(column.type).startswith("list"):
            state.update(pc.list_value_length(column).to_numpy().tobytes())
            column = pc.list_flatten(column)
        if str(column.type) == "string":
            state.update(pc.binary_length(column).to_numpy().tobytes())
            state.update("".join(column.to_pylist()).encode())
        else:
            state.update(column.to_numpy().tobytes())
    return state.hexdigest()


def _sample(columns: dict[str, Any]) -> Sample:
    box, trouble, numbers = columns.pop("box"), columns.pop("error"), columns.pop("landmarks", None)
    size = columns.pop("box_size", None)
    return Sample(
        **columns,
        box=Box(*box) if box else None,
        box_size=(size[0], size[1]) if size else None,
        landmarks=tuple(zip(numbers[::2], numbers[1::2], strict=True)) if numbers else None,
        error=Reason.from_code(trouble) if trouble else None,
    )
