"""How good the drawn faces are for the purpose: found by MTCNN, quickly drawn, and not told apart by colour or pixels.

python tests/benchmarks/synth.py --pictures 2000
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataprep.detection.base import choose_face
from dataprep.detection.mtcnn import make_detector
from dataprep.evaluate.verification.baselines import colour_accuracy, pixel_accuracy
from dataprep.imaging.codec import decode_image, encode_jpeg
from dataprep.imaging.geometry import box_iou, estimate_similarity, scale_template, warp_image
from dataprep.packs.pair_sampling import level_folds, make_pairs
from dataprep.synth.photos import draw_photo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    pictures = parser.parse_args().pictures
    began = time.perf_counter()
    drawn = [draw_photo(5000 + i // 10, i % 10) for i in range(pictures)]
    files = [encode_jpeg(d.pixels, quality=d.quality) for d in drawn]
    rate = pictures / (time.perf_counter() - began)
    detector = make_detector()
    found, errors = 0, []
    faces: dict[str, bytes] = {}
    people: dict[str, list[str]] = {}
    for number, (truth, data) in enumerate(zip(drawn, files, strict=True)):
        pixels = decode_image(data)[0]
        got = detector.detect([pixels])[0]
        chosen = choose_face(got, "overlap", width=250, height=250, published=truth.box)
        if chosen is None or box_iou(got.box(chosen), truth.box) <= 0.5:
            continue
        found += 1
        errors.append(np.linalg.norm(got.landmarks[chosen] - truth.landmarks, axis=1).mean())
        name, person = str(number), str(number // 10)
        people.setdefault(person, []).append(name)
        faces[name] = encode_jpeg(
            warp_image(pixels, estimate_similarity(got.landmarks[chosen], scale_template(112, 112)), 112, 112)
        )
    pairs = level_folds(make_pairs({k: v for k, v in people.items() if len(v) > 1}), at_most=6000)
    images = [faces[name] for two in zip(pairs.left, pairs.right, strict=True) for name in two]
    print(f"drawn and encoded: {rate:.1f} pictures of 250x250 a second and core")
    print(
        f"found by MTCNN: {found} of {pictures} ({found / pictures:.2%}), landmarks {np.mean(errors):.2f} px off on average"
    )
    print(f"told apart by mean colour: {colour_accuracy(images, pairs.issame):.2%}, by raw pixels: "
          f"{pixel_accuracy(images, pairs.issame):.2%} ({len(pairs)} pairs)")  # fmt: skip
    assert found / pictures >= 0.995
    assert rate >= 20


if __name__ == "__main__":
    main()
