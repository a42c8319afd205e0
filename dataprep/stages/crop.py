"""crop: bring the published box onto the photo that came, upright, and clamp it. Writes a ledger, not pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dataprep.imaging.geometry import Points, clamp_box, turn_box, turn_landmarks
from dataprep.params import StageParams, counted_field
from dataprep.reasons import Reason
from dataprep.stages.base import Item, MapStage
from dataprep.types import Box, Row

_FARTHEST = 1e6  # pixels; no photo is larger, and float32 is imprecise beyond
_ROUNDING = 1.5  # pixels by which a resized photo's sides may differ from their ratio, beside one part in a hundred


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
    version = 3
    needs = "validate"
    columns = {
        "box": "list<double>",
        "inside_fraction": "double",
    }  # left, top, right, bottom in upright pixels; null if there is no box
    Params = CropParams

    def apply(self, item: Item) -> Row:
        if item.sample.aligned:  # a box in the list refers to the photo that the face was cut from
            return item.ok(box=None, inside_fraction=None)
        published = item.sample.box
        if published is None:
            return item.ok(box=None, inside_fraction=None)
        if not all(map(math.isfinite, published)):
            return item.rejected(Reason.BAD_BOX, f"a coordinate is not finite: {' '.join(map(str, published))}")
        if max(map(abs, published)) > _FARTHEST:
            return item.rejected(Reason.BAD_BOX, f"a coordinate exceeds a million: {' '.join(map(str, published))}")
        if not (published.width > 0 and published.height > 0):
            return item.rejected(
                Reason.BAD_BOX, f"right {published.right:g} or bottom {published.bottom:g} is not beyond left or top"
            )
        box = upright_box(item)
        width, height = item.value("validate", "width"), item.value("validate", "height")
        if box is None:
            return item.rejected(
                Reason.BOX_MISFIT,
                f"the box was measured on a photo of {'x'.join(map(str, item.sample.box_size or ()))}; the photo of "
                f"{width}x{height} has another shape",
            )
        inside = clamp_box(box, width, height)
        if inside is None:
            return item.rejected(Reason.BOX_OUTSIDE, f"the box is outside the photo of {width}x{height}")
        if box.centre[0] > width or box.centre[1] > height:  # whoever drew a box around a face saw at least half of it
            return item.rejected(
                Reason.BOX_MISFIT,
                f"the box reaches to {box.right:.0f},{box.bottom:.0f}, more than half of it beyond the photo of "
                f"{width}x{height}",
            )
        share = inside.area / box.area
        if share < self.params.min_inside:
            return item.rejected(Reason.BOX_OUTSIDE, f"{share:.0%} of the box is inside the photo of {width}x{height}")
        if min(inside.width, inside.height) < self.params.min_box:
            return item.rejected(Reason.BOX_OUTSIDE, f"{inside.width:.0f}x{inside.height:.0f} left after clamping")
        return item.ok(box=list(inside), inside_fraction=share)


def upright_box(item: Item) -> Box | None:
    """Return the box, not clamped: it may extend beyond the photo. None if there is none, or if the photo it was
    measured on had another shape, so that it was cut and not resized."""
    box, frame = item.sample.box, item.sample.box_frame
    orientation, width, height = _turn(item)
    if box is not None and item.sample.box_size:
        upright = item.value("validate", "width"), item.value("validate", "height")
        scaled = _rescaled(box, item.sample.box_size, (width, height) if frame == "stored" else upright)
        if scaled is None and frame == "stored":  # measured on a copy that was turned upright
            scaled, frame = _rescaled(box, item.sample.box_size, upright), "upright"
        box = scaled
    return box if box is None or frame == "upright" else turn_box(box, orientation, width, height)


def _rescaled(box: Box, measured: tuple[int, int], size: tuple[int, int]) -> Box | None:
    """The box on the photo of `size`, the (width, height) of a resized copy; None if the shapes differ."""
    across, down = size[0] / measured[0], size[1] / measured[1]
    if measured != (1, 1) and abs(size[0] - measured[0] * down) > max(
        _ROUNDING * max(1, measured[0] / measured[1]), 0.01 * size[0]
    ):
        return None
    return Box(box.left * across, box.top * down, box.right * across, box.bottom * down)


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
