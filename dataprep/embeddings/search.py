"""The best matches of probes among many features, in bounded memory and at nearly the speed of the matrix product.

A score is the cosine, computed in float64 and rounded to float32, so that equal features tie on every machine. The
float32 matrix product, in blocks and on any device, only selects the scores worth computing: those that may exceed the
best ones so far, within its rounding error. So blocks, threads and devices do not change the result.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dataprep.embeddings.files import BoolArray, FeatureRows, Float32Array, IntArray, normalise_rows
from dataprep.errors import ModelError

Keys = npt.NDArray[np.uint64]

_READ = 16384  # rows per read: 32 MB at 512 values
_BLOCK = 2048  # rows per product on the CPU: 29 MB of scores at 3,530 probes
_SEGMENT = 32  # rows whose highest score is checked first
_PROBES = 4096  # per product
_WAITING = 1 << 18  # candidates that are processed together
_LAST = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """`scores` (probes, keep), descending, and their `rows`; of equal scores the lower row comes first; -inf and -1 if
    there are fewer. `highest`: the highest scores of all probes together, descending. `compared`: the number of rows
    compared. `zeros`: the number of zero rows left out."""

    scores: Float32Array
    rows: IntArray
    highest: Float32Array
    compared: int
    zeros: int


def search_nearest(
    probes: Float32Array,
    features: FeatureRows,
    *,
    keep: int,
    highest: int = 0,
    stop: int | None = None,
    excluded: BoolArray | None = None,
    exclude_zeros: bool = False,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SearchResult:
    """Compare probes (rows of length one) with the first `stop` rows of `features`, except those `excluded`.

    Raises RecordError for rows that are not finite or, unless `exclude_zeros`, zero; ModelError for a missing device.
    Memory: two reads, one block of scores, and the results: (probes, keep) and `highest` numbers.
    """
    device = _resolved(device)
    total = len(features) if stop is None else min(stop, len(features))
    with ThreadPoolExecutor(_workers()) as threads:
        top = _Highest(highest)
        parts = [
            _Part(probes[begin : begin + _PROBES], keep, top, threads, device)
            for begin in range(0, len(probes), _PROBES)
        ]
        compared = zeros = 0
        for begin in range(0, total, _READ):
            rows = np.arange(begin, min(begin + _READ, total))
            if excluded is not None:
                rows = rows[~excluded[rows]]
            if len(rows):
                units = normalise_rows(features, rows, zeros=exclude_zeros)
                block = units.rows
                if not units.present.all():
                    block, rows = block[units.present], rows[units.present]
                compared += len(rows)
                zeros += int((~units.present).sum())
                for part in parts:
                    part.look(block, rows)
            features.release()
            progress(min(begin + _READ, total), total)
    keys = np.concatenate([part.best() for part in parts])
    empty = keys == 0
    return SearchResult(
        scores=np.where(empty, np.float32(-np.inf), _score_of(keys)),
        rows=np.where(empty, -1, (_LAST - (keys & _LAST)).astype(np.int64)),
        highest=top.values(),
        compared=compared,
        zeros=zeros,
    )


def _workers() -> int:
    return len(os.sched_getaffinity(0))


def _resolved(device: str) -> str:
    """`auto` is CUDA if available."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def exact_scores(left: Float32Array, right: Float32Array, i: IntArray, j: IntArray) -> Float32Array:
    """The scores of rows `left[i]` with `right[j]`."""
    scores = np.empty(len(i))
    for begin in range(0, len(i), 512):  # few enough to stay in the cache
        some = slice(begin, begin + 512)
        scores[some] = np.einsum("ij,ij->i", left[i[some]], right[j[some]], dtype=np.float64)
    return scores.astype(np.float32) + np.float32(0)  # no -0.0, which would sort below 0.0


class _Filter(Protocol):
    """Finds where a product exceeds a probe's threshold: (rows of the block, probes)."""

    def seed(self, block: Float32Array, keep: int, highest: int) -> tuple[Float32Array, np.float32]: ...
    def __call__(self, block: Float32Array, thresholds: Float32Array) -> tuple[IntArray, IntArray]: ...

    step: int


class _NumpyFilter:
    """Products on the CPU; only segments with a high enough maximum are examined row by row."""

    step = _BLOCK

    def __init__(self, probes: Float32Array, threads: ThreadPoolExecutor) -> None:
        self._probes, self._threads = probes.T, threads
        self._scores = np.empty((_BLOCK, len(probes)), np.float32)
        self._tops = np.empty((_BLOCK // _SEGMENT, len(probes)), np.float32)

    def seed(self, block: Float32Array, keep: int, highest: int) -> tuple[Float32Array, np.float32]:
        scores = block @ self._probes
        row = np.full(scores.shape[1], -np.inf, np.float32)
        if len(block) >= keep:
            row = np.partition(scores, len(block) - keep, axis=0)[len(block) - keep]
        one = np.float32(-np.inf)
        if 0 < highest <= scores.size:
            one = np.partition(scores, scores.size - highest, axis=None)[scores.size - highest]
        return row, one

    def __call__(self, block: Float32Array, thresholds: Float32Array) -> tuple[IntArray, IntArray]:
        scores = self._scores[: len(block)]
        np.matmul(block, self._probes, out=scores)
        whole = len(block) // _SEGMENT
        tops = self._tops[:whole]

        def summarise(part: slice) -> None:
            rows = slice(part.start * _SEGMENT, part.stop * _SEGMENT)
            scores[rows].reshape(part.stop - part.start, _SEGMENT, -1).max(axis=1, out=tops[part])

        share = max(1, whole // (2 * _workers()))
        list(self._threads.map(summarise, [slice(i, min(i + share, whole)) for i in range(0, whole, share)]))
        segment, probe = np.nonzero(tops > thresholds)
        rows = segment[:, None] * _SEGMENT + np.arange(_SEGMENT)
        hit, within = np.nonzero(scores[rows, probe[:, None]] > thresholds[probe, None])
        rest = np.nonzero(scores[whole * _SEGMENT :] > thresholds)
        return (
            np.concatenate([rows[hit, within], rest[0] + whole * _SEGMENT]),
            np.concatenate([probe[hit], rest[1]]),
        )


class _TorchFilter:
    """Products on a torch device."""

    step = 4096

    def __init__(self, probes: Float32Array, device: str) -> None:
        import torch

        try:
            self._probes = torch.from_numpy(probes.T.copy()).to(device)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"device {device}: {str(error).splitlines()[0]}", hint="choose another --device") from None

    def _product(self, block: Float32Array) -> Any:
        import torch

        return torch.from_numpy(block).to(self._probes.device) @ self._probes

    def seed(self, block: Float32Array, keep: int, highest: int) -> tuple[Float32Array, np.float32]:
        scores = self._product(block)
        row = np.full(scores.shape[1], -np.inf, np.float32)
        if len(block) >= keep:
            row = scores.topk(keep, dim=0).values[-1].cpu().numpy()
        one = np.float32(-np.inf)
        if 0 < highest <= scores.numel():
            one = scores.flatten().topk(highest).values[-1].cpu().numpy()[()]
        return row, one

    def __call__(self, block: Float32Array, thresholds: Float32Array) -> tuple[IntArray, IntArray]:
        import torch

        found = (self._product(block) > torch.from_numpy(thresholds).to(self._probes.device)).nonzero().cpu().numpy()
        return found[:, 0], found[:, 1]


class _Highest:
    """The `count` highest scores of all probes."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._held = np.empty(0, np.float32)
        self._waiting: list[Float32Array] = []
        self.threshold = np.float32(-np.inf)

    def add(self, scores: Float32Array) -> None:
        if self.count:
            self._waiting.append(scores[scores > self.threshold])
            if sum(map(len, self._waiting)) > max(self.count, _WAITING):
                self._settle()

    def values(self) -> Float32Array:
        self._settle()
        return np.sort(self._held)[::-1]

    def _settle(self) -> None:
        held = np.concatenate([self._held, *self._waiting])
        self._waiting = []
        if len(held) > self.count:
            held = np.partition(held, len(held) - self.count)[len(held) - self.count :]
        self._held = held
        if self.count and len(held) == self.count:
            self.threshold = held.min()


class _Part:
    """Some of the probes, and the best rows for each, as keys that sort by score and then by lower row."""

    def __init__(
        self, probes: Float32Array, keep: int, highest: _Highest, threads: ThreadPoolExecutor, device: str
    ) -> None:
        self._probes, self._highest, self._threads = probes, highest, threads
        self._filter: _Filter = _NumpyFilter(probes, threads) if device == "cpu" else _TorchFilter(probes, device)
        # the product's rounding error is below d * 2**-24 for vectors of length one; these are, to within 1e-7
        self._margin = np.float32(2.0 * (probes.shape[1] + 8) * 2.0**-24)
        self._keys = np.zeros((len(probes), keep), np.uint64)
        self._seed: Float32Array | None = None

    def best(self) -> Keys:
        return np.sort(self._keys, axis=1)[:, ::-1]

    def look(self, block: Float32Array, numbers: IntArray) -> None:
        """Keep the best scores of a block whose rows have these numbers."""
        waiting: list[tuple[IntArray, IntArray]] = []
        for begin in range(0, len(block), self._filter.step):
            part = block[begin : begin + self._filter.step]
            if self._seed is None:
                row, one = self._filter.seed(part, self._keys.shape[1], self._highest.count)
                self._seed = np.minimum(row, one if self._highest.count else row) - self._margin
            rows, probes = self._filter(part, self._thresholds() - self._margin)
            waiting.append((rows + begin, probes))
            if sum(len(rows) for rows, _ in waiting) > _WAITING:
                self._take(block, numbers, waiting)
                waiting = []
        if waiting:
            self._take(block, numbers, waiting)

    def _thresholds(self) -> Float32Array:
        """The score that must be exceeded to be kept, per probe."""
        worst = self._keys.min(axis=1)
        row = np.where(worst == 0, np.float32(-np.inf), _score_of(worst))
        if self._highest.count:
            row = np.minimum(row, self._highest.threshold)
        return row if self._seed is None else np.maximum(row, self._seed)

    def _take(self, block: Float32Array, numbers: IntArray, waiting: list[tuple[IntArray, IntArray]]) -> None:
        rows = np.concatenate([rows for rows, _ in waiting])
        probes = np.concatenate([probes for _, probes in waiting])
        if not len(rows):
            return
        share = -(-len(rows) // _workers())
        pieces = [slice(i, i + share) for i in range(0, len(rows), share)]
        scores = np.concatenate(
            list(self._threads.map(lambda s: exact_scores(self._probes, block, probes[s], rows[s]), pieces))
        )
        self._highest.add(scores)
        keys = _keys(scores, numbers[rows])
        better = keys > self._keys.min(axis=1)[probes]
        probes, keys = probes[better], keys[better]
        order = np.argsort(probes, kind="stable")
        probes, keys = probes[order], keys[order]
        changed, starts, counts = np.unique(probes, return_index=True, return_counts=True)
        if not len(changed):
            return
        kept = self._keys.shape[1]
        wide = np.zeros((len(changed), kept + int(counts.max())), np.uint64)
        wide[:, :kept] = self._keys[changed]
        wide[np.repeat(np.arange(len(changed)), counts), kept + np.arange(len(keys)) - np.repeat(starts, counts)] = keys
        self._keys[changed] = np.partition(wide, wide.shape[1] - kept, axis=1)[:, wide.shape[1] - kept :]


def _keys(scores: Float32Array, rows: IntArray) -> Keys:
    """Integers in the order of (score, -row): a float32's bits sort like an integer once the sign is handled."""
    bits = scores.view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered.astype(np.uint64) << np.uint64(32)) | (_LAST - rows.astype(np.uint64))


def _score_of(keys: Keys) -> Float32Array:
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered)
    return np.ascontiguousarray(bits, np.uint32).view(np.float32)
