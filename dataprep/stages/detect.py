"""detect: find the faces in a photo with MTCNN, and select one of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from dataprep.detection.base import SELECTION_RULES, Detections, Detector, Target
from dataprep.detection.mtcnn import BACKENDS, make_detector, resolve_backend
from dataprep.detection.weights import weights_digest
from dataprep.errors import ImagingError
from dataprep.imaging.codec import Pixels
from dataprep.imaging.geometry import Points
from dataprep.params import StageParams, counted_field
from dataprep.reasons import Reason
from dataprep.stages.base import Item, MapStage
from dataprep.stages.crop import upright_box, upright_landmarks
from dataprep.types import Box, Row
from dataprep.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class DetectParams(StageParams):
    """Detector settings, as in facenet_pytorch.MTCNN, and how one face is selected."""

    landmarks: str = counted_field(
        "source", "use the source's landmarks if it has them, or always detect",
        choices=("source", "detect"),
    )  # fmt: skip
    faces: str = counted_field(
        "target", "detect only the target face, coarse to fine, or all faces", choices=("target", "all")
    )
    rule: str = counted_field("overlap", "how to choose the target face: best overlap with the published box "
                      "(without a box: area minus centre distance), or another rule", choices=SELECTION_RULES)  # fmt: skip
    min_overlap: float = counted_field(
        0.1, "minimum overlap of the face and the published box (intersection over union)", minimum=0.0, maximum=1.0
    )
    min_face: int = counted_field(20, "smallest face to detect, in pixels", minimum=12)
    threshold_p: float = counted_field(0.6, "score threshold of P-Net", minimum=0.0, maximum=1.0)
    threshold_r: float = counted_field(0.7, "score threshold of R-Net", minimum=0.0, maximum=1.0)
    threshold_o: float = counted_field(0.7, "score threshold of O-Net", minimum=0.0, maximum=1.0)
    factor: float = counted_field(0.709, "scale factor of the image pyramid", minimum=0.1, maximum=0.99)
    backend: str = counted_field("auto", "detector backend; auto is resolved once per workspace", choices=BACKENDS)


class DetectStage(MapStage[DetectParams]):
    name = "detect"
    version = 3
    needs = "crop"
    columns = {
        "faces": "int32",  # number of faces found; at most 1 if only the target face was searched for
        "boxes": "list<float>",  # left, top, right, bottom per face, in upright pixels
        "scores": "list<float>",  # null where the source's landmarks are used
        "landmarks": "list<float>",  # landmarks: x1, y1, ... x5, y5 per face
        "selected": "int32",
    }
    Params = DetectParams
    _detector: Detector

    @classmethod
    def in_workspace(cls, params: DetectParams, workspace: Workspace) -> Self:
        """Resolves the backend `auto`: to the workspace's earlier choice, or to this machine's default."""
        before = workspace.recipe().get("detect", {}).get("backend", "auto")
        return cls(replace(params, backend=resolve_backend(before if params.backend == "auto" else params.backend)))

    def resources(self) -> dict[str, str]:
        return {"weights": weights_digest()}

    def versions(self) -> dict[str, str]:
        if self.params.backend == "torch":
            return {"torch": importlib.metadata.version("torch")}
        return make_detector(self.params.backend).versions()

    def setup(self) -> None:
        p = self.params
        self._detector = make_detector(
            p.backend,
            min_face=p.min_face,
            thresholds=(p.threshold_p, p.threshold_r, p.threshold_o),
            factor=p.factor,
        )

    def apply_many(self, items: Sequence[Item]) -> list[Row]:
        rows: list[Row | None] = [None] * len(items)
        readable: list[tuple[Item, Pixels]] = []
        positions = []
        for position, item in enumerate(items):
            known = self._known(item)
            if known is not None:
                rows[position] = known
                continue
            try:
                readable.append((item, item.photo.pixels))
                positions.append(position)
            except ImagingError as error:
                rows[position] = item.rejected(error.reason, error.detail)
        try:
            found = self._detect(readable)
        except Exception:
            return super().apply_many(items)  # one by one, to find the sample at fault
        for position, faces in zip(positions, found, strict=True):
            rows[position] = self._row(items[position], faces)
        return [row for row in rows if row is not None]

    def apply(self, item: Item) -> Row:
        known = self._known(item)
        return known if known is not None else self._row(item, self._detect([(item, item.photo.pixels)])[0])

    def _known(self, item: Item) -> Row | None:
        """Return the row of a sample that needs no detection, or None."""
        if item.sample.aligned:
            return _nothing_to_find(item)
        points = upright_landmarks(item) if self.params.landmarks == "source" else None
        return None if points is None else _published(item, points)

    def _detect(self, photos: Sequence[tuple[Item, Pixels]]) -> list[Detections]:
        targets = [self._target(item) for item, _ in photos] if self.params.faces == "target" else None
        return self._detector.detect([pixels for _, pixels in photos], targets)

    def _target(self, item: Item) -> Target:
        box = item.value("crop", "box")
        return Target(rule=self.params.rule, published=Box(*box) if box else None, min_overlap=self.params.min_overlap)

    def _row(self, item: Item, detections: Detections) -> Row:
        target = self._target(item)
        chosen = target.choose(
            detections, width=item.value("validate", "width"), height=item.value("validate", "height")
        )
        values = {
            "faces": len(detections),
            "boxes": detections.boxes.ravel().tolist(),
            "scores": detections.probabilities.tolist(),
            "landmarks": detections.landmarks.ravel().tolist(),
            "selected": chosen,
        }
        if chosen is None:
            elsewhere = f"{len(detections)} found, none overlaps the published box" if len(detections) else "none found"
            if self.params.faces == "target" and target.rule == "overlap" and target.published:
                elsewhere = "none overlaps the published box"
            return item.rejected(Reason.NO_FACE, elsewhere, **values)
        return item.ok(**values)


def _published(item: Item, points: Points) -> Row:
    """The face given by the source's landmarks, which must lie in the photo (one pixel outside: 1-based sources)."""
    width, height = item.value("validate", "width"), item.value("validate", "height")
    if points.shape != (5, 2) or not np.isfinite(points).all():
        return item.rejected(
            Reason.BAD_LANDMARKS, f"the source's landmarks are not five finite points: {_shown(points)}"
        )
    if (points < -1).any() or (points > (width, height)).any():
        return item.rejected(
            Reason.BAD_LANDMARKS, f"the source's landmarks are outside the photo of {width}x{height}: {_shown(points)}"
        )
    box = upright_box(item)
    return item.ok(
        faces=1,
        boxes=list(box) if box else [],
        scores=[None],  # sources publish none
        landmarks=points.ravel().tolist(),
        selected=0,
    )


def _shown(points: Points) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _nothing_to_find(item: Item) -> Row:
    """The row of an aligned face. Detecting it again would only shift it slightly."""
    return item.ok(faces=1, boxes=[], scores=[], landmarks=[], selected=0)
