"""Does target mode find the face that a rule chooses among all that the full cascade finds?

Every rule, apart for photos with one face and with several (as the full cascade counts them): drawn photos, canvases of
several drawn photos at several sizes, and the real ones in ../shared/data if they are there: LFW, LFW's photos cut so
closely that faces reach beyond them, canvases of twelve, which are the hardest for `largest`, and photos/. Published
boxes are each face's own, moved and resized by up to a fifth, and for photos/ the true boxes too. Landmarks are compared
in a 112x112 crop aligned on the full cascade's.

    python tests/benchmarks/target.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT))

from dataprep.detection.base import SELECTION_RULES, Detections, Target  # noqa: E402
from dataprep.detection.mtcnn_c import CDetector  # noqa: E402
from dataprep.imaging.codec import Pixels, decode_image  # noqa: E402
from dataprep.imaging.geometry import box_iou, estimate_similarity, scale_template  # noqa: E402
from dataprep.synth.photos import draw_photo  # noqa: E402
from dataprep.types import Box  # noqa: E402

MIN_OVERLAP = 0.1  # the detect stage's default


@dataclass(slots=True)
class Tally:
    """Questions asked, how many got the same face (or none twice), and what the landmarks of the same face differ by."""

    asked: int = 0
    same: int = 0
    distances: list[float] = field(default_factory=list)
    cells: int = 0
    all_cells: int = 0

    def __str__(self) -> str:
        d = np.array(self.distances or [0.0])
        return (
            f"{self.same}/{self.asked} {self.same / max(1, self.asked):8.3%}   landmarks {d.mean():.4f} px "
            f"(99 %: {np.percentile(d, 99):.3f}, most {d.max():.2f})   {self.cells / max(1, self.all_cells):6.1%} of cells"
        )


def main() -> None:
    for name, photos in sets().items():
        tallies = {(rule, several): Tally() for rule in SELECTION_RULES for several in (False, True)}
        for pixels, true_boxes in photos:
            compare(pixels, true_boxes, tallies)
        for (rule, several), tally in tallies.items():
            if tally.asked:
                print(f"{name:<10} {'several' if several else 'single':<8} {rule:<12} {tally}", flush=True)


def sets() -> dict[str, Iterator[tuple[Pixels, list[Box]]]]:
    found = {"drawn": drawn(), "canvases": canvases()}
    if SHARED.is_dir():
        found["lfw"] = ((decode_image(path.read_bytes())[0], []) for path in sorted(SHARED.glob("lfw/*/*.jpg")))
        found["lfw, cut"] = lfw_cut()
        found["lfw x 12"] = lfw_canvases()
        found["photos"] = wider()
    return found


def drawn() -> Iterator[tuple[Pixels, list[Box]]]:
    for number in range(200):
        width, height = ((250, 250), (640, 480), (300, 420), (160, 120))[number % 4]
        yield draw_photo(number, 1, width=width, height=height).pixels, []


def canvases() -> Iterator[tuple[Pixels, list[Box]]]:
    generator = np.random.default_rng(5)
    for number in range(60):
        canvas = np.full((600, 900, 3), 90, np.uint8)
        for cell in range(6):
            side = int(generator.integers(80, 300))
            y, x = 300 * (cell // 3), 300 * (cell % 3)
            canvas[y : y + side, x : x + side] = draw_photo(6 * number + cell, 2, width=side, height=side).pixels
        yield canvas, []


def lfw_cut() -> Iterator[tuple[Pixels, list[Box]]]:
    for number, path in enumerate(sorted(SHARED.glob("lfw/*/*.jpg"))):
        cut = (60, 70, 75, 80)[number % 4]
        yield np.ascontiguousarray(decode_image(path.read_bytes())[0][cut:-cut, cut:-cut]), []


def lfw_canvases() -> Iterator[tuple[Pixels, list[Box]]]:
    import cv2

    generator, paths = np.random.default_rng(7), sorted(SHARED.glob("lfw/*/*.jpg"))
    for _ in range(60):
        canvas = np.full((768, 1024, 3), 90, np.uint8)
        for cell in range(12):
            side = int(generator.integers(90, 256))
            x, y = 256 * (cell % 4), 256 * (cell // 4)
            photo, _ = decode_image(paths[generator.integers(len(paths))].read_bytes())
            canvas[y : y + side, x : x + side] = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
        yield canvas, []


def wider() -> Iterator[tuple[Pixels, list[Box]]]:
    boxes = json.loads((SHARED / "photos" / "boxes.json").read_text())
    for path in sorted(SHARED.glob("photos/*.jpg")):
        yield decode_image(path.read_bytes())[0], [Box(x, y, x + w, y + h) for x, y, w, h in boxes.get(path.name, [])]


def compare(pixels: Pixels, true_boxes: list[Box], tallies: dict[tuple[str, bool], Tally]) -> None:
    detector = CDetector()
    (every,) = detector.detect([pixels])
    all_cells = detector.cells
    height, width = pixels.shape[:2]
    for target in questions(every, true_boxes):
        meant = target.filter_detections(every, width=width, height=height)
        detector.cells = 0
        (found,) = detector.detect([pixels], [target])
        tally = tallies[target.rule, len(every) > 1]
        tally.asked += 1
        tally.cells += detector.cells
        tally.all_cells += all_cells
        if len(meant) == len(found) == 0:
            tally.same += 1
        elif len(meant) == len(found) == 1 and box_iou(meant.box(0), found.box(0)) > 0.5:
            tally.same += 1
            scale = np.sqrt(np.linalg.det(estimate_similarity(meant.landmarks[0], scale_template(112, 112))[:, :2]))
            moved = np.linalg.norm(meant.landmarks[0] - found.landmarks[0], axis=1)
            tally.distances.append(float(scale * moved.mean()))


def questions(every: Detections, true_boxes: list[Box]) -> Iterator[Target]:
    generator = np.random.default_rng(len(every))
    for box in [every.box(i) for i in range(len(every))] + true_boxes:
        x, y = box.centre
        (x, y), grown = (x, y) + generator.uniform(-0.2, 0.2, 2) * box.width, generator.uniform(0.8, 1.2, 2) / 2
        dx, dy = box.width * grown[0], box.height * grown[1]
        yield Target(rule="overlap", published=Box(x - dx, y - dy, x + dx, y + dy), min_overlap=MIN_OVERLAP)
    for rule in SELECTION_RULES[1:]:
        yield Target(rule=rule)


if __name__ == "__main__":
    main()
