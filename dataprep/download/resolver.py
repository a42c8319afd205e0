"""DNS resolver for aiohttp: cached, one lookup per name at a time, in enough threads that dead names do not block."""

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

from dataprep.download.addresses import RefusedURLError, is_public
from dataprep.reasons import Reason

Lookup = Callable[[str], Sequence[str]]  # returns a host's addresses or raises socket.gaierror; called in threads

# DNS answers: the name does not exist, or has no address; other errors are not answers
NEGATIVE_ERRORS = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_KEPT = 20_000  # names in the cache
_SECONDS = 300.0  # cache lifetime, also of negative answers; getaddrinfo does not return the record's TTL
_ADDRESSES = 4  # tried per host; each may cost a connect timeout


def system_lookup(host: str) -> list[str]:
    """Return IPv4 and IPv6 addresses in this machine's order of preference (RFC 6724).

    AI_ADDRCONFIG is not used: with it, every name appears not to exist while the network is down.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class _Entry:
    until: float
    addresses: tuple[str, ...]
    error: OSError | None


class CachingResolver(AbstractResolver):
    """The resolver for aiohttp: a bounded cache, with negative answers, that refuses private addresses.

    The addresses checked are the ones connected to, which prevents DNS rebinding. Callers stop waiting for a lookup
    after `timeout` seconds; the thread continues and its answer is cached. `heard` is called for every name that DNS
    answered.
    """

    def __init__(
        self,
        lookup: Lookup,
        *,
        threads: int,
        timeout: float,
        allow_private: bool,
        exempt: frozenset[str] = frozenset(),
        on_resolved: Callable[[str], None] = lambda host: None,
    ) -> None:
        self._lookup, self._timeout, self._allow_private, self._exempt = lookup, timeout, allow_private, exempt
        self._heard = on_resolved
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
                raise RefusedURLError(
                    Reason.FORBIDDEN_ADDRESS, f"{host} resolves to {', '.join(entry.addresses) or 'nothing'}"
                )
        return [_result(host, address, port) for address in allowed[:_ADDRESSES]]

    async def resolves(self, host: str) -> bool:
        """Whether DNS answers for a name now, bypassing the cache."""
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
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._finish, host, found)

            self._threads.submit(work)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(coming)
        except TimeoutError:
            if coming.done():  # it arrived at the same moment
                return coming.result()
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {self._timeout:g} s") from None

    def _look_up(self, host: str) -> _Entry:
        until = time.monotonic() + _SECONDS
        try:
            return _Entry(until, tuple(self._lookup(host)), None)
        except OSError as error:
            return _Entry(until if error.errno in NEGATIVE_ERRORS else 0.0, (), error)
        except Exception as error:  # an invalid name, or a bug in a custom lookup
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
    """Up to `most` daemon threads, started on demand. A ThreadPoolExecutor would keep the process from exiting while
    the system resolver still waits for a dead name server."""

    def __init__(self, limit: int) -> None:
        self._most, self._count, self._idle = limit, 0, 0
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
