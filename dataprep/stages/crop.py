"""crop: rotate the published box with its photo and clamp it to the photo. Writes a ledger, not pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dataprep.imaging.geometry import Points, clamp_box, turn_box, turn_landmarks
from dataprep.params import StageParams, counted_field
from dataprep.reasons import Reason
from dataprep.stages.base import Item, MapStage
from dataprep.types import Box, Row

_FARTHEST = 1e6  # pixels; no photo is larger, and float32 is imprecise beyond


@dataclass(frozen=True, kw_only=True)
class CropParams(StageParams):
    """Which published boxes are usable after clamping."""

    min_box: int = counted_field(
        10, "drop boxes whose shorter side is below this many pixels after clipping", minimum=1
    )
    min_inside: float = counted_field(
        0.0, "drop boxes with less than this share inside the photo", minimum=0.0, maximum=1.0
    )


class CropStage(MapStage[CropParams]):
    name = "crop"
    version = 2
    needs = "validate"
    columns = {
        "box": "list<double>",
        "inside_fraction": "double",
    }  # left, top, right, bottom in upright pixels; null if there is no box
    Params = CropParams

    def apply(self, item: Item) -> Row:
        if item.sample.aligned:  # a box in the list refers to the photo that the face was cut from
            return item.ok(box=None, inside_fraction=None)
        published, box = item.sample.box, upright_box(item)
        if published is None or box is None:
            return item.ok(box=None, inside_fraction=None)
        if not all(map(math.isfinite, published)):
            return item.rejected(Reason.BAD_BOX, f"a coordinate is not finite: {' '.join(map(str, published))}")
        if max(map(abs, published)) > _FARTHEST:
            return item.rejected(Reason.BAD_BOX, f"a coordinate exceeds a million: {' '.join(map(str, published))}")
        if not (published.width > 0 and published.height > 0):
            return item.rejected(
                Reason.BAD_BOX, f"right {published.right:g} or bottom {published.bottom:g} is not beyond left or top"
            )
        width, height = item.value("validate", "width"), item.value("validate", "height")
        inside = clamp_box(box, width, height)
        if inside is None:
            return item.rejected(Reason.BOX_OUTSIDE, f"the box is outside the photo of {width}x{height}")
        share = inside.area / box.area
        if share < self.params.min_inside:
            return item.rejected(Reason.BOX_OUTSIDE, f"{share:.0%} of the box is inside the photo of {width}x{height}")
        if min(inside.width, inside.height) < self.params.min_box:
            return item.rejected(Reason.BOX_OUTSIDE, f"{inside.width:.0f}x{inside.height:.0f} left after clamping")
        return item.ok(box=list(inside), inside_fraction=share)


def upright_box(item: Item) -> Box | None:
    """Return the box, not clamped: it may extend beyond the photo."""
    box = item.sample.box
    if box is None or item.sample.box_frame == "upright":
        return box
    return turn_box(box, *_turn(item))


def upright_landmarks(item: Item) -> Points | None:
    """Return the landmarks, (5, 2) float32. Non-finite values of the source are kept."""
    points = item.sample.landmarks
    if points is None:
        return None
    return turn_landmarks(points, *_turn(item) if item.sample.box_frame == "stored" else (1, 0, 0))


def _turn(item: Item) -> tuple[int, int, int]:
    """Return EXIF orientation, and width and height of the stored pixel grid."""
    width, height = item.value("validate", "width"), item.value("validate", "height")
    orientation = item.value("validate", "orientation")
    return (orientation, height, width) if orientation >= 5 else (orientation, width, height)
