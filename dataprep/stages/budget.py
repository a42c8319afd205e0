"""One budget of memory for all bodies in flight, however many requests there are."""

from __future__ import annotations

import asyncio
from collections import deque

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
