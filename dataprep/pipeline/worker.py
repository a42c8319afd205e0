"""The unit of work sent to a worker process (a few hundred bytes): one shard through several map stages."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataprep.errors import DamagedFileError, DataprepError, ImagingError, WorkspaceError
from dataprep.interrupts import end_with_parent, ignore_terminal
from dataprep.pipeline.pipeline import Pipeline, StageNode
from dataprep.reasons import Reason
from dataprep.stages.base import Item, MapStage, Photo, Stage, read_local_photo
from dataprep.types import Row, Sample
from dataprep.workspace.ledger import row_from_ledger
from dataprep.workspace.payload import PayloadReader
from dataprep.workspace.workspace import Workspace

BATCH = 16  # photos held in memory and passed to the detector at once,
BATCH_PIXELS = 50_000_000  # unless they have more pixels than this
_NOT_BEGUN = -1  # on the board: no photo has been looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Run `stages` over one shard. `slot` is its slot on the board; `skip` holds keys that have killed workers."""

    workspace: str
    recipe: Mapping[str, Mapping[str, Any]] = field(hash=False)
    stages: tuple[str, ...]
    shard: str
    upstream: str
    board_path: str
    slot: int
    slots: int
    skip: frozenset[str] = frozenset()
    one_by_one: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """The result of a task. `error` is empty if the shard was committed; `damaged` is the file that it failed on, if
    that is to be made again; `died` means that the worker process died."""

    task: Task
    error: str = ""
    damaged: Path | None = None
    died: bool = False


def run_task(task: Task) -> TaskResult:
    """Run a task in this process. Never raises: an error of the shard as a whole is in the result."""
    try:
        _process(task)
    except DamagedFileError as error:
        return TaskResult(task=task, error=str(error), damaged=error.path)
    except (DataprepError, OSError) as error:
        return TaskResult(task=task, error=str(error))
    except MemoryError:
        return TaskResult(task=task, died=True)
    except Exception:
        return TaskResult(task=task, error=traceback.format_exc())
    return TaskResult(task=task)


def prepare_worker() -> None:
    """Initialise a worker process: leave Ctrl-C to the main process, end with it, and use one core."""
    ignore_terminal()
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = "1"  # read by torch at import
    import cv2

    cv2.setNumThreads(1)


_prepared: dict[str, MapStage[Any]] = {}  # by fingerprint; a worker loads a model only once


def _process(task: Task) -> None:
    began = time.monotonic()
    workspace = Workspace(task.workspace)
    pipeline = Pipeline(workspace, task.recipe, until=task.stages[-1])
    nodes = [node for node in pipeline.map_nodes if node.name in task.stages]
    stages = [_ready(node) for node in nodes]
    board = ProgressBoard(Path(task.board_path), task.slots)
    finished: list[list[Row]] = [[] for _ in nodes]
    board.set(task.slot, _NOT_BEGUN if task.one_by_one else 0)
    with _Inputs(pipeline, task, nodes[0]) as inputs:
        for batch in inputs.one_by_one() if task.one_by_one else inputs.batches():
            board.set(task.slot, inputs.position)
            live = [item for item in batch if item.sample.key not in task.skip]
            finished[0] += [
                item.rejected(Reason.WORKER_DIED, "this photo killed a worker process three times")
                for item in batch
                if item.sample.key in task.skip
            ]
            for rows, made in zip(finished, apply_stages(stages, live), strict=True):
                rows += made
        order = {sample.key: position for position, sample in enumerate(inputs.samples)}
    upstream = task.upstream
    for node, rows in zip(nodes, finished, strict=True):
        rows.sort(key=lambda row: order[row.key])
        marker = node.store.commit(task.shard, rows, upstream=upstream, seconds=time.monotonic() - began)
        upstream = marker.digest
    board.set(task.slot, len(order))


def apply_stages(stages: Sequence[MapStage[Any]], items: Sequence[Item]) -> list[list[Row]]:
    """The rows of each stage: what a stage rejects does not reach the next."""
    found: list[list[Row]] = []
    for stage in stages:
        rows = stage.apply_many(items) if items else []
        found.append(rows)
        items = [
            Item(sample=item.sample, rows={**item.rows, stage.name: row}, photo=item.photo)
            for item, row in zip(items, rows, strict=True)
            if row.reason is None
        ]
    return found


def batch_items(
    items: Iterable[tuple[int, Item]], *, size: int = BATCH, pixels: int = BATCH_PIXELS
) -> Iterator[tuple[int, list[Item]]]:
    """Yield batches of up to `size` items and `pixels` pixels in all, each with the position of its first item."""
    first, batch, left = 0, list[Item](), pixels
    for position, item in items:
        count = item.photo.pixel_count
        if batch and (len(batch) == size or count > left):
            yield first, batch
            batch, left = [], pixels
        if not batch:
            first = position
        batch.append(item)
        left -= count
    if batch:
        yield first, batch


def _ready(node: StageNode[MapStage[Any]]) -> MapStage[Any]:
    if node.fingerprint not in _prepared:
        node.stage.setup()
        _prepared[node.fingerprint] = node.stage
    return _prepared[node.fingerprint]


class _Inputs:
    """The items of a shard: samples whose upstream row is ok, with the rows of all earlier stages and their photos."""

    def __init__(self, pipeline: Pipeline, task: Task, first: StageNode[MapStage[Any]]) -> None:
        self._pipeline = pipeline
        plan = pipeline.workspace.plan()
        shard = next((s for s in plan.shards if s.id == task.shard), None)
        if shard is None:
            raise WorkspaceError(f"shard {task.shard} is not in the plan of {task.workspace}")
        self.samples = plan.samples(shard)
        self.position = 0
        names = [node.name for node in pipeline.nodes]
        earlier = pipeline.nodes[: names.index(first.name)]
        self._earlier = [node for node in earlier if shard.id in node.stage.units({shard.id: shard})]
        self._rows = {node.name: self._ledger(node, task.shard) for node in self._earlier}
        self._payloads: PayloadReader | None = None
        if shard.remote:
            download = pipeline.download
            marker = download.store.marker(task.shard)
            if marker is None:
                raise WorkspaceError(f"shard {task.shard} is not downloaded")
            self._payloads = download.store.payloads(marker)
        params = pipeline.map_nodes[0].stage.params
        self._codec, self._max_pixels = params.codec, params.max_pixels

    def __enter__(self) -> _Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._payloads:
            self._payloads.close()

    def batches(self) -> Iterator[list[Item]]:
        """Batches of items. To measure them, the photos of a batch and the one after it are read first."""
        for position, batch in batch_items(self._items()):
            self.position = position
            yield batch

    def one_by_one(self) -> Iterator[list[Item]]:
        """The items alone; none is read before `position` says that it is its turn."""
        for position, item in self._items():
            self.position = position
            yield [item]

    def _items(self) -> Iterator[tuple[int, Item]]:
        for position, sample in enumerate(self.samples):
            if self._earlier:
                last = self._rows[self._earlier[-1].name].get(sample.key)
                if last is None or last.reason is not None:
                    continue
            yield position, self._item(sample)

    def _item(self, sample: Sample) -> Item:
        rows = {name: ledger[sample.key] for name, ledger in self._rows.items() if sample.key in ledger}
        return Item(
            sample=sample,
            rows=rows,
            photo=Photo(self._loader(sample, rows), codec=self._codec, max_pixels=self._max_pixels),
        )

    def _loader(self, sample: Sample, rows: Mapping[str, Row]) -> Callable[[], bytes]:
        if self._payloads is None:
            return _FileLoader(sample, rows.get("validate"))
        values, payloads = rows["download"].values, self._payloads
        return lambda: payloads.read(values["offset"], values["size"])

    def _ledger(self, node: StageNode[Stage[Any]], shard: str) -> dict[str, Row]:
        marker = node.store.marker(shard)
        if marker is None:
            raise WorkspaceError(f"{node.name} of shard {shard} is not complete")
        return {found["key"]: row_from_ledger(found) for found in node.store.rows(marker)}


class _FileLoader:
    """Reads a local photo. Its bytes must not have changed since `validate`."""

    def __init__(self, sample: Sample, validated: Row | None) -> None:
        self._sample = sample
        self._sha256 = validated.values["photo_sha256"] if validated else None

    def __call__(self) -> bytes:
        try:
            data = read_local_photo(self._sample)
        except OSError as error:
            if self._sha256 is None:
                raise
            raise ImagingError(Reason.IO_ERROR, f"{self._sample.path}: {error.strerror}") from None
        if self._sha256 and hashlib.sha256(data).hexdigest() != self._sha256:
            raise ImagingError(
                Reason.PHOTO_CHANGED, f"{self._sample.path} has changed since validate; a retry uses it as it is now"
            )
        return data


def key_at_position(task: Task, position: int) -> str | None:
    """Return the key of the sample at a board position, or None past the end."""
    plan = Workspace(task.workspace).plan()
    samples = plan.samples(next(shard for shard in plan.shards if shard.id == task.shard))
    return samples[position].key if 0 <= position < len(samples) else None


_SLOT = struct.Struct("<q")


class ProgressBoard:
    """A memory-mapped file with one 64-bit number per slot, written by workers and read by the run without locks."""

    def __init__(self, path: Path, slots: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(descriptor).st_size < slots * _SLOT.size:
                with open(descriptor, "wb", closefd=False) as stream:
                    stream.write(bytes(slots * _SLOT.size))  # a sparse file on a full disk would SIGBUS later
            self._map = mmap.mmap(descriptor, slots * _SLOT.size)
        finally:
            os.close(descriptor)

    def set(self, slot: int, value: int) -> None:
        _SLOT.pack_into(self._map, slot * _SLOT.size, value)

    def get(self, slot: int) -> int:
        return int(_SLOT.unpack_from(self._map, slot * _SLOT.size)[0])
