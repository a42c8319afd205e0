"""The ROC of pairs, and the figures read from it. Smaller distances mean more similar faces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def roc(distance: FloatArray, issame: BoolArray) -> tuple[FloatArray, FloatArray]:
    """(false accept rate, true accept rate) at every distinct distance, ascending, from (0, 0) to (1, 1)."""
    order = np.argsort(distance, kind="stable")
    accepted = np.cumsum(issame[order])
    ends = np.append(np.flatnonzero(np.diff(distance[order])), len(order) - 1)
    true, false = accepted[ends], ends + 1 - accepted[ends]
    tpr = np.concatenate([[0.0], true / max(1, issame.sum())])
    fpr = np.concatenate([[0.0], false / max(1, (~issame).sum())])
    return fpr, tpr


def area_under_curve(fpr: FloatArray, tpr: FloatArray) -> float:
    """The area under the curve, by the trapezoidal rule: ties count half."""
    return float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum())


def tar_at_far(fpr: FloatArray, tpr: FloatArray, far: float) -> float:
    """The highest true accept rate at a false accept rate of at most `far`."""
    return float(tpr[np.searchsorted(fpr, far, side="right") - 1])


def equal_error_rate(fpr: FloatArray, tpr: FloatArray) -> float:
    """The equal error rate (false accept rate = false reject rate), interpolated linearly between the points."""
    gap = fpr + tpr - 1
    above = int(np.argmax(gap >= 0))
    if above == 0:
        return float(fpr[0])
    share = -gap[above - 1] / (gap[above] - gap[above - 1])
    return float(fpr[above - 1] + share * (fpr[above] - fpr[above - 1]))
