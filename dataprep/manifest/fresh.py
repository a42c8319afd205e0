"""Which samples of a list are not planned yet, and under which keys they will be.

Keys and places are compared by 64-bit hashes in sorted arrays: 16 bytes for a planned sample, 8 for one of the list. That
a photo is taken for a planned one needs equal hashes of both, 128 bits. Should two keys have the same hash, the later
one's photo gets a number that it would not have needed, and always the same one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dataprep.samples import Sample

_CHUNK = 20_000  # samples in memory at a time
_MANY = 16  # from this number of namesakes on, it is remembered where to go on counting

_Hashes = npt.NDArray[np.uint64]


def fresh(samples: Iterable[Sample], planned: Iterable[tuple[Iterable[str], Iterable[str]]]) -> Iterator[Sample]:
    """Samples that are not planned yet. A key that stands for another photo, here or in the plan, gets a number, so that
    nothing vanishes.

    `planned` has keys and what `place_of` says of them, a shard at a time.
    """
    known, seen = _Planned(planned), _Seen()
    lowest: dict[int, int] = {}  # by the hash of a key with many namesakes: all numbers below are taken
    coming = iter(samples)
    while chunk := list(itertools.islice(coming, _CHUNK)):
        shorts = _hashes([sample.key for sample in chunk])
        before = seen.has(shorts).tolist()
        places = known.places(shorts)
        here: set[int] = set()
        for sample, short, taken, place in zip(chunk, shorts.tolist(), before, places, strict=True):
            if not taken and short not in here and (place is None or place == _hash(place_of(sample))):
                here.add(short)
                if place is None:
                    yield sample
                continue
            low = lowest.get(short, 1)
            mine = _hash(place_of(sample))
            for number in itertools.count(low):
                key = sample.key if number == 1 else f"{sample.key}~{number}"
                numbered = _hash(key)
                if numbered in here or seen.has_one(numbered):
                    low += number == low
                    continue
                place = known.place(numbered)
                if place is None or place == mine:
                    break
            if low > _MANY:
                lowest[short] = low
            here.add(numbered)
            if place is None:
                yield replace(sample, key=key)
        seen.add(np.sort(np.fromiter(here, np.uint64, len(here))))


def place_of(sample: Sample) -> str:
    """Where a photo lies; two samples of one key and one place are the same."""
    where = "" if sample.offset is None else sample.offset
    return f"{sample.url}\0{sample.path}\0{where}\0{sample.detail}"


class _Planned:
    """The places of planned samples by the hashes of their keys."""

    def __init__(self, planned: Iterable[tuple[Iterable[str], Iterable[str]]]) -> None:
        keys, places = [_hashes([])], [_hashes([])]
        for names, texts in planned:
            keys.append(_hashes(names))
            places.append(_hashes(texts))
        unsorted = np.concatenate(keys)
        order = np.argsort(unsorted)
        self._keys, self._places = unsorted[order], np.concatenate(places)[order]

    def places(self, keys: _Hashes) -> list[int | None]:
        """The hashed place of each planned key; None for the others."""
        if not len(self._keys):
            return [None] * len(keys)
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        found = (self._keys[at] == keys).tolist()
        return [place if one else None for place, one in zip(self._places[at].tolist(), found, strict=True)]

    def place(self, key: int) -> int | None:
        return self.places(np.array([key], np.uint64))[0]


class _Seen:
    """A growing set of hashes: sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[_Hashes] = []

    def add(self, run: _Hashes) -> None:
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")  # which merges what is sorted
        self._runs.append(run)

    def has(self, keys: _Hashes) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(keys), np.bool_)
        for run in self._runs:
            at = np.searchsorted(run, keys)
            at[at == len(run)] = 0
            found |= run[at] == keys
        return found

    def has_one(self, key: int) -> bool:
        return bool(self.has(np.array([key], np.uint64))[0])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _hashes(texts: Iterable[str]) -> _Hashes:
    digests = b"".join([hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts])
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)
