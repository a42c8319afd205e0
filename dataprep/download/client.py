"""One polite, suspicious HTTP request: a URL in, a body's bytes or a reason out. Never an exception for one URL."""

from __future__ import annotations

import asyncio
import errno
import re
import secrets
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiohttp
import yarl

from dataprep import __version__
from dataprep.download.limits import FREE, Budget, Limits
from dataprep.download.resolver import NEGATIVE, Lookup, Resolver, system_lookup
from dataprep.download.response import LONGEST_REST, Answer, retry_after, status_reason, unpacked
from dataprep.download.robots import LARGEST, Robots, Unreachable, opt_out
from dataprep.download.urls import Proxies, Refused, host_of, join, refuse_private
from dataprep.errors import DataprepError, UsageError
from dataprep.reasons import Reason

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WHOLE = frozenset({200, 203})
_IN_MEMORY = 256_000_000  # bytes of all bodies in flight, beyond the first MB of each
_NOT_PACKED = ("", "identity", "none", "utf-8")
_KEEP_ALIVE = 5.0  # seconds that an unused connection stays: each costs a descriptor here and a slot there
_LITERAL = re.compile(r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*")
_LAST = {"Connection": "close"}
_SPEAKS = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)  # somebody at the other end did that


def user_agent(contact: str = "") -> str:
    """Who we say we are, with a URL or an address to complain to if the user gives one. Raises UsageError."""
    if not (contact.isascii() and contact.isprintable()) or len(contact) > 200:
        raise UsageError(f"--contact: {contact[:50]!r} cannot stand in a header; give a URL or an e-mail address")
    about = "builds face recognition datasets; respects X-Robots-Tag: noai"
    return f"dataprep/{__version__} ({contact + '; ' if contact else ''}{about})"


class Client:
    """An HTTP session under `Limits`. Use as an async context manager. No cookies, no Referer, no credentials.

    `lookup` resolves names (in threads); benchmarks and tests put thousands of made-up hosts on loopback with it.
    `heard` is told of every name that the name system has answered on.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        connections: int,
        lookup: Lookup = system_lookup,
        heard: Callable[[str], None] = lambda host: None,
    ) -> None:
        self._limits, self._budget = limits, Budget(_IN_MEMORY)
        self._proxies = Proxies()
        self._resolver = Resolver(
            lookup,
            threads=min(max(connections, 16), 512),
            timeout=limits.connect,
            allow_private=limits.allow_private,
            exempt=self._proxies.hosts,
            heard=heard,
        )
        self._user_agent = user_agent(limits.contact)

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(
            limit=0, use_dns_cache=False, resolver=self._resolver, keepalive_timeout=_KEEP_ALIVE
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=2 * self._limits.connect, sock_connect=self._limits.connect,
                sock_read=self._limits.idle,
            ),
            headers={"User-Agent": self._user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )  # fmt: skip
        self._robots = Robots(self._robots_txt) if self._limits.robots else None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._robots:
            await self._robots.close()
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, url: yarl.URL, *, hops: int = 0, spent: float = 0.0, last: bool = False) -> Answer:
        """Ask for a URL once, redirects within its host followed; every way in which this can go wrong is a reason.

        `hops` redirects have led to it, and took `spent` seconds of those it has. `last`: nothing else is asked of this
        host soon, so that its connection need not stay open.
        Hot: aiohttp takes most of the time, the rest of this file some ten microseconds. DataprepError is raised only
        where this machine, and not the URL, is at fault: no descriptors left, a proxy that wants credentials.
        """
        trail = [url]
        try:
            async with asyncio.timeout(self._limits.total - spent) as deadline:
                answer = await self._follow(trail, hops, _LAST if last else None, deadline)
        except Refused as error:
            answer = Answer(reason=error.reason, detail=error.detail, reachable=False)
        except Unreachable as error:
            answer = Answer(reason=Reason.ROBOTS_DOWN, detail=str(error), final=True)
        except (aiohttp.ClientError, OSError, ValueError, UnicodeError, EOFError) as error:
            answer = self._answer(error)
            if spent and deadline.expired():  # that the others took so long is not this host's fault
                answer = replace(answer, blames_host=False)
        if answer.final_url or not (hops or len(trail) > 1):
            return answer
        return replace(answer, final_url=str(trail[-1]))

    def release(self, answer: Answer) -> None:
        """Give the memory of an answer's data to others."""
        self._budget.release(answer.reserved)

    async def reaches(self, url: yarl.URL) -> bool:
        """Whether whoever would be asked for this URL can be connected to now, or refuses; nothing is sent."""
        proxy = self._proxies.of(url)
        place = yarl.URL(proxy) if proxy else url
        try:
            async with asyncio.timeout(self._limits.connect):
                host = place.raw_host or ""
                if not _LITERAL.fullmatch(host):
                    host = (await self._resolver.resolve(host))[0]["host"]
                _, writer = await asyncio.open_connection(host, place.port)
        except ConnectionRefusedError:
            return proxy is None
        except (OSError, Refused, IndexError):
            return False
        writer.close()
        return True

    async def resolves(self, host: str) -> bool:
        """Whether the name system answers on a name now, be it that there is none."""
        return await self._resolver.answers(host)

    async def names_are_served(self) -> bool:
        """Whether the name system answers on a name that nobody can have asked for, so that no cache does."""
        return await self.resolves(f"{secrets.token_hex(8)}.example.com")

    async def _follow(
        self, trail: list[yarl.URL], hops: int, headers: dict[str, str] | None, deadline: asyncio.Timeout
    ) -> Answer:
        """The answer at the end of the redirects within a host; `trail` gets every URL that they lead to."""
        while True:
            url = trail[-1]
            if not self._limits.allow_private:
                refuse_private(url)
                self._proxies.refuse_past(url)
            if self._robots and not await self._robots.allows(url):
                return Answer(reason=Reason.ROBOTS, detail="robots.txt disallows it", final_url=str(url))
            proxy = self._proxies.of(url)
            async with self._session.get(url, headers=headers, allow_redirects=False, proxy=proxy) as response:
                target = response.headers.get("Location")
                if response.status not in _REDIRECTS or not target:
                    return await self._read(response, deadline)
                trail.append(join(url, target))
            hops += 1
            if hops > self._limits.redirects:
                detail = f"more than {self._limits.redirects}"
                return Answer(reason=Reason.REDIRECTS, detail=detail, status=response.status)
            if host_of(trail[-1]) != host_of(url):
                return Answer(reason=None, moved=trail[-1], hops=hops)

    async def _read(self, response: aiohttp.ClientResponse, deadline: asyncio.Timeout) -> Answer:
        status, final, most = response.status, str(response.url), self._limits.max_bytes
        answer = Answer(reason=None, status=status, final_url=final)
        if status not in _WHOLE:
            if status == 407 and self._proxies.of(response.url):
                raise DataprepError("the proxy wants a user name and a password: put them into http_proxy")
            wait = retry_after(response.headers.get("Retry-After", ""))
            return replace(
                answer, reason=status_reason(status), detail=f"HTTP {status}", retry_after=wait,
                final=wait > LONGEST_REST,
            )  # fmt: skip
        if not self._limits.ignore_opt_out:
            said = opt_out(response.headers.getall("X-Robots-Tag", ()))
            if said:
                return replace(answer, reason=Reason.OPTED_OUT, detail=f"X-Robots-Tag: {said[:200]}")
        announced = response.content_length
        if announced is not None and announced > most:
            return replace(answer, reason=Reason.TOO_LARGE, detail=f"{announced} bytes announced", received=0)
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        packed = encoding not in _NOT_PACKED
        whole = most if packed or announced is None else announced
        blocks: list[bytes] = []
        received = reserved = 0
        try:
            while block := await response.content.readany():
                blocks.append(block)
                received += len(block)
                if received > most:
                    return replace(answer, reason=Reason.TOO_LARGE, detail=f"over {most} bytes", received=received)
                if received > FREE and not reserved:
                    reserved = await self._reserve(whole, deadline)
            data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
            blocks.clear()
            if packed and not reserved:
                reserved = await self._reserve(whole, deadline)
            answer = Answer(reason=None, status=status, final_url=final, data=data, received=received)
            if packed:
                answer = unpacked(answer, encoding, most)
            if reserved and answer.data is not None:
                answer, reserved = replace(answer, reserved=reserved), 0
            return answer
        except aiohttp.ClientPayloadError as error:
            got = f"{received} of {announced} bytes" if announced is not None else f"{received} bytes: {_words(error)}"
            return replace(answer, reason=Reason.SHORT_BODY, detail=got, received=received)
        except (TimeoutError, asyncio.CancelledError):
            raise
        except (aiohttp.ClientError, OSError) as error:
            return replace(
                answer, reason=Reason.SHORT_BODY, detail=f"{received} bytes: {_words(error)}", received=received
            )
        finally:
            blocks.clear()  # an exception that aiohttp keeps would keep them, too
            if reserved:
                self._budget.release(reserved)

    async def _reserve(self, body: int, deadline: asyncio.Timeout) -> int:
        """Wait for memory; that time is not the server's. What has come fills its buffer meanwhile, and TCP holds the
        server back; aiohttp's idle time-out rests as long as that buffer is full."""
        loop = asyncio.get_running_loop()
        left = (deadline.when() or 0.0) - loop.time()
        deadline.reschedule(None)
        reserved = await self._budget.reserve(body)
        deadline.reschedule(loop.time() + left)
        return reserved

    async def _robots_txt(self, url: yarl.URL) -> tuple[int, bytes]:
        """Status and beginning of a robots.txt, under the same limits as everything else. Raises Unreachable."""
        try:
            async with asyncio.timeout(self._limits.total):
                for _ in range(max(5, self._limits.redirects) + 1):  # RFC 9309 2.3.1.2: at least five
                    if not self._limits.allow_private:
                        refuse_private(url)
                        self._proxies.refuse_past(url)
                    async with self._session.get(url, allow_redirects=False, proxy=self._proxies.of(url)) as response:
                        target = response.headers.get("Location")
                        if response.status in _REDIRECTS and target:
                            url = join(url, target)
                            continue
                        body = bytearray()
                        while response.status == 200 and len(body) < LARGEST:
                            block = await response.content.readany()
                            if not block:
                                break
                            body += block
                        return response.status, bytes(body[:LARGEST])
        except Refused as error:
            raise Unreachable(f"robots.txt: {error.detail}") from None
        except (aiohttp.ClientError, OSError, ValueError, UnicodeError, EOFError) as error:
            answer = self._answer(error)
            if not answer.alive:  # then it is the network's trouble, perhaps, or the host's, and not its robots.txt's
                raise
            raise Unreachable(f"robots.txt: {answer.detail}") from None
        return 404, b""  # too many redirects: as if there were none

    def _answer(self, error: BaseException) -> Answer:
        """The reason behind whatever aiohttp, the TLS library or the system raised."""
        refused = _refusal(error)
        if refused:
            return Answer(reason=refused.reason, detail=refused.detail, reachable=False)
        number = _errno(error)
        if number in (errno.EMFILE, errno.ENFILE):
            raise DataprepError("too many open files: fewer --connections, or a higher `ulimit -n`") from None
        words = _words(error)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            cause: Any = error.os_error
            exists_not = cause.errno in NEGATIVE
            detail = str(cause.strerror or cause)
            return Answer(
                reason=Reason.DNS, detail=detail, alive=exists_not, reachable=False, blames_host=not exists_not,
                final=exists_not,
            )  # fmt: skip
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError)):
            return Answer(reason=Reason.TLS, detail=words)
        if isinstance(error, TimeoutError):
            connected = isinstance(error, aiohttp.SocketTimeoutError) and not isinstance(
                error, aiohttp.ConnectionTimeoutError
            )
            return Answer(
                reason=Reason.TIMEOUT, detail=self._patience(error), alive=False, blames_host=True, connected=connected
            )
        if isinstance(error, aiohttp.ClientHttpProxyError):
            if error.status == 407:
                raise DataprepError("the proxy wants a user name and a password: put them into https_proxy") from None
            detail = f"the proxy says {error.status} {error.message}"[:200]
            return Answer(reason=Reason.CONNECTION, detail=detail, blames_host=True)
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return Answer(reason=Reason.CONNECTION, detail=f"proxy: {words}", alive=False)
        if isinstance(error, aiohttp.ClientResponseError):
            return Answer(reason=Reason.BAD_ANSWER, detail=_words(error, error.message))
        if isinstance(error, aiohttp.ClientPayloadError):
            return Answer(reason=Reason.SHORT_BODY, detail=words)
        if isinstance(error, aiohttp.InvalidURL) or not isinstance(error, (aiohttp.ClientError, OSError)):
            return Answer(reason=Reason.BAD_URL, detail=words)
        heard = number in _SPEAKS or isinstance(error, aiohttp.ServerDisconnectedError)
        return Answer(reason=Reason.CONNECTION, detail=words, alive=heard, blames_host=True)

    def _patience(self, error: TimeoutError) -> str:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection within {self._limits.connect:g} s"
        if isinstance(error, aiohttp.SocketTimeoutError):
            return f"nothing for {self._limits.idle:g} s"
        return f"not done within {self._limits.total:g} s"


def _refusal(error: BaseException | None) -> Refused | None:
    while error is not None:
        if isinstance(error, Refused):
            return error
        error = error.__cause__ or error.__context__
    return None


def _errno(error: BaseException) -> int | None:
    """The system's number of an error; aiohttp wraps those of its own, happy eyeballs those of several addresses."""
    inner = getattr(error, "os_error", error)
    number = getattr(inner, "errno", None)
    return number if isinstance(number, int) else None


def _words(error: BaseException, text: str = "") -> str:
    return " ".join((text or str(error)).split())[:200] or type(error).__name__
