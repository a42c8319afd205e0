"""The plan: the list of samples, in shards, which never change. Planning new samples appends a generation."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from dataprep.errors import DamagedFileError, WorkspaceError
from dataprep.storage import Folder, encode_mapping, file_sha256, lock_directory
from dataprep.types import Sample
from dataprep.workspace import plan_table as columns
from dataprep.workspace.plan_merge import PlannedShard, location_keys, select_new_samples
from dataprep.workspace.plan_table import SampleTable

_log = logging.getLogger(__name__)
_ABOUT = b"dataprep"  # key of a shard's Parquet metadata


class Shard(NamedTuple):
    """A unit of work and of commit. Its samples are either all `remote` (behind URLs) or all local files. `file` is the
    sha256 of its Parquet file; empty in plans of earlier versions."""

    id: str
    size: int
    digest: str
    remote: bool
    file: str = ""


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

    @property
    def root(self) -> str:
        """The folder that all local samples come from; empty for a list of URLs."""
        return str(self.source.get("root", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """What has happened since to the photos of a shard: keys whose files are gone, and keys with another place, as
    (path, offset)."""

    gone: frozenset[str] = frozenset()
    moved: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)

    def apply(self, table: SampleTable) -> SampleTable:
        """The table without the photos that are gone, and with the new places of those that moved."""
        keys = table["key"].to_pylist()
        for name, at in (("path", 0), ("offset", 1)):
            if self.moved and name in table.column_names:
                values = zip(keys, table[name].to_pylist(), strict=True)
                placed = [self.moved[key][at] if key in self.moved else value for key, value in values]
                table = columns.replace_column(table, name, placed)
        return table.filter([key not in self.gone for key in keys]) if self.gone else table

    def digest(self, shard_digest: str) -> str:
        """The digest of an amended shard."""
        return hashlib.sha256(json.dumps([shard_digest, self.as_json()], sort_keys=True).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        return {"gone": sorted(self.gone), "moved": {key: list(place) for key, place in self.moved.items()}}


class Plan:
    """The generations under WORKSPACE/plan. `known_count` counts the samples of the last list that were already planned.

    The files of a generation never change. What happened to its photos afterwards is in plan/amended/SHARD.json.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder, self.known_count = folder, 0
        self._amendments: dict[str, Amendment] = {}
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

    def check_shard(self, shard: Shard) -> None:
        """Raise DamagedFileError if the file of a shard is not what was written."""
        self._read_file(shard.id)

    def local_samples(self, shard: Shard) -> Iterator[Sample]:
        """The samples of a shard that are files on this disk, with their key, identity, path and offset only."""
        table = self._table(shard, ["key", "identity", "path", "offset"])
        for key, identity, path, offset in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if path:
                yield Sample(key=key, identity=identity, path=path, offset=offset)

    def tables(self, names: Sequence[str] | None = None) -> Iterator[SampleTable]:
        """The shards as tables, with the columns `names` or all."""
        for shard in self.shards:
            yield self._table(shard, names)

    def photos_per_identity(self) -> dict[str, int]:
        """How many samples each identity has."""
        counts: Counter[str] = Counter()
        for table in self.tables(["identity"]):
            for entry in table["identity"].value_counts().to_pylist():
                counts[entry["values"]] += entry["counts"]
        return dict(counts)

    def add(
        self, source: Mapping[str, Any], source_digest: str, samples: Iterable[Sample | SampleTable]
    ) -> Generation | None:
        """Add the samples that no generation holds yet as a new generation; return None if there are none. Each row of
        a table (workspace/plan_table.py) is a sample."""
        with lock_directory(self._folder.path, "the plan"):
            self.generations = self._read_all()  # another process may have planned since
            number = max((generation.number for generation in self.generations), default=-1) + 1
            shards: list[Shard] = []
            self._folder.remove_leftovers()
            groups = _groups(self.new_samples(samples))
            self._folder.put_all(_files(groups, number, shards, {"source": source, "source_digest": source_digest}))
            if not shards:
                return None
            generation = Generation(
                number=number, source=dict(source), source_digest=source_digest, shards=tuple(shards)
            )
            self._folder.put_record(
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

    def amend(self, amendments: Mapping[str, Amendment]) -> None:
        """Record what happened to photos of these shards, in addition to what was recorded before."""
        with lock_directory(self._folder.path, "the plan"):
            self.generations = self._read_all()
            files = []
            for shard, new in amendments.items():
                old = self._amendments.get(shard, Amendment())
                moved = {key: place for key, place in {**old.moved, **new.moved}.items() if key not in new.gone}
                merged = Amendment(gone=old.gone | new.gone, moved=moved)
                files.append((f"{shard}.json", encode_mapping(merged.as_json())))
            self._folder.folder("amended").put_all(files)
            self.generations = self._read_all()

    def contains_source(self, source: Mapping[str, Any], source_digest: str) -> bool:
        """Whether exactly this list was planned before, so that it contains no new samples. Photos that were gone since
        may be there again."""
        return not any(amendment.gone for amendment in self._amendments.values()) and any(
            generation.source_digest == source_digest and dict(generation.source) == dict(source)
            for generation in self.generations
        )

    def _planned(self) -> Iterator[PlannedShard]:
        for found in self.tables(["key", "identity", "url", "path", "offset"]):
            identities = found["identity"].unique().to_pylist()
            yield PlannedShard(found["key"].to_numpy(), location_keys(found).to_numpy(), identities)

    def _table(self, shard: Shard, names: Sequence[str] | None = None) -> Any:
        amendment = self._amendments.get(shard.id)
        if amendment is None:
            return self._read_file(shard.id, names)
        table = amendment.apply(self._read_file(shard.id, names and list({*names, "key"})))
        return table if names is None else table.select(names)

    def _read_file(self, shard: str, names: Sequence[str] | None = None) -> Any:
        """A shard as it was planned. Raises WorkspaceError."""
        import pyarrow.parquet as pq

        path = self._folder / f"{shard}.parquet"
        remedy = "restore the folder plan/ from a copy, or import everything into a new workspace"
        try:
            if self._files.get(shard) and file_sha256(path) != self._files[shard]:
                raise DamagedFileError(f"{path} is damaged: it is not what was planned", path=path, hint=remedy)
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                return file.read(names)
        except (OSError, ValueError, KeyError) as error:
            raise DamagedFileError(f"{path} cannot be read ({error})", path=path, hint=remedy) from None

    def _read_all(self) -> list[Generation]:
        amended = self._folder.folder("amended")
        self._amendments = {name[:-5]: self._read_amendment(amended, name) for name in amended.names("g*.json")}
        self._files: dict[str, str] = {}
        numbers = [int(name[1:-5]) for name in self._folder.names("g*.json") if name[1:-5].isdecimal()]
        return [self._read_or_rebuild(number) for number in range(max(numbers, default=-1) + 1)]

    def _read_or_rebuild(self, number: int) -> Generation:
        """A generation; where its g*.json is damaged or gone, as its shards tell. A later one shows that it was complete."""
        try:
            if (self._folder / f"g{number}.json").exists():
                return self._read(number)
        except WorkspaceError as error:
            _log.warning("%s; read again from its shards", error)
        files = self._folder.names(f"g{number}-*.parquet")
        if not files:
            raise WorkspaceError(
                f"{self._folder / f'g{number}.json'} is damaged or gone, and so are its shards",
                hint="restore the folder plan/ from a copy, or import everything into a new workspace",
            )
        shards, about = [], dict[str, Any]()
        for name in files:
            table = self._read_file(name[:-8])
            about = json.loads((table.schema.metadata or {}).get(_ABOUT, b"{}"))
            table = table.cast(
                columns.plan_schema(table.column_names)
            )  # Parquet has another name for the items of lists
            shards.append(_describe(name[:-8], table, file_sha256(self._folder / name)))
        self._folder.put_record(
            f"g{number}.json",
            {
                "source": about.get("source", {"kind": "unknown"}),
                "source_digest": about.get("source_digest", ""),
                "shards": [shard._asdict() for shard in shards],
            },
        )
        return self._read(number)

    def _read(self, number: int) -> Generation:
        name = f"g{number}.json"
        found = self._folder.get_record(name) or {}
        try:
            shards = [Shard(**shard) for shard in found["shards"]]
            self._files.update((shard.id, shard.file) for shard in shards)
            return Generation(
                number=number,
                source=dict(found["source"]),
                source_digest=str(found["source_digest"]),
                shards=tuple(map(self._amended, shards)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WorkspaceError(f"{self._folder / name} is not a plan ({error!r})") from None

    def _amended(self, shard: Shard) -> Shard:
        amendment = self._amendments.get(shard.id)
        if amendment is None:
            return shard
        return shard._replace(size=shard.size - len(amendment.gone), digest=amendment.digest(shard.digest))

    @staticmethod
    def _read_amendment(folder: Folder, name: str) -> Amendment:
        try:
            found = folder.get_record(name) or {}
            return Amendment(
                gone=frozenset(found["gone"]),
                moved={key: (str(path), offset) for key, (path, offset) in found["moved"].items()},
            )
        except (DamagedFileError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise WorkspaceError(
                f"{folder / name} is not an amendment of the plan ({error!r})",
                hint=f"remove {folder / name} and import the photos again, which finds the same once more",
            ) from None


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


def _files(
    groups: Iterable[SampleTable], generation: int, shards: list[Shard], about: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the shards' files, and append the shards to `shards`. The files also say what their
    generation is about, so that it can be rebuilt from them."""
    import pyarrow.parquet as pq

    metadata = {_ABOUT: json.dumps(about, ensure_ascii=True).encode()}
    for position, group in enumerate(groups):
        stream, id = io.BytesIO(), f"g{generation}-{position:06d}"
        pq.write_table(group.replace_schema_metadata(metadata), stream, compression="zstd", write_page_checksum=True)
        shards.append(_describe(id, group, hashlib.sha256(stream.getvalue()).hexdigest()))
        yield f"{id}.parquet", stream.getvalue()


def _describe(id: str, table: SampleTable, file: str) -> Shard:
    import pyarrow.compute as pc

    unusable = table["error"].null_count < len(table)
    remote = unusable or pc.any(pc.not_equal(table["url"], "")).as_py()
    return Shard(id=id, size=len(table), digest=columns.table_digest(table), remote=remote, file=file)
