"""Verification pairs: drawn from the photos of people, in folds that share nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True)
class PairList:
    """Pairs of photos by name; `same[i]` says whether they show one person; `fold[i]` which tenth pair i is in."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    issame: npt.NDArray[np.bool_]
    fold: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.left)


FEWEST = 4  # people with two photos each: two folds of two people, the least that share nobody


def make_pairs(
    photos: Mapping[str, Sequence[str]], *, folds: int = 10, seed: int = 0, at_most: int | None = None
) -> PairList:
    """Positive pairs, and as many negative ones, in at most `folds` folds that share no identity.

    `photos` maps an identity to its photos. A fold needs two identities, one of them with two photos: where there are
    fewer, there are fewer folds. Identities are shuffled and dealt so that the folds hold about as many positive pairs
    each. No identity gives more positive pairs than a fold's even share; within that, every positive pair there is comes,
    or a seeded choice of `at_most // 2`. A fold's negatives are drawn from its own identities, without repetition.
    Two or three identities with two photos cannot make two folds without sharing; their pairs are dealt to two folds.
    Raises RecordError if there are fewer.
    """
    generator = np.random.default_rng(seed)
    several = sum(len(group) > 1 for group in photos.values())
    count = min(folds, len(photos) // 2, several)
    if several < 2:
        raise RecordError(
            f"pairs need two identities with two photos each, and {FEWEST} for folds that share nobody; "
            f"{several} of {len(photos)} {'has' if several == 1 else 'have'} two photos"
        )
    cap = _even_share([len(group) * (len(group) - 1) // 2 for group in photos.values()], count)
    left: list[str] = []
    right: list[str] = []
    same: list[bool] = []
    fold: list[int] = []
    for number, members in enumerate(_deal(photos, count, cap, generator)):
        groups = [photos[name] for name in members]
        positives = _positives(groups, cap, None if at_most is None else max(1, at_most // (2 * count)), generator)
        negatives = _negatives(groups, len(positives), generator)
        positives = positives[: len(negatives)]
        # alternating, so that every stretch of the list holds both kinds
        for turn, (positive, negative) in enumerate(zip(positives, negatives, strict=True)):
            for pair, kind in ((positive, True), (negative, False)):
                left.append(pair[0])
                right.append(pair[1])
                same.append(kind)
                fold.append(number if count > 1 else turn % 2)
    order = np.argsort(fold, kind="stable")
    return PairList(
        left=tuple(left[i] for i in order),
        right=tuple(right[i] for i in order),
        issame=np.array(same)[order],
        fold=np.array(fold)[order],
    )


def level_folds(pairs: PairList, *, at_most: int | None = None, seed: int = 0) -> PairList:
    """The same pairs cut so that all folds are equally long, as readers of a .bin assume; a seeded choice."""
    generator = np.random.default_rng(seed)
    folds = np.bincount(pairs.fold)
    shortest = int(folds.min()) // 2
    if at_most is not None:
        shortest = max(1, min(shortest, at_most // (2 * len(folds))))
    keep: list[int] = []
    for number in np.unique(pairs.fold):
        positives = np.flatnonzero((pairs.fold == number) & pairs.issame)
        negatives = np.flatnonzero((pairs.fold == number) & ~pairs.issame)
        chosen = [np.sort(generator.permutation(kind)[:shortest]) for kind in (positives, negatives)]
        keep += np.stack(chosen, axis=1).ravel().tolist()
    return PairList(
        left=tuple(pairs.left[i] for i in keep),
        right=tuple(pairs.right[i] for i in keep),
        issame=pairs.issame[keep],
        fold=pairs.fold[keep],
    )


def _even_share(pairs: Sequence[int], folds: int) -> int:
    """The largest cap c on the pairs of an identity with which all of them give `folds * c` pairs: no identity fills a
    fold by itself. At least 1, where `folds` identities have a pair."""
    low, high = 1, max(pairs)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(count, middle) for count in pairs) >= folds * middle:
            low = middle
        else:
            high = middle - 1
    return low


def _deal(photos: Mapping[str, Sequence[str]], folds: int, cap: int, generator: np.random.Generator) -> list[list[str]]:
    """Identities dealt to folds: shuffled, then those with most pairs first. Every fold gets one, then a second one, and
    the rest go to the fold with the fewest pairs so far."""
    names = sorted(photos)
    order = [names[i] for i in generator.permutation(len(names))]
    order.sort(key=lambda name: -len(photos[name]))
    dealt: list[list[str]] = [[] for _ in range(folds)]
    load = [0.0] * folds
    for position, name in enumerate(order):
        rank = min(2, position // folds)  # how many identities each fold has, up to two
        target = min(
            (i for i in range(folds) if len(dealt[i]) <= rank or rank == 2), key=lambda i: (load[i], len(dealt[i]))
        )
        dealt[target].append(name)
        count = len(photos[name])
        load[target] += min(cap, count * (count - 1) / 2) + 1e-3
    return dealt


def _positives(
    groups: Sequence[Sequence[str]], each: int, at_most: int | None, generator: np.random.Generator
) -> list[tuple[str, str]]:
    """Pairs within groups, `each` of a group and `at_most` in all: drawn by index, so that millions need not be listed."""
    pairs = []
    for group in groups:
        possible = len(group) * (len(group) - 1) // 2
        pairs += [(group, index) for index in _draw(possible, each, generator)]
    if at_most is not None:
        pairs = [pairs[i] for i in _draw(len(pairs), at_most, generator)]
    return [_pair(group, index) for group, index in pairs]


def _draw(possible: int, at_most: int, generator: np.random.Generator) -> list[int]:
    """At most so many of `range(possible)`, in order."""
    if possible <= at_most:
        return list(range(possible))
    return sorted(generator.choice(possible, at_most, replace=False).tolist())


def _pair(group: Sequence[str], index: int) -> tuple[str, str]:
    """The pair at this index of all pairs of a group, counted as (0, 1), (0, 2), ... (1, 2), ..."""
    first = 0
    while index >= len(group) - 1 - first:
        index -= len(group) - 1 - first
        first += 1
    return group[first], group[first + 1 + index]


def _negatives(groups: Sequence[Sequence[str]], wanted: int, generator: np.random.Generator) -> list[tuple[str, str]]:
    """Pairs across groups, none twice; identities are drawn evenly, so that no much photographed one dominates."""
    possible = (sum(map(len, groups)) ** 2 - sum(len(g) ** 2 for g in groups)) // 2
    wanted = min(wanted, possible)
    if wanted > possible // 2:
        every = [
            (one, other)
            for i, group in enumerate(groups)
            for later in groups[i + 1 :]
            for one in group
            for other in later
        ]
        return [every[i] for i in generator.permutation(len(every))[:wanted]]
    drawn: dict[tuple[str, str], None] = {}
    while len(drawn) < wanted:
        i, j = sorted(generator.choice(len(groups), 2, replace=False).tolist())
        one = groups[i][int(generator.integers(len(groups[i])))]
        other = groups[j][int(generator.integers(len(groups[j])))]
        drawn[one, other] = None
    return list(drawn)


def consecutive_folds(pairs: int, folds: int = 10) -> npt.NDArray[np.int64]:
    """scikit-learn's unshuffled KFold: consecutive stretches, the first ones longer by one where it does not divide."""
    sizes = np.full(folds, pairs // folds)
    sizes[: pairs % folds] += 1
    return np.repeat(np.arange(folds), sizes)
