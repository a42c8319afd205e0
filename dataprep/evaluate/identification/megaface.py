"""MegaFace without its devkit: identification among distractors, and verification against all of them.

As in the devkit, every ordered pair of photos of one person is a search: one photo is planted among the distractors,
the other is the probe. The rank is one more than the number of distractors that score at least as high as the planted
photo (a tie counts against the probe). In verification, the positives are the pairs of photos of one person; the
negatives are all pairs of a probe and a distractor. TAR is taken at the lowest threshold whose FPR is at most the rate.

The devkit compares unit vectors by L2 distance; cosines, which are used here, give the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dataprep.embeddings.files import BoolArray, FeatureRows, Float32Array, IntArray
from dataprep.embeddings.search import exact_scores, search_nearest
from dataprep.errors import RecordError

MEGAFACE_RANKS = (1, 10, 100)
MEGAFACE_FPRS = (1e-6, 1e-5)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentificationResult:
    """`rank[r]`: the share of searches in which at most r - 1 distractors score as high as the planted photo.
    `tar_at_fpr` omits rates for which there are too few negatives."""

    rank: dict[str, float]
    tar_at_fpr: dict[str, float]
    probes: int
    identities: int
    searches: int
    positives: int
    negatives: int
    distractors: int
    distractors_pushed_away: int
    distractors_excluded: int
    probes_excluded: int


def identify_probes(
    probes: Float32Array,
    identities: Sequence[str],
    distractors: FeatureRows,
    *,
    size: int | None = None,
    pushed_away: BoolArray | None = None,
    present: BoolArray | None = None,
    exclude_missing: bool = False,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> IdentificationResult:
    """Search every probe (rows of length one) among the first `size` distractors.

    `pushed_away` marks distractors that match nothing but count as negatives (the refined protocol); `present` marks
    probes that have a feature. Raises RecordError if no person has two photos, or for zero or NaN features.
    """
    total = len(distractors) if size is None else size
    if not 0 < total <= len(distractors):
        raise RecordError(
            f"{distractors.path} holds {len(distractors)} distractors, not {total}", hint="choose a smaller --size"
        )
    dropped = 0
    if present is not None and not present.all():
        dropped = int((~present).sum())
        probes, identities = probes[present], [name for name, kept in zip(identities, present, strict=True) if kept]
    left, right, people = list_genuine_pairs(identities)
    if not len(left):
        raise RecordError("no person has two probe photos: there is nothing to search for")
    own = exact_scores(probes, probes, left, right)
    possible = len(probes) * total
    found = search_nearest(
        probes,
        distractors,
        keep=max(MEGAFACE_RANKS),
        highest=max((_allowed(fpr, possible) + 1 for fpr in MEGAFACE_FPRS if _allowed(fpr, possible)), default=0),
        stop=total,
        excluded=pushed_away,
        exclude_zeros=exclude_missing,
        device=device,
        progress=progress,
    )
    pushed = 0 if pushed_away is None else int(pushed_away[:total].sum())
    negatives = len(probes) * (found.compared + pushed)
    ahead = np.concatenate([_ahead(found.scores, left, own), _ahead(found.scores, right, own)])
    tar = {}
    for fpr in MEGAFACE_FPRS:
        allowed = _allowed(fpr, negatives)
        if allowed:
            threshold = found.highest[allowed] if allowed < len(found.highest) else -np.inf
            tar[f"{fpr:g}"] = float((own > threshold).mean())
    return IdentificationResult(
        rank={str(rank): float((ahead < rank).mean()) for rank in MEGAFACE_RANKS},
        tar_at_fpr=tar,
        probes=len(probes),
        identities=people,
        searches=len(ahead),
        positives=len(own),
        negatives=negatives,
        distractors=found.compared + pushed,
        distractors_pushed_away=pushed,
        distractors_excluded=found.zeros,
        probes_excluded=dropped,
    )


def list_genuine_pairs(identities: Sequence[str]) -> tuple[IntArray, IntArray, int]:
    """Every pair of rows of one person, once (left < right), and how many people there are."""
    _, person, counts = np.unique(np.asarray(identities), return_inverse=True, return_counts=True)
    order = np.argsort(person, kind="stable")
    left, right, begin = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for count in map(int, counts):
        one, other = np.triu_indices(count, 1)
        left.append(order[begin + one])
        right.append(order[begin + other])
        begin += count
    return np.concatenate(left), np.concatenate(right), len(counts)


def _ahead(scores: Float32Array, probe: IntArray, own: Float32Array) -> IntArray:
    """How many of a probe's best distractors score at least as high as `own`; exact below the number kept."""
    ahead = np.empty(len(probe), np.int64)
    for begin in range(0, len(probe), 1 << 16):
        some = slice(begin, begin + (1 << 16))
        ahead[some] = (scores[probe[some]] >= own[some, None]).sum(axis=1)
    return ahead


def _allowed(fpr: float, negatives: int) -> int:
    """How many negatives may be accepted; the slack absorbs the rounding of the product."""
    return math.floor(fpr * negatives * (1 + 1e-12))
