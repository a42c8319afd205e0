"""The output of a face detector, and the selection of the target among several faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dataprep.imaging.codec import Pixels
from dataprep.imaging.geometry import box_iou
from dataprep.types import Box

SELECTION_RULES = ("overlap", "area-centre", "centre", "largest", "probability")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """The faces in a photo, in upright pixel coordinates: boxes (n, 4) as left, top, right, bottom; probabilities (n,);
    landmarks (n, 5, 2). All are float32."""

    boxes: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.boxes)

    def box(self, index: int) -> Box:
        return Box(*(float(v) for v in self.boxes[index]))

    def select(self, index: int) -> Detections:
        """Only the face at `index`."""
        kept = slice(index, index + 1)
        return Detections(
            boxes=self.boxes[kept], probabilities=self.probabilities[kept], landmarks=self.landmarks[kept]
        )

    @classmethod
    def empty(cls) -> Detections:
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            probabilities=np.zeros(0, np.float32),
            landmarks=np.zeros((0, 5, 2), np.float32),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The rule that selects a photo's target face. `choose_face` describes the rules."""

    rule: str
    published: Box | None = None
    min_overlap: float = 0.0

    def choose(self, detections: Detections, *, width: int, height: int) -> int | None:
        """The index of the target face in a photo of size `width` x `height`, or None."""
        return choose_face(
            detections, self.rule, width=width, height=height, published=self.published, min_overlap=self.min_overlap
        )

    def filter_detections(self, detections: Detections, *, width: int, height: int) -> Detections:
        """Only the target face, or no face."""
        chosen = self.choose(detections, width=width, height=height)
        return Detections.empty() if chosen is None else detections.select(chosen)


class Detector(Protocol):
    """Finds faces. Output is equal if `versions` (weights and backend) is equal."""

    def detect(self, images: Sequence[Pixels], targets: Sequence[Target] | None = None) -> list[Detections]:
        """All faces in each photo. With `targets`, one for each photo, only the target face or none."""
        ...

    def versions(self) -> dict[str, str]: ...


def choose_face(
    detections: Detections,
    rule: str,
    *,
    width: int,
    height: int,
    published: Box | None = None,
    min_overlap: float = 0.0,
) -> int | None:
    """The index of the face that `rule` selects, or None.

    overlap      highest intersection over union with the published box, at least `min_overlap`; without a published
                 box, same as area-centre
    area-centre  largest area minus twice the squared distance from the centre of the photo (insightface, facenet)
    centre       box centre nearest to the centre of the photo, by |dx| + |dy| (VGGFace2)
    largest      largest area
    probability  highest probability
    """
    if not len(detections):
        return None
    if rule == "overlap" and published is not None:
        overlaps = [box_iou(detections.box(i), published) for i in range(len(detections))]
        best = int(np.argmax(overlaps))
        return best if overlaps[best] > 0 and overlaps[best] >= min_overlap else None
    left, top, right, bottom = detections.boxes.astype(np.float64).T
    area = (right - left) * (bottom - top)
    dx, dy = (left + right) / 2 - width / 2, (top + bottom) / 2 - height / 2
    if rule in ("overlap", "area-centre"):
        score = area - 2 * (dx**2 + dy**2)
    elif rule == "centre":
        score = -(abs(dx) + abs(dy))
    elif rule == "largest":
        score = area
    elif rule == "probability":
        score = detections.probabilities.astype(np.float64)
    else:
        raise ValueError(f"unknown rule {rule!r}; choose from {', '.join(SELECTION_RULES)}")
    return int(np.argmax(score))
