import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from dataprep.imaging.codec import turn_pixels
from dataprep.imaging.geometry import (
    ARCFACE_TEMPLATE,
    box_iou,
    clamp_box,
    estimate_similarity,
    outside_fraction,
    scale_template,
    turn_box,
    turn_landmarks,
    turn_points,
    warp_image,
)
from dataprep.types import Box

MOVED = np.add(ARCFACE_TEMPLATE * 1.5, [40, 60])
edges = st.floats(-500, 1500, allow_nan=False, width=32)


@given(st.tuples(edges, edges, edges, edges), st.integers(1, 1000), st.integers(1, 1000))
def test_a_clamped_box_lies_in_the_photo_or_is_none(box: tuple[float, ...], width: int, height: int) -> None:
    inside = clamp_box(Box(*box), width, height)
    if inside is None:
        left, top, right, bottom = box
        assert left >= right or top >= bottom or left >= width or top >= height or right <= 0 or bottom <= 0
    else:
        assert 0 <= inside.left < inside.right <= width
        assert 0 <= inside.top < inside.bottom <= height


def test_nonsense_boxes_are_none() -> None:
    assert clamp_box(Box(0, 0, float("nan"), 5), 10, 10) is None
    assert clamp_box(Box(0, 0, float("inf"), 5), 10, 10) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_points_turn_with_their_pixels(orientation: int) -> None:
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[10:16, 20:31] = 255
    turned = turn_pixels(stored, orientation)
    ys, xs = np.nonzero(turned[:, :, 0])
    expected = Box(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert turn_box(Box(20, 10, 31, 16), orientation, 60, 40) == expected
    corner = turn_points([[20, 10]], orientation, 60, 40)[0]
    assert corner[0] in (expected.left, expected.right)
    assert corner[1] in (expected.top, expected.bottom)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_landmarks_turn_with_the_centres_of_their_pixels(orientation: int) -> None:
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[10, 20] = 255
    ((y, x),) = np.argwhere(turn_pixels(stored, orientation)[:, :, 0])
    assert turn_landmarks([[20, 10]], orientation, 60, 40).tolist() == [[x, y]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mirror_makes_left_landmarks_right_ones(orientation: int) -> None:
    upright = ARCFACE_TEMPLATE + 10
    marks = np.zeros((150, 140, 3), np.uint8)  # the upright photo, with a colour for each landmark
    for number, (x, y) in enumerate(upright.round().astype(int), 1):
        marks[y, x] = number
    back = {6: 8, 8: 6}.get(orientation, orientation)
    stored = turn_pixels(marks, back)
    seen = np.array([np.argwhere(stored[:, :, 0] == number)[0][::-1] for number in range(1, 6)])
    if orientation in (2, 4, 5, 7):  # who looks at the stored photo, turned by 90 degrees at most, sees a mirror image
        seen = seen[[1, 0, 2, 4, 3]]
    height, width = stored.shape[:2]
    assert turn_landmarks(seen, orientation, width, height).tolist() == upright.round().tolist()


points = st.lists(
    st.tuples(st.floats(0, 500, width=32), st.floats(0, 500, width=32)), min_size=5, max_size=5, unique=True
)


@given(points)
def test_the_similarity_is_scikit_images(found: list[tuple[float, float]]) -> None:
    source = np.array(found)
    if np.linalg.matrix_rank(source - source.mean(axis=0), tol=1.0) < 2:
        return  # nearly on a line: the best rotation is not unique
    oracle = SimilarityTransform.from_estimate(source, ARCFACE_TEMPLATE.astype(float))
    assert np.allclose(estimate_similarity(source, ARCFACE_TEMPLATE), oracle.params[:2], atol=1e-4)


@given(st.floats(0, 6.28), st.floats(0.2, 5), st.integers(0, 2**32 - 1))
def test_a_mirrored_face_is_never_reflected(angle: float, scale: float, seed: int) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    noise = np.random.default_rng(seed).normal(0, 2, (5, 2))
    mirrored = np.add(ARCFACE_TEMPLATE * [-1, 1], [200, 0]) @ turn.T + noise
    matrix = estimate_similarity(mirrored, ARCFACE_TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0
    oracle = SimilarityTransform.from_estimate(mirrored, ARCFACE_TEMPLATE.astype(float))
    assert np.allclose(matrix, oracle.params[:2], atol=1e-4)


@pytest.mark.parametrize("bad", [np.full((5, 2), np.nan), np.zeros((5, 2))])
def test_landmarks_that_cannot_be_fitted_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="landmarks"):
        estimate_similarity(bad, ARCFACE_TEMPLATE)


def test_templates_of_the_field() -> None:
    assert np.allclose(scale_template(224, 224), 2 * ARCFACE_TEMPLATE)
    assert np.allclose(scale_template(112, 96), ARCFACE_TEMPLATE - [8, 0])
    assert np.allclose(scale_template(256, 256), 2 * np.add(ARCFACE_TEMPLATE, [8, 0]))
    with pytest.raises(ValueError, match="no template"):
        scale_template(100, 100)


def test_a_warp_puts_landmarks_on_the_template() -> None:
    photo = np.zeros((300, 300, 3), np.uint8)
    matrix = estimate_similarity(MOVED, ARCFACE_TEMPLATE)
    for x, y in MOVED:
        photo[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 255
    face = warp_image(photo, matrix, 112, 112)
    for x, y in ARCFACE_TEMPLATE:
        assert face[round(y), round(x), 0] > 200


def test_the_share_from_outside_is_what_a_warp_leaves_black() -> None:
    white = np.full((90, 120, 3), 255, np.uint8)
    for shift in ((0, 0), (-40, 0), (30, 60), (500, 0)):
        matrix = estimate_similarity(ARCFACE_TEMPLATE * 0.5 + shift, ARCFACE_TEMPLATE)
        black = (warp_image(white, matrix, 112, 112)[:, :, 0] < 128).mean()
        assert outside_fraction(matrix, 112, 112, (90, 120)) == pytest.approx(black, abs=0.02)
    assert outside_fraction(np.array([[1.0, 0, 0], [0, 1, 0]]), 90, 120, (90, 120)) == 0


def test_a_warp_by_area_is_the_mean_of_what_it_covers() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    # a quarter of the size: the centre of output pixel i is that of the 4 pixels from 4 * i on
    matrix = np.array([[0.25, 0, -0.375], [0, 0.25, -0.375]])
    mean = photo.reshape(15, 4, 20, 4, 3).mean(axis=(1, 3))
    assert np.abs(warp_image(photo, matrix, 15, 20, interpolation="area") - mean).max() <= 1
    assert np.abs(warp_image(photo, matrix, 15, 20) - mean).max() > 20
    huge = np.array([[0.001, 0, 0], [0, 0.001, 0]])
    assert warp_image(photo, huge, 112, 112, interpolation="area").shape == (112, 112, 3)


@pytest.mark.parametrize(("border", "edge"), [("black", 0), ("replicate", 1), ("reflect", 3)])
def test_what_lies_beyond_the_photo(border: str, edge: int) -> None:
    photo = np.repeat(np.arange(1, 41, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(40, axis=0)
    shifted = warp_image(photo, np.array([[1.0, 0, 10], [0, 1, 0]]), 40, 40, border=border)
    assert shifted[20, 8, 0] == edge
    assert shifted[20, 10, 0] == 1


def test_interpolations_differ_and_keep_a_photo_that_is_not_moved() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    still, moved = np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([[1.0, 0, 0.5], [0, 1, 0.5]])
    kinds = ("linear", "cubic", "lanczos")
    assert all(np.array_equal(warp_image(photo, still, 50, 50, interpolation=kind), photo) for kind in (*kinds, "area"))
    assert len({warp_image(photo, moved, 50, 50, interpolation=kind).tobytes() for kind in kinds}) == 3


def test_overlap() -> None:
    assert box_iou(Box(0, 0, 2, 2), Box(1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert box_iou(Box(0, 0, 2, 2), Box(2, 0, 3, 3)) == 0
