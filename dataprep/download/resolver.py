"""Names to addresses: one lookup per name at a time, in threads enough that dead names hold up no live one."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp.abc import AbstractResolver, ResolveResult

from dataprep.download.urls import Refused, is_public
from dataprep.reasons import Reason

Lookup = Callable[[str], Sequence[str]]  # a host's addresses; raises socket.gaierror; called in threads

# answers of the name system: the name, or an address for it, does not exist; anything else is no answer
NEGATIVE = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_KEPT = 20_000  # names in the cache
_SECONDS = 300.0  # that an answer is good for, a negative one too; getaddrinfo does not tell the record's own
_ADDRESSES = 4  # of one host that are tried; each costs a connect time-out


def system_lookup(host: str) -> list[str]:
    """IPv4 and IPv6 addresses in the order that this machine prefers (RFC 6724).

    Not AI_ADDRCONFIG: with it, a machine whose network is down says of every name that there is none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class _Entry:
    until: float
    addresses: tuple[str, ...]
    error: OSError | None


class Resolver(AbstractResolver):
    """What aiohttp resolves with: cached and bounded, "no such name" remembered too, private addresses refused.

    The check is on the addresses that are connected to, so that no name can change its mind in between. Lookups that
    take longer than `timeout` seconds are given up by those who wait; the thread goes on, and its answer is kept. `heard` is
    told of every name on which there was an answer.
    """

    def __init__(
        self,
        lookup: Lookup,
        *,
        threads: int,
        timeout: float,
        allow_private: bool,
        exempt: frozenset[str] = frozenset(),
        heard: Callable[[str], None] = lambda host: None,
    ) -> None:
        self._lookup, self._timeout, self._allow_private, self._exempt = lookup, timeout, allow_private, exempt
        self._heard = heard
        self._threads = _Threads(threads)
        self._cache: OrderedDict[str, _Entry] = OrderedDict()
        self._coming: dict[str, asyncio.Future[_Entry]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        entry = self._cache.get(host)
        if entry is None or entry.until < time.monotonic():
            entry = await self._ask(host)
        else:
            self._cache.move_to_end(host)
        if entry.error is not None:
            raise socket.gaierror(entry.error.errno, entry.error.strerror)
        allowed = entry.addresses
        if not self._allow_private and host not in self._exempt:
            allowed = tuple(address for address in allowed if is_public(address))
            if not allowed:
                raise Refused(Reason.FORBIDDEN_ADDRESS, f"{host} leads to {', '.join(entry.addresses) or 'nowhere'}")
        return [_result(host, address, port) for address in allowed[:_ADDRESSES]]

    async def answers(self, host: str) -> bool:
        """Whether the name system says anything of a name now, whatever is in the cache."""
        try:
            entry = await self._ask(host)
        except OSError:
            return False
        return entry.until > 0

    async def close(self) -> None:
        self._threads.close()

    async def _ask(self, host: str) -> _Entry:
        coming = self._coming.get(host)
        if coming is None:
            loop = asyncio.get_running_loop()
            coming = self._coming[host] = loop.create_future()

            def work() -> None:
                found = self._look_up(host)
                with contextlib.suppress(RuntimeError):  # the loop has ended, nobody waits any more
                    loop.call_soon_threadsafe(self._finish, host, found)

            self._threads.submit(work)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(coming)
        except TimeoutError:
            if coming.done():  # it came in the same moment
                return coming.result()
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {self._timeout:g} s") from None

    def _look_up(self, host: str) -> _Entry:
        until = time.monotonic() + _SECONDS
        try:
            return _Entry(until, tuple(self._lookup(host)), None)
        except OSError as error:
            return _Entry(until if error.errno in NEGATIVE else 0.0, (), error)
        except Exception as error:  # not a name that can be looked up, or a lookup of somebody's own that fails
            return _Entry(until, (), socket.gaierror(socket.EAI_NONAME, f"{type(error).__name__}: {error}"))

    def _finish(self, host: str, entry: _Entry) -> None:
        if entry.until:
            self._heard(host)
            self._cache[host] = entry
            if len(self._cache) > _KEPT:
                self._cache.popitem(last=False)
        coming = self._coming.pop(host)
        if not coming.done():
            coming.set_result(entry)


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return {
        "hostname": host,
        "host": address,
        "port": port,
        "family": family,
        "proto": socket.IPPROTO_TCP,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    }


class _Threads:
    """Up to `most` daemon threads, begun as needed. A pool of the standard library would keep the process from ending
    while the system's resolver still waits for a dead name server."""

    def __init__(self, most: int) -> None:
        self._most, self._count, self._idle = most, 0, 0
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._count < self._most:
                self._count += 1
                threading.Thread(target=self._run, name="dataprep-dns", daemon=True).start()
            self._work.put(work)

    def close(self) -> None:
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            with self._lock:
                if self._work.empty():
                    self._idle += 1
