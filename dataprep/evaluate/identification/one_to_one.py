"""IJB 1:1: the cosine of pairs of templates, and the true accept rate at false accept rates from 1e-6 to 1e-1."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataprep.embeddings.files import BoolArray, FloatArray, IntArray
from dataprep.errors import RecordError
from dataprep.evaluate.identification.ijb import TemplatePairs
from dataprep.evaluate.identification.templates import Templates
from dataprep.evaluate.verification.kfold import tar_at_far

IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_BLOCK_BYTES = 1 << 26
_DECIMALS = 12  # coarser than float64's rounding: equal templates tie, whatever the order of summation


@dataclass(frozen=True, slots=True, kw_only=True)
class OneToOneResult:
    """`tar_at_far` is the best TAR at a FAR of at most the named rate. `tar_at_far_insightface` is the point of
    scikit-learn's roc_curve with the nearest FAR, which may be higher, as in ijb_11.py. Rates with too few negatives
    are omitted."""

    tar_at_far: dict[str, float]
    tar_at_far_insightface: dict[str, float]
    pairs: int
    positives: int
    pairs_excluded: int
    positives_excluded: int
    templates: int
    templates_without_faces: int
    faces: int
    faces_excluded: int


def verify_templates(
    templates: Templates,
    pairs: TemplatePairs,
    *,
    exclude_missing: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> OneToOneResult:
    """Score all pairs. RecordError for a pair whose template has no usable face, unless `exclude_missing`."""
    left, right = templates.rows(pairs.left), templates.rows(pairs.right)
    usable = (left >= 0) & (right >= 0)
    same = pairs.issame
    missing = _missing(templates, pairs, left, right)
    if not usable.all():
        if not exclude_missing:
            line = int((~usable).argmax())
            number = pairs.left[line] if left[line] < 0 else pairs.right[line]
            raise RecordError(
                f"pair {line + 1} names template {number}, which has no face; so do {int((~usable).sum()) - 1} others",
                hint="--exclude-missing leaves such pairs out and counts them",
            )
        left, right, same = left[usable], right[usable], same[usable]
    positives = int(same.sum())
    if positives in (0, len(same)):
        raise RecordError(f"the {len(same)} pairs left are all of one kind; both kinds are needed")
    scores, same = pair_scores(templates.vectors, left, right, same, progress)
    del left, right
    tar, nearest = tar_at_fars(scores, same)
    return OneToOneResult(
        tar_at_far=tar,
        tar_at_far_insightface=nearest,
        pairs=len(same),
        positives=positives,
        pairs_excluded=len(pairs) - len(same),
        positives_excluded=int(pairs.issame.sum()) - positives,
        templates=len(templates.number),
        templates_without_faces=missing,
        faces=templates.faces,
        faces_excluded=templates.zero_faces,
    )


def pair_scores(
    vectors: FloatArray,
    left: IntArray,
    right: IntArray,
    issame: BoolArray,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[FloatArray, BoolArray]:
    """The products of rows `left[i]` and `right[i]`, rounded to 12 decimals, and `same`, both in the order of the rows.

    If the pairs are dense among the templates they name (IJB-C: 15.7 of 69 million), whole blocks of the product are
    computed and the pairs read from them: many times faster than fetching two rows per pair. Memory: 256 MB + scores.
    """
    one, left = _renumbered(left, len(vectors))
    other, right = _renumbered(right, len(vectors))
    packed = _packed(left, right, issame, len(one), len(other))
    del left, right
    packed.sort()  # one number per pair: three times faster than sorting positions and labels separately
    issame, packed = (packed & packed.dtype.type(1)).astype(np.bool_), packed >> packed.dtype.type(1)
    scores = np.empty(len(packed))
    if len(one) * len(other) > 64 * len(packed):
        step = max(1, _BLOCK_BYTES // (16 * vectors.shape[1]))
        for begin in range(0, len(packed), step):
            some = slice(begin, begin + step)
            lefts, rights = np.divmod(packed[some].astype(np.int64), len(other))
            scores[some] = np.einsum("ij,ij->i", vectors[one[lefts]], vectors[other[rights]])
            progress(min(begin + step, len(packed)), len(packed))
        return np.round(scores, _DECIMALS, out=scores), issame
    columns = np.ascontiguousarray(vectors[other].T)
    step = max(1, _BLOCK_BYTES // (8 * len(other)))
    firsts = np.arange(0, len(one), step)
    begins: list[int] = [*np.searchsorted(packed, (firsts * len(other)).astype(packed.dtype)).tolist(), len(packed)]

    def score(block: int) -> int:
        first, some = int(firsts[block]), slice(begins[block], begins[block + 1])
        product = vectors[one[first : first + step]] @ columns
        within = packed[some] - packed.dtype.type(first * len(other))
        scores[some] = np.round(product.ravel().take(within, mode="clip"), _DECIMALS)
        return begins[block + 1]

    # one thread reads pairs from its block while the other computes its product
    with ThreadPoolExecutor(2) as threads:
        for done in threads.map(score, range(len(firsts))):
            progress(done, len(packed))
    return scores, issame


def _packed(left: IntArray, right: IntArray, issame: BoolArray, rows: int, columns: int) -> Any:
    """(left * columns + right) * 2 + same, in 32 bits where that suffices."""
    kind = np.uint64 if 2 * rows * columns > np.iinfo(np.uint32).max else np.uint32
    packed: Any = left.astype(kind)
    packed *= kind(columns)
    packed += right.astype(kind)
    packed <<= kind(1)
    packed |= issame
    return packed


def tar_at_fars(scores: FloatArray, issame: BoolArray) -> tuple[dict[str, float], dict[str, float]]:
    """TAR at FAR by the conservative and by insightface's rule."""
    positives = int(issame.sum())
    total = len(issame) - positives, positives
    false, true = _curve(*_head(scores, issame, *total))
    fars = [far for far in IJB_FARS if far * total[0] >= 1]
    exact = _rates(false, true, *total)
    nearest = _rates(*_without_intermediate(false, true), *total)
    return {f"{far:g}": tar_at_far(*exact, far) for far in fars}, {
        f"{far:g}": nearest_tar(*nearest, far) for far in fars
    }


def _head(scores: FloatArray, issame: BoolArray, negatives: int, positives: int) -> tuple[FloatArray, BoolArray]:
    """The pairs down to more than twice the highest FAR. No rule uses lower scores: their points are farther from every
    rate than FAR 0 is. Sorting a fifth of IJB-C's millions is much faster than sorting all."""
    count = int(2 * max(IJB_FARS) * negatives) + positives + 2
    if count >= len(scores):
        return scores, issame
    kept = scores >= np.partition(scores, len(scores) - count)[len(scores) - count]
    return scores[kept], issame[kept]


def _curve(scores: FloatArray, issame: BoolArray) -> tuple[IntArray, IntArray]:
    """How many negatives and positives score at least as high as each distinct score, the highest first.

    verification.roc in counts. The few positives are looked up, so that the millions are sorted without labels.
    """
    values = np.sort(scores)[::-1]
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    positives = np.sort(scores[issame])
    true = len(positives) - np.searchsorted(positives, values[ends], side="left")
    return ends + 1 - true, true


def _rates(false: IntArray, true: IntArray, negatives: int, positives: int) -> tuple[FloatArray, FloatArray]:
    """(FAR, TAR) from (0, 0) on."""
    return np.concatenate([[0.0], false / negatives]), np.concatenate([[0.0], true / positives])


def nearest_tar(fpr: FloatArray, tpr: FloatArray, far: float) -> float:
    """The TAR at the rate nearest to `far`. Of two equally near rates the higher is taken, of one rate the best TAR."""
    return float(tpr[::-1][np.abs(fpr[::-1] - far).argmin()])


def _without_intermediate(false: IntArray, true: IntArray) -> tuple[IntArray, IntArray]:
    """The points that scikit-learn's roc_curve keeps by default: collinear intermediate points are dropped.

    insightface searches for the nearest rate only among these.
    """
    if len(false) <= 2:
        return false, true
    keep = np.concatenate([[True], (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), [True]])
    return false[keep], true[keep]


def _renumbered(rows: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """The rows that occur, ascending, and each row's position among them: np.unique without sorting millions."""
    occurs = np.zeros(count, np.bool_)
    occurs[rows] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[rows]


def _missing(templates: Templates, pairs: TemplatePairs, left: IntArray, right: IntArray) -> int:
    """How many templates have no usable face, including those named only by the pairs."""
    unknown = np.union1d(pairs.left[left < 0], pairs.right[right < 0])
    return len(np.union1d(unknown, templates.number[~templates.present]))
