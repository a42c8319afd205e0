"""IJB 1:N: probe templates are searched in two galleries, one at a time and both together.

A probe is mated in a gallery that holds its subject; each gallery holds one template per subject. Ties always count
against the mate: its rank is one more than the number of other templates that score at least as high.

* One gallery at a time (open set): probes without a mate there are impostors. A false positive is an impostor whose
  best score is above the threshold; a true positive is a mated probe whose mate ranks first, above the threshold.
* Both galleries as one (insightface's ijb_1n.py, the source of published figures): every probe has a mate. Its "FPIR"
  counts all wrong scores: the threshold is the ceil(probes * rate)-th highest of them, and rank does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dataprep.embeddings.files import BoolArray, FloatArray, IntArray
from dataprep.errors import RecordError
from dataprep.evaluate.identification.ijb import Subjects
from dataprep.evaluate.identification.templates import Templates

IJB_RANKS = (1, 5, 10)
IJB_FPIRS = (0.01, 0.1)
_DECIMALS = 12  # as in the 1:1 protocol
_PROBES = 1024  # per block: 29 MB of scores at IJB-C's 3,531 gallery templates


@dataclass(frozen=True, slots=True, kw_only=True)
class GallerySearch:
    """`rank[r]`: the share of mated probes whose mate is among the first r. `tpir_at_fpir`: the largest TPIR at an FPIR
    of at most the named rate. `tpir_at_fpir_ijb_evals`: with the threshold of insightface's ijb_evals.py, which is one
    impostor stricter. Rates with too few impostors are omitted."""

    name: str
    templates: int
    mated: int
    impostors: int
    rank: dict[str, float]
    tpir_at_fpir: dict[str, float]
    tpir_at_fpir_ijb_evals: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneToManyResult:
    """`rank` and `tpir_at_fpir_ijb_1n` treat both galleries as one; `mean_tpir_at_fpir` averages the galleries."""

    probes: int
    probes_without_mate: int
    probes_excluded: int
    gallery_templates_excluded: int
    rank: dict[str, float]
    tpir_at_fpir_ijb_1n: dict[str, float]
    mean_tpir_at_fpir: dict[str, float]
    galleries: tuple[GallerySearch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """Per probe: its mate's column (-1: none), the mate's score, how many others score at least as high, the best
    other score."""

    mate: IntArray
    score: FloatArray
    ahead: IntArray
    best_other: FloatArray


def search_templates(
    templates: Templates,
    galleries: Sequence[Subjects],
    probes: Subjects,
    *,
    exclude_missing: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> OneToManyResult:
    """Score all probes against all galleries.

    Raises RecordError for a subject with two templates in the galleries and, unless `exclude_missing`, for templates
    without a usable face. Excluded probes, and probes whose only mate is excluded, count only as excluded.
    """
    rows = [_usable(templates, gallery, exclude_missing) for gallery in galleries]
    subjects = np.concatenate([g.subject for g in galleries])
    _one_template_each(galleries, subjects)
    kept = np.concatenate([r >= 0 for r in rows])
    probe_rows = _usable(templates, probes, exclude_missing)
    probe_kept = (probe_rows >= 0) & ~np.isin(probes.subject, subjects[~kept])
    number = np.concatenate([np.full(len(r), i) for i, r in enumerate(rows)])[kept]
    gallery_rows, subjects = np.concatenate(rows)[kept], subjects[kept]
    probe_subjects, probe_rows = probes.subject[probe_kept], probe_rows[probe_kept]
    if not len(subjects) or not len(probe_rows):
        raise RecordError("no gallery templates or no probes are left to search")
    sets = [np.flatnonzero(number == i) for i in range(len(galleries))]
    columns = [np.arange(len(subjects)), *sets]
    mates = [_mates(probe_subjects, subjects[c]) for c in columns]
    mated = int((mates[0] >= 0).sum())
    if not mated:
        raise RecordError("no probe has a mate: the probes and the galleries share no subject")
    wrong = max(math.ceil(mated * fpir) for fpir in IJB_FPIRS)
    found: list[list[_Scores]] = [[] for _ in columns]
    highest = np.empty(0)
    vectors = np.ascontiguousarray(templates.vectors[gallery_rows].T)
    for begin in range(0, len(probe_rows), _PROBES):
        block = slice(begin, begin + _PROBES)
        scores = np.round(templates.vectors[probe_rows[block]] @ vectors, _DECIMALS)
        for parts, chosen, mate in zip(found, columns, mates, strict=True):
            parts.append(_score(scores if len(chosen) == len(subjects) else scores[:, chosen], mate[block]))
        union = mates[0][block]
        scores[np.flatnonzero(union >= 0), union[union >= 0]] = -np.inf
        highest = _top(np.concatenate([highest, scores[union >= 0].ravel()]), wrong)
        progress(min(begin + _PROBES, len(probe_rows)), len(probe_rows))
    both, *single = (_joined(parts) for parts in found)
    searches = tuple(
        _open_set(gallery.name, len(chosen), scores)
        for gallery, chosen, scores in zip(galleries, sets, single, strict=True)
    )
    return OneToManyResult(
        probes=len(probe_rows),
        probes_without_mate=len(probe_rows) - mated,
        probes_excluded=int((~probe_kept).sum()),
        gallery_templates_excluded=int((~kept).sum()),
        rank=_ranks(both),
        tpir_at_fpir_ijb_1n=_tpir_ijb_1n(both.score[both.mate >= 0], np.sort(highest)[::-1]),
        mean_tpir_at_fpir={
            fpir: float(np.mean([search.tpir_at_fpir[fpir] for search in searches]))
            for fpir in searches[0].tpir_at_fpir
            if all(fpir in search.tpir_at_fpir for search in searches)
        },
        galleries=searches,
    )


def _score(scores: FloatArray, mate: IntArray) -> _Scores:
    at = np.arange(len(scores))
    own = np.where(mate >= 0, scores[at, np.maximum(mate, 0)], np.inf)
    ahead = (scores >= own[:, None]).sum(axis=1) - (mate >= 0)
    others = scores.copy()
    others[at[mate >= 0], mate[mate >= 0]] = -np.inf
    return _Scores(mate=mate, score=own, ahead=ahead, best_other=others.max(axis=1, initial=-np.inf))


def _joined(parts: Sequence[_Scores]) -> _Scores:
    return _Scores(
        mate=np.concatenate([p.mate for p in parts]),
        score=np.concatenate([p.score for p in parts]),
        ahead=np.concatenate([p.ahead for p in parts]),
        best_other=np.concatenate([p.best_other for p in parts]),
    )


def _open_set(name: str, templates: int, scores: _Scores) -> GallerySearch:
    mated: BoolArray = scores.mate >= 0
    impostors = np.sort(scores.best_other[~mated])[::-1]
    first = scores.ahead[mated] == 0
    own = scores.score[mated]
    fpirs = [fpir for fpir in IJB_FPIRS if fpir * len(impostors) >= 1] if mated.any() else []

    def tpir(place: int) -> float:
        return float((first & (own > impostors[place])).mean()) if place < len(impostors) else float(first.mean())

    return GallerySearch(
        name=name,
        templates=templates,
        mated=int(mated.sum()),
        impostors=len(impostors),
        rank=_ranks(scores),
        tpir_at_fpir={f"{fpir:g}": tpir(_floor(fpir * len(impostors))) for fpir in fpirs},
        tpir_at_fpir_ijb_evals={f"{fpir:g}": tpir(max(int(len(impostors) * fpir) - 1, 0)) for fpir in fpirs},
    )


def _tpir_ijb_1n(own: FloatArray, wrong: FloatArray) -> dict[str, float]:
    """`wrong`: the highest scores of templates that are not the mate, descending; -inf replaces the mates."""
    places = {f"{fpir:g}": math.ceil(len(own) * fpir) - 1 for fpir in IJB_FPIRS}
    return {
        fpir: float((own > wrong[place]).mean())
        for fpir, place in places.items()
        if place < len(wrong) and np.isfinite(wrong[place])
    }


def _ranks(scores: _Scores) -> dict[str, float]:
    ahead = scores.ahead[scores.mate >= 0]
    return {str(rank): float((ahead < rank).mean()) for rank in IJB_RANKS} if len(ahead) else {}


def _floor(count: float) -> int:
    return math.floor(count + 1e-9)  # 0.1 * 30 is not 3.0000000000000004 impostors


def _top(values: FloatArray, count: int) -> FloatArray:
    return values if len(values) <= count else np.partition(values, len(values) - count)[len(values) - count :]


def _mates(subjects: np.ndarray, gallery: np.ndarray) -> IntArray:
    """For each probe the place of its subject in the gallery, or -1."""
    if not len(gallery):
        return np.full(len(subjects), -1)
    order = np.argsort(gallery)
    place = order[np.minimum(np.searchsorted(gallery, subjects, sorter=order), len(gallery) - 1)]
    return np.where(gallery[place] == subjects, place, -1)


def _usable(templates: Templates, listed: Subjects, exclude_missing: bool) -> IntArray:
    rows = templates.rows(listed.template)
    if (rows < 0).any() and not exclude_missing:
        raise RecordError(
            f"{listed.name}: template {listed.template[rows < 0][0]} has no face ({int((rows < 0).sum())} in all)",
            hint="--exclude-missing leaves them out and counts them",
        )
    return rows


def _one_template_each(galleries: Sequence[Subjects], subjects: np.ndarray) -> None:
    unique, counts = np.unique(subjects, return_counts=True)
    if (counts > 1).any():
        subject = unique[counts > 1][0]
        where = ", ".join(g.name for g in galleries if subject in g.subject)
        raise RecordError(f"{where}: subject {subject} has more than one template; a gallery holds one per subject")
