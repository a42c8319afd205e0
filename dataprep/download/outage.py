"""Tells a dead network from dead links: pauses while nothing answers, and nothing that happened meanwhile counts."""

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
W = TypeVar("W")  # what is asked whether the network is there

_ENOUGH = 16  # different hosts that say nothing, with nobody answering in between, are suspicious
_WITNESSES = 8  # those that answered last, asked whether they still do
_EVERY = 2.0  # seconds between two looks at whether the network is back


@dataclass(frozen=True, slots=True, kw_only=True)
class Events(Generic[T, W]):
    """What a guard sees of its surroundings and does to them.

    `others` says whether a host of which no failure is held has requests to come or out. `is_there` says whether the
    network is, where nobody has answered who could be asked again. `counts` makes a failure its URL's own; `again` puts
    the URL back into the queue as if it had not been asked.
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
    """Holds failures without any answer until somebody answers after them; then they count, as the hosts' own. A host
    whose failure is held is asked nothing else meanwhile.

    When 16 different hosts, or all that are left to ask, have said nothing in a row, those that answered last are
    looked for. If none of them is there, nor anybody else for `after` seconds, and this is more than one host's trouble,
    `what` is away: the run pauses, what was held goes back into the queue uncounted, and it goes on when something
    answers. After `patience` seconds DataprepError is raised; with none at all, no run pauses. Dead links never pause a
    run while anything answers.

    Where nothing has answered in this run, as when timeouts are retried, dead links are told by `is_there`.
    """

    def __init__(self, what: str, events: Events[T, W], *, after: float, patience: float) -> None:
        self._what, self._events, self._after, self._patience = what, events, after, patience
        self._held: list[tuple[str, T]] = []
        self._silent: set[str] = set()
        self._witnesses: OrderedDict[str, W] = OrderedDict()
        self._heard = time.monotonic()
        self._over = -math.inf  # when the last outage ended
        self._suspicion, self._relief = asyncio.Event(), asyncio.Event()

    def answered(self, host: str, witness: W | None) -> None:
        """Something beyond this machine was heard from, which can be asked again if there is a witness. Hot: once per
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
        """A request that `began` then ended without any answer; whether that counts is decided later.

        One that was under way while nothing answered does not, however late it ends: its packets are lost.
        """
        if began < self._over:
            self._events.again(host, item)
            return
        self._held.append((host, item))
        self._silent.add(host)
        self._look()

    async def watch(self) -> None:
        """Runs beside the downloads for as long as they do."""
        while True:
            try:
                async with asyncio.timeout(_EVERY / 4):
                    await self._suspicion.wait()
            except TimeoutError:
                self._look()  # the hosts that were to answer yet may have gone
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
            return  # one host's trouble
        self._events.pause()
        try:
            left = self._heard + self._after - time.monotonic()
            if await self._someone_answers():
                return
            if not (await self._heard_within(left) or await self._someone_answers()):
                await self._sit_out()
            elif len(self._witnesses) >= 2:  # all of them were away, and are back: a short outage is one too
                self._over = time.monotonic()
                self._give_back()
        finally:
            self._events.resume()

    async def _sit_out(self) -> None:
        began = time.monotonic()
        self._events.note(
            f"{self._what}: paused, and nothing counts until something answers, for {self._patience:.0f} s at most"
        )
        while True:
            self._give_back()
            self._events.let_out(1)
            if await self._heard_within(_EVERY) or await self._someone_answers():
                break
            if time.monotonic() - began > self._patience:
                raise DataprepError(
                    f"{self._what} for {self._patience:.0f} s: is the network there? What came in is kept; type the same "
                    "command to go on. If it is there and all these hosts are gone, --outage-patience 0 takes it so"
                )
        self._over = time.monotonic()
        self._give_back()
        self._events.note(f"something answers after {time.monotonic() - began:.0f} s: going on")

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
