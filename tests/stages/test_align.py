"""The align stage: what its options make of a drawn face, what it records, and which faces it drops."""

import io
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image
from skimage.transform import SimilarityTransform

from dataprep.errors import UsageError
from dataprep.imaging.codec import encode_png
from dataprep.imaging.geometry import scale_template
from dataprep.imaging.quality import measure_sharpness
from dataprep.reasons import Reason
from dataprep.stages.align import AlignParams, AlignStage
from dataprep.stages.base import Item, Photo
from dataprep.synth.photos import draw_photo
from dataprep.types import Row, Sample

DRAWN = draw_photo(1, 0)


def item(pixels: np.ndarray = DRAWN.pixels, points: np.ndarray = DRAWN.landmarks, **detected: object) -> Item:
    data = encode_png(pixels)
    found = {
        "selected": 0,
        "landmarks": np.ravel(points).tolist(),
        "boxes": list(DRAWN.box),
        "scores": [0.9],
        **detected,
    }
    return Item(
        sample=Sample(key="a/b", identity="a", path="b.png"),
        rows={"detect": Row(key="a/b", identity="a", values=found)},
        photo=Photo(lambda: data, codec="pillow", max_pixels=10**8),
    )


def align(given: Item | None = None, **params: object) -> Row:
    return AlignStage(AlignParams.from_mapping({"format": "png", **params})).apply_safely(given or item())


def face(row: Row) -> np.ndarray:
    assert row.reason is None, row
    assert row.payload is not None
    return np.asarray(Image.open(io.BytesIO(row.payload)))


@pytest.mark.parametrize(("size", "height", "width"), [("112", 112, 112), ("96x112", 112, 96), ("224", 224, 224)])
def test_the_matrix_is_scikit_images_for_every_template(size: str, height: int, width: int) -> None:
    row = align(size=size)
    assert face(row).shape == (height, width, 3)
    oracle = SimilarityTransform.from_estimate(
        DRAWN.landmarks.astype(float), scale_template(height, width).astype(float)
    )
    assert np.allclose(np.reshape(row.values["matrix"], (2, 3)), oracle.params[:2], atol=1e-4)
    fitted = oracle(DRAWN.landmarks.astype(float))
    missed = np.sqrt(((fitted - scale_template(height, width)) ** 2).sum(axis=1).mean())
    assert row.values["alignment_error"] == pytest.approx(missed, abs=1e-4)


def test_the_quality_is_on_record() -> None:
    row = align()
    box = DRAWN.box
    assert set(row.values) == set(AlignStage.columns)
    assert (row.values["score"], row.values["outside_fraction"]) == (0.9, 0.0)
    assert row.values["box_side"] == min(box.width, box.height)
    assert row.values["sharpness"] == pytest.approx(measure_sharpness(face(row)))


FILTERS = [
    ({"min_prob": 0.95}, Reason.LOW_CONFIDENCE, "probability 0.900"),
    ({"min_size": 500.0}, Reason.FACE_TOO_SMALL, "pixels"),
    ({"max_scale": 0.01}, Reason.UPSCALED, "enlarged"),
    ({"max_roll": 0.0}, Reason.ROLL_TOO_LARGE, "degrees"),
    ({"max_yaw": 0.0}, Reason.YAW_TOO_LARGE, "degrees"),
    ({"max_residual": 0.01}, Reason.ALIGNMENT_ERROR, "off the template"),
    ({"min_sharpness": 1e9}, Reason.BLURRED, "sharpness"),
]


@pytest.mark.parametrize(("limit", "reason", "said"), FILTERS)
@pytest.mark.parametrize("way", [{}, {"extend": 0.3, "size": "224"}, {"margin": 32, "size": "160"}])
def test_a_filter_drops_with_its_reason_and_what_was_measured(
    limit: dict[str, object], reason: Reason, said: str, way: dict[str, object]
) -> None:
    row = align(**limit, **way)
    assert (row.reason, row.verdict, row.payload) == (reason, "dropped", None)
    assert said in row.detail
    assert row.values["yaw"] is not None
    kept = {name: type(value)(10**6 if name.startswith("max_r") else 0) for name, value in limit.items()}
    loose = {"max_yaw": 90.0, "max_roll": 180.0, "max_scale": 100.0}
    assert align(**{name: loose.get(name, value) for name, value in kept.items()}, **way).reason is None


@pytest.mark.parametrize("sign", [-1, 1])
def test_both_directions_of_a_turn_are_dropped(sign: int) -> None:
    points = DRAWN.landmarks.copy()
    points[2, 0] += sign * 25
    assert align(item(points=points), max_yaw=30).reason is Reason.YAW_TOO_LARGE
    assert np.sign(align(item(points=points)).values["yaw"]) == sign


def test_a_face_that_the_border_cuts_is_kept_or_dropped_and_told() -> None:
    left = int(DRAWN.landmarks[:, 0].mean())
    cut = item(DRAWN.pixels[:, left:], DRAWN.landmarks - [left, 0])
    share = align(cut).values["outside_fraction"]
    assert 0.3 < share < 0.7
    assert (face(align(cut)) == 0).all(axis=2).mean() == pytest.approx(share, abs=0.02)
    assert align(cut, max_outside=0.25).reason is Reason.FACE_OUT_OF_FRAME
    assert align(cut, max_outside=share + 0.01).reason is None
    assert not (face(align(cut, border="replicate")) == 0).all(axis=2).any()


def test_what_is_not_known_of_a_face_never_drops_it() -> None:
    published = item(boxes=[], scores=[None])
    row = align(published, min_prob=0.99, min_size=1000)
    assert row.reason is None
    assert (row.values["score"], row.values["box_side"]) == (None, None)
    row = align(published, extend=0.3)
    assert (row.reason, "detecting landmarks" in row.detail) == (Reason.BAD_BOX, True)


def test_landmarks_that_coincide_lose_a_warp_and_not_a_crop() -> None:
    points = np.full((5, 2), 100.0)
    assert align(item(points=points)).reason is Reason.BAD_LANDMARKS
    row = align(item(points=points), extend=0.3, max_residual=0.5)
    assert row.reason is None
    assert row.values["alignment_error"] is None


def test_margin_crops_are_stretched_as_facenet_does_and_extended_ones_centred() -> None:
    import cv2

    box = DRAWN.box
    left, top = int(box.left - 16), int(box.top - 16)
    right, bottom = int(box.right + 16), int(box.bottom + 16)
    expected = cv2.resize(DRAWN.pixels[top:bottom, left:right], (160, 160), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(face(align(margin=32, size=160, interpolation="linear")), expected)
    assert face(align(margin=44, size=182, fit="none")).shape[:2] != (182, 182)
    centred = align(extend=0.3, size=224, fit="short-centre")
    assert align(extend=0.3, size=224).payload == centred.payload
    assert align(extend=0.3, size=224, fit="pad").payload != centred.payload


def test_a_face_that_was_aligned_before_keeps_its_bytes_and_is_measured() -> None:
    given = item(np.ascontiguousarray(DRAWN.pixels[:112, :112]))
    done = Item(sample=Sample(key="a/b", identity="a", path="b", aligned=True), rows={}, photo=given.photo)
    row = align(done)
    assert row.payload == given.photo.data
    assert row.values["sharpness"] > 0
    assert align(done, min_sharpness=1e9).reason is Reason.BLURRED
    assert align(done, min_prob=1, max_yaw=0, max_roll=0, max_outside=0).reason is None
    assert align(done, size=224).reason is Reason.SIZE_MISMATCH


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"extend": 0.3, "margin": 32}, "two ways to crop"),
        ({"fit": "pad"}, "fit 'pad' applies to crops only"),
        ({"margin": 160, "margin_rule": "output", "size": "160"}, "leaves no pixels"),
        ({"size": "160"}, "a multiple of 112"),
        ({"size": "33600"}, "between 1 and 4096"),
        ({"border": "pink"}, "border"),
        ({"max_yaw": "much"}, "max_yaw: expected float"),
        ({"interpolation": "nearest"}, "interpolation"),
    ],
)
def test_options_that_make_no_sense_are_named(params: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AlignParams.from_mapping(params)


def test_every_option_counts_and_whole_numbers_are_the_same_as_typed_ones() -> None:
    assert set(AlignParams().counted()) == {f.name for f in fields(AlignParams)}
    one, other = AlignParams.from_mapping({"max-yaw": 30}), AlignParams(max_yaw=30.0)
    assert (
        AlignStage(one).fingerprint("x")
        == AlignStage(other).fingerprint("x")
        != AlignStage(AlignParams()).fingerprint("x")
    )
