"""What a stage is. To add one, see CONTRIBUTING: its parameters, its columns, one method."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import Header, Pixels, decode, is_out_of_memory, read_header
from dataprep.packs.recordio import RecordReader, unpack_image
from dataprep.params import StageParams, fingerprint
from dataprep.reasons import Reason
from dataprep.types import Row, Sample
from dataprep.workspace.ledger import read_table

P = TypeVar("P", bound=StageParams)


class Stage(ABC, Generic[P]):
    """One step of the build. Output depends on `params.counted()`, `version`, `resources()` and the upstream stage."""

    name: ClassVar[str]
    version: ClassVar[int]  # bump by hand whenever the same parameters give other output
    needs: ClassVar[str | None]  # the stage whose ok rows come in
    columns: ClassVar[Mapping[str, str]] = {}  # the ledger's own columns, with Arrow type names
    volatile: ClassVar[frozenset[str]] = frozenset()  # columns that later stages do not depend on
    Params: ClassVar[type[StageParams]]

    def __init__(self, params: P) -> None:
        self.params = params

    @classmethod
    def counted_columns(cls) -> list[str]:
        return [name for name in cls.columns if name not in cls.volatile]

    def resources(self) -> dict[str, str]:
        """What else decides the output, such as the hash of weights: part of the fingerprint."""
        return {}

    def versions(self) -> dict[str, str]:
        """Libraries whose version may change a byte: recorded, and checked when a begun stage goes on."""
        return {}

    def check(self, photos: Callable[[], Mapping[str, int]]) -> None:
        """Raise DataprepError, before anything runs, if the plan's photos per identity cannot be enough for this stage."""

    def fingerprint(self, upstream: str) -> str:
        return fingerprint(
            {
                "stage": self.name,
                "version": self.version,
                "params": self.params.counted(),
                "resources": self.resources(),
                "upstream": upstream,
            }
        )


class Photo:
    """A sample's photo: bytes read, and pixels decoded, once however many stages ask."""

    def __init__(self, load: Callable[[], bytes], *, codec: str, max_pixels: int) -> None:
        self._load, self._codec, self._max_pixels = load, codec, max_pixels
        self._data: bytes | None = None
        self._decoded: tuple[Pixels, Header] | None = None

    @property
    def data(self) -> bytes:
        if self._data is None:
            self._data = self._load()
        return self._data

    @property
    def pixels(self) -> Pixels:
        """Upright RGB, (height, width, 3) uint8. Raises ImagingError."""
        return self._decode()[0]

    @property
    def header(self) -> Header:
        return self._decode()[1]

    @property
    def pixel_count(self) -> int:
        """By its header, nothing decoded; 0 if it cannot be read: whoever decodes it is told why."""
        try:
            header = read_header(self.data, max_pixels=self._max_pixels)
        except (OSError, ImagingError):
            return 0
        return header.width * header.height

    def _decode(self) -> tuple[Pixels, Header]:
        if self._decoded is None:
            self._decoded = decode(self.data, codec=self._codec, max_pixels=self._max_pixels)
        return self._decoded


def local_photo(sample: Sample) -> bytes:
    """The bytes of a sample on this disk. Raises OSError, or ImagingError for a record that cannot be read."""
    if sample.offset is None:
        return Path(sample.path).read_bytes()
    try:
        return unpack_image(_records(sample.path).at(sample.offset)).image
    except RecordError as error:
        raise ImagingError(Reason.CORRUPT, str(error)) from None


@functools.lru_cache(maxsize=16)
def _records(path: str) -> RecordReader:
    return RecordReader(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A sample on its way through the map stages: where it came from, what earlier stages found, and its photo."""

    sample: Sample
    rows: Mapping[str, Row]
    photo: Photo

    def value(self, stage: str, column: str) -> Any:
        """What an earlier stage wrote for this sample."""
        return self.rows[stage].values[column]

    def ok(self, payload: bytes | None = None, **values: Any) -> Row:
        return Row(key=self.sample.key, identity=self.sample.identity, values=values, payload=payload)

    def lost(self, reason: Reason, detail: str = "", **values: Any) -> Row:
        return Row(
            key=self.sample.key, identity=self.sample.identity, reason=reason, detail=detail[:300], values=values
        )


class MapStage(Stage[P]):
    """A stage that looks at one sample at a time. Override `apply`, or `apply_many` where batches pay."""

    def setup(self) -> None:
        """Load what is heavy; called once per worker process."""

    def apply(self, item: Item) -> Row:
        """The row of one sample. ImagingError becomes the row's reason; any other exception is a bug."""
        raise NotImplementedError

    def apply_many(self, items: Sequence[Item]) -> list[Row]:
        """Rows of several samples, in order; one sample's trouble is its own."""
        return [self.guarded(item) for item in items]

    def guarded(self, item: Item) -> Row:
        try:
            return self.apply(item)
        except ImagingError as error:
            return item.lost(error.reason, error.detail)
        except Exception as error:
            if is_out_of_memory(error):  # the run tries again with nothing beside it
                raise MemoryError(str(error)) from None
            return item.lost(Reason.BUG, f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One upstream shard for a merge: the ledgers of the stages before it, by name."""

    shard: str
    ledgers: Mapping[str, Path]

    def ok(self, stage: str, columns: Sequence[str], *, repeated: Sequence[str] = ()) -> Any:
        """The ok rows of a stage as an Arrow table; columns in `repeated` come dictionary-encoded."""
        return read_table(self.ledgers[stage], columns, ok=True, repeated=repeated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge gives: its rows as an Arrow table (COMMON and its own columns), and what its marker remembers."""

    table: Any
    extra: Mapping[str, Any]


class MergeStage(Stage[P]):
    """A stage over all shards at once."""

    @abstractmethod
    def merge(self, parts: Sequence[Part], context: MergeContext) -> Merged: ...

    def still_there(self, extra: Mapping[str, Any], context: MergeContext) -> bool:
        """Whether what the marker speaks of still lies where it was put."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeContext:
    """What a merge may need to know of the build around it."""

    workspace: Path
    recipe: Mapping[str, Mapping[str, Any]]
    sources: Sequence[Mapping[str, Any]]
    payloads: Mapping[str, Path]  # the tars of the map stage nearest upstream, by shard
    tick: Callable[[int], None]  # call with the number of samples dealt with so far
