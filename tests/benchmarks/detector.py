"""The detector in C against facenet_pytorch.MTCNN, on one core, in turns within one run.

    make facenet && .venv-facenet/bin/python tests/benchmarks/detector.py

Photos are those of ../shared/data if they are there (LFW at its own size, else photos/ resized), else drawn ones.
The ratios are those of the total times: against facenet-pytorch one photo at a time and, in brackets, against its
batches of 16. `all` finds all faces, the same as facenet-pytorch, which is checked on the way; the others are target
mode with that rule, `overlap` with the box of one of the faces as the published one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT))

from dataprep.detection import _mtcnn  # noqa: E402
from dataprep.detection.base import SELECTION_RULES, Detections, Target  # noqa: E402
from dataprep.detection.mtcnn_c import LEVELS, CDetector  # noqa: E402
from dataprep.synth.photos import draw_photo  # noqa: E402

SIZES = [(250, 250, 48), (512, 512, 32), (1024, 768, 16)]  # width, height, photos
BATCH = 16
MODES = ("all", *SELECTION_RULES)

T = TypeVar("T")


def photos(width: int, height: int, count: int) -> list[Image.Image]:
    pattern = "lfw/*/*.jpg" if (width, height) == (250, 250) else "photos/*.jpg"
    paths = sorted(SHARED.glob(pattern))[:: max(1, len(list(SHARED.glob(pattern))) // count)][:count]
    if paths:
        return [Image.open(path).convert("RGB").resize((width, height)) for path in paths]
    return [Image.fromarray(draw_photo(number, 0, width=width, height=height).pixels) for number in range(count)]


def target(mode: str, every: Detections, number: int) -> Target:
    published = every.box(number % len(every)) if mode == "overlap" and len(every) else None
    return Target(rule=mode, published=published, min_overlap=0.1)


def main() -> None:
    torch.set_num_threads(1)
    theirs = MTCNN(keep_all=True, select_largest=False)
    levels = [level for level in reversed(LEVELS) if _mtcnn.level(level) == level]
    ours = {level: CDetector(level=level) for level in levels}
    for width, height, count in SIZES:
        images = photos(width, height, count)
        theirs.detect(images[:1])  # warms up
        spent: dict[str, float] = {}

        def timed(name: str, work: Callable[[], T], spent: dict[str, float] = spent) -> T:
            began = time.perf_counter()
            result = work()
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
            return result

        for start in range(0, count, BATCH):
            batch = images[start : start + BATCH]
            timed("batches", lambda batch=batch: theirs.detect(batch))
            for number, image in enumerate(batch, start):
                boxes, _ = timed("single", lambda image=image: theirs.detect(image))
                pixels = [np.asarray(image)]
                (every,) = ours[levels[0]].detect(pixels)
                assert len(every) == (0 if boxes is None else len(boxes))
                for level in levels:
                    for mode in MODES:
                        targets = None if mode == "all" else [target(mode, every, number)]
                        timed(f"{level} {mode}", lambda d=ours[level], t=targets, p=pixels: d.detect(p, t))
        print(
            f"{width}x{height}, {count} photos: facenet-pytorch {1000 * spent['single'] / count:.0f} ms a photo, "
            f"{1000 * spent['batches'] / count:.0f} ms in batches of {BATCH}"
        )
        for level in levels:
            ratios = [
                f"{mode} {spent['single'] / own:.1f}x ({spent['batches'] / own:.1f}x)"
                for mode in MODES
                for own in [spent[f"{level} {mode}"]]
            ]
            print(f"  {level:<8} {'  '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
