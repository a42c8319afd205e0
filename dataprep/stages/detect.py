"""detect: the faces in a photo, with MTCNN, and which of them is meant."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataprep.detection.base import RULES, Detector, Faces, Target
from dataprep.detection.mtcnn import BACKENDS, make_detector, resolve_backend
from dataprep.detection.weights import weights_digest
from dataprep.errors import ImagingError
from dataprep.imaging.codec import Pixels
from dataprep.imaging.geometry import Points
from dataprep.params import StageParams, param
from dataprep.reasons import Reason
from dataprep.stages.base import Item, MapStage
from dataprep.stages.crop import upright_box, upright_landmarks
from dataprep.types import Box, Row


@dataclass(frozen=True, kw_only=True)
class DetectParams(StageParams):
    """How faces are found, as in facenet_pytorch.MTCNN, and how one of them is chosen."""

    landmarks: str = param(
        "source", "take the source's own landmarks where it has them, or detect all the same",
        choices=("source", "detect"),
    )  # fmt: skip
    faces: str = param(
        "target", "find only the face that is meant, coarse to fine, or all of them", choices=("target", "all")
    )
    rule: str = param("overlap", "which face is meant: best overlap with the published box (without one: "
                      "area minus centre distance), or another rule", choices=RULES)  # fmt: skip
    min_overlap: float = param(
        0.1, "a face must overlap the published box by this (intersection over union)", minimum=0.0, maximum=1.0
    )
    min_face: int = param(20, "the smallest face looked for, in pixels", minimum=12)
    threshold_p: float = param(0.6, "score threshold of P-Net", minimum=0.0, maximum=1.0)
    threshold_r: float = param(0.7, "score threshold of R-Net", minimum=0.0, maximum=1.0)
    threshold_o: float = param(0.7, "score threshold of O-Net", minimum=0.0, maximum=1.0)
    factor: float = param(0.709, "step of the image pyramid", minimum=0.1, maximum=0.99)
    backend: str = param("auto", "the detector's code; auto is settled once per workspace", choices=BACKENDS)

    def pinned(self, before: str = "auto") -> DetectParams:
        """With `auto` settled: as it was settled `before` in this workspace, else as this installation has it."""
        return replace(self, backend=resolve_backend(before if self.backend == "auto" else self.backend))


class Detect(MapStage[DetectParams]):
    name = "detect"
    version = 3
    needs = "crop"
    columns = {
        "faces": "int32",  # how many were found; one at most if only the one that is meant was looked for
        "boxes": "list<float>",  # of each: left, top, right, bottom, ... in upright pixels
        "probabilities": "list<float>",  # null where the source's own landmarks are taken
        "points": "list<float>",  # landmarks: x1, y1, ... x5, y5 per face
        "chosen": "int32",
    }
    Params = DetectParams
    _detector: Detector

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
                rows[position] = item.lost(error.reason, error.detail)
        try:
            found = self._detect(readable)
        except Exception:
            return super().apply_many(items)  # find out whose fault it is
        for position, faces in zip(positions, found, strict=True):
            rows[position] = self._row(items[position], faces)
        return [row for row in rows if row is not None]

    def apply(self, item: Item) -> Row:
        known = self._known(item)
        return known if known is not None else self._row(item, self._detect([(item, item.photo.pixels)])[0])

    def _known(self, item: Item) -> Row | None:
        """The row of a sample whose face need not be looked for."""
        if item.sample.aligned:
            return _nothing_to_find(item)
        points = upright_landmarks(item) if self.params.landmarks == "source" else None
        return None if points is None else _published(item, points)

    def _detect(self, photos: Sequence[tuple[Item, Pixels]]) -> list[Faces]:
        targets = [self._target(item) for item, _ in photos] if self.params.faces == "target" else None
        return self._detector.detect([pixels for _, pixels in photos], targets)

    def _target(self, item: Item) -> Target:
        box = item.value("crop", "box")
        return Target(rule=self.params.rule, published=Box(*box) if box else None, min_overlap=self.params.min_overlap)

    def _row(self, item: Item, faces: Faces) -> Row:
        target = self._target(item)
        chosen = target.choose(faces, width=item.value("validate", "width"), height=item.value("validate", "height"))
        values = {
            "faces": len(faces),
            "boxes": faces.boxes.ravel().tolist(),
            "probabilities": faces.probabilities.tolist(),
            "points": faces.landmarks.ravel().tolist(),
            "chosen": chosen,
        }
        if chosen is None:
            elsewhere = f"{len(faces)} found, none where the published box is" if len(faces) else "none found"
            if self.params.faces == "target" and target.rule == "overlap" and target.published:
                elsewhere = "none where the published box is"
            return item.lost(Reason.NO_FACE, elsewhere, **values)
        return item.ok(**values)


def _published(item: Item, points: Points) -> Row:
    """The face that the source's landmarks show, if they lie in the photo (a pixel beyond is how some count)."""
    width, height = item.value("validate", "width"), item.value("validate", "height")
    if points.shape != (5, 2) or not np.isfinite(points).all():
        return item.lost(Reason.BAD_LANDMARKS, f"the source's are not five finite points: {_shown(points)}")
    if (points < -1).any() or (points > (width, height)).any():
        return item.lost(
            Reason.BAD_LANDMARKS, f"the source's lie outside the photo of {width}x{height}: {_shown(points)}"
        )
    box = upright_box(item)
    return item.ok(
        faces=1,
        boxes=list(box) if box else [],
        probabilities=[None],  # nobody published one
        points=points.ravel().tolist(),
        chosen=0,
    )


def _shown(points: Points) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _nothing_to_find(item: Item) -> Row:
    """An aligned face is one face already; a detector would find it again a little elsewhere."""
    return item.ok(faces=1, boxes=[], probabilities=[], points=[], chosen=0)
