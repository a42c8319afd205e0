"""One budget of memory for all bodies in flight, however many requests there are."""

from __future__ import annotations

import asyncio
import resource
from collections import deque
from dataclasses import dataclass

FREE = 1_000_000  # bytes of a body that need no reservation: hardly a photo on the web is larger


class Budget:
    """`size` bytes for what bodies have beyond their first MB.

    A body reserves all that it may still grow to at once, before more of it is read: so nobody waits who holds
    something that others wait for. First come, first served; the whole budget serves a body that is larger.
    """

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def reserve(self, body: int) -> int:
        """Wait until there is room for a body of so many bytes; what is to be released in the end."""
        wanted = max(0, min(body - FREE, self._size))
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        self.release(0)
        await turn
        return wanted

    def release(self, reserved: int) -> None:
        self._left += reserved
        while self._waiting and self._waiting[0][0] <= self._left:
            wanted, turn = self._waiting.popleft()
            if not turn.cancelled():  # as all are at the end of a run
                self._left -= wanted
                turn.set_result(None)


_OTHERS = 200  # files of open shards, pipes, libraries
_EACH = 2  # a connection in use, and one that is kept open for a while


def connections_possible(wanted: int) -> int:
    """As many of the `wanted` connections as the limit of open files allows; the soft limit is raised as far as need be.

    Many systems start processes with a soft limit of 1,024 for the sake of select(2), which nothing here uses.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    need = _EACH * wanted + _OTHERS
    if soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, (soft - _OTHERS) // _EACH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Time in seconds, size in bytes. `contact` goes into the User-Agent."""

    connect: float
    idle: float
    total: float
    max_bytes: int
    redirects: int
    allow_private: bool
    ignore_opt_out: bool
    robots: bool = False
    contact: str = ""
