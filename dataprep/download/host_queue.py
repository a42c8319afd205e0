"""Which URL may be asked for next: hosts take turns, and none is asked more often than is polite."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Host(Generic[T]):
    waiting: deque[T] = field(default_factory=deque)
    active: int = 0
    delayed: int = 0
    not_before: float = 0.0
    held: int = 0  # failures of which it is not known yet whether they count
    queued: bool = False  # stands in the heap
    resting_until: float = 0.0
    narrow: bool = False  # one at a time, until it has answered

    @property
    def has_items(self) -> bool:
        return bool(self.waiting or self.active or self.delayed)


class HostQueue(Generic[T]):
    """Items by host. `take` gives the next item whose host is free; `done` must follow each `take`.

    A host is free if fewer than `per_host` of its items are out and `spacing` seconds have passed since the last one
    went out. A retry stands behind all that waits for its host, so that it blocks nobody. One task may call `take`.
    """

    def __init__(self, *, per_host: int, delay: float) -> None:
        self._per_host, self._spacing = per_host, delay
        self._hosts: dict[str, _Host[T]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self._pauses, self._tickets = 0, 0

    @property
    def ready(self) -> int:
        """How many hosts have an item that could go out now or soon."""
        return len(self._heap)

    def has_eligible_host(self) -> bool:
        """Whether a host that is neither held nor resting has items here, or out."""
        now = asyncio.get_running_loop().time()
        return any(
            not host.held and host.has_items and (host.active or host.resting_until <= now)
            for host in self._hosts.values()
        )

    def rest(self, name: str, seconds: float) -> None:
        """Let nothing of a host out for so long; what waits for it stays, and then goes out one at a time."""
        host = self._hosts.get(name)
        if host is not None:
            host.resting_until = asyncio.get_running_loop().time() + seconds
            host.not_before = max(host.not_before, host.resting_until)
            host.narrow = True

    def resting(self) -> list[str]:
        """The hosts that rest while items wait for them."""
        now = asyncio.get_running_loop().time()
        return [name for name, host in self._hosts.items() if host.waiting and host.resting_until > now]

    def hold(self, name: str) -> None:
        """Let nothing of a host out, which has an item out now, until as many `unhold` have come."""
        self._hosts[name].held += 1

    def unhold(self, name: str) -> None:
        host = self._hosts[name]
        host.held -= 1
        self._enqueue(name, host)
        self._forget_idle(name, host)

    def add(self, name: str, item: T, *, delay: float = 0.0, narrow: bool = False) -> None:
        """Queue an item, after `delay` seconds if one is given; `narrow` lets the host's out one at a time."""
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host()
        host.narrow = host.narrow or narrow
        if delay > 0:
            host.delayed += 1
            asyncio.get_running_loop().call_later(delay, self._put_late, name, host, item)
        else:
            host.waiting.append(item)
            self._enqueue(name, host)

    def has_turn_soon(self, name: str, limit: int) -> bool:
        """Whether another item of this host is waiting, and fewer than `most` hosts have their turn before it."""
        host = self._hosts.get(name)
        return host is not None and bool(host.waiting) and len(self._heap) < limit

    def narrow(self, name: str) -> None:
        """Let a host's items out one at a time."""
        host = self._hosts.get(name)
        if host is not None:
            host.narrow = True

    def widen(self, name: str) -> None:
        """Let as many items of a narrow host out as of any other."""
        host = self._hosts.get(name)
        if host is not None and host.narrow:
            host.narrow = False
            self._enqueue(name, host)

    def drain(self, name: str) -> list[T]:
        """Take back all that waits for a host; retries that are not due yet stay."""
        host = self._hosts.get(name)
        if host is None:
            return []
        found = list(host.waiting)
        host.waiting.clear()
        self._forget_idle(name, host)
        return found

    def pause(self) -> None:
        """`take` gives nothing until as many `resume` have come, but for what `let_out` allows."""
        self._pauses += 1

    def allow_probes(self, count: int) -> None:
        self._tickets = count
        self._changed.set()

    def resume(self) -> None:
        self._pauses -= 1
        self._tickets = 0
        self._changed.set()

    async def take(self) -> tuple[str, T]:
        """The next (host, item); waits for as long as no host is free."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            open = not self._pauses or self._tickets > 0
            while open and self._heap and self._heap[0][0] <= now:
                name = heapq.heappop(self._heap)[2]
                host = self._hosts.get(name)
                if host is None:
                    continue
                host.queued = False
                if not host.waiting or host.held or host.not_before > now:  # drained, or told to rest, meanwhile
                    self._enqueue(name, host)
                    self._forget_idle(name, host)
                    continue
                if host.narrow:  # any of the earlier half: neighbours may hang alike, and retries stand at the end
                    host.waiting.rotate(-random.randrange((len(host.waiting) + 1) // 2))
                item = host.waiting.popleft()
                host.active += 1
                host.not_before = now + self._spacing
                self._tickets -= bool(self._pauses)
                self._enqueue(name, host)
                return name, item
            self._changed.clear()
            wait = max(0.0, self._heap[0][0] - now) if open and self._heap else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)

    def done(self, name: str, *, rest: float = 0.0) -> None:
        """An item of this host came back; `rest` seconds must pass before the next one (Retry-After)."""
        host = self._hosts[name]
        host.active -= 1
        if rest:
            host.not_before = max(host.not_before, asyncio.get_running_loop().time() + rest)
        self._enqueue(name, host)
        self._forget_idle(name, host)

    def _put_late(self, name: str, host: _Host[T], item: T) -> None:
        host.delayed -= 1
        host.waiting.append(item)
        self._enqueue(name, host)

    def _enqueue(self, name: str, host: _Host[T]) -> None:
        if host.waiting and not host.queued and not host.held and host.active < (1 if host.narrow else self._per_host):
            heapq.heappush(self._heap, (host.not_before, next(self._order), name))
            host.queued = True
            self._changed.set()

    def _forget_idle(self, name: str, host: _Host[T]) -> None:
        """Drop a host without items; one that must rest a while longer is kept, by a timer."""
        if host.has_items or host.held:
            return
        left = host.not_before - asyncio.get_running_loop().time()
        if left <= 0:
            if self._hosts.get(name) is host and not host.queued:
                del self._hosts[name]
        elif not host.queued:
            asyncio.get_running_loop().call_later(left + 0.001, self._forget_idle, name, host)


_KEPT = 200_000  # hosts that are remembered, of each kind
_PROBES = 2  # other URLs that are tried before a host that accepts connections, and has never answered, is given up


@dataclass(slots=True)
class _Record:
    failures: int = 0
    open_until: float = 0.0
    rests: int = 0  # how often it was opened since the host last answered
    asked_for_rest: bool = False


class CircuitBreaker:
    """Counts the URLs in a row that got no answer, by host. Times are passed in, in seconds of one clock.

    After `failures` of them a host is on probation: one request at a time, of any of its URLs, since it may be the URLs
    that hang and not the host. The circuit opens, for `rest` seconds, when the probes fail too: `failures` probes of a host
    that has answered before, two of one that accepts connections, none of one that cannot be connected to. After the rest
    the next URL is a probe: one answer closes the circuit, one failure opens it again.

    `is_recoverable` says whether the URLs of an open circuit wait for the end of the rest, as they do once for a host that
    has ever answered. The others end as `host_down`, and `retry` asks for them again. Which URLs of a dead host carry their
    own failure and which `host_down` is chance; a host that answers any of its URLs loses none of the others.
    """

    def __init__(self, *, failures: int, rest: float) -> None:
        self._failures, self._rest = failures, rest
        self._hosts: OrderedDict[str, _Record] = OrderedDict()
        self._answered: set[str] = set()

    def is_open(self, host: str, now: float) -> bool:
        """Whether nothing may be asked of the host now."""
        record = self._hosts.get(host)
        return record is not None and record.open_until > now

    def is_probing(self, host: str) -> bool:
        """Whether the host gets one request at a time, until it answers."""
        record = self._hosts.get(host)
        return record is not None and record.failures >= self._failures

    def is_recoverable(self, host: str) -> bool:
        record = self._hosts.get(host)
        return record is None or (host in self._answered and record.rests <= 1 and not record.asked_for_rest)

    def remaining(self, host: str, now: float) -> float:
        """Seconds until the circuit closes."""
        record = self._hosts.get(host)
        return max(0.0, record.open_until - now) if record else 0.0

    def record_failure(self, host: str, now: float, *, connected: bool = False) -> bool:
        """Count a URL without an answer; whether the circuit is open now. `connected`: the host took the connection."""
        record = self._record(host)
        record.failures += 1
        probes = self._failures if host in self._answered else _PROBES if connected else 0
        if record.open_until <= now and (record.rests or record.failures >= self._failures + probes):
            record.open_until = now + self._rest
            record.rests += 1
        return record.open_until > now

    def record_answer(self, host: str) -> None:
        """The host has answered, be it with an error. Hot: once per request."""
        self._hosts.pop(host, None)
        if len(self._answered) < _KEPT:
            self._answered.add(host)

    def trip(self, host: str, until: float) -> None:
        """Open the circuit of a host that asked to be left alone."""
        record = self._record(host)
        record.failures, record.open_until = max(record.failures, self._failures), until
        record.asked_for_rest = True

    def _record(self, host: str) -> _Record:
        record = self._hosts.get(host)
        if record is None:
            record = self._hosts[host] = _Record()
            if len(self._hosts) > _KEPT:
                self._hosts.popitem(last=False)
        return record
