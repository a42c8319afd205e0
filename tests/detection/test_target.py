"""Target mode in C against the full cascade and `choose`: the same face, to the digit, for less work."""

import subprocess
import sys

import numpy as np
import pytest

from dataprep.detection.base import SELECTION_RULES, Detections, Target
from dataprep.detection.mtcnn import make_detector, resolve_backend
from dataprep.imaging.codec import Pixels
from dataprep.synth.photos import draw_photo
from dataprep.types import Box

if resolve_backend() != "c":
    pytest.skip("the C detector was not built here", allow_module_level=True)

from dataprep.detection import _mtcnn
from dataprep.detection.mtcnn_c import LEVELS, CDetector


def canvas(number: int) -> Pixels:
    """Six drawn faces of very different sizes, the largest never in the middle."""
    generator = np.random.default_rng(number)
    pixels = np.full((500, 750, 3), 90, np.uint8)
    for cell, side in enumerate(generator.permutation([70, 100, 130, 170, 210, 250])):
        y, x = 250 * (cell // 3), 250 * (cell % 3)
        pixels[y : y + side, x : x + side] = draw_photo(6 * number + cell, 2, width=int(side), height=int(side)).pixels
    return pixels


def lone(number: int) -> Pixels:
    """One drawn face, anywhere on a larger photo."""
    generator = np.random.default_rng(number)
    pixels = np.full((480, 640, 3), 110, np.uint8)
    side = int(generator.integers(90, 400))
    y, x = (int(generator.integers(0, room - side)) for room in (480, 640))
    pixels[y : y + side, x : x + side] = draw_photo(number, 3, width=side, height=side).pixels
    return pixels


SINGLE = [lone(number) for number in range(12)]
SEVERAL = [canvas(number) for number in range(5)]


@pytest.fixture(scope="module")
def every() -> list[Detections]:
    """All faces of SINGLE and SEVERAL."""
    return CDetector().detect([*SINGLE, *SEVERAL])


def agrees(found: Detections, meant: Detections) -> bool:
    return (
        found.boxes.tobytes() == meant.boxes.tobytes()
        and found.probabilities.tobytes() == meant.probabilities.tobytes()
        and found.landmarks.tobytes() == meant.landmarks.tobytes()
    )


@pytest.mark.parametrize("rule", SELECTION_RULES[1:])
def test_the_face_is_the_one_that_the_rule_chooses_among_all(rule: str, every: list[Detections]) -> None:
    photos, target = [*SINGLE, *SEVERAL], Target(rule=rule)
    found = CDetector().detect(photos, [target] * len(photos))
    for pixels, one, faces in zip(photos, found, every, strict=True):
        assert agrees(one, target.filter_detections(faces, width=pixels.shape[1], height=pixels.shape[0]))
    assert sum(map(len, found)) >= 15


@pytest.mark.parametrize("rule", ["area-centre", "largest", "centre"])
def test_a_face_that_fills_the_photo_and_more_is_the_full_cascades_too(rule: str) -> None:
    photos = []
    for number in range(24):
        pixels = draw_photo(number // 3, number % 3).pixels
        left, top, right, bottom = CDetector().detect([pixels])[0].boxes[0]
        reach, x, y = 0.35 * max(right - left, bottom - top), (left + right) / 2, (top + bottom) / 2
        rows, columns = (slice(max(0, int(at - reach)), int(at + reach)) for at in (y, x))
        photos.append(np.ascontiguousarray(pixels[rows, columns]))
    target = Target(rule=rule)
    found = CDetector().detect(photos, [target] * len(photos))
    for pixels, one, faces in zip(photos, found, CDetector().detect(photos), strict=True):
        assert agrees(one, target.filter_detections(faces, width=pixels.shape[1], height=pixels.shape[0]))
    assert sum(map(len, found)) >= 12


def test_each_face_is_found_by_a_published_box_near_it(every: list[Detections]) -> None:
    asked = 0
    for number, (pixels, faces) in enumerate(zip([*SINGLE, *SEVERAL], every, strict=True)):
        for i in range(len(faces)):
            box = faces.box(i)
            dx, dy = box.width * (-0.15, 0.1)[i % 2], box.height * (0.1, -0.15)[number % 2]
            published = Box(box.left + dx, box.top + dy, box.right + 1.2 * dx, box.bottom + 0.8 * dy)
            (found,) = CDetector().detect([pixels], [Target(rule="overlap", published=published, min_overlap=0.1)])
            assert agrees(found, faces.select(i))
            asked += 1
    assert asked >= 30


def test_without_a_published_box_overlap_means_area_centre() -> None:
    one, other = (CDetector().detect(SEVERAL[:1], [Target(rule=rule)])[0] for rule in ("overlap", "area-centre"))
    assert len(one) == 1
    assert agrees(one, other)


def test_a_published_box_beside_every_face_finds_none() -> None:
    target = Target(rule="overlap", published=Box(600, 10, 640, 60), min_overlap=0.1)
    assert len(CDetector().detect([np.full((480, 640, 3), 90, np.uint8)], [target])[0]) == 0
    faces = CDetector().detect(SINGLE[:1])[0].box(0)
    far = Target(rule="overlap", published=Box(faces.right + 30, 0, faces.right + 60, 30), min_overlap=0.1)
    assert len(CDetector().detect(SINGLE[:1], [far])[0]) == 0


def test_a_face_must_overlap_the_published_box_enough(every: list[Detections]) -> None:
    box = every[0].box(0)
    half = Box(box.left, box.top, box.right, (box.top + box.bottom) / 2)
    for least, expected in ((0.4, 1), (0.6, 0)):
        (found,) = CDetector().detect(SINGLE[:1], [Target(rule="overlap", published=half, min_overlap=least)])
        assert len(found) == expected


@pytest.mark.parametrize(("rule", "share"), [("largest", 0.15), ("area-centre", 0.5), ("centre", 0.7)])
def test_it_stops_before_the_fine_levels(rule: str, share: float) -> None:
    for photos in (SINGLE, SEVERAL):
        whole, part = CDetector(), CDetector()
        whole.detect(photos)
        part.detect(photos, [Target(rule=rule)] * len(photos))
        assert 0 < part.cells < share * whole.cells


def test_a_published_box_masks_cells_of_the_grid(every: list[Detections]) -> None:
    whole, part = CDetector(), CDetector()
    whole.detect(SEVERAL)
    targets = [Target(rule="overlap", published=faces.box(0)) for faces in every[len(SINGLE) :]]
    part.detect(SEVERAL, targets)
    assert 0 < part.cells < 0.05 * whole.cells


def test_the_most_probable_face_is_chosen_among_all() -> None:
    whole, part = CDetector(), CDetector()
    whole.detect(SEVERAL[:1])
    part.detect(SEVERAL[:1], [Target(rule="probability")])
    assert part.cells == whole.cells


@pytest.mark.parametrize("factor", [0.5, 0.709, 0.85])
def test_other_pyramids_agree_too(factor: float) -> None:
    detector, target = CDetector(factor=factor, min_face=30), Target(rule="largest")
    for pixels in (SINGLE[0], SEVERAL[0]):
        meant = target.filter_detections(detector.detect([pixels])[0], width=pixels.shape[1], height=pixels.shape[0])
        assert agrees(detector.detect([pixels], [target])[0], meant)


def test_avx2_and_avx512_agree_to_the_bit() -> None:
    if _mtcnn.level("avx512") != "avx512":
        pytest.skip("this machine has no AVX-512")
    photos = SINGLE[:3] + SEVERAL[:2]
    for rule in ("largest", "area-centre", "centre"):
        found = [CDetector(level=level).detect(photos, [Target(rule=rule)] * 5) for level in ("avx2", "avx512")]
        assert all(agrees(one, other) for one, other in zip(*found, strict=True))
    assert LEVELS[1:] == ("avx2", "avx512")


def test_torch_answers_the_same_question(every: list[Detections]) -> None:
    targets = [Target(rule="largest"), Target(rule="overlap", published=every[0].box(0), min_overlap=0.1)]
    answers = [make_detector(backend).detect([SEVERAL[0], SINGLE[0]], targets) for backend in ("c", "torch")]
    for ours, theirs in zip(*answers, strict=True):
        assert len(ours) == len(theirs) == 1
        assert np.abs(ours.landmarks - theirs.landmarks).max() < 0.01


@pytest.mark.parametrize("rule", SELECTION_RULES)
def test_tiny_photos_have_no_face_and_no_exception(rule: str) -> None:
    generator = np.random.default_rng(0)
    target = Target(rule=rule, published=Box(0, 0, 5, 5))
    for height in (*range(1, 12), 20, 400):
        for width in (*range(1, 12), 21):
            (found,) = CDetector().detect([generator.integers(0, 256, (height, width, 3), dtype=np.uint8)], [target])
            assert len(found) <= (min(height, width) >= 20)


def test_a_panorama_takes_bounded_memory() -> None:
    """How much a process grows by it, beside the photo itself; every level of the pyramid is worked on."""
    code = """
import resource, sys
import numpy as np
from dataprep.detection.base import Target
from dataprep.detection.mtcnn_c import CDetector
detector = CDetector()
detector.detect([np.zeros((100, 100, 3), np.uint8)])
photo = np.random.default_rng(0).integers(100, 130, (1, 20_000, 3), np.uint8).repeat(300, axis=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
detector.detect([photo]), detector.detect([photo], [Target(rule="centre")])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # MB
