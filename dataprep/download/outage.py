"""Detects network outages: pauses the run while nothing responds, and discards the failures of that time."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from dataprep.errors import DataprepError

T = TypeVar("T")  # a request
W = TypeVar("W")  # a canary: an address used to probe the network

_ENOUGH = 16  # silent hosts in a row, with no response in between, suggest an outage
_WITNESSES = 8  # most recently responding hosts, which are probed
_EVERY = 2.0  # seconds between probes during an outage


@dataclass(frozen=True, slots=True, kw_only=True)
class Events(Generic[T, W]):
    """Callbacks of a guard.

    `others`: whether a host without a held failure has requests queued or in flight. `reaches`: whether a canary
    responds. `is_there`: whether the network is up, for when there are no canaries. `let_out`: allow this many probe
    requests. `counts`: record a failure. `again`: put the URL back into the queue as if it had not been requested.
    """

    others: Callable[[], bool]
    reaches: Callable[[W], Awaitable[bool]]
    is_there: Callable[[], Awaitable[bool]]
    pause: Callable[[], None]
    let_out: Callable[[int], None]
    resume: Callable[[], None]
    counts: Callable[[str, T], None]
    again: Callable[[str, T], None]
    note: Callable[[str], None]


class Guard(Generic[T, W]):
    """Holds failures without a response until some host responds; then they are recorded. A host with a held failure
    gets no other requests meanwhile.

    When 16 different hosts, or all remaining hosts, have been silent in a row, the most recently responding hosts are
    probed. If none of them responds, nothing else does for `after` seconds, and more than one host is affected, `what`
    is down: the run pauses, and the held URLs return to the queue unrecorded. The run resumes when something responds.
    DataprepError is raised after `patience` seconds; with a patience of 0 the run never pauses. Dead links never pause
    a run while any host responds.

    If nothing has responded in this run yet, as when timeouts are retried, `is_there` decides.
    """

    def __init__(self, what: str, events: Events[T, W], *, after: float, patience: float) -> None:
        self._what, self._events, self._after, self._patience = what, events, after, patience
        self._held: list[tuple[str, T]] = []
        self._silent: set[str] = set()
        self._witnesses: OrderedDict[str, W] = OrderedDict()
        self._heard = time.monotonic()
        self._over = -math.inf  # end of the last outage
        self._suspicion, self._relief = asyncio.Event(), asyncio.Event()

    def answered(self, host: str, witness: W | None) -> None:
        """Something beyond this machine responded. `witness`, if given, can be probed later. Hot: called once per
        request."""
        self._heard = time.monotonic()
        if witness is not None:
            self._witnesses[host] = witness
            self._witnesses.move_to_end(host)
            if len(self._witnesses) > _WITNESSES:
                self._witnesses.popitem(last=False)
        if self._suspicion.is_set():
            self._relief.set()
        elif self._held:
            self._release()

    def silent(self, host: str, item: T, began: float) -> None:
        """Register a request, begun at `began`, that ended without a response. Whether it counts is decided later.

        A request begun before the end of an outage never counts, however late it ends: its packets were lost.
        """
        if began < self._over:
            self._events.again(host, item)
            return
        self._held.append((host, item))
        self._silent.add(host)
        self._look()

    async def watch(self) -> None:
        """Run concurrently with the downloads until they end."""
        while True:
            try:
                async with asyncio.timeout(_EVERY / 4):
                    await self._suspicion.wait()
            except TimeoutError:
                self._look()  # the last other hosts may have finished
                continue
            await self._judge()
            self._suspicion.clear()
            self._release()

    def _look(self) -> None:
        if not self._held or self._suspicion.is_set():
            return
        if len(self._silent) >= _ENOUGH or not self._events.others():
            self._relief.clear()
            self._suspicion.set()

    async def _judge(self) -> None:
        if not self._patience or (len(self._witnesses) < 2 and len(self._silent) < _ENOUGH):
            return  # only one host is affected
        self._events.pause()
        try:
            left = self._heard + self._after - time.monotonic()
            if await self._someone_answers():
                return
            if not (await self._heard_within(left) or await self._someone_answers()):
                await self._sit_out()
            elif len(self._witnesses) >= 2:  # all canaries were down and are back: a short outage
                self._over = time.monotonic()
                self._give_back()
        finally:
            self._events.resume()

    async def _sit_out(self) -> None:
        began = time.monotonic()
        self._events.note(
            f"{self._what}: paused until something responds, for at most {self._patience:.0f} s; "
            "failures are not recorded meanwhile"
        )
        while True:
            self._give_back()
            self._events.let_out(1)
            if await self._heard_within(_EVERY) or await self._someone_answers():
                break
            if time.monotonic() - began > self._patience:
                raise DataprepError(
                    f"{self._what} for {self._patience:.0f} s; the network may be down. What was downloaded is kept",
                    hint="run the same command again to continue; if the network is up and all these hosts are dead, "
                    "add --outage-patience 0",
                )
        self._over = time.monotonic()
        self._give_back()
        self._events.note(f"the network responds after {time.monotonic() - began:.0f} s: resuming")

    async def _heard_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._relief.wait()
        except TimeoutError:
            return False
        return True

    async def _someone_answers(self) -> bool:
        asked = [self._events.reaches(witness) for witness in self._witnesses.values()] or [self._events.is_there()]
        found = await asyncio.gather(*asked)
        if any(found):
            self._heard = time.monotonic()
        return any(found) or self._relief.is_set()

    def _release(self) -> None:
        held, self._held = self._held, []
        self._silent.clear()
        for host, item in held:
            self._events.counts(host, item)

    def _give_back(self) -> None:
        held, self._held = self._held, []
        self._silent.clear()
        for host, item in held:
            self._events.again(host, item)
