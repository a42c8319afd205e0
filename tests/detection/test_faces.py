import numpy as np
import pytest

from dataprep.detection.base import Detections, choose_face
from dataprep.types import Box

# a small one in the middle, a large one at the left, a probable one at the right edge
FACES = Detections(
    boxes=np.array([[90, 90, 110, 110], [0, 60, 80, 140], [170, 80, 200, 120]], np.float32),
    probabilities=np.array([0.9, 0.8, 0.99], np.float32),
    landmarks=np.zeros((3, 5, 2), np.float32),
)


@pytest.mark.parametrize(
    ("rule", "published", "expected"),
    [
        ("centre", None, 0),
        ("largest", None, 1),
        ("probability", None, 2),
        ("area-centre", None, 0),  # 400 - 0 against 6400 - 2 * 60**2 and 1200 - 2 * 85**2
        ("overlap", None, 0),
        ("overlap", Box(160, 70, 200, 130), 2),
        ("overlap", Box(300, 300, 320, 320), None),
    ],
)
def test_each_rule_picks_its_face(rule: str, published: Box | None, expected: int | None) -> None:
    assert choose_face(FACES, rule, width=200, height=200, published=published) == expected


def test_a_face_must_overlap_enough() -> None:
    sliver = Box(75, 60, 155, 140)
    assert choose_face(FACES, "overlap", width=200, height=200, published=sliver, min_overlap=0.0) is not None
    assert choose_face(FACES, "overlap", width=200, height=200, published=sliver, min_overlap=0.5) is None


def test_no_faces_no_choice() -> None:
    assert choose_face(Detections.empty(), "largest", width=9, height=9) is None
