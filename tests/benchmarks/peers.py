"""What the real facenet-pytorch finds, from an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataprep.detection.base import Detections

_DETECT = """
import json, sys
import numpy as np, torch
from facenet_pytorch import MTCNN
from PIL import Image
torch.set_num_threads(2)
mtcnn = MTCNN(keep_all=True, select_largest=False)
for path in sys.stdin.read().split("\\n"):
    found = mtcnn.detect(Image.open(path).convert("RGB"), landmarks=True)
    print(json.dumps([[] if part is None else np.asarray(part, float).tolist() for part in found]))
"""

_FEATURES = """
try:
    from numpy._core._multiarray_umath import __cpu_dispatch__ as features, __cpu_features__ as here
except ImportError:
    from numpy.core._multiarray_umath import __cpu_dispatch__ as features, __cpu_features__ as here
print(" ".join(feature for feature in features if here.get(feature)))
"""


def facenet_faces(python: str, photos: Sequence[Path]) -> list[Detections]:
    """All faces that `facenet_pytorch.MTCNN` finds in each photo; `python` is one in which it imports.

    Where final boxes tie at a score of 1.0, its choice is the order in which numpy sorts equal numbers, which differs
    from processor to processor (its vector sorts are not stable). Its plain sort is asked for, the same on all of them.
    """
    features = subprocess.run([python, "-c", _FEATURES], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    done = subprocess.run(
        [python, "-c", _DETECT],
        input="\n".join(map(str, photos)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": features},
    )
    found = []
    for line in done.stdout.splitlines():
        boxes, probabilities, landmarks = (np.array(part, np.float32) for part in json.loads(line))
        found.append(
            Detections(boxes=boxes.reshape(-1, 4), probabilities=probabilities, landmarks=landmarks.reshape(-1, 5, 2))
        )
    assert len(found) == len(photos)
    return found
