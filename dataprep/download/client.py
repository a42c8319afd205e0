"""One HTTP request: takes a URL, returns the body or a reason. A bad URL never raises an exception."""

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
from dataprep.download.addresses import ProxySettings, RefusedURLError, host_of, refuse_private, resolve_redirect
from dataprep.download.bounded import FramingFloodError, bound_connections
from dataprep.download.limits import FREE_BYTES, ClientLimits, MemoryBudget
from dataprep.download.resolver import NEGATIVE_ERRORS, CachingResolver, Lookup, system_lookup
from dataprep.download.response import MAX_RETRY_AFTER, Response, parse_retry_after, status_reason, unpacked
from dataprep.download.robots import MAX_ROBOTS_BYTES, RobotsCache, RobotsUnreachableError, find_opt_out
from dataprep.errors import DataprepError, UsageError
from dataprep.reasons import Reason
from dataprep.storage import redact

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WHOLE = frozenset({200, 203})
_IN_MEMORY = 256_000_000  # bytes of all bodies in flight, beyond the first MB of each
_NOT_PACKED = ("", "identity", "none", "utf-8")
_KEEP_ALIVE = 5.0  # seconds; an idle connection costs a descriptor here and a slot on the server
_LITERAL = re.compile(r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*")
_LAST = {"Connection": "close"}
_SPEAKS = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)  # sent by the peer


def user_agent(contact: str = "") -> str:
    """Return the User-Agent, with the user's contact URL or e-mail address if there is one. Raises UsageError."""
    if not (contact.isascii() and contact.isprintable()) or len(contact) > 200:
        raise UsageError(
            f"contact {contact[:50]!r} cannot be sent in a header", hint="give --contact a URL or an e-mail address"
        )
    about = "builds face recognition datasets; respects X-Robots-Tag: noai"
    return f"dataprep/{__version__} ({contact + '; ' if contact else ''}{about})"


class Client:
    """An HTTP session under `ClientLimits`; an async context manager. It sends no cookies, Referer or credentials.

    `lookup` resolves names in threads; benchmarks and tests use it to map thousands of made-up hosts to loopback.
    `heard` is called for every name that DNS answered.
    """

    def __init__(
        self,
        limits: ClientLimits,
        *,
        connections: int,
        lookup: Lookup = system_lookup,
        on_resolved: Callable[[str], None] = lambda host: None,
    ) -> None:
        self._limits, self._budget = limits, MemoryBudget(_IN_MEMORY)
        self._proxies = ProxySettings()
        self._resolver = CachingResolver(
            lookup,
            threads=min(max(connections, 16), 512),
            timeout=limits.connect,
            allow_private=limits.allow_private,
            exempt=self._proxies.hosts,
            on_resolved=on_resolved,
        )
        self._user_agent = user_agent(limits.contact)

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(
            limit=0, use_dns_cache=False, resolver=self._resolver, keepalive_timeout=_KEEP_ALIVE
        )
        bound_connections(connector)
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
        self._robots = RobotsCache(self._robots_txt) if self._limits.robots else None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._robots:
            await self._robots.close()
        await self._session.close()
        await self._resolver.close()

    async def fetch(
        self, url: yarl.URL, *, hops: int = 0, elapsed: float = 0.0, close_connection: bool = False
    ) -> Response:
        """Request a URL once, following redirects within its host. Every failure is returned as a reason.

        `hops` redirects led to this URL and used `spent` seconds of the total timeout. `last`: no other request to this
        host follows soon, so the connection is closed.
        Hot: most of the time is spent in aiohttp, some ten microseconds in the rest of this file. DataprepError is
        raised only for faults of this machine: no file descriptors left, a proxy that requires credentials.
        """
        trail = [url]
        try:
            async with asyncio.timeout(self._limits.total - elapsed) as deadline:
                answer = await self._follow(trail, hops, _LAST if close_connection else None, deadline)
        except RefusedURLError as error:
            answer = Response(reason=error.reason, detail=error.detail, host_reachable=False)
        except RobotsUnreachableError as error:
            answer = Response(reason=Reason.ROBOTS_DOWN, detail=str(error), no_retry=True)
        except (aiohttp.ClientError, OSError, ValueError, UnicodeError, EOFError) as error:
            answer = self._answer(error)
            if elapsed and deadline.expired():  # the earlier hosts used up the time, not this one
                answer = replace(answer, host_failed=False)
        if answer.final_url or not (hops or len(trail) > 1):
            return answer
        return replace(answer, final_url=str(trail[-1]))

    def release(self, response: Response) -> None:
        """Return the memory of an answer's data to the budget."""
        self._budget.release(response.reserved_bytes)

    async def reaches(self, url: yarl.URL) -> bool:
        """Whether the URL's host, or its proxy, accepts a connection now; a host may also refuse it. Sends nothing."""
        proxy = self._proxies.proxy_for(url)
        place = yarl.URL(proxy) if proxy else url
        try:
            async with asyncio.timeout(self._limits.connect):
                host = place.raw_host or ""
                if not _LITERAL.fullmatch(host):
                    host = (await self._resolver.resolve(host))[0]["host"]
                _, writer = await asyncio.open_connection(host, place.port)
        except ConnectionRefusedError:
            return proxy is None
        except (OSError, RefusedURLError, IndexError):
            return False
        writer.close()
        return True

    async def resolves(self, host: str) -> bool:
        """Whether DNS answers for a name now, positively or negatively."""
        return await self._resolver.resolves(host)

    async def is_dns_up(self) -> bool:
        """Whether DNS answers for a random name, which no cache can hold."""
        return await self.resolves(f"{secrets.token_hex(8)}.example.com")

    async def _follow(
        self, trail: list[yarl.URL], hops: int, headers: dict[str, str] | None, deadline: asyncio.Timeout
    ) -> Response:
        """Return the answer at the end of the redirects within a host. Every URL visited is appended to `trail`."""
        while True:
            url = trail[-1]
            if not self._limits.allow_private:
                refuse_private(url)
                self._proxies.refuse_proxy_host(url)
            if self._robots and not await self._robots.allows(url):
                return Response(reason=Reason.ROBOTS, detail="robots.txt disallows it", final_url=str(url))
            proxy = self._proxies.proxy_for(url)
            async with self._session.get(url, headers=headers, allow_redirects=False, proxy=proxy) as response:
                target = response.headers.get("Location")
                if response.status not in _REDIRECTS or not target:
                    return await self._read(response, deadline)
                trail.append(resolve_redirect(url, target))
            hops += 1
            if hops > self._limits.redirects:
                detail = f"more than {self._limits.redirects}"
                return Response(reason=Reason.REDIRECTS, detail=detail, status=response.status)
            if host_of(trail[-1]) != host_of(url):
                return Response(reason=None, redirect_url=trail[-1], hops=hops)

    async def _read(self, response: aiohttp.ClientResponse, deadline: asyncio.Timeout) -> Response:
        status, final, most = response.status, str(response.url), self._limits.max_bytes
        answer = Response(reason=None, status=status, final_url=final)
        if status not in _WHOLE:
            if status == 407 and self._proxies.proxy_for(response.url):
                raise DataprepError(
                    "the proxy requires a user name and a password", hint="put them into the environment's http_proxy"
                )
            wait = parse_retry_after(response.headers.get("Retry-After", ""))
            return replace(
                answer, reason=status_reason(status), detail=f"HTTP {status}", retry_after=wait,
                no_retry=wait > MAX_RETRY_AFTER,
            )  # fmt: skip
        if not self._limits.ignore_opt_out:
            said = find_opt_out(response.headers.getall("X-Robots-Tag", ()))
            if said:
                return replace(answer, reason=Reason.OPTED_OUT, detail=f"X-Robots-Tag: {said[:200]}")
        announced = response.content_length
        if announced is not None and announced > most:
            return replace(answer, reason=Reason.TOO_LARGE, detail=f"{announced} bytes announced", bytes_received=0)
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
                    return replace(
                        answer, reason=Reason.TOO_LARGE, detail=f"over {most} bytes", bytes_received=received
                    )
                if received > FREE_BYTES and not reserved:
                    reserved = await self._reserve(whole, deadline)
            data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
            blocks.clear()
            if packed and not reserved:
                reserved = await self._reserve(whole, deadline)
            answer = Response(reason=None, status=status, final_url=final, data=data, bytes_received=received)
            if packed:
                answer = unpacked(answer, encoding, most)
            if reserved and answer.data is not None:
                answer, reserved = replace(answer, reserved_bytes=reserved), 0
            return answer
        except FramingFloodError as error:
            return replace(
                answer, reason=Reason.MALFORMED_RESPONSE, detail=str(error), bytes_received=received, host_failed=True
            )
        except aiohttp.ClientPayloadError as error:
            got = f"{received} of {announced} bytes" if announced is not None else f"{received} bytes: {_words(error)}"
            return replace(answer, reason=Reason.SHORT_BODY, detail=got, bytes_received=received)
        except (TimeoutError, asyncio.CancelledError):
            raise
        except (aiohttp.ClientError, OSError) as error:
            return replace(
                answer, reason=Reason.SHORT_BODY, detail=f"{received} bytes: {_words(error)}", bytes_received=received
            )
        finally:
            blocks.clear()  # an exception kept by aiohttp would keep them alive
            if reserved:
                self._budget.release(reserved)

    async def _reserve(self, body: int, deadline: asyncio.Timeout) -> int:
        """Wait for memory without counting that time against the request. Meanwhile the receive buffer fills, TCP slows
        the server down, and aiohttp's idle timeout is suspended while the buffer is full."""
        loop = asyncio.get_running_loop()
        left = (deadline.when() or 0.0) - loop.time()
        deadline.reschedule(None)
        reserved = await self._budget.reserve(body)
        deadline.reschedule(loop.time() + left)
        return reserved

    async def _robots_txt(self, url: yarl.URL) -> tuple[int, bytes]:
        """Fetch status and beginning of a robots.txt, under the usual limits. Raises Unreachable."""
        try:
            async with asyncio.timeout(self._limits.total):
                for _ in range(max(5, self._limits.redirects) + 1):  # RFC 9309 2.3.1.2: at least five
                    if not self._limits.allow_private:
                        refuse_private(url)
                        self._proxies.refuse_proxy_host(url)
                    async with self._session.get(
                        url, allow_redirects=False, proxy=self._proxies.proxy_for(url)
                    ) as response:
                        target = response.headers.get("Location")
                        if response.status in _REDIRECTS and target:
                            url = resolve_redirect(url, target)
                            continue
                        body = bytearray()
                        while response.status == 200 and len(body) < MAX_ROBOTS_BYTES:
                            block = await response.content.readany()
                            if not block:
                                break
                            body += block
                        return response.status, bytes(body[:MAX_ROBOTS_BYTES])
        except RefusedURLError as error:
            raise RobotsUnreachableError(f"robots.txt: {error.detail}") from None
        except (aiohttp.ClientError, OSError, ValueError, UnicodeError, EOFError) as error:
            answer = self._answer(error)
            if not answer.network_alive:  # possibly an outage, of the network or the host
                raise
            raise RobotsUnreachableError(f"robots.txt: {answer.detail}") from None
        return 404, b""  # too many redirects count as no robots.txt

    def _answer(self, error: BaseException) -> Response:
        """Map an exception of aiohttp, TLS or the system to a reason."""
        refused = _refusal(error)
        if refused:
            return Response(reason=refused.reason, detail=refused.detail, host_reachable=False)
        number = _errno(error)
        if number in (errno.EMFILE, errno.ENFILE):
            raise DataprepError(
                "too many open files", hint="lower --connections, or raise the limit with `ulimit -n`"
            ) from None
        words = _words(error)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            cause: Any = error.os_error
            exists_not = cause.errno in NEGATIVE_ERRORS
            detail = str(cause.strerror or cause)
            return Response(
                reason=Reason.DNS, detail=detail, network_alive=exists_not, host_reachable=False, host_failed=not exists_not,
                no_retry=exists_not,
            )  # fmt: skip
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError)):
            return Response(reason=Reason.TLS, detail=words)
        if isinstance(error, TimeoutError):
            connected = isinstance(error, aiohttp.SocketTimeoutError) and not isinstance(
                error, aiohttp.ConnectionTimeoutError
            )
            return Response(
                reason=Reason.TIMEOUT,
                detail=self._patience(error),
                network_alive=False,
                host_failed=True,
                connected=connected,
            )
        if isinstance(error, aiohttp.ClientHttpProxyError):
            if error.status == 407:
                raise DataprepError(
                    "the proxy requires a user name and a password", hint="put them into the environment's https_proxy"
                ) from None
            detail = f"the proxy answered {error.status} {error.message}"[:200]
            return Response(reason=Reason.CONNECTION, detail=detail, host_failed=True)
        if isinstance(error, FramingFloodError):
            return Response(reason=Reason.MALFORMED_RESPONSE, detail=words, host_failed=True)
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return Response(reason=Reason.CONNECTION, detail=f"proxy: {words}", network_alive=False)
        if isinstance(error, aiohttp.ClientResponseError):
            return Response(reason=Reason.MALFORMED_RESPONSE, detail=_words(error, error.message))
        if isinstance(error, aiohttp.ClientPayloadError):
            return Response(reason=Reason.SHORT_BODY, detail=words)
        if isinstance(error, aiohttp.InvalidURL) or not isinstance(error, (aiohttp.ClientError, OSError)):
            return Response(reason=Reason.BAD_URL, detail=words)
        heard = number in _SPEAKS or isinstance(error, aiohttp.ServerDisconnectedError)
        return Response(reason=Reason.CONNECTION, detail=words, network_alive=heard, host_failed=True)

    def _patience(self, error: TimeoutError) -> str:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection within {self._limits.connect:g} s"
        if isinstance(error, aiohttp.SocketTimeoutError):
            return f"no data for {self._limits.idle:g} s"
        return f"not done within {self._limits.total:g} s"


def _refusal(error: BaseException | None) -> RefusedURLError | None:
    while error is not None:
        if isinstance(error, RefusedURLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _errno(error: BaseException) -> int | None:
    """The errno of an error, which aiohttp and happy eyeballs (several addresses) may wrap."""
    inner = getattr(error, "os_error", error)
    number = getattr(inner, "errno", None)
    return number if isinstance(number, int) else None


def _words(error: BaseException, text: str = "") -> str:
    return redact(" ".join((text or str(error)).split()))[:200] or type(error).__name__
