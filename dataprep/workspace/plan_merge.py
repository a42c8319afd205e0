"""Finds the samples of a list that are not planned yet, and assigns their names.

Some file systems ignore case or Unicode normalisation. Names that are equal there get a number: `anna` beside `Anna`
becomes the identity `anna~2`, and a key already used for another photo becomes `Ann/1~2`. Planned samples keep their
names when a list grows, wherever they are in it now: the result depends on earlier names, not on the order.

Keys and places are compared by 64-bit hashes in sorted arrays: 16 bytes per planned sample, 8 per sample of the list. A
photo is mistaken for a planned one only if both hashes, 128 bits, are equal. If the hashes of two keys collide, the
later photo gets a number that it did not need, and it is always the same number.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.names import casefold_name
from dataprep.workspace.plan_table import SampleTable, replace_column

_MANY = 16  # above this number of equal keys, the next free number is cached

_Hashes = npt.NDArray[np.uint64]


class PlannedShard(NamedTuple):
    """A shard of the plan: its keys, the places of their photos (see `location_keys`), and its distinct identities."""

    keys: Sequence[str]
    locations: Sequence[str]
    identities: Sequence[str]


def select_new_samples(tables: Iterable[SampleTable], planned: Iterable[PlannedShard]) -> Iterator[SampleTable]:
    """Yield tables (plan_table.py) of the samples not planned yet, renamed where necessary. No sample is lost."""
    identities = _Identities()
    known, seen = _Known(planned, identities), _Seen()
    lowest: dict[int, int] = {}  # by hash of a key with many equals: all smaller numbers are taken
    for table in map(identities.named, filter(len, tables)):
        keys = table["key"].to_pylist()
        shorts = _hashes(map(casefold_name, keys))
        before = seen.has(shorts).tolist()
        places = known.places(shorts)
        own = _Places(table)
        here: set[int] = set()
        rows: list[int] = []
        renamed: dict[int, str] = {}
        for row, (short, taken, place) in enumerate(zip(shorts.tolist(), before, places, strict=True)):
            if not taken and short not in here and (place is None or place == own[row]):
                here.add(short)
                if place is None:
                    rows.append(row)
                continue
            low = lowest.get(short, 1)
            for number in itertools.count(low):
                key = keys[row] if number == 1 else f"{keys[row]}~{number}"
                numbered = _hash(casefold_name(key))
                if numbered in here or seen.has_one(numbered):
                    low += number == low
                    continue
                place = known.place(numbered)
                if place is None or place == own[row]:
                    break
            if low > _MANY:
                lowest[short] = low
            here.add(numbered)
            if place is None:
                rows.append(row)
                renamed[row] = key
        seen.add(np.sort(np.fromiter(here, np.uint64, len(here))))
        if renamed:
            table = replace_column(table, "key", [renamed.get(row, key) for row, key in enumerate(keys)])
        if rows:
            yield table if len(rows) == len(table) else table.take(rows)


def location_keys(table: SampleTable) -> Any:
    """Return the place of each photo. Two samples with equal key and place are the same. A line without a photo is
    identified by its key, a hash of its content."""
    import pyarrow.compute as pc

    offset = table["offset"].cast("string").fill_null("")
    return pc.binary_join_element_wise(table["url"], table["path"], offset, "\0")


class _Places:
    """The hashed places of a table's samples, computed on demand; most tables do not need them."""

    def __init__(self, table: SampleTable) -> None:
        self._table = table

    def __getitem__(self, row: int) -> int:
        return self._hashes[row]

    @functools.cached_property
    def _hashes(self) -> list[int]:
        hashes: list[int] = _hashes(location_keys(self._table).to_pylist()).tolist()
        return hashes


class _Identities:
    """The names of planned identities, and those assigned to new ones."""

    def __init__(self) -> None:
        self._claimed: dict[str, str] = {}  # by folded name
        self._names: dict[str, str] = {}

    def claim(self, identity: str) -> None:
        self._claimed.setdefault(casefold_name(identity), identity)

    def named(self, table: SampleTable) -> SampleTable:
        """Return the table with its identities, numbered where a file system would confuse them with existing ones."""
        met = table["identity"].unique().to_pylist()
        for identity in met:
            if identity not in self._names:
                self._names[identity] = self._name(identity)
        if all(self._names[identity] == identity for identity in met):
            return table
        before = table["identity"].to_pylist()
        after = [self._names[identity] for identity in before]
        keys = [new + key[len(old) :] for key, old, new in zip(table["key"].to_pylist(), before, after, strict=True)]
        return replace_column(replace_column(table, "identity", after), "key", keys)

    def _name(self, identity: str) -> str:
        """Return a free name. An identity that already ends in ~NUMBER gets another number, to avoid confusion."""
        first = f"{identity}~1" if re.search(r"~\d+$", identity) else identity
        for number in itertools.count(1):
            name = first if number == 1 else f"{identity}~{number}"
            if self._claimed.setdefault(casefold_name(name), name) == name:
                return name
        raise AssertionError  # count never ends


class _Known:
    """The places of planned samples, by hash of their keys."""

    def __init__(self, planned: Iterable[PlannedShard], identities: _Identities) -> None:
        keys, places = [_hashes([])], [_hashes([])]
        for part in planned:
            keys.append(_hashes(map(casefold_name, part.keys)))
            places.append(_hashes(part.locations))
            for identity in part.identities:
                identities.claim(identity)
        unsorted = np.concatenate(keys)
        order = np.argsort(unsorted)
        self._keys, self._places = unsorted[order], np.concatenate(places)[order]

    def places(self, keys: _Hashes) -> list[int | None]:
        """Return the hashed place of each planned key, None for other keys."""
        if not len(self._keys):
            return [None] * len(keys)
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        found = (self._keys[at] == keys).tolist()
        return [place if one else None for place, one in zip(self._places[at].tolist(), found, strict=True)]

    def place(self, key: int) -> int | None:
        return self.places(np.array([key], np.uint64))[0]


class _Seen:
    """A growing set of hashes, kept as sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[_Hashes] = []

    def add(self, run: _Hashes) -> None:
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")  # merges sorted runs
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
