"""The plan: the list of samples, in shards, which never change. Planning new samples appends a generation."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from dataprep.errors import WorkspaceError
from dataprep.storage import Folder, lock_directory
from dataprep.types import Sample
from dataprep.workspace import plan_table as columns
from dataprep.workspace.plan_merge import PlannedShard, location_keys, select_new_samples
from dataprep.workspace.plan_table import SampleTable


class Shard(NamedTuple):
    """A unit of work and of commit. Its samples are either all `remote` (behind URLs) or all local files."""

    id: str
    size: int
    digest: str
    remote: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The samples added by one import: the source, a digest of its lists, and the new shards."""

    number: int
    source: Mapping[str, Any]
    source_digest: str
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        return sum(shard.size for shard in self.shards)


class Plan:
    """The generations under WORKSPACE/plan. `known` counts the samples of the last list that were already planned."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self.known_count = folder, 0
        self.generations = self._read_all()

    @property
    def shards(self) -> list[Shard]:
        return [shard for generation in self.generations for shard in generation.shards]

    @property
    def count(self) -> int:
        return sum(generation.count for generation in self.generations)

    def samples(self, shard: Shard) -> list[Sample]:
        """Return the samples of a shard in plan order."""
        return columns.table_to_samples(self._table(shard))

    def photos_per_identity(self) -> dict[str, int]:
        """How many samples each identity has."""
        counts: Counter[str] = Counter()
        for shard in self.shards:
            for entry in self._table(shard, ["identity"])["identity"].value_counts().to_pylist():
                counts[entry["values"]] += entry["counts"]
        return dict(counts)

    def add(
        self, source: Mapping[str, Any], source_digest: str, samples: Iterable[Sample | SampleTable]
    ) -> Generation | None:
        """Add the samples that no generation holds yet as a new generation; return None if there are none. Each row of
        a table (workspace/plan_table.py) is a sample."""
        with lock_directory(self._folder.path, "the plan"):
            self.generations = self._read_all()  # another process may have planned since
            number = len(self.generations)
            shards: list[Shard] = []
            for left in self._folder.path.glob(".*.tmp"):  # left by a killed process
                left.unlink()
            groups = _groups(self.new_samples(samples))
            self._folder.put_all(_files(groups, number, shards))
            if not shards:
                return None
            generation = Generation(
                number=number, source=dict(source), source_digest=source_digest, shards=tuple(shards)
            )
            self._folder.put_json(
                f"g{number}.json",
                {
                    "source": generation.source,
                    "source_digest": source_digest,
                    "shards": [shard._asdict() for shard in shards],
                },
            )
            self.generations.append(generation)
            return generation

    def new_samples(self, samples: Iterable[Sample | SampleTable]) -> Iterator[SampleTable]:
        """Yield the samples that no generation holds yet, as they would be planned."""
        self.known_count = 0

        def counted() -> Iterator[SampleTable]:
            for table in columns.iterate_tables(samples):
                self.known_count += len(table)
                yield table

        for table in select_new_samples(counted(), self._planned()):
            self.known_count -= len(table)
            yield table

    def contains_source(self, source: Mapping[str, Any], source_digest: str) -> bool:
        """Whether exactly this list was planned before, so that it contains no new samples."""
        return any(
            generation.source_digest == source_digest and dict(generation.source) == dict(source)
            for generation in self.generations
        )

    def _planned(self) -> Iterator[PlannedShard]:
        for shard in self.shards:
            found = self._table(shard, ["key", "identity", "url", "path", "offset"])
            identities = found["identity"].unique().to_pylist()
            yield PlannedShard(found["key"].to_numpy(), location_keys(found).to_numpy(), identities)

    def _table(self, shard: Shard, names: Sequence[str] | None = None) -> Any:
        import pyarrow.parquet as pq

        path = self._folder / f"{shard.id}.parquet"
        try:
            with pq.ParquetFile(path) as file:
                return file.read(names)
        except (OSError, ValueError) as error:
            raise WorkspaceError(
                f"{path} cannot be read ({error}); restore it, or start again in another workspace"
            ) from None

    def _read_all(self) -> list[Generation]:
        found = [self._read(name) for name in self._folder.names("g*.json")]
        return sorted(found, key=lambda generation: generation.number)

    def _read(self, name: str) -> Generation:
        found = self._folder.get_json(name)
        try:
            return Generation(
                number=int(name[1:-5]),
                source=found["source"],
                source_digest=found["source_digest"],
                shards=tuple(Shard(**shard) for shard in found["shards"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WorkspaceError(f"{self._folder / name} is not a plan ({error!r})") from None


def _groups(tables: Iterable[SampleTable]) -> Iterator[SampleTable]:
    """Yield shards of 1,000 samples, or 10,000 after ten million samples; smaller for small sets, to use all cores.

    Local samples and samples behind URLs never share a shard.
    """
    import pyarrow as pa

    coming = iter(tables)
    head: list[SampleTable] = []
    while sum(map(len, head)) < 20_000 and (table := next(coming, None)) is not None:
        head.append(table)
    size = min(1000, max(50, -(-sum(map(len, head)) // 20)))
    total = 0
    for _, runs in itertools.groupby(_by_kind(itertools.chain(head, coming)), key=itemgetter(0)):
        held = None
        for _, run in runs:
            held = run if held is None else pa.concat_tables([held, run])
            while len(held) >= size:
                yield held.slice(0, size)
                total += size
                held = held.slice(size)
                size = size if total < 10_000_000 else 10_000
        if held is not None and len(held):
            yield held
            total += len(held)


def _by_kind(tables: Iterable[SampleTable]) -> Iterator[tuple[bool, SampleTable]]:
    """Split the tables into parts that are all local or all remote: (whether local, part)."""
    for table in tables:
        local = (table["path"].to_numpy() != "").astype(np.int8)
        for begin, end in pairwise([0, *(np.flatnonzero(np.diff(local)) + 1).tolist(), len(table)]):
            yield bool(local[begin]), table.slice(begin, end - begin)


def _files(groups: Iterable[SampleTable], generation: int, shards: list[Shard]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the shards' files, and append the shards to `shards`."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for position, group in enumerate(groups):
        unusable = group["error"].null_count < len(group)
        shard = Shard(
            id=f"g{generation}-{position:06d}",
            size=len(group),
            digest=columns.table_digest(group),
            remote=unusable or pc.any(pc.not_equal(group["url"], "")).as_py(),
        )
        shards.append(shard)
        stream = io.BytesIO()
        pq.write_table(group, stream, compression="zstd")
        yield f"{shard.id}.parquet", stream.getvalue()
