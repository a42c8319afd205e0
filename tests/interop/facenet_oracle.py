"""The real facenet-pytorch as oracle: writes the facts that `tests/imaging/test_mtcnn.py` checks, or compares them.

It needs an environment in which facenet_pytorch imports, torchvision included: `make facenet` sets one up.

    python tests/interop/facenet_oracle.py            # compare the stored facts with what facenet-pytorch says now
    python tests/interop/facenet_oracle.py --write    # store them
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FACTS = ROOT / "tests" / "detection" / "facenet_facts.json"
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT))

from dataprep.synth.photos import draw_photo  # noqa: E402


def facts_of(mtcnn: MTCNN, pixels: np.ndarray) -> dict:
    boxes, probabilities, landmarks = mtcnn.detect(Image.fromarray(pixels), landmarks=True)
    if boxes is None:
        boxes, probabilities, landmarks = [], [], []
    return {
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "boxes": np.round(np.array(boxes, float), 4).tolist(),
        "probabilities": np.round(np.array(probabilities, float), 6).tolist(),
        "landmarks": np.round(np.array(landmarks, float), 4).tolist(),
    }


def gather() -> dict:
    torch.set_num_threads(1)
    mtcnn = MTCNN(keep_all=True, select_largest=False)
    sizes = [(250, 250)] * 10 + [(640, 480), (97, 131)]
    found = {"synth": {}, "shared": {}}
    for number, (width, height) in enumerate(sizes):
        found["synth"][f"{number}/3"] = facts_of(mtcnn, draw_photo(number, 3, width=width, height=height).pixels)
    if SHARED.is_dir():
        paths = sorted((SHARED / "lfw").glob("*/*.jpg"))[::40] + sorted((SHARED / "photos").glob("*.jpg"))[::5]
        for path in paths:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            found["shared"][str(path.relative_to(SHARED))] = facts_of(mtcnn, pixels)
    return found


def main() -> None:
    found = gather()
    if "--write" in sys.argv:
        FACTS.write_text(json.dumps(found, indent=0) + "\n")
        print(f"{sum(map(len, found.values()))} facts written")
        return
    known = json.loads(FACTS.read_text())
    worst = 0.0
    for kind, facts in found.items():
        for name, fact in facts.items():
            stored = known[kind][name]
            assert len(stored["boxes"]) == len(fact["boxes"]), f"{name}: another number of faces"
            for part in ("boxes", "landmarks"):
                if fact[part]:
                    worst = max(worst, float(np.abs(np.array(stored[part]) - np.array(fact[part])).max()))
    print(f"{sum(map(len, found.values()))} photos compared with facenet-pytorch, largest difference {worst:.5f} px")
    assert worst < 0.01


if __name__ == "__main__":
    main()
