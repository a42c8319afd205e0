import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from dataprep.imaging.geometry import (
    ARCFACE_TEMPLATE,
    clamp,
    extended_crop,
    overlap,
    similarity,
    template,
    turn_box,
    turn_points,
    warp,
)
from dataprep.imaging.photo import turn_pixels
from dataprep.samples import Box

MOVED = np.add(ARCFACE_TEMPLATE * 1.5, [40, 60])
edges = st.floats(-500, 1500, allow_nan=False, width=32)


@given(st.tuples(edges, edges, edges, edges), st.integers(1, 1000), st.integers(1, 1000))
def test_a_clamped_box_lies_in_the_photo_or_is_none(box: tuple[float, ...], width: int, height: int) -> None:
    inside = clamp(Box(*box), width, height)
    if inside is None:
        left, top, right, bottom = box
        assert left >= right or top >= bottom or left >= width or top >= height or right <= 0 or bottom <= 0
    else:
        assert 0 <= inside.left < inside.right <= width
        assert 0 <= inside.top < inside.bottom <= height


def test_nonsense_boxes_are_none() -> None:
    assert clamp(Box(0, 0, float("nan"), 5), 10, 10) is None
    assert clamp(Box(0, 0, float("inf"), 5), 10, 10) is None


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


points = st.lists(
    st.tuples(st.floats(0, 500, width=32), st.floats(0, 500, width=32)), min_size=5, max_size=5, unique=True
)


@given(points)
def test_the_similarity_is_scikit_images(found: list[tuple[float, float]]) -> None:
    source = np.array(found)
    if np.linalg.matrix_rank(source - source.mean(axis=0), tol=1.0) < 2:
        return  # nearly on a line: the best rotation is not unique
    oracle = SimilarityTransform.from_estimate(source, ARCFACE_TEMPLATE.astype(float))
    assert np.allclose(similarity(source, ARCFACE_TEMPLATE), oracle.params[:2], atol=1e-4)


def test_a_mirrored_face_is_never_reflected() -> None:
    mirrored = np.add(ARCFACE_TEMPLATE * [-1, 1], [200, 0])
    assert np.linalg.det(similarity(mirrored, ARCFACE_TEMPLATE)[:, :2]) > 0


@pytest.mark.parametrize("bad", [np.full((5, 2), np.nan), np.zeros((5, 2))])
def test_landmarks_that_cannot_be_fitted_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="landmarks"):
        similarity(bad, ARCFACE_TEMPLATE)


def test_templates_of_the_field() -> None:
    assert np.allclose(template(224, 224), 2 * ARCFACE_TEMPLATE)
    assert np.allclose(template(112, 96), ARCFACE_TEMPLATE - [8, 0])
    assert np.allclose(template(256, 256), 2 * np.add(ARCFACE_TEMPLATE, [8, 0]))
    with pytest.raises(ValueError, match="no template"):
        template(100, 100)


def test_a_warp_puts_landmarks_on_the_template() -> None:
    photo = np.zeros((300, 300, 3), np.uint8)
    matrix = similarity(MOVED, ARCFACE_TEMPLATE)
    for x, y in MOVED:
        photo[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 255
    face = warp(photo, matrix, 112, 112)
    for x, y in ARCFACE_TEMPLATE:
        assert face[round(y), round(x), 0] > 200


def test_vggface2s_crop_by_hand() -> None:
    # 100 x 128 is as oblong as 112:128 allows less, so it is widened to 112; times 1.3; around (150, 164)
    assert extended_crop(Box(100, 100, 200, 228), 0.3, 1000, 1000) == (76, 80, 223, 247)
    # clamped at the top left, where pixel 1 of MATLAB is our 0
    left, top, _, _ = extended_crop(Box(0, 0, 100, 100), 0.3, 500, 500)
    assert (left, top) == (0, 0)


def test_overlap() -> None:
    assert overlap(Box(0, 0, 2, 2), Box(1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert overlap(Box(0, 0, 2, 2), Box(2, 0, 3, 3)) == 0
