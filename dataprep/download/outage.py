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
_CANARIES = 8  # most recently responding hosts, which are probed
_EVERY = 2.0  # seconds between probes during an outage


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageCallbacks(Generic[T, W]):
    """Callbacks of a guard.

    `others`: whether a host without a held failure has requests queued or in flight. `reaches`: whether a canary
    responds. `is_there`: whether the network is up, for when there are no canaries. `let_out`: allow this many probe
    requests. `counts`: record a failure. `again`: put the URL back into the queue as if it had not been requested.
    """

    has_other_hosts: Callable[[], bool]
    probe_canary: Callable[[W], Awaitable[bool]]
    is_network_up: Callable[[], Awaitable[bool]]
    pause: Callable[[], None]
    allow_probes: Callable[[int], None]
    resume: Callable[[], None]
    count_failure: Callable[[str, T], None]
    requeue: Callable[[str, T], None]
    log_message: Callable[[str], None]


class OutageDetector(Generic[T, W]):
    """Holds failures without a response until some host responds; then they are recorded. A host with a held failure
    gets no other requests meanwhile.

    When 16 different hosts, or all remaining hosts, have been silent in a row, the most recently responding hosts are
    probed. If none of them responds, nothing else does for `after` seconds, and more than one host is affected, `what`
    is down: the run pauses, and the held URLs return to the queue unrecorded. The run resumes when something responds.
    DataprepError is raised after `patience` seconds; with a patience of 0 the run never pauses. Dead links never pause
    a run while any host responds.

    If nothing has responded in this run yet, as when timeouts are retried, `is_there` decides.
    """

    def __init__(
        self, what: str, events: OutageCallbacks[T, W], *, offline_after: float, offline_timeout: float
    ) -> None:
        self._what, self._events, self._after, self._patience = what, events, offline_after, offline_timeout
        self._held: list[tuple[str, T]] = []
        self._unresponsive: set[str] = set()
        self._canaries: OrderedDict[str, W] = OrderedDict()
        self._last_response = time.monotonic()
        self._outage_ended = -math.inf  # end of the last outage
        self._suspected, self._response_event = asyncio.Event(), asyncio.Event()

    def record_response(self, host: str, canary: W | None) -> None:
        """Something beyond this machine responded. `witness`, if given, can be probed later. Hot: called once per
        request."""
        self._last_response = time.monotonic()
        if canary is not None:
            self._canaries[host] = canary
            self._canaries.move_to_end(host)
            if len(self._canaries) > _CANARIES:
                self._canaries.popitem(last=False)
        if self._suspected.is_set():
            self._response_event.set()
        elif self._held:
            self._release()

    def record_no_response(self, host: str, item: T, began: float) -> None:
        """Register a request, begun at `began`, that ended without a response. Whether it counts is decided later.

        A request begun before the end of an outage never counts, however late it ends: its packets were lost.
        """
        if began < self._outage_ended:
            self._events.requeue(host, item)
            return
        self._held.append((host, item))
        self._unresponsive.add(host)
        self._look()

    async def watch(self) -> None:
        """Run concurrently with the downloads until they end."""
        while True:
            try:
                async with asyncio.timeout(_EVERY / 4):
                    await self._suspected.wait()
            except TimeoutError:
                self._look()  # the last other hosts may have finished
                continue
            await self._judge()
            self._suspected.clear()
            self._release()

    def _look(self) -> None:
        if not self._held or self._suspected.is_set():
            return
        if len(self._unresponsive) >= _ENOUGH or not self._events.has_other_hosts():
            self._response_event.clear()
            self._suspected.set()

    async def _judge(self) -> None:
        if not self._patience or (len(self._canaries) < 2 and len(self._unresponsive) < _ENOUGH):
            return  # only one host is affected
        self._events.pause()
        try:
            left = self._last_response + self._after - time.monotonic()
            if await self._any_canary_responds():
                return
            if not (await self._response_within(left) or await self._any_canary_responds()):
                await self._wait_for_network()
            elif len(self._canaries) >= 2:  # all canaries were down and are back: a short outage
                self._outage_ended = time.monotonic()
                self._requeue_held()
        finally:
            self._events.resume()

    async def _wait_for_network(self) -> None:
        began = time.monotonic()
        self._events.log_message(
            f"{self._what}: paused until something responds, for at most {self._patience:.0f} s; "
            "failures are not recorded meanwhile"
        )
        while True:
            self._requeue_held()
            self._events.allow_probes(1)
            if await self._response_within(_EVERY) or await self._any_canary_responds():
                break
            if time.monotonic() - began > self._patience:
                raise DataprepError(
                    f"{self._what} for {self._patience:.0f} s; the network may be down. What was downloaded is kept",
                    hint="run the same command again to continue; if the network is up and all these hosts are dead, "
                    "add --outage-patience 0",
                )
        self._outage_ended = time.monotonic()
        self._requeue_held()
        self._events.log_message(f"the network responds after {time.monotonic() - began:.0f} s: resuming")

    async def _response_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._response_event.wait()
        except TimeoutError:
            return False
        return True

    async def _any_canary_responds(self) -> bool:
        asked = [self._events.probe_canary(witness) for witness in self._canaries.values()] or [
            self._events.is_network_up()
        ]
        found = await asyncio.gather(*asked)
        if any(found):
            self._last_response = time.monotonic()
        return any(found) or self._response_event.is_set()

    def _release(self) -> None:
        held, self._held = self._held, []
        self._unresponsive.clear()
        for host, item in held:
            self._events.count_failure(host, item)

    def _requeue_held(self) -> None:
        held, self._held = self._held, []
        self._unresponsive.clear()
        for host, item in held:
            self._events.requeue(host, item)
