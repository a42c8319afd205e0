"""Verification as insightface scores it: ten folds, the threshold chosen on nine, the accuracy taken on the tenth.

Source: insightface recognition/arcface_torch/eval/verification.py (after davidsandberg/facenet). Distances are squared
Euclidean ones between unit vectors, 0 to 4; a pair counts as the same person below the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

ACCURACY_THRESHOLDS: Floats = np.arange(0, 4, 0.01)
VALIDATION_THRESHOLDS: Floats = np.arange(0, 4, 0.001)
FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """`accuracy` and its deviation over the folds; `validation` is VAL at FAR 1e-3, averaged over the folds too;
    `tar_at_far` is read off the ROC of all pairs, for the rates that enough negatives are there for."""

    accuracy: float
    accuracy_std: float
    threshold: float
    validation: float
    validation_std: float
    validation_far: float
    tar_at_far: dict[str, float]
    auc: float
    pairs: int
    positives: int


def distances(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> Floats:
    """Squared Euclidean distances of rows."""
    return np.asarray(((left.astype(np.float64) - right.astype(np.float64)) ** 2).sum(axis=1))


def consecutive_folds(pairs: int, folds: int = 10) -> Ints:
    """scikit-learn's unshuffled KFold: consecutive stretches, the first ones longer by one where it does not divide."""
    sizes = np.full(folds, pairs // folds)
    sizes[: pairs % folds] += 1
    return np.repeat(np.arange(folds), sizes)


def verify(distance: Floats, same: Bools, folds: Ints | None = None) -> Verification:
    """Score pairs by their distances. `folds` default to ten consecutive ones.

    Raises RecordError if the pairs cannot be folded: fewer than two per fold, or a fold of one kind only.
    """
    folds = consecutive_folds(len(same)) if folds is None else folds
    _check(distance, same, folds)
    accuracy, thresholds = fold_accuracy(distance, same, folds, ACCURACY_THRESHOLDS)
    validation, rates = _validation(distance, same, folds, 1e-3)
    fpr, tpr = roc(distance, same)
    negatives = int((~same).sum())
    return Verification(
        accuracy=float(accuracy.mean()),
        accuracy_std=float(accuracy.std()),
        threshold=float(thresholds.mean()),
        validation=float(validation.mean()),
        validation_std=float(validation.std()),
        validation_far=float(rates.mean()),
        tar_at_far={f"{far:g}": tar_at(fpr, tpr, far) for far in FAR_TARGETS if far * negatives >= 1},
        auc=float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum()),
        pairs=len(same),
        positives=int(same.sum()),
    )


def fold_accuracy(distance: Floats, same: Bools, folds: Ints, thresholds: Floats) -> tuple[Floats, Floats]:
    """Accuracy of each fold at the threshold that is best on the others, and those thresholds."""
    right = _right_answers(distance, same, folds, thresholds)
    sizes = np.bincount(folds).astype(np.float64)
    others = right.sum(axis=0) - right
    best = others.argmax(axis=1)
    return right[np.arange(len(right)), best] / sizes, thresholds[best]


def roc(distance: Floats, same: Bools) -> tuple[Floats, Floats]:
    """(false accept rate, true accept rate) at every distinct distance, rising, from (0, 0) to (1, 1)."""
    order = np.argsort(distance, kind="stable")
    accepted = np.cumsum(same[order])
    ends = np.append(np.flatnonzero(np.diff(distance[order])), len(order) - 1)
    true, false = accepted[ends], ends + 1 - accepted[ends]
    tpr = np.concatenate([[0.0], true / max(1, same.sum())])
    fpr = np.concatenate([[0.0], false / max(1, (~same).sum())])
    return fpr, tpr


def tar_at(fpr: Floats, tpr: Floats, far: float) -> float:
    """The best true accept rate whose false accept rate is at most `far`."""
    return float(tpr[np.searchsorted(fpr, far, side="right") - 1])


def _right_answers(distance: Floats, same: Bools, folds: Ints, thresholds: Floats) -> Floats:
    """(folds, thresholds): how many pairs of a fold a threshold gets right."""
    out = np.empty((int(folds.max()) + 1, len(thresholds)))
    for fold in range(len(out)):
        positives, negatives = (np.sort(distance[(folds == fold) & kind]) for kind in (same, ~same))
        accepted = np.searchsorted(positives, thresholds, side="left")  # those strictly below
        refused = len(negatives) - np.searchsorted(negatives, thresholds, side="left")
        out[fold] = accepted + refused
    return out


def _validation(distance: Floats, same: Bools, folds: Ints, target: float) -> tuple[Floats, Floats]:
    """VAL and FAR of each fold at the threshold whose FAR on the other folds is `target`, interpolated as theirs."""
    validation, rates = [], []
    for fold in range(int(folds.max()) + 1):
        rest, here = folds != fold, folds == fold
        far = _share_below(distance[rest & ~same], VALIDATION_THRESHOLDS)
        threshold = 0.0
        above = int(np.argmax(far >= target))
        if far[above] >= target and above > 0:
            # theirs: scipy's interp1d(far, thresholds, kind="slinear"), between the neighbours of the target
            share = (target - far[above - 1]) / (far[above] - far[above - 1])
            threshold = VALIDATION_THRESHOLDS[above - 1] + share * float(np.diff(VALIDATION_THRESHOLDS)[above - 1])
        validation.append(float((distance[here & same] < threshold).mean()))
        rates.append(float((distance[here & ~same] < threshold).mean()))
    return np.array(validation), np.array(rates)


def _share_below(values: Floats, thresholds: Floats) -> Floats:
    return np.asarray(np.searchsorted(np.sort(values), thresholds, side="left") / len(values))


def _check(distance: Floats, same: Bools, folds: Ints) -> None:
    if not np.isfinite(distance).all():
        raise RecordError("some distances are not finite; the embeddings hold NaN or infinity")
    count = int(folds.max(initial=-1)) + 1
    if len(same) < 2 * count or count < 2:
        raise RecordError(f"{len(same)} pairs are too few for ten folds; a verification set has hundreds")
    for fold in range(count):
        positives = int(same[folds == fold].sum())
        if positives in (0, int((folds == fold).sum())):
            raise RecordError(
                f"fold {fold + 1} of {count} holds pairs of one kind only; positives and negatives must be interleaved"
            )
