"""The detect stage with all faces, and with the one that is meant only."""

import re
from dataclasses import replace

import numpy as np
import pytest

from dataprep.detection.mtcnn import resolve_backend
from dataprep.imaging.codec import encode_png
from dataprep.reasons import Reason
from dataprep.stages.base import Item, Photo
from dataprep.stages.detect import DetectParams, DetectStage
from dataprep.synth.photos import draw_photo
from dataprep.types import Box, Row, Sample

LEFT, RIGHT = draw_photo(1, 0), draw_photo(2, 0, width=180, height=180)


def item(box: Box | None) -> Item:
    """Two drawn people, the larger on the left, and a published box."""
    pixels = np.full((250, 500, 3), 90, np.uint8)
    pixels[:, :250], pixels[:180, 300:480] = LEFT.pixels, RIGHT.pixels
    data = encode_png(pixels)
    sample = Sample(key="a/b", identity="a", path="b.png", box=box)
    values = {"validate": {"width": 500, "height": 250}, "crop": {"box": list(box) if box else None}}
    rows = {stage: Row(key="a/b", identity="a", values=own) for stage, own in values.items()}
    return Item(sample=sample, rows=rows, photo=Photo(lambda: data, codec="pillow", max_pixels=10**8))


def row(box: Box | None, **params: object) -> Row:
    return detect(item(box), **params)


def detect(given: Item, **params: object) -> Row:
    stage = DetectStage(DetectParams.from_mapping(params))
    stage.setup()
    return stage.apply_many([given])[0]


def published(points: np.ndarray, orientation: int = 1) -> Item:
    """The photo with a source's own landmarks, in a file of that EXIF orientation."""
    plain = item(LEFT.box)
    sample = replace(plain.sample, landmarks=tuple((float(x), float(y)) for x, y in points))
    seen = replace(plain.rows["validate"], values={"width": 500, "height": 250, "orientation": orientation})
    return replace(plain, sample=sample, rows={**plain.rows, "validate": seen})


def test_published_landmarks_stand_in_for_detection() -> None:
    found = detect(published(LEFT.landmarks))
    assert found.values["landmarks"] == LEFT.landmarks.ravel().tolist()
    assert found.values["boxes"] == list(LEFT.box)
    assert (found.values["faces"], found.values["selected"], found.values["scores"]) == (1, 0, [None])
    assert detect(published(LEFT.landmarks), landmarks="detect").values == row(LEFT.box).values
    assert DetectStage(DetectParams(backend="torch")).fingerprint("x") != DetectStage(
        DetectParams(backend="torch", landmarks="detect")
    ).fingerprint("x")


def test_published_landmarks_turn_with_their_photo() -> None:
    turned = detect(published(LEFT.landmarks, orientation=3))
    assert turned.values["landmarks"] == pytest.approx((np.array([499, 249]) - LEFT.landmarks).ravel(), abs=1e-4)
    left, top, right, bottom = LEFT.box
    assert turned.values["boxes"] == pytest.approx([500 - right, 250 - bottom, 500 - left, 250 - top])
    quarter = detect(published(LEFT.landmarks, orientation=6))  # stored 250 wide and 500 high
    x, y = LEFT.landmarks.T
    assert quarter.values["landmarks"] == pytest.approx(np.stack([499 - y, x], axis=1).ravel(), abs=1e-4)


@pytest.mark.parametrize(
    ("bad", "said"),
    [(np.nan, "not five finite points: .*nan"), (np.inf, "not five finite points"), (-9.0, "outside the photo"),
     (501.0, "outside the photo of 500x250")],
)  # fmt: skip
@pytest.mark.parametrize("one_by_one", [False, True])
def test_published_landmarks_that_cannot_be_are_a_reason(bad: float, said: str, one_by_one: bool) -> None:
    points = LEFT.landmarks.copy()
    points[3, 0] = bad
    given = published(points)
    lost = DetectStage(DetectParams(backend="torch")).apply_safely(given) if one_by_one else detect(given)
    assert lost.reason is Reason.BAD_LANDMARKS
    assert re.search(said, lost.detail)
    assert detect(given, landmarks="detect").reason is None


@pytest.mark.parametrize("backend", [resolve_backend(), "torch"])
@pytest.mark.parametrize("box", [None, Box(*np.add(RIGHT.box, (300, 0, 300, 0)).tolist())])
def test_the_chosen_face_is_the_same_whether_all_are_looked_for_or_one(backend: str, box: Box | None) -> None:
    every, one = row(box, backend=backend, faces="all"), row(box, backend=backend)
    assert every.verdict == one.verdict == "ok"
    assert (every.values["faces"], one.values["faces"], one.values["selected"]) == (2, 1, 0)
    chosen = every.values["selected"]
    points = np.reshape(every.values["landmarks"], (2, 10))
    assert points[chosen].tolist() == one.values["landmarks"]
    assert np.reshape(every.values["boxes"], (2, 4))[chosen].tolist() == one.values["boxes"]
    assert (points[chosen, 0] > 300) == (box is not None)


def test_a_published_box_beside_the_faces_loses_the_sample() -> None:
    beside = Box(255.0, 190.0, 295.0, 240.0)
    every, one = row(beside, faces="all"), row(beside)
    assert (every.reason, every.detail) == (Reason.NO_FACE, "2 found, none overlaps the published box")
    assert (one.reason, one.detail) == (Reason.NO_FACE, "none overlaps the published box")


def test_what_is_looked_for_counts() -> None:
    target = DetectParams(backend="torch")
    assert target.faces == "target"
    assert DetectStage(target).fingerprint("x") != DetectStage(replace(target, faces="all")).fingerprint("x")
