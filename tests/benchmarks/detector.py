"""The detector in C against facenet_pytorch.MTCNN, one photo at a time on one core, in turns within one run.

    make facenet && .venv-facenet/bin/python tests/benchmarks/detector.py

Photos are those of ../shared/data if they are there, else drawn ones, resized to each size. The ratio is that of the
total times; both find the same faces, which is checked on the way.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT))

from dataprep.imaging.mtcnn import _mtcnn  # noqa: E402
from dataprep.imaging.mtcnn.c_backend import LEVELS, CDetector  # noqa: E402
from dataprep.sources.synth.photos import draw  # noqa: E402

SIZES = [(250, 250, 24), (512, 512, 10), (1024, 768, 8)]  # width, height, photos


def photos(width: int, height: int, count: int) -> list[Image.Image]:
    pattern = "lfw/*/*.jpg" if (width, height) == (250, 250) else "photos/*.jpg"
    paths = sorted(SHARED.glob(pattern))[:: max(1, len(list(SHARED.glob(pattern))) // count)][:count]
    if paths:
        return [Image.open(path).convert("RGB").resize((width, height)) for path in paths]
    return [Image.fromarray(draw(number, 0, width=width, height=height).pixels) for number in range(count)]


def main() -> None:
    torch.set_num_threads(1)
    theirs = MTCNN(keep_all=True, select_largest=False)
    levels = [level for level in LEVELS if _mtcnn.level(level) == level]
    ours = {level: CDetector(level=level) for level in levels}
    for width, height, count in SIZES:
        spent = dict.fromkeys(["facenet", *levels], 0.0)
        for number, image in enumerate(photos(width, height, count)):
            pixels = np.asarray(image)
            began = time.perf_counter()
            boxes, _ = theirs.detect(image)
            taken = {"facenet": time.perf_counter() - began}
            for level in levels:
                began = time.perf_counter()
                (found,) = ours[level].detect([pixels])
                taken[level] = time.perf_counter() - began
                assert len(found) == (0 if boxes is None else len(boxes))
            if number:  # the first one warms up
                spent = {name: spent[name] + taken[name] for name in spent}
        ratios = "  ".join(f"{level} {spent['facenet'] / spent[level]:.1f}x" for level in levels)
        print(
            f"{width}x{height}: facenet-pytorch {1000 * spent['facenet'] / (count - 1):.0f} ms a photo;  {ratios}",
            flush=True,
        )


if __name__ == "__main__":
    main()
