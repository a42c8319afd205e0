"""Base classes of the stages. CONTRIBUTING tells how to add a stage: parameters, columns and one method."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import ImageHeader, Pixels, decode_image, is_out_of_memory, read_header
from dataprep.interrupts import cpu_limit
from dataprep.packs.io import read_image_at
from dataprep.params import StageParams, fingerprint
from dataprep.reasons import Reason
from dataprep.types import Row, Sample
from dataprep.workspace.ledger import read_table
from dataprep.workspace.plan import Shard
from dataprep.workspace.workspace import Workspace

P = TypeVar("P", bound=StageParams)


MAX_PHOTO_BYTES = 256 << 20  # of a local file
MAX_DECODING = 60.0  # seconds of CPU; the largest photos that validate lets pass take ten
MERGE_UNIT = "all"  # the one unit of a stage over all shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What is known before a run: the workspace, all parameters, and the plan's photos per identity."""

    workspace: Path
    recipe: Mapping[str, Mapping[str, Any]]
    photos: Callable[[], Mapping[str, int]]


class Stage(ABC, Generic[P]):
    """A build step. Its output depends on `params.counted()`, `version`, `resources()` and the upstream stage."""

    name: ClassVar[str]
    version: ClassVar[int]  # bump by hand when the same parameters give different output
    needs: ClassVar[str | None]  # the stage whose ok rows are the input
    columns: ClassVar[Mapping[str, str]] = {}  # the stage's own ledger columns, with Arrow type names
    volatile: ClassVar[frozenset[str]] = frozenset()  # columns that later stages do not depend on
    Params: ClassVar[type[StageParams]]

    def __init__(self, params: P) -> None:
        self.params = params

    @classmethod
    def in_workspace(cls, params: P, workspace: Workspace) -> Self:
        """The stage as it runs in a workspace, with what the parameters leave to it: automatic choices, exclusions."""
        return cls(params)

    @classmethod
    def counted_columns(cls) -> list[str]:
        return [name for name in cls.columns if name not in cls.volatile]

    def resources(self) -> dict[str, str]:
        """Other inputs that affect the output, such as the hash of weights. Part of the fingerprint."""
        return {}

    def versions(self) -> dict[str, str]:
        """Library versions that may change the output. They are recorded, and checked when the stage is resumed."""
        return {}

    @classmethod
    def units(cls, shards: Mapping[str, Shard]) -> list[str]:
        """What the stage commits one by one: the ids of the plan's shards that it processes."""
        return list(shards)

    def output_exists(self, extra: Mapping[str, Any], workspace: Path) -> bool:
        """Whether the output outside the stage's directory that a commit marker records still exists unchanged."""
        return True

    def check(self, prospect: Prospect) -> None:
        """Raise DataprepError, before anything runs, if this stage cannot succeed, or would do what nobody wants."""

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
    """A sample's photo. Its bytes are read once and decoded once, however many stages use it."""

    def __init__(self, load: Callable[[], bytes], *, codec: str, max_pixels: int) -> None:
        self._load, self._codec, self._max_pixels = load, codec, max_pixels
        self._data: bytes | None = None
        self._decoded: tuple[Pixels, ImageHeader] | None = None

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
    def header(self) -> ImageHeader:
        return self._decode()[1]

    @property
    def pixel_count(self) -> int:
        """From the header, without decoding; 0 if it cannot be read (decoding then raises the reason)."""
        try:
            header = read_header(self.data, max_pixels=self._max_pixels)
        except (OSError, ImagingError):
            return 0
        return header.width * header.height

    def _decode(self) -> tuple[Pixels, ImageHeader]:
        if self._decoded is None:
            data = self.data
            with cpu_limit(MAX_DECODING, _too_slow):
                self._decoded = decode_image(data, codec=self._codec, max_pixels=self._max_pixels)
        return self._decoded


def _too_slow() -> ImagingError:
    return ImagingError(Reason.TOO_SLOW, f"not decoded in {MAX_DECODING:.0f} s of CPU")


def read_local_photo(sample: Sample) -> bytes:
    """Read the bytes of a local sample. Raises OSError, or ImagingError for a record that cannot be read."""
    if sample.offset is None:
        return _read_regular_file(sample.path)
    try:
        return read_image_at(Path(sample.path), sample.offset)
    except RecordError as error:
        raise ImagingError(Reason.CORRUPT, str(error)) from None


def _read_regular_file(path: str) -> bytes:
    """The bytes of a file, not of a pipe or device, which might never end, nor of a film, which might not fit."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ImagingError(Reason.NOT_AN_IMAGE, "not a regular file")
        if found.st_size > MAX_PHOTO_BYTES:
            raise ImagingError(Reason.TOO_LARGE, f"{found.st_size} bytes; the limit is {MAX_PHOTO_BYTES}")
        return stream.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A sample passing through the map stages: its origin, the rows of earlier stages, and its photo."""

    sample: Sample
    rows: Mapping[str, Row]
    photo: Photo

    def value(self, stage: str, column: str) -> Any:
        """The value that an earlier stage recorded for this sample."""
        return self.rows[stage].values[column]

    def ok(self, payload: bytes | None = None, **values: Any) -> Row:
        return Row(key=self.sample.key, identity=self.sample.identity, values=values, payload=payload)

    def rejected(self, reason: Reason, detail: str = "", **values: Any) -> Row:
        return Row(
            key=self.sample.key, identity=self.sample.identity, reason=reason, detail=detail[:300], values=values
        )


class MapStage(Stage[P]):
    """A stage that processes one sample at a time. Override `apply`, or `apply_many` where batches are faster."""

    def setup(self) -> None:
        """Load models and other heavy objects. Called once per worker process."""

    def apply(self, item: Item) -> Row:
        """Return the row of one sample. An ImagingError becomes the row's reason; any other exception is a bug."""
        raise NotImplementedError

    def apply_many(self, items: Sequence[Item]) -> list[Row]:
        """Return the rows of several samples, in order. An error in one sample does not affect the others."""
        return [self.apply_safely(item) for item in items]

    def apply_safely(self, item: Item) -> Row:
        try:
            return self.apply(item)
        except ImagingError as error:
            return item.rejected(error.reason, error.detail)
        except Exception as error:
            if is_out_of_memory(error):  # the run retries the shard with no other task running
                raise MemoryError(str(error)) from None
            return item.rejected(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeInput:
    """One upstream shard of a merge: the ledgers of the earlier stages, by stage name."""

    shard: str
    ledgers: Mapping[str, Path]

    def read_passed(self, stage: str, columns: Sequence[str], *, repeated: Sequence[str] = ()) -> Any:
        """Return the ok rows of a stage as an Arrow table; columns in `repeated` are dictionary-encoded."""
        return read_table(self.ledgers[stage], columns, ok=True, repeated=repeated)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """The result of a merge: an Arrow table (COMMON and its own columns), and extra values stored in its marker."""

    table: Any
    extra: Mapping[str, Any]


class MergeStage(Stage[P]):
    """A stage that processes all shards at once."""

    @abstractmethod
    def merge(self, parts: Sequence[MergeInput], context: MergeContext) -> MergeResult: ...

    @classmethod
    def units(cls, shards: Mapping[str, Shard]) -> list[str]:
        return [MERGE_UNIT]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeContext:
    """The context of a merge: workspace, recipe, sources and payloads."""

    workspace: Path
    recipe: Mapping[str, Mapping[str, Any]]
    sources: Sequence[Mapping[str, Any]]
    payloads: Mapping[str, Path]  # tars of the nearest upstream map stage, by shard
    progress: Callable[[int], None]  # progress callback: the number of samples processed so far
