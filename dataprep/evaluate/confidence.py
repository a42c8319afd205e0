"""95 % confidence intervals for the figures of a verification. All are seeded and take well under a second for any
number of pairs.

rates over pairs   Wilson's score interval (Wilson 1927)
AUC                DeLong's variance (DeLong et al. 1988) on the logit scale
TAR at FAR         simulated: the threshold from a binomial count of the negatives below it, the rate from Jeffreys'
                   beta distribution
EER                Bayesian bootstrap (Rubin 1981) of both kinds of pairs; scores far from the crossing are binned
Pairs are treated as independent; for sets that use a photo in many pairs, the true intervals are wider.
"""

from __future__ import annotations

import math

import numpy as np

from dataprep.evaluate.metrics import BoolArray, FloatArray, equal_error_rate

Interval = tuple[float, float]
INTERVAL_METHODS = {
    "accuracy": "Wilson, over all pairs",
    "validation": "Wilson, over the positive pairs; its threshold taken as given",
    "auc": "DeLong, logit scale",
    "eer": "Bayesian bootstrap, 1000 resamples, seed 0",
    "tar_at_far": "binomial threshold and Jeffreys rate, 10000 draws, seed 0",
}
_Z = 1.959963984540054
_BINS = 512


def wilson_interval(rate: float, count: int) -> Interval:
    """Wilson's interval for `rate` of `count` independent trials."""
    centre = (rate + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(rate * (1 - rate) / count + _Z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def auc_interval(distance: FloatArray, issame: BoolArray, auc: float) -> Interval:
    """DeLong's interval. If every positive is nearer than every negative, the variance is zero; then Wilson's interval
    for the number of pairs of the smaller kind."""
    positives, negatives = np.sort(distance[issame]), np.sort(distance[~issame])
    beats = 1 - _rank(negatives, positives)
    beaten = _rank(positives, negatives)
    variance = beats.var(ddof=1) / len(positives) + beaten.var(ddof=1) / len(negatives) if len(positives) > 1 else 0.0
    if not 0 < auc < 1 or variance == 0:
        return wilson_interval(min(1.0, max(0.0, auc)), min(len(positives), len(negatives)))
    half = _Z * math.sqrt(variance) / (auc * (1 - auc))
    logit = math.log(auc / (1 - auc))
    return 1 / (1 + math.exp(-(logit - half))), 1 / (1 + math.exp(-(logit + half)))


def tar_interval(distance: FloatArray, issame: BoolArray, far: float) -> Interval:
    """The interval of the true accept rate at the threshold whose false accept rate is `far`."""
    generator = np.random.default_rng(0)
    positives, negatives = np.sort(distance[issame]), np.sort(distance[~issame])
    below = generator.binomial(len(negatives), far, 10_000)
    threshold = np.append(negatives, np.inf)[below]
    accepted = np.searchsorted(positives, threshold, side="left")
    rate = generator.beta(accepted + 0.5, len(positives) - accepted + 0.5)
    low, high = np.quantile(rate, [0.025, 0.975])
    return float(low), float(high)


def eer_interval(distance: FloatArray, issame: BoolArray, eer: float) -> Interval:
    """The interval of the EER. Only scores with error rates near `eer` are resolved, in at most 512 bins; the others
    cannot move the crossing."""
    counts = np.array([int(issame.sum()), int((~issame).sum())])
    if eer == 0:
        return 0.0, wilson_interval(0.0, int(counts.min()))[1]
    reach = eer + 8 * math.sqrt(eer * (1 - eer) / counts.min()) + 4 / counts.min()
    order = np.argsort(distance, kind="stable")
    kinds = issame[order]
    false = np.cumsum(~kinds) / counts[1]
    missed = 1 - np.cumsum(kinds) / counts[0]
    first = int(np.searchsorted(-missed, -reach))  # the first position with a miss rate of at most `reach`
    last = int(np.searchsorted(false, reach, side="right"))
    edges = np.unique(np.concatenate([[0], np.linspace(first, max(first + 1, last), _BINS).astype(int)]))
    edges = _whole_ties(edges[edges < len(order)], distance[order])
    positives = np.add.reduceat(kinds, edges, dtype=np.int64)
    negatives = np.add.reduceat(~kinds, edges, dtype=np.int64)
    generator = np.random.default_rng(0)
    tpr, fpr = (_resampled(generator, kind) for kind in (positives, negatives))
    crossings = np.array([equal_error_rate(f, t) for f, t in zip(fpr, tpr, strict=True)])
    low, high = np.quantile(crossings, [0.025, 0.975])
    return float(low), float(high)


def _rank(values: FloatArray, of: FloatArray) -> FloatArray:
    """The share of `values` (sorted) below each element of `of`; equal values count half."""
    both = np.searchsorted(values, of, side="left") + np.searchsorted(values, of, side="right")
    return np.asarray(both / (2 * len(values)))


def _whole_ties(edges: np.typing.NDArray[np.int64], ordered: FloatArray) -> np.typing.NDArray[np.int64]:
    """Edges moved to the start of a run of equal scores."""
    return np.unique(np.searchsorted(ordered, ordered[edges], side="left"))


def _resampled(generator: np.random.Generator, counts: np.typing.NDArray[np.int64]) -> FloatArray:
    """(1000, bins + 1) cumulative shares, from 0 to 1: Dirichlet weights by gamma variates."""
    drawn = generator.standard_gamma(np.broadcast_to(counts.astype(np.float64), (1000, len(counts))))
    total = np.cumsum(drawn, axis=1)
    return np.concatenate([np.zeros((1000, 1)), total / total[:, -1:]], axis=1)
