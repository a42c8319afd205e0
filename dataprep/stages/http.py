"""One polite, suspicious HTTP request: a URL in, a photo's bytes or a reason out. Never an exception for one URL."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from dataprep import __version__
from dataprep.errors import Reason
from dataprep.imaging.sniff import suspicion

USER_AGENT = f"dataprep/{__version__} (builds face recognition datasets; respects X-Robots-Tag: noai)"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NO_AI = ("noai", "noimageai")
_CHUNK = 1 << 16
# IPv6 addresses that carry an IPv4 one in their last 32 bits (RFC 6052, RFC 4291)
_NAT64, _COMPATIBLE = ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Time in seconds, size in bytes."""

    connect: float
    idle: float
    total: float
    max_bytes: int
    redirects: int
    allow_private: bool
    ignore_opt_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one URL. `data` is there exactly if `reason` is not."""

    reason: Reason | None
    detail: str = ""
    status: int | None = None
    final_url: str = ""
    data: bytes | None = None
    retry_after: float = 0.0


class _Refused(Exception):
    """A URL, or an address behind it, that must not be asked."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def parse_url(text: str) -> yarl.URL:
    """The URL as it is to be sent: what is escaped stays escaped, the rest is escaped. Raises _Refused."""
    text = text.strip()
    if any(ord(c) < 32 for c in text):
        raise _Refused(Reason.BAD_URL, "control characters")
    try:
        quoted = urllib.parse.quote(text, safe="%/:=&?~#+!$,;'@()*[]|")
        url = yarl.URL(quoted, encoded=True)
        host, _port = url.host, url.port
    except (ValueError, UnicodeError) as error:
        raise _Refused(Reason.BAD_URL, str(error)) from None
    if url.scheme not in ("http", "https"):
        raise _Refused(Reason.BAD_URL, f"scheme {url.scheme!r}: only http and https are asked")
    if not host:
        raise _Refused(Reason.BAD_URL, "no host")
    if url.user or url.password:
        raise _Refused(Reason.BAD_URL, "a user name or password in the URL")
    return url.with_fragment(None)


def host_of(text: str) -> str:
    """The host and port that a URL will ask, or an empty string if it is none."""
    try:
        url = parse_url(text)
    except _Refused:
        return ""
    return f"{url.host}:{url.port}"


def is_public(address: str) -> bool:
    """Whether an IP address is one that a stranger's list may send us to."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64 or ip in _COMPATIBLE:
            carried = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if carried is not None:
            return carried.is_global and not carried.is_multicast
    return ip.is_global and not ip.is_multicast


class _PublicResolver(AbstractResolver):
    """Resolves names and refuses those that lead to private addresses: the check is on what is connected to."""

    def __init__(self, exempt: frozenset[str]) -> None:
        self._inner, self._exempt = ThreadedResolver(), exempt

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        public = [entry for entry in found if host in self._exempt or is_public(entry["host"])]
        if found and not public:
            raise _Refused(Reason.FORBIDDEN_ADDRESS, f"{host} leads to {found[0]['host']}")
        return public

    async def close(self) -> None:
        await self._inner.close()


class Client:
    """An HTTP session under `Limits`. Use as an async context manager."""

    def __init__(self, limits: Limits, *, connections: int) -> None:
        self._limits, self._connections = limits, connections
        self._proxies = urllib.request.getproxies()

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(
            limit=self._connections,
            ttl_dns_cache=300,
            resolver=ThreadedResolver() if self._limits.allow_private else _PublicResolver(self._proxy_hosts()),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=self._limits.total, sock_connect=self._limits.connect, sock_read=self._limits.idle
            ),
            headers={"User-Agent": USER_AGENT, "Accept": "image/*,*/*;q=0.5"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def _proxy_hosts(self) -> frozenset[str]:
        """The user's own proxies, which may well be on a private network."""
        return frozenset(urllib.parse.urlsplit(proxy).hostname or "" for proxy in self._proxies.values())

    def _proxy_for(self, url: yarl.URL) -> str | None:
        if url.host and urllib.request.proxy_bypass(url.host):
            return None
        return self._proxies.get(url.scheme)

    async def fetch(self, text: str) -> Answer:
        """Ask for a URL once, redirects followed; every way in which this can go wrong is a reason."""
        try:
            async with asyncio.timeout(self._limits.total):
                return await self._follow(parse_url(text))
        except _Refused as error:
            return Answer(reason=error.reason, detail=error.detail)
        except aiohttp.ClientConnectorDNSError as error:
            cause: Any = error.os_error
            return Answer(reason=Reason.DNS, detail=str(cause.strerror or cause))
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError) as error:
            return Answer(reason=Reason.TLS, detail=_words(error))
        except TimeoutError as error:
            return Answer(reason=Reason.TIMEOUT, detail=_words(error))
        except aiohttp.ClientPayloadError as error:
            return Answer(reason=Reason.SHORT_BODY, detail=_words(error))
        except (aiohttp.InvalidURL, ValueError, UnicodeError) as error:
            return Answer(reason=Reason.BAD_URL, detail=_words(error))
        except (aiohttp.ClientError, OSError) as error:
            refused = _refusal(error)
            if refused:
                return Answer(reason=refused.reason, detail=refused.detail)
            return Answer(reason=Reason.CONNECTION, detail=_words(error))

    async def _follow(self, url: yarl.URL) -> Answer:
        for _ in range(self._limits.redirects + 1):
            if not self._limits.allow_private:
                _refuse_private_literal(url)
            async with self._session.get(url, allow_redirects=False, proxy=self._proxy_for(url)) as response:
                target = response.headers.get("Location")
                if response.status not in _REDIRECTS or not target:
                    return await self._read(response)
                url = parse_url(str(url.join(yarl.URL(target, encoded=True))))
        return Answer(reason=Reason.REDIRECTS, detail=f"more than {self._limits.redirects}", final_url=str(url))

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        status, final = response.status, str(response.url)
        if status != 200:
            return Answer(
                reason=_status_reason(status), detail=f"HTTP {status}", status=status, final_url=final,
                retry_after=_retry_after(response.headers.get("Retry-After", "")),
            )  # fmt: skip
        tags = ",".join(response.headers.getall("X-Robots-Tag", [])).lower()
        if not self._limits.ignore_opt_out and any(tag in tags for tag in _NO_AI):
            return Answer(reason=Reason.OPTED_OUT, detail=f"X-Robots-Tag: {tags}", status=status, final_url=final)
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > self._limits.max_bytes:
                return Answer(
                    reason=Reason.TOO_LARGE,
                    detail=f"over {self._limits.max_bytes} bytes",
                    status=status,
                    final_url=final,
                )
        data = bytes(body)
        doubt = suspicion(data)
        if doubt:
            return Answer(reason=doubt[0], detail=doubt[1], status=status, final_url=final)
        return Answer(reason=None, status=status, final_url=final, data=data)


def _status_reason(status: int) -> Reason:
    if status in (404, 410):
        return Reason.HTTP_404
    if status == 429:
        return Reason.HTTP_429
    return Reason.HTTP_5XX if status >= 500 else Reason.HTTP_4XX


def _retry_after(value: str) -> float:
    """Seconds that a server asks us to wait, at most two minutes; 0 if it does not say so in a way we know."""
    import email.utils

    try:
        wanted = float(value)
    except ValueError:
        try:
            wanted = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(wanted, 0.0), 120.0) if wanted == wanted else 0.0


def _refuse_private_literal(url: yarl.URL) -> None:
    """A URL with an address for a name never meets the resolver."""
    try:
        public = is_public(url.host or "")
    except ValueError:
        return
    if not public:
        raise _Refused(Reason.FORBIDDEN_ADDRESS, f"{url.host} is not a public address")


def _refusal(error: BaseException | None) -> _Refused | None:
    while error is not None:
        if isinstance(error, _Refused):
            return error
        error = error.__cause__ or error.__context__
    return None


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
