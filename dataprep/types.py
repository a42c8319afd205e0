"""The values that travel between the parts: what a source lists, and what became of it after a stage."""

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
    """One line of a source: a photo, whose face it shows, and where.

    `key` is unique in a plan and reads `identity/name`. A sample lies either behind a `url` or on this disk under
    `path`: a file, or the record at byte `offset` of a .rec. An `aligned` one is a face as a pack holds it, not a photo
    to look for faces in. `box` is the published face box, in the frame that `box_frame` names: `stored` is the pixel
    grid of the file as it is, `upright` the grid after the EXIF turn. `landmarks` are the published ones in that frame:
    five (x, y) in the field's order (imaging/geometry.py), whole numbers being centres of pixels. `hash` is the published
    one of the photo's bytes as `algorithm:hex`. `trouble` is set when the source's line itself is unusable.
    """

    key: str
    identity: str
    url: str = ""
    path: str = ""
    offset: int | None = None
    aligned: bool = False
    box: Box | None = None
    box_frame: BoxFrame = "stored"
    landmarks: Landmarks | None = None
    hash: str = ""
    trouble: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sample after one stage: the verdict, and the stage's own columns in `values`.

    `payload` is what the stage made for this sample (bytes of an image, say); it goes to the shard's tar, and the
    ledger keeps its place there.
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
