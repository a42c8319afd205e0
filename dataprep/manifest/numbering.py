"""Names of one plan that are one name to no disk: a number parts what case, accents or repetition make the same."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from dataprep.samples import Sample
from dataprep.storage import folded


class Numbering:
    """The names that a plan holds, and those that samples new to it get.

    `anna` beside `Anna` becomes the identity `anna~2`, and a key that stands for another photo `Ann/1~2`. What is planned
    keeps its name wherever a list that grew has it now: the names given before are part of the answer, not the order.
    """

    def __init__(self, planned: Iterable[Sample]) -> None:
        self._planned: dict[bytes, bytes] = {}
        self._folded: set[bytes] = set()  # of keys that are not their own folded form
        self._claimed: dict[str, str] = {}
        for sample in planned:
            self._claimed.setdefault(folded(sample.identity), sample.identity)
            self._planned[_short(sample.key)] = _place(sample)
            self._note(sample.key)

    def fresh(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples that are not planned, renamed where they must be."""
        seen: set[bytes] = set()
        begin: dict[bytes, int] = {}  # below these numbers all are seen: a name repeated a million times stays cheap
        identities: dict[str, str] = {}
        for sample in samples:
            if sample.identity not in identities:
                identities[sample.identity] = self._identity(sample.identity)
            identity = identities[sample.identity]
            asked = identity + sample.key[len(sample.identity) :]
            place, first = _place(sample), _short(asked)
            for number in itertools.count(begin.get(first, 1)):
                key = asked if number == 1 else f"{asked}~{number}"
                short = first if number == 1 else _short(key)
                if short in seen:
                    if number == begin.get(first, 1):
                        begin[first] = number + 1
                    continue
                known = self._planned.get(short)
                if known == place or (known is None and not self._is_taken(key, seen)):
                    break
            seen.add(short)
            if known is None:
                self._note(key)
                yield replace(sample, key=key, identity=identity)

    def _identity(self, identity: str) -> str:
        """The identity itself, or numbered if its folded form is that of another.

        One that ends in a number as it comes gets another, so that it is never taken for one that was numbered here.
        """
        first = f"{identity}~1" if re.search(r"~\d+$", identity) else identity
        for number in itertools.count(1):
            name = first if number == 1 else f"{identity}~{number}"
            if self._claimed.setdefault(folded(name), name) == name:
                return name
        raise AssertionError  # count never ends

    def _note(self, key: str) -> None:
        identity, slash, name = key.partition("/")
        form = folded(name)
        if form != name:
            self._folded.add(_short(f"{identity}{slash}{form}"))

    def _is_taken(self, key: str, seen: set[bytes]) -> bool:
        """Whether a disk that folds names takes this key, which is not planned, for another one."""
        identity, slash, name = key.partition("/")
        form = _short(f"{identity}{slash}{folded(name)}")
        return form in self._folded or form in self._planned or form in seen


def _short(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=10).digest()


def _place(sample: Sample) -> bytes:
    """Which photo it is. A line that stands for none is told by its key, which is made of what it says."""
    where = "" if sample.offset is None else sample.offset
    return _short(f"{sample.url}\0{sample.path}\0{where}")
