"""Does dataprep score pairs as the field's own code does, and how long does it take?

The real photos in ../shared/data/lfw are aligned by dataprep and embedded by a fixed recogniser (MobileFaceNet, 99.4 % on
LFW). Every positive pair and as many negatives are scored by both published protocols, re-derived here in float64 as
they were published, loop by loop: insightface's KFold, arange of thresholds and spline, Face_Pytorch's grid of 20,001
thresholds. Then each protocol is timed on random features.

    python tests/benchmarks/verification.py [--faces FOLDER]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.interpolate import BSpline
from sklearn.model_selection import KFold
from sklearn.preprocessing import normalize

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
sys.path[:0] = [str(ROOT)]

from dataprep.embeddings.embedder import OnnxEmbedder, embed_images  # noqa: E402
from dataprep.evaluate.verification.leakage import difference_hashes, find_near_pairs  # noqa: E402
from dataprep.evaluate.verification.protocols import score_pairs  # noqa: E402
from dataprep.imaging.codec import decode_image, encode_jpeg  # noqa: E402
from dataprep.packs.pair_sampling import consecutive_folds, level_folds, make_pairs  # noqa: E402

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, help="aligned LFW faces; default: aligned here")
    options = parser.parse_args()
    for pairs in (6_000, 1_000_000):
        time_protocols(pairs)
    if not SHARED.is_dir():
        print(f"the real photos are not there ({SHARED}): nothing compared")
        return
    with tempfile.TemporaryDirectory() as scratch:
        compare(options.faces or aligned(Path(scratch)))


def time_protocols(pairs: int, width: int = 128) -> None:
    generator = np.random.default_rng(0)
    same = np.arange(pairs) % 2 == 0
    left, right = (generator.standard_normal((pairs, width), dtype=np.float32) for _ in range(2))
    right[same] += 0.35 * left[same]
    for protocol in ("insightface", "face_pytorch", "cosine"):
        began = time.monotonic()
        found = score_pairs(left, right, same, consecutive_folds(pairs), protocol).verification
        spent = time.monotonic() - began
        print(
            f"{pairs:>9,} pairs of {width} numbers, {protocol:<12} {spent:6.2f} s  accuracy {found.accuracy:.4%}",
            flush=True,
        )


def aligned(workspace: Path) -> Path:
    faces = workspace / "faces"
    for arguments in (
        ("import", "folder", SHARED / "lfw"),
        ("align", "--size", "112"),
        ("export", "--format", "folder", faces),
    ):
        command = [sys.executable, "-m", "dataprep", "-w", str(workspace / "ws"), *map(str, arguments)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return faces


def compare(faces: Path) -> None:
    files = sorted(faces.glob("*/*.jpg"))
    names = [f"{path.parent.name}/{path.stem}" for path in files]
    people: dict[str, list[str]] = {}
    for name in names:
        people.setdefault(name.partition("/")[0], []).append(name)
    embedder = OnnxEmbedder(SHARED / "weights/mobilefacenet_foamliu.onnx", **IMAGENET)
    both, bad = embed_images(embedder, [path.read_bytes() for path in files], flip="concat")
    assert not bad, bad
    count_false_copies(files)
    pairs = level_folds(make_pairs(people))  # equal folds: KFold and blocks of equal length are the same then
    assert len(pairs) >= 2000
    place = {name: i for i, name in enumerate(names)}
    left, right = ([place[name] for name in side] for side in (pairs.left, pairs.right))
    half = both.shape[1] // 2
    added = both[:, :half].astype(np.float64) + both[:, half:]

    ours = score_pairs(added[left], added[right], pairs.issame, pairs.fold, "insightface").verification
    accuracy, val, far = insightface(added, left, right, pairs.issame)
    differences = [
        ours.accuracy - accuracy.mean(),
        ours.accuracy_std - accuracy.std(),
        ours.validation - val.mean(),
        ours.validation_std - val.std(),
        ours.validation_far - far.mean(),
    ]
    print(
        f"insightface   {len(pairs)} pairs: accuracy {ours.accuracy:.4%} +- {ours.accuracy_std:.4%}, VAL "
        f"{ours.validation:.4%} at FAR {ours.validation_far:.2e}; "
        f"their code's loops differ by {np.abs(differences).max():.1e}"
    )
    assert np.abs(differences).max() < 1e-12

    ours = score_pairs(both[left], both[right], pairs.issame, pairs.fold, "face_pytorch").verification
    accuracy = face_pytorch(both[left].astype(np.float64), both[right].astype(np.float64), pairs.issame, pairs.fold)
    difference = max(abs(ours.accuracy - accuracy.mean()), abs(ours.accuracy_std - accuracy.std()))
    print(
        f"Face_Pytorch  {len(pairs)} pairs: accuracy {ours.accuracy:.4%} +- {ours.accuracy_std:.4%}; "
        f"their code's loops differ by {difference:.1e}"
    )
    assert difference < 1e-12
    assert ours.accuracy > 0.985, "the yardstick should recognise these faces"


def count_false_copies(files: list[Path]) -> None:
    """Faces of different people that the search for leaks would take for copies of each other, and copies that it finds."""
    prints = np.stack([difference_hashes(path.read_bytes()) for path in files])
    found = [(i, j) for i, j in find_near_pairs(prints, [prints]) if i < j]
    wrong = sum(files[i].parent != files[j].parent for i, j in found)
    different = sum(one.parent != other.parent for i, one in enumerate(files) for other in files[i + 1 :])
    copies = np.stack(
        [difference_hashes(encode_jpeg(decode_image(path.read_bytes())[0], quality=75)) for path in files]
    )
    again = len({i for i, j in find_near_pairs(prints, [copies]) if i == j})
    print(
        f"leaks: {wrong} of {different:,} pairs of different people look like copies, "
        f"{len(found) - wrong} of the same person; {again} of {len(files)} faces are found again at JPEG quality 75"
    )
    assert not wrong


def insightface(
    added: np.ndarray, left: list[int], right: list[int], same: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """calculate_roc and calculate_val of recognition/arcface_torch/eval/verification.py."""
    unit = normalize(added)
    dist = np.sum(np.square(np.subtract(unit[left], unit[right])), 1)
    accuracies, vals, fars = [], [], []
    for train, test in KFold(n_splits=10, shuffle=False).split(np.arange(len(same))):
        thresholds = np.arange(0, 4, 0.01)
        found = [accuracy_at(threshold, dist[train], same[train]) for threshold in thresholds]
        accuracies.append(accuracy_at(thresholds[np.argmax(found)], dist[test], same[test]))
        thresholds = np.arange(0, 4, 0.001)
        rates = np.array([val_far(threshold, dist[train], same[train])[1] for threshold in thresholds])
        # theirs is interp1d(rates, thresholds, kind="slinear"), which refuses equal rates today; this is the spline that the
        # old one made of them
        knots = [rates[0], *rates, rates[-1]]
        threshold = BSpline(knots, thresholds, k=1)(1e-3) if max(rates) >= 1e-3 else 0.0
        val, far = val_far(float(threshold), dist[test], same[test])
        vals.append(val)
        fars.append(far)
    return np.array(accuracies), np.array(vals), np.array(fars)


def accuracy_at(threshold: float, dist: np.ndarray, same: np.ndarray) -> float:
    predicted = np.less(dist, threshold)
    right = np.sum(np.logical_and(predicted, same)) + np.sum(np.logical_and(~predicted, ~same))
    return float(right) / dist.size


def val_far(threshold: float, dist: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    predicted = np.less(dist, threshold)
    val = float(np.sum(np.logical_and(predicted, same))) / float(np.sum(same))
    return val, float(np.sum(np.logical_and(predicted, ~same))) / float(np.sum(~same))


def face_pytorch(left: np.ndarray, right: np.ndarray, same: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """evaluation_10_fold, getThreshold and getAccuracy of eval_lfw.py."""
    thresholds = np.arange(-10000, 10001) * 1.0 / 10000
    out = []
    for i in range(10):
        train, test = fold != i, fold == i
        mean = np.mean(np.concatenate((left[train], right[train]), 0), 0)
        one, other = left - mean, right - mean
        one = one / np.expand_dims(np.sqrt(np.sum(np.power(one, 2), 1)), 1)
        other = other / np.expand_dims(np.sqrt(np.sum(np.power(other, 2), 1)), 1)
        scores = np.sum(np.multiply(one, other), 1)
        found = np.array([strict_accuracy(scores[train], same[train], threshold) for threshold in thresholds])
        out.append(strict_accuracy(scores[test], same[test], float(np.mean(thresholds[found == np.max(found)]))))
    return np.array(out)


def strict_accuracy(scores: np.ndarray, same: np.ndarray, threshold: float) -> float:
    return float(np.sum(scores[same] > threshold) + np.sum(scores[~same] < threshold)) / len(scores)


if __name__ == "__main__":
    main()
