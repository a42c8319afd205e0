"""The published box and landmarks of a sample as they stand in the upright photo that `validate` saw."""

from __future__ import annotations

from dataprep.imaging.geometry import Points, turn_box, turn_landmarks
from dataprep.samples import Box
from dataprep.stages.base import Item


def upright_box(item: Item) -> Box | None:
    """Not clamped: it may reach beyond the photo."""
    box = item.sample.box
    if box is None or item.sample.box_frame == "upright":
        return box
    return turn_box(box, *_turn(item))


def upright_landmarks(item: Item) -> Points | None:
    """(5, 2) float32, as finite as the source gives them."""
    points = item.sample.landmarks
    if points is None:
        return None
    return turn_landmarks(points, *_turn(item) if item.sample.box_frame == "stored" else (1, 0, 0))


def _turn(item: Item) -> tuple[int, int, int]:
    """EXIF orientation, width and height of the stored pixel grid."""
    width, height = item.value("validate", "width"), item.value("validate", "height")
    orientation = item.value("validate", "orientation")
    return (orientation, height, width) if orientation >= 5 else (orientation, width, height)
