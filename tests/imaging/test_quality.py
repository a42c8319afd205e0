"""Roll, yaw, residual and sharpness against heads turned in space, mirrored faces and numpy."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.detection.mtcnn import make_detector
from dataprep.imaging.codec import decode_image
from dataprep.imaging.geometry import ARCFACE_TEMPLATE, estimate_similarity
from dataprep.imaging.quality import alignment_error, estimate_roll, estimate_yaw, measure_sharpness
from dataprep.synth.photos import draw_photo

# right, down and towards the camera, in millimetres: pupils, tip of the nose, corners of the mouth
HEAD = np.array([[-31.5, -34, 0], [31.5, -34, 0], [0, 0, 26], [-25, 30, 0], [25, 30, 0]], float)


def seen(turned: float, tilted: float = 0.0, nodded: float = 0.0) -> np.ndarray:
    """The five points of a head that was turned, nodded and tilted by so many degrees, seen from far away."""
    a, b, c = np.radians([turned, nodded, tilted])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return (HEAD @ (tilt @ nod @ turn).T)[:, :2] * 3 + 200


@pytest.mark.parametrize("degrees", [-60, -45, -20, 0, 5, 30, 60])
@pytest.mark.parametrize("tilted", [-30, 0, 45])
def test_a_turned_head_gives_its_yaw_however_it_is_tilted(degrees: float, tilted: float) -> None:
    assert estimate_yaw(seen(degrees, tilted)) == pytest.approx(degrees, abs=0.5)


def test_nodding_hardly_changes_the_yaw() -> None:
    for nodded in (-20, 20):
        assert estimate_yaw(seen(25, 0, nodded)) == pytest.approx(25, abs=6)


@given(st.floats(-179, 179))
def test_roll_is_the_tilt_of_the_eyes_clockwise(degrees: float) -> None:
    assert estimate_roll(seen(0, degrees)) == pytest.approx(degrees, abs=1e-6)


def mirrored(points: np.ndarray, width: int) -> np.ndarray:
    """The landmarks of the mirrored photo: what was left is right."""
    return np.stack([width - 1 - points[:, 0], points[:, 1]], axis=1)[[1, 0, 2, 4, 3]]


def test_a_mirrored_face_has_the_opposite_yaw_and_roll() -> None:
    turned = [draw_photo(identity, photo).landmarks for identity in range(4) for photo in range(4)]
    assert max(abs(estimate_yaw(points)) for points in turned) > 8
    for points in turned:
        assert estimate_yaw(mirrored(points, 250)) == pytest.approx(-estimate_yaw(points), abs=1e-3)
        assert estimate_roll(mirrored(points, 250)) == pytest.approx(-estimate_roll(points), abs=1e-3)


def test_real_faces_have_small_rolls_and_opposite_yaws_when_mirrored(shared: Path) -> None:
    photos = [decode_image(path.read_bytes())[0] for path in sorted((shared / "lfw").glob("A*/*_0001.jpg"))[:12]]
    assert len(photos) == 12
    detector = make_detector()
    centre = [next(iter(f.landmarks)) for f in detector.detect(photos)]
    other = [next(iter(f.landmarks)) for f in detector.detect([np.ascontiguousarray(p[:, ::-1]) for p in photos])]
    yaws, others = np.array([estimate_yaw(p) for p in centre]), np.array([estimate_yaw(p) for p in other])
    assert np.corrcoef(yaws, others)[0, 1] < -0.9
    assert np.ptp(yaws) > 20
    assert np.median(np.abs([estimate_roll(p) for p in centre])) < 6  # LFW's deep funnelled faces are upright


def test_points_that_coincide_have_no_yaw_and_no_exception() -> None:
    assert estimate_yaw(np.zeros((5, 2))) == 0
    assert abs(estimate_yaw([[1, 1], [1, 1], [3, 2], [1, 4], [1, 4]])) == pytest.approx(90)


def test_the_residual_is_the_root_mean_square_distance() -> None:
    points = ARCFACE_TEMPLATE + np.array([[3, 4]] * 5)
    straight = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert alignment_error(points, straight, ARCFACE_TEMPLATE) == pytest.approx(5)
    assert alignment_error(points, estimate_similarity(points, ARCFACE_TEMPLATE), ARCFACE_TEMPLATE) == pytest.approx(
        0, abs=1e-5
    )


def test_sharpness_is_the_variance_of_the_laplacian_and_falls_with_blur() -> None:
    import cv2

    face = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    gray = np.pad(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(float), 1, mode="reflect")
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * gray[1:-1, 1:-1]
    assert measure_sharpness(face) == pytest.approx(laplacian.var(), rel=1e-9)
    photo = draw_photo(0, 0).pixels
    assert measure_sharpness(cv2.GaussianBlur(photo, (0, 0), 2)) < 0.5 * measure_sharpness(photo)
    assert math.isclose(measure_sharpness(np.full((9, 9, 3), 7, np.uint8)), 0)
