"""The data types shared by all parts: a sample listed by a source, and its result after a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from dataprep.reasons import Reason, Verdict

BoxFrame = Literal["stored", "upright"]
Landmarks = tuple[tuple[float, float], ...]


class Box(NamedTuple):
    """A face box in pixels: left and top inclusive, right and bottom exclusive, sub-pixel allowed."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One line of a source: a photo, the identity of its face, and the face's position.

    `key` is unique in a plan and has the form `identity/name`. A sample has a `url` or a local `path`: a file, or the
    record at byte `offset` of a .rec. An `aligned` sample is an aligned face, not a photo in which to detect faces.
    `box` is the published face box in the frame `box_frame`: `stored` is the pixel grid of the file, `upright` the grid
    after the EXIF rotation. `landmarks` are the published landmarks in that frame: five (x, y) in insightface's order
    (imaging/geometry.py); integer coordinates are pixel centres. `box_size` is the (width, height) of the photo that
    the box was measured on, if the source says it; (1, 1) for a box in shares of the photo. `hash` is the published
    hash of the photo's bytes, as `algorithm:hex`. `error` is set if the source's line itself is unusable."""

    key: str
    identity: str
    url: str = ""
    path: str = ""
    offset: int | None = None
    aligned: bool = False
    box: Box | None = None
    box_frame: BoxFrame = "stored"
    box_size: tuple[int, int] | None = None
    landmarks: Landmarks | None = None
    hash: str = ""
    error: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The result of one stage for one sample: the verdict, and the stage's own columns in `values`.

    `payload` is the stage's output for this sample (for example the bytes of an image). It is written to the shard's
    tar, and its position there to the ledger.
    """

    key: str
    identity: str
    reason: Reason | None = None
    detail: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes | None = None

    @property
    def verdict(self) -> Verdict:
        return "ok" if self.reason is None else self.reason.verdict
