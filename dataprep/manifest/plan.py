"""The frozen plan: which samples there are, in shards. A source that grows, or another one, appends a generation."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from dataprep.errors import Reason, WorkspaceError
from dataprep.manifest.fresh import Planned, fresh
from dataprep.manifest.locks import locked
from dataprep.samples import Box, Sample
from dataprep.storage import Folder


class Shard(NamedTuple):
    """A unit of work and of commit. `remote` samples lie behind URLs; the others on this disk."""

    id: str
    size: int
    digest: str
    remote: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What one planning added: the source, a digest of its lists, and its shards."""

    number: int
    source: Mapping[str, Any]
    source_digest: str
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        return sum(shard.size for shard in self.shards)


class Plan:
    """The generations under WORKSPACE/plan. `known` counts the samples of the last list that were in it before."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self.known = folder, 0
        self.generations = self._read_all()

    @property
    def shards(self) -> list[Shard]:
        return [shard for generation in self.generations for shard in generation.shards]

    @property
    def count(self) -> int:
        return sum(generation.count for generation in self.generations)

    def samples(self, shard: Shard) -> list[Sample]:
        """The samples of a shard in plan order."""
        return [_sample(row) for row in self._table(shard).to_pylist()]

    def add(self, source: Mapping[str, Any], source_digest: str, samples: Iterable[Sample]) -> Generation | None:
        """Freeze the samples that no generation holds yet; None if there are none."""
        with locked(self._folder.path, "the plan"):
            self.generations = self._read_all()  # another process may have planned since
            number = len(self.generations)
            shards: list[Shard] = []
            for left in self._folder.path.glob(".*.tmp"):  # by a planning that was killed
                left.unlink()
            groups = _groups(self.fresh(samples))
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

    def fresh(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples that no generation holds yet, as they would be planned."""
        listed, found = itertools.count(), 0
        for sample in fresh((sample for sample, _ in zip(samples, listed, strict=False)), self._planned()):
            found += 1
            yield sample
        self.known = next(listed) - found

    def knows(self, source: Mapping[str, Any], source_digest: str) -> bool:
        """Whether exactly this list was planned before, so that nothing in it can be new."""
        return any(
            generation.source_digest == source_digest and dict(generation.source) == dict(source)
            for generation in self.generations
        )

    def _planned(self) -> Iterator[Planned]:
        import pyarrow.compute as pc

        for shard in self.shards:
            found = self._table(shard, ["key", "identity", "url", "path", "offset"])
            where = found["offset"].cast("string").fill_null("")
            place = pc.binary_join_element_wise(found["url"], found["path"], where, "\0")
            yield Planned(found["key"].to_numpy(), place.to_numpy(), found["identity"].unique().to_pylist())

    def _table(self, shard: Shard, columns: Sequence[str] | None = None) -> Any:
        import pyarrow.parquet as pq

        path = self._folder / f"{shard.id}.parquet"
        try:
            with pq.ParquetFile(path) as file:
                return file.read(columns)
        except (OSError, ValueError) as error:
            raise WorkspaceError(
                f"{path} cannot be read ({error}); restore it, or plan anew in another workspace"
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


def _groups(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    """Shards of 1,000 samples; of 10,000 from ten million on; smaller ones for small sets, so that all cores have work.

    Samples on this disk and samples behind URLs never share a shard.
    """
    head = list(itertools.islice(samples, 20_000))
    size = min(1000, max(50, -(-len(head) // 20)))
    total = 0
    for _, kind in itertools.groupby(itertools.chain(head, samples), key=lambda sample: bool(sample.path)):
        while group := list(itertools.islice(kind, size if total < 10_000_000 else 10_000)):
            total += len(group)
            yield group


def _files(groups: Iterable[list[Sample]], generation: int, shards: list[Shard]) -> Iterator[tuple[str, bytes]]:
    """The shards' files by name; `shards` gets the shards themselves."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for position, group in enumerate(groups):
        columns = _columns(group)
        text = json.dumps(columns, sort_keys=True, ensure_ascii=True)
        shard = Shard(
            id=f"g{generation}-{position:06d}",
            size=len(group),
            digest=hashlib.sha256(text.encode()).hexdigest(),
            remote=any(sample.url or sample.trouble for sample in group),
        )
        shards.append(shard)
        stream = io.BytesIO()
        pq.write_table(pa.Table.from_pydict(columns, schema=_schema()), stream, compression="zstd")
        yield f"{shard.id}.parquet", stream.getvalue()


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in ("key", "identity", "url", "path", "box_frame", "trouble", "detail")),
            ("offset", pa.int64()),
            ("aligned", pa.bool_()),
            ("box", pa.list_(pa.float64())),
            ("landmarks", pa.list_(pa.float64())),  # x1, y1, ... x5, y5
            ("hash", pa.string()),  # older plans lack this column and the one before
        ]
    )


def _columns(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    plain = ("key", "identity", "url", "path", "offset", "aligned", "box_frame", "detail", "hash")
    return {
        **{name: list(map(attrgetter(name), samples)) for name in plain},
        "trouble": [s.trouble.code if s.trouble else None for s in samples],
        "box": [s.box and list(s.box) for s in samples],
        "landmarks": [s.landmarks and [value for point in s.landmarks for value in point] for s in samples],
    }


def _sample(columns: dict[str, Any]) -> Sample:
    box, trouble, numbers = columns.pop("box"), columns.pop("trouble"), columns.pop("landmarks", None)
    return Sample(
        **columns,
        box=Box(*box) if box else None,
        landmarks=tuple(zip(numbers[::2], numbers[1::2], strict=True)) if numbers else None,
        trouble=Reason.from_code(trouble) if trouble else None,
    )
