"""Verification scores of pairs: ten folds; the threshold is chosen on nine, the accuracy measured on the tenth.

The protocol (protocols.py) chooses the threshold. The default is insightface's: squared Euclidean distances
between unit vectors, 0 to 4; a pair below the threshold counts as the same person.
Source: insightface recognition/arcface_torch/eval/verification.py (after davidsandberg/facenet).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError
from dataprep.evaluate.confidence import Interval, auc_interval, eer_interval, tar_interval, wilson_interval
from dataprep.evaluate.metrics import (
    BoolArray,
    FloatArray,
    IntArray,
    area_under_curve,
    equal_error_rate,
    roc,
    tar_at_far,
)
from dataprep.packs.pair_sampling import consecutive_folds

__all__ = ["BoolArray", "FloatArray", "IntArray", "consecutive_folds", "roc", "tar_at_far"]

ACCURACY_THRESHOLDS: FloatArray = np.arange(0, 4, 0.01)
VALIDATION_THRESHOLDS: FloatArray = np.arange(0, 4, 0.001)
VALIDATION_FAR = 1e-3
FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """`accuracy` and its standard deviation over the folds; `validation` is VAL at FAR 1e-3, also averaged over the
    folds, or None if a protocol with exact thresholds has too few negatives. `tar_at_far`, `auc` and `eer` come from
    the ROC of all pairs. Rates with too few negatives are omitted; `negatives_needed` says how many they need.
    `intervals` are 95 % (evaluate/confidence.py)."""

    accuracy: float
    accuracy_std: float
    threshold: float
    validation: float | None
    validation_std: float | None
    validation_far: float | None
    tar_at_far: dict[str, float]
    negatives_needed: dict[str, int] = field(default_factory=dict)
    auc: float
    eer: float
    intervals: dict[str, Interval] = field(default_factory=dict)
    pairs: int
    positives: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResults:
    """A protocol's results by fold: accuracies, thresholds, VAL and its FAR (None if not measurable)."""

    accuracy: FloatArray
    thresholds: FloatArray
    validation: FloatArray | None
    rates: FloatArray | None


def squared_distances(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> FloatArray:
    """Squared Euclidean distances of rows, in float64; row blocks keep the memory small."""
    out = np.empty(len(left))
    for start in range(0, len(left), 8192):
        rows = slice(start, start + 8192)
        out[rows] = ((left[rows].astype(np.float64) - right[rows].astype(np.float64)) ** 2).sum(axis=1)
    return out


def verify_pairs(distance: FloatArray, issame: BoolArray, folds: IntArray | None = None) -> VerificationResult:
    """Score pairs by squared distance, as insightface does. `folds` default to ten consecutive ones.

    Raises RecordError if the pairs cannot be folded: fewer than two per fold, or a fold of one kind only.
    """
    folds = consecutive_folds(len(issame)) if folds is None else folds
    return summarise_folds(fold_by_distance(distance, issame, folds), distance, issame)


def fold_by_distance(distance: FloatArray, issame: BoolArray, folds: IntArray) -> FoldResults:
    """insightface's ten folds. Raises RecordError as `verify_pairs` does."""
    check_pairs(distance, issame, folds)
    accuracy, thresholds = fold_accuracy(distance, issame, folds, ACCURACY_THRESHOLDS)
    validation, rates = _validation(distance, issame, folds, VALIDATION_FAR)
    return FoldResults(accuracy=accuracy, thresholds=thresholds, validation=validation, rates=rates)


def summarise_folds(folded: FoldResults, distance: FloatArray, issame: BoolArray) -> VerificationResult:
    """The reported figures of the folds and of the ROC over all pairs, with intervals."""
    fpr, tpr = roc(distance, issame)
    positives, negatives = int(issame.sum()), int((~issame).sum())
    accuracy, auc, eer = float(folded.accuracy.mean()), area_under_curve(fpr, tpr), equal_error_rate(fpr, tpr)
    tars = {f"{far:g}": tar_at_far(fpr, tpr, far) for far in FAR_TARGETS if _measurable(far, negatives)}
    intervals = {
        "accuracy": wilson_interval(accuracy, len(issame)),
        "auc": auc_interval(distance, issame, auc),
        "eer": eer_interval(distance, issame, eer),
        **{f"tar@{far}": tar_interval(distance, issame, float(far)) for far in tars},
    }
    validation = None if folded.validation is None else float(folded.validation.mean())
    if validation is not None:
        intervals["validation"] = wilson_interval(validation, positives)
    return VerificationResult(
        accuracy=accuracy,
        accuracy_std=float(folded.accuracy.std()),
        threshold=float(folded.thresholds.mean()),
        validation=validation,
        validation_std=None if folded.validation is None else float(folded.validation.std()),
        validation_far=None if folded.rates is None else float(folded.rates.mean()),
        tar_at_far=tars,
        negatives_needed={f"{far:g}": round(1 / far) for far in FAR_TARGETS if not _measurable(far, negatives)},
        auc=auc,
        eer=eer,
        intervals=intervals,
        pairs=len(issame),
        positives=positives,
    )


def fold_accuracy(
    distance: FloatArray, issame: BoolArray, folds: IntArray, thresholds: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The accuracy of each fold at the threshold that is best on the other folds, and those thresholds."""
    right = _right_answers(distance, issame, folds, thresholds)
    sizes = np.bincount(folds).astype(np.float64)
    others = right.sum(axis=0) - right
    best = others.argmax(axis=1)
    return right[np.arange(len(right)), best] / sizes, thresholds[best]


def check_pairs(distance: FloatArray, issame: BoolArray, folds: IntArray) -> None:
    """Raises RecordError for pairs that cannot be scored in folds."""
    if not np.isfinite(distance).all():
        raise RecordError("some distances are not finite; the embeddings hold NaN or infinity")
    count = int(folds.max(initial=-1)) + 1
    if count == 1 and len(issame) > 1:
        raise RecordError("all pairs are in one fold; a fold needs others to choose its threshold")
    if len(issame) < 2 * count or count < 2:
        raise RecordError(f"{len(issame)} pairs are too few for {max(count, 2)} folds; a verification set has hundreds")
    for fold in range(count):
        positives = int(issame[folds == fold].sum())
        if positives in (0, int((folds == fold).sum())):
            raise RecordError(
                f"fold {fold + 1} of {count} holds pairs of one kind only; positives and negatives must be interleaved"
            )


def _measurable(far: float, negatives: int) -> bool:
    return round(far * negatives, 9) >= 1


def _right_answers(distance: FloatArray, issame: BoolArray, folds: IntArray, thresholds: FloatArray) -> FloatArray:
    """(folds, thresholds): how many pairs of a fold a threshold classifies correctly."""
    out = np.empty((int(folds.max()) + 1, len(thresholds)))
    for fold in range(len(out)):
        positives, negatives = (np.sort(distance[(folds == fold) & kind]) for kind in (issame, ~issame))
        accepted = np.searchsorted(positives, thresholds, side="left")  # those strictly below
        refused = len(negatives) - np.searchsorted(negatives, thresholds, side="left")
        out[fold] = accepted + refused
    return out


def _validation(
    distance: FloatArray, issame: BoolArray, folds: IntArray, target: float
) -> tuple[FloatArray, FloatArray]:
    """VAL and FAR of each fold at the threshold (interpolated as in insightface) with FAR `target` on the others."""
    below = _negatives_below(distance, issame, folds)
    validation, rates = [], []
    for fold in range(len(below)):
        here = folds == fold
        far = (below.sum(axis=0) - below[fold]) / int(((folds != fold) & ~issame).sum())
        threshold = 0.0
        above = int(np.searchsorted(far, target, side="right"))
        if above == len(far):
            threshold = float(VALIDATION_THRESHOLDS[-1]) if far[-1] == target else 0.0
        elif above > 0:
            # insightface: scipy's interp1d(far, thresholds, kind="slinear"), a spline of degree 1; of the thresholds
            # whose FAR equals the target, it takes the last
            share = (target - far[above - 1]) / (far[above] - far[above - 1])
            threshold = VALIDATION_THRESHOLDS[above - 1] + share * float(np.diff(VALIDATION_THRESHOLDS)[above - 1])
        validation.append(float((distance[here & issame] < threshold).mean()))
        rates.append(float((distance[here & ~issame] < threshold).mean()))
    return np.array(validation), np.array(rates)


def _negatives_below(distance: FloatArray, issame: BoolArray, folds: IntArray) -> IntArray:
    """(folds, thresholds): how many negatives of a fold lie strictly below a threshold."""
    out = np.empty((int(folds.max()) + 1, len(VALIDATION_THRESHOLDS)), np.int64)
    for fold in range(len(out)):
        negatives = np.sort(distance[(folds == fold) & ~issame])
        out[fold] = np.searchsorted(negatives, VALIDATION_THRESHOLDS, side="left")
    return out
