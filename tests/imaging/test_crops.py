"""The crops of VGGFace2 and facenet against the lines of their authors, and against the authors' own pictures."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.detection.base import choose_face
from dataprep.detection.mtcnn import make_detector
from dataprep.imaging.codec import decode_image
from dataprep.imaging.crops import Crop, extended_crop, fit_crop, fit_enlargement, margin_crop, output_margin
from dataprep.imaging.geometry import box_iou
from dataprep.types import Box

sides = st.floats(5, 400, width=32)
places = st.floats(-80, 500, width=32)


def matlab_round(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value)


def demo_proj(box: tuple[float, ...], rows: int, columns: int, extend: float) -> tuple[float, ...]:
    """ox-vgg/vgg_face2 demo_proj.m, line by line: x, y, w, h to the first and the last row and column, from 1."""
    x, y, w, h = box
    r = max(112 / 128, w / h)
    size = [h * r * (1 + extend), h * 1 * (1 + extend)]
    centre = [x + w / 2, y + h / 2]
    first_row, last_row = (
        max(1, matlab_round(centre[1] - size[1] / 2)),
        min(rows, matlab_round(centre[1] + size[1] / 2)),
    )
    first_column = max(1, matlab_round(centre[0] - size[0] / 2))
    last_column = min(columns, matlab_round(centre[0] + size[0] / 2))
    return first_row, last_row, first_column, last_column


@given(places, places, sides, sides, st.integers(20, 500), st.integers(20, 500))
def test_the_extended_crop_is_demo_projs(x: float, y: float, w: float, h: float, rows: int, columns: int) -> None:
    # a power of two keeps the two ways of adding up equal to the bit
    found = extended_crop(Box(x, y, x + w, y + h), 0.25, columns, rows)
    first_row, last_row, first_column, last_column = demo_proj((x, y, (x + w) - x, (y + h) - y), rows, columns, 0.25)
    assert np.abs(np.subtract(found[:4], (first_column - 1, first_row - 1, last_column, last_row))).max() <= 1
    if not any(abs(edge % 1 - 0.5) < 1e-3 for edge in edges_of(x, y, w, h)):
        assert found[:4] == (first_column - 1, first_row - 1, last_column, last_row)


def edges_of(x: float, y: float, w: float, h: float) -> list[float]:
    width, height = h * max(0.875, w / h) * 1.25, h * 1.25
    return [x + w / 2 - width / 2, x + w / 2 + width / 2, y + h / 2 - height / 2, y + h / 2 + height / 2]


@pytest.mark.parametrize(
    ("box", "extend", "expected"),
    [
        # 100 x 128 is narrower than 112:128, so it is widened to 112; times 1.3; around (150, 164)
        (Box(100, 100, 200, 228), 0.3, (76, 80, 223, 247)),
        # wider than 112:128 stays: 200 x 100 times 1.5 around (200, 150)
        (Box(100, 100, 300, 200), 0.5, (49, 74, 350, 225)),
        # halves go away from zero: 62.5 is 63 and 137.5 is 138, where banker's rounding has 62 and 138
        (Box(62.5, 62.5, 137.5, 137.5), 0.0, (62, 62, 138, 138)),
        # clamped at the top left, where pixel 1 of MATLAB is our 0, and at the bottom right
        (Box(0, 0, 100, 100), 0.3, (0, 0, 115, 115)),
        (Box(900, 900, 1000, 1000), 0.3, (884, 884, 1000, 1000)),
    ],
)
def test_vggface2s_crop_by_hand(box: Box, extend: float, expected: tuple[int, ...]) -> None:
    assert extended_crop(box, extend, 1000, 1000)[:4] == expected


def test_how_much_the_border_cut_is_told() -> None:
    assert extended_crop(Box(100, 100, 200, 200), 0.0, 1000, 1000).outside == 0
    assert extended_crop(Box(-50, 100, 50, 200), 0.0, 1000, 1000).outside == pytest.approx(0.5)
    assert margin_crop(Box(0, 0, 100, 100), (100, 0), 1000, 1000).outside == pytest.approx(0.25)
    assert extended_crop(Box(2000, 0, 2100, 100), 0.0, 1000, 1000).outside == 1


def align_dataset_mtcnn(det: np.ndarray, margin: int, img_size: tuple[int, int]) -> np.ndarray:
    """davidsandberg/facenet src/align/align_dataset_mtcnn.py, the lines around `bb`."""
    bb = np.zeros(4, dtype=np.int32)
    bb[0] = np.maximum(det[0] - margin / 2, 0)
    bb[1] = np.maximum(det[1] - margin / 2, 0)
    bb[2] = np.minimum(det[2] + margin / 2, img_size[1])
    bb[3] = np.minimum(det[3] + margin / 2, img_size[0])
    return bb


def extract_face(box: list[float], image_size: int, margin: int, raw_image_size: tuple[int, int]) -> list[int]:
    """facenet-pytorch 2.5.3 models/utils/detect_face.py extract_face, down to the box it crops."""
    by = [margin * (box[2] - box[0]) / (image_size - margin), margin * (box[3] - box[1]) / (image_size - margin)]
    return [
        int(max(box[0] - by[0] / 2, 0)),
        int(max(box[1] - by[1] / 2, 0)),
        int(min(box[2] + by[0] / 2, raw_image_size[0])),
        int(min(box[3] + by[1] / 2, raw_image_size[1])),
    ]


@given(st.floats(0, 300), st.floats(0, 300), sides, sides, st.sampled_from([(182, 44), (160, 32), (160, 0), (160, 33)]))
def test_the_margin_crops_are_facenets(x: float, y: float, w: float, h: float, rule: tuple[int, int]) -> None:
    (size, margin), box = rule, Box(x, y, x + w, y + h)
    found = margin_crop(box, (margin, margin), 480, 360)
    assert list(found[:4]) == align_dataset_mtcnn(np.array(box), margin, (360, 480)).tolist()
    found = margin_crop(box, output_margin(box, margin, size, size), 480, 360)
    assert list(found[:4]) == extract_face(list(box), size, margin, (480, 360))


def photo_of(width: int, height: int) -> np.ndarray:
    """Red grows to the right and green downwards, 0 to 250; blue is full."""
    across, down = np.meshgrid(np.linspace(0, 250, width), np.linspace(0, 250, height))
    return np.stack([across, down, np.full_like(across, 255)], axis=2).round().astype(np.uint8)


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (120, 240)])
def test_four_ways_from_an_oblong_crop_to_a_square(size: tuple[int, int]) -> None:
    photo, crop = photo_of(*size), Crop(0, 0, *size, 0.0)
    made = {
        fit: fit_crop(photo, crop, 224, 224, fit=fit, interpolation="linear", border="black").astype(int)
        for fit in ("short-centre", "stretch", "pad", "none")
    }
    assert {fit: made[fit].shape for fit in made} == dict.fromkeys(made, (224, 224, 3)) | {
        "none": (size[1], size[0], 3)
    }
    assert np.array_equal(made["none"], photo)
    assert made["stretch"][0, 0].max() == made["stretch"][-1, -1, :2].min() + 5 == 255
    longer = 0 if size[0] > size[1] else 1  # the channel along the longer side
    # shorter side to 256 and 224 of it: 250 * 224 / 256 along it, half of that along the other
    spread = np.ptp(made["short-centre"][:, :, :2], axis=(0, 1))
    assert spread[1 - longer] == pytest.approx(250 * 224 / 256, abs=3)
    assert spread[longer] == pytest.approx(250 * 224 / 512, abs=3)
    bars = (made["pad"] == 0).all(axis=2)
    assert bars.sum() == 224 * 112
    assert bars[0, 112] == bars[-1, 112] == (longer == 0)
    assert not bars[60:164, 60:164].any()


@pytest.mark.parametrize("size", [(4000, 4), (4, 4000), (4001, 3), (32, 4), (37, 4)])
def test_the_centre_of_a_strip_is_what_the_whole_strip_would_give(size: tuple[int, int]) -> None:
    photo, crop = photo_of(*size), Crop(0, 0, *size, 0.0)
    made = fit_crop(photo, crop, 224, 224, fit="short-centre", interpolation="linear", border="black").astype(int)
    scale = 256 / min(size)
    whole = cv2.resize(photo, (round(size[0] * scale), round(size[1] * scale)))
    y, x = (whole.shape[0] - 224) // 2, (whole.shape[1] - 224) // 2
    assert np.abs(made - whole[y : y + 224, x : x + 224]).max() <= 1


def test_the_enlargement_is_told_before_anything_is_resized() -> None:
    crop = Crop(0, 0, 50, 100, 0.0)
    assert [fit_enlargement(crop, 200, 200, fit) for fit in ("none", "pad", "stretch")] == [1.0, 2.0, 4.0]
    assert fit_enlargement(Crop(10, 10, 522, 266, 0.0), 224, 224, "short-centre") == 1.0


def test_a_padded_crop_has_the_border_that_was_asked_for() -> None:
    photo, crop = photo_of(100, 50), Crop(0, 0, 100, 50, 0.0)
    replicated = fit_crop(photo, crop, 100, 100, fit="pad", interpolation="linear", border="replicate")
    assert (replicated[0] == photo[0]).all()
    reflected = fit_crop(photo, crop, 100, 100, fit="pad", interpolation="linear", border="reflect")
    assert (reflected[24] == photo[1]).all()


def pairs(shared: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    loose = sorted((shared / "vggface2/loose_crop").glob("*/*.jpg"))
    assert loose
    return [
        tuple(
            decode_image((shared / f"vggface2/{kind}_crop" / path.parent.name / path.name).read_bytes())[0]
            for kind in kinds
        )
        for path in loose
        for kinds in [("loose", "tight")]
    ]


def where(tight: np.ndarray, loose: np.ndarray) -> tuple[Box, float]:
    """Where the authors cut the tight photo out of the loose one, and how much the pixels differ there on average."""
    import cv2

    misses = cv2.matchTemplate(loose, tight, cv2.TM_SQDIFF)
    top, left = np.unravel_index(misses.argmin(), misses.shape)
    height, width = tight.shape[:2]
    there = loose[top : top + height, left : left + width]
    return Box(left, top, left + width, top + height), float(np.abs(there.astype(int) - tight).mean())


def test_the_rule_gives_the_authors_own_crops_to_the_pixel(shared: Path) -> None:
    """For each of their crops there is a face box for which the rule gives exactly it: size, aspect and rounding."""
    for loose, tight in pairs(shared):
        true, miss = where(tight, loose)
        assert miss < 6  # JPEG twice; elsewhere it is tens
        height, width = loose.shape[:2]
        # its rows and columns from 1, the last one included
        top, bottom, left, right = true.top + 1, true.bottom, true.left + 1, true.right
        found = {
            extended_crop(Box(x - side / 4, y - side / 2, x + side / 4, y + side / 2), 0.3, width, height)[:4]
            for side in np.arange(bottom - top - 0.9, bottom - top + 1, 0.1) / 1.3
            for x in (left + right) / 2 + np.arange(-0.5, 0.6, 0.1)
            for y in (top + bottom) / 2 + np.arange(-0.5, 0.6, 0.1)
        }
        assert tuple(map(int, true)) in found


def test_our_detector_and_the_rule_come_close_to_the_authors_crops(shared: Path) -> None:
    """Their MTCNN is another port of the same networks: its boxes differ by some per cent of the face."""
    for loose, tight in pairs(shared):
        true, _ = where(tight, loose)
        height, width = loose.shape[:2]
        detector = make_detector(min_face=int(0.5 * min(width, height)), thresholds=(0.6, 0.7, 0.7), factor=0.709)
        (faces,) = detector.detect([loose])
        chosen = choose_face(faces, "centre", width=width, height=height)
        assert chosen is not None
        ours = extended_crop(faces.box(chosen), 0.3, width, height)
        assert np.abs(np.subtract(ours[:4], true)).max() <= 0.03 * tight.shape[0]
        assert box_iou(Box(*map(float, ours[:4])), true) > 0.9
        resized = fit_crop(
            loose, ours, tight.shape[1], tight.shape[0], fit="stretch", interpolation="auto", border="black"
        )
        assert np.abs(resized.astype(int) - tight).mean() < 17
