"""The protocols for scoring pairs of features. Their rules differ, and so do their results.

insightface   unit vectors, squared distance, thresholds 0, 0.01, ... 4: the first best one; VAL by interpolation
              (recognition/arcface_torch/eval/verification.py). Flip: the two embeddings are added.
face_pytorch  cosine after subtracting the mean of the nine folds; thresholds -1, -0.9999, ... 1: the mean of all best
              ones; a pair exactly at the threshold is wrong (eval_lfw.py). Flip: the two embeddings are concatenated.
cosine        cosine of the unmodified vectors; the exact best threshold, midway between two scores.
Nothing is rounded to float32 in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataprep.embeddings.embedder import find_unusable_rows
from dataprep.errors import RecordError, UsageError
from dataprep.evaluate.metrics import BoolArray, FloatArray, IntArray
from dataprep.evaluate.verification.kfold import (
    VALIDATION_FAR,
    FoldResults,
    VerificationResult,
    check_pairs,
    fold_by_distance,
    summarise_folds,
)

FeatureArray = npt.NDArray[np.floating]
PROTOCOL_FLIPS = {"insightface": "sum", "face_pytorch": "concat", "cosine": "sum"}
PROTOCOL_TITLES = {
    "insightface": "insightface ten-fold, squared L2 of unit embeddings",
    "face_pytorch": "Face_Pytorch ten-fold, cosine after subtracting the mean of the nine folds",
    "cosine": "ten-fold, plain cosine, exact thresholds",
}
_FACE_PYTORCH_THRESHOLDS: FloatArray = np.arange(-10000, 10001) * 1.0 / 10000
_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScores:
    """`distance[i]`: the distance of pair i (with `cosine`, minus its cosine) when its own fold was tested. `wrong[i]`:
    whether the threshold from the other folds misclassifies it."""

    verification: VerificationResult
    distance: FloatArray
    wrong: BoolArray
    is_cosine: bool


def score_pairs(
    left: FeatureArray, right: FeatureArray, issame: BoolArray, folds: IntArray, protocol: str = "insightface"
) -> PairScores:
    """Score rows of `left` against rows of `right`, both (n, d), not normalised. Raises RecordError and UsageError."""
    if protocol not in PROTOCOL_TITLES:
        raise UsageError(f"unknown protocol {protocol!r}: one of {', '.join(PROTOCOL_TITLES)}")
    check_features(left, right)
    if protocol == "insightface":
        distance = _unit_distances(left, right)
        folded = fold_by_distance(distance, issame, folds)
        return PairScores(
            verification=summarise_folds(folded, distance, issame),
            distance=distance,
            wrong=(distance < folded.thresholds[folds]) != issame,
            is_cosine=False,
        )
    count = int(folds.max(initial=-1)) + 1
    check_pairs(np.zeros(len(issame)), issame, folds)
    if protocol == "face_pytorch":
        cosines = _centred_cosines(left, right, folds)
    else:
        cosines = np.broadcast_to(_cosines(left, right), (count, len(issame)))
    folded = _fold_by_cosine(cosines, issame, folds, strict=protocol == "face_pytorch")
    own = cosines[folds, np.arange(len(issame))]
    threshold = folded.thresholds[folds]
    return PairScores(
        verification=summarise_folds(folded, -own, issame),
        distance=-own,
        wrong=~np.where(issame, own > threshold, own < threshold),
        is_cosine=True,
    )


def check_features(left: FeatureArray, right: FeatureArray) -> None:
    """Raises RecordError for features that have no direction or differ in shape."""
    if left.shape != right.shape or left.ndim != 2:
        raise RecordError(f"features of {left.shape} cannot be paired with features of {right.shape}")
    bad = find_unusable_rows(left) | find_unusable_rows(right)
    if bad.any():
        raise RecordError(
            f"{int(bad.sum())} of {len(bad)} pairs (first: pair {int(np.argmax(bad)) + 1}) cannot be scored: they have "
            "a feature that is zero or not finite",
            hint="--skip-missing leaves such pairs out and reports them",
        )


def _fold_by_cosine(cosines: FloatArray, issame: BoolArray, folds: IntArray, *, strict: bool) -> FoldResults:
    """`cosines` (folds, pairs): row i is used to score fold i. `strict` is Face_Pytorch's rule."""
    choose = _face_pytorch_threshold if strict else _best_threshold
    accuracy, thresholds, validation, rates = [], [], [], []
    for fold, cosine in enumerate(cosines):
        here, rest = folds == fold, folds != fold
        threshold = choose(cosine[rest], issame[rest])
        right = np.where(issame[here], cosine[here] > threshold, cosine[here] < threshold)
        accuracy.append(float(right.mean()))
        thresholds.append(threshold)
        others = np.sort(cosine[rest & ~issame])[::-1]
        allowed = int(round(VALIDATION_FAR * len(others), 9))
        if allowed:  # accept scores above the first negative that must be rejected
            validation.append(float((cosine[here & issame] > others[allowed]).mean()))
            rates.append(float((cosine[here & ~issame] > others[allowed]).mean()))
    measured = len(validation) == len(cosines)
    return FoldResults(
        accuracy=np.array(accuracy),
        thresholds=np.array(thresholds),
        validation=np.array(validation) if measured else None,
        rates=np.array(rates) if measured else None,
    )


def _face_pytorch_threshold(cosine: FloatArray, issame: BoolArray) -> float:
    positives, negatives = np.sort(cosine[issame]), np.sort(cosine[~issame])
    accepted = len(positives) - np.searchsorted(positives, _FACE_PYTORCH_THRESHOLDS, side="right")
    right = accepted + np.searchsorted(negatives, _FACE_PYTORCH_THRESHOLDS, side="left")
    return float(np.mean(_FACE_PYTORCH_THRESHOLDS[right == right.max()]))


def _best_threshold(cosine: FloatArray, issame: BoolArray) -> float:
    """Midway between the two neighbouring scores that separate the pairs best; in a tie, the highest place."""
    order = np.argsort(-cosine, kind="stable")
    ordered = cosine[order]
    gain = np.concatenate([[0], np.cumsum(np.where(issame[order], 1, -1))])
    between = np.concatenate([[True], np.diff(ordered) != 0, [True]])
    best = int(np.argmax(np.where(between, gain, -len(gain) - 1)))
    if best in (0, len(ordered)):
        return float(ordered[0] if best == 0 else ordered[-1] - 1.0)
    return float((ordered[best - 1] + ordered[best]) / 2)


def _unit_distances(left: FeatureArray, right: FeatureArray) -> FloatArray:
    out = np.empty(len(left))
    for rows in _blocks(len(left)):
        one, other = (side[rows].astype(np.float64) for side in (left, right))
        one /= np.linalg.norm(one, axis=1, keepdims=True)
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        out[rows] = ((one - other) ** 2).sum(axis=1)
    return out


def _cosines(left: FeatureArray, right: FeatureArray) -> FloatArray:
    out = np.empty(len(left))
    for rows in _blocks(len(left)):
        one, other = (side[rows].astype(np.float64) for side in (left, right))
        out[rows] = (one * other).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return out


def _centred_cosines(left: FeatureArray, right: FeatureArray, folds: IntArray) -> FloatArray:
    """(folds, pairs): the cosines after subtracting the mean of all features outside the fold.

    With m_i that mean, (l - m_i).(r - m_i) is l.r - l.m_i - r.m_i + m_i.m_i: one pass for all folds. The features are
    first centred on their common mean, so that the m_i are small and no precision is lost.
    """
    count, width = int(folds.max()) + 1, left.shape[1]
    sums = np.zeros((count, width))
    for rows in _blocks(len(left)):
        both = left[rows].astype(np.float64) + right[rows]
        for fold in np.unique(folds[rows]):
            sums[fold] += both[folds[rows] == fold].sum(axis=0)
    sizes = 2 * np.bincount(folds, minlength=count)[:, None]
    mean = sums.sum(axis=0) / sizes.sum()
    means = (sums.sum(axis=0) - sums) / (sizes.sum() - sizes) - mean
    square = (means**2).sum(axis=1)[:, None]
    out = np.empty((count, len(left)))
    for rows in _blocks(len(left)):
        one, other = left[rows] - mean, right[rows] - mean
        one_mean, other_mean = means @ one.T, means @ other.T
        lengths = (one**2).sum(axis=1) - 2 * one_mean + square, (other**2).sum(axis=1) - 2 * other_mean + square
        if min(float(length.min()) for length in lengths) <= 0:
            raise RecordError(
                "a feature equals the mean of the others and has no direction; the model may be untrained"
            )
        dot = (one * other).sum(axis=1) - one_mean - other_mean + square
        out[:, rows] = dot / np.sqrt(lengths[0] * lengths[1])
    return out


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS) for start in range(0, count, _ROWS))
