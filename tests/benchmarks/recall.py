"""Does dataprep find as many true faces in ../shared/data/photos as facenet-pytorch, and no more false ones?

48 photos of WIDER FACE, all faces (`--faces all`), both backends. Detections take true boxes in the order of their
probability, each the one it overlaps most of those that are left, with an intersection over union of at least 0.5.
Recall counts true faces whose both sides are over 20 px; what takes a smaller one is neither right nor wrong; what takes
none is a false face.

    python tests/benchmarks/recall.py --facenet .venv-facenet/bin/python
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT))

from peers import facenet_faces  # noqa: E402

from dataprep.detection.base import Detections  # noqa: E402
from dataprep.detection.mtcnn import make_detector  # noqa: E402
from dataprep.imaging.codec import decode_image  # noqa: E402
from dataprep.imaging.geometry import box_iou  # noqa: E402
from dataprep.types import Box  # noqa: E402

OVERLAP = 0.5
SMALLEST = 20  # pixels; the detectors look for no smaller ones


@dataclass(slots=True)
class Tally:
    """True faces over 20 px, how many of them were found, and detections that are no face."""

    faces: int = 0
    found: int = 0
    false: int = 0

    @property
    def recall(self) -> float:
        return self.found / self.faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facenet", required=True, help="a Python in which facenet_pytorch imports")
    options = parser.parse_args()
    if not SHARED.is_dir():
        print(f"the real photos are not there ({SHARED}): nothing compared")
        return
    photos = sorted((SHARED / "photos").glob("*.jpg"))
    listed = json.loads((SHARED / "photos" / "boxes.json").read_text())
    truth = [[Box(x, y, x + w, y + h) for x, y, w, h in listed.get(path.name, [])] for path in photos]
    pixels = [decode_image(path.read_bytes())[0] for path in photos]
    sets = {"facenet-pytorch": facenet_faces(options.facenet, photos)}
    for backend in ("c", "torch"):
        sets[f"dataprep, {backend}"] = make_detector(backend).detect(pixels)
    tallies = {title: tally(found, truth) for title, found in sets.items()}
    for title, found in tallies.items():
        print(f"{title:<16} {found.found}/{found.faces} faces, recall {found.recall:.2%}, {found.false} false faces")
    peer = tallies["facenet-pytorch"]
    worse = [title for title, t in tallies.items() if t.recall < peer.recall or t.false > peer.false]
    if worse:
        sys.exit(f"worse than facenet-pytorch: {'; '.join(worse)}")
    print(f"dataprep finds at least what facenet-pytorch finds in {len(photos)} photos, with no more false faces")


def tally(found: Sequence[Detections], truth: Sequence[Sequence[Box]]) -> Tally:
    total = Tally()
    for faces, boxes in zip(found, truth, strict=True):
        left = list(boxes)
        total.faces += sum(map(counts, boxes))
        for i in np.argsort(-faces.probabilities, kind="stable"):
            nearest = max(left, key=lambda box, i=i: box_iou(faces.box(i), box), default=None)  # type: ignore[misc]
            if nearest is None or box_iou(faces.box(i), nearest) < OVERLAP:
                total.false += 1
            else:
                left.remove(nearest)
                total.found += counts(nearest)
    return total


def counts(box: Box) -> bool:
    return min(box.width, box.height) > SMALLEST


if __name__ == "__main__":
    main()
