"""Which URL may be asked for next: hosts take turns, and none is asked more often than is polite."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Host(Generic[T]):
    waiting: deque[T] = field(default_factory=deque)
    active: int = 0
    not_before: float = 0.0
    queued: bool = False  # stands in the heap


class Schedule(Generic[T]):
    """Items by host. `take` gives the next item whose host is free; `done` must follow each `take`.

    A host is free if fewer than `per_host` of its items are out and `spacing` seconds have passed since the last one
    went out.
    """

    def __init__(self, *, per_host: int, spacing: float) -> None:
        self._per_host, self._spacing = per_host, spacing
        self._hosts: dict[str, _Host[T]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self.waiting = 0

    def add(self, host: str, item: T, *, delay: float = 0.0) -> None:
        """Queue an item, after `delay` seconds if one is given (a retry)."""
        self.waiting += 1
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, self._put, host, item)
        else:
            self._put(host, item)

    async def take(self) -> tuple[str, T]:
        """The next (host, item); waits for as long as no host is free."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            if self._heap and self._heap[0][0] <= now:
                name = heapq.heappop(self._heap)[2]
                host = self._hosts[name]
                host.queued = False
                if host.not_before > now:  # the server asked for a rest meanwhile
                    self._enqueue(name, host)
                    continue
                item = host.waiting.popleft()
                host.active += 1
                host.not_before = now + self._spacing
                self.waiting -= 1
                self._enqueue(name, host)
                return name, item
            self._changed.clear()
            wait = self._heap[0][0] - now if self._heap else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)

    def done(self, name: str, *, rest: float = 0.0) -> None:
        """An item of this host came back; `rest` seconds must pass before the next one (Retry-After)."""
        host = self._hosts[name]
        now = asyncio.get_running_loop().time()
        host.active -= 1
        host.not_before = max(host.not_before, now + rest)
        self._enqueue(name, host)
        if not host.waiting and not host.active and host.not_before <= now:
            del self._hosts[name]

    def _put(self, name: str, item: T) -> None:
        host = self._hosts.setdefault(name, _Host())
        host.waiting.append(item)
        self._enqueue(name, host)

    def _enqueue(self, name: str, host: _Host[T]) -> None:
        if host.waiting and not host.queued and host.active < self._per_host:
            heapq.heappush(self._heap, (host.not_before, next(self._order), name))
            host.queued = True
            self._changed.set()
