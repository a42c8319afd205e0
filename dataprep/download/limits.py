"""A shared memory budget for all response bodies in flight, independent of the number of requests."""

from __future__ import annotations

import asyncio
import resource
from collections import deque
from dataclasses import dataclass

FREE_BYTES = 1_000_000  # bytes per body that need no reservation; few photos on the web are larger


class MemoryBudget:
    """A budget of `size` bytes for the part of each body beyond its first MB.

    A body reserves its maximum size in one step before more of it is read, so a waiting request never holds memory
    that others wait for (no deadlock). Requests are served in order. A body larger than the budget reserves all of it.
    """

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def reserve(self, body: int) -> int:
        """Wait until a body of this many bytes fits. Returns the number of bytes to release afterwards."""
        wanted = max(0, min(body - FREE_BYTES, self._size))
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        self.release(0)
        await turn
        return wanted

    def release(self, reserved: int) -> None:
        self._left += reserved
        while self._waiting and self._waiting[0][0] <= self._left:
            wanted, turn = self._waiting.popleft()
            if not turn.cancelled():  # all are cancelled at the end of a run
                self._left -= wanted
                turn.set_result(None)


_OTHERS = 200  # files of open shards, pipes, libraries
_EACH = 2  # a connection in use, and one kept alive


def raise_descriptor_limit(wanted: int) -> int:
    """Return how many of the `wanted` connections the limit on open files allows, after raising the soft limit.

    Many systems default to a soft limit of 1,024 because of select(2), which is not used here.
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
class ClientLimits:
    """Limits of a request: times in seconds, sizes in bytes. `contact` is sent in the User-Agent."""

    connect: float
    idle: float
    total: float
    max_bytes: int
    redirects: int
    allow_private: bool
    ignore_opt_out: bool
    robots: bool = False
    contact: str = ""
