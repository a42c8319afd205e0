"""Parsing of URLs from untrusted lists: normalisation, SSRF checks and public IP addresses."""

from __future__ import annotations

import ipaddress
import re
import socket
import urllib.parse
import urllib.request

import yarl

from dataprep.errors import UsageError
from dataprep.reasons import Reason

_LONGEST = 8000  # characters; RFC 9110 4.1 requires servers to support at least this
_BLANK = "".join(map(chr, range(33)))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_END = re.compile(r"[/?#]")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)$")
_PLAIN = re.compile(r"[A-Za-z0-9%/:=&?~+!$,;'@()*\[\]|._-]*")
_KEPT = "%/:=&?~+!$,;'@()*[]|"
# ports of other protocols, whose servers could read a request as a command: https://fetch.spec.whatwg.org/#bad-port
_BAD_PORTS = frozenset(
    {
        0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
        110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
        531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
        5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
    }
)  # fmt: skip
# IPv6 addresses that carry an IPv4 one in their last 32 bits (RFC 6052, RFC 4291, RFC 2765)
_CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
# other IPv6 addresses must lie in the global unicast block (RFC 4291 2.4); Python knows the exceptions inside it
_UNICAST, _DOCUMENTATION = ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("3fff::/20")
# cloud metadata services at addresses that look public, or do to some versions of Python: Azure; Oracle (RFC 6890)
_CLOUDS = (ipaddress.IPv4Network("168.63.129.16/32"), ipaddress.IPv4Network("192.0.0.0/24"))


class RefusedURLError(Exception):
    """A URL that must not be requested, or that resolves to an address that must not be."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def parse_url(text: str) -> yarl.URL:
    """Return the URL to send: existing escapes are kept, and everything else is escaped. Raises Refused.

    Sloppy input is read as browsers read it: blanks, Unicode, IDN, numeric addresses. A URL is refused where parsers
    disagree on its host: user names, backslashes or escapes in the host, IPv6 zones. Hot: called once per URL.
    """
    text = text.strip(_BLANK)
    if len(text) > _LONGEST:
        raise _bad(f"{len(text)} characters")
    if _CONTROL.search(text):
        raise _bad("control characters")
    found = _SCHEME.match(text)
    if not found:
        raise _bad("no scheme")
    scheme = found[1].lower()
    if scheme not in ("http", "https"):
        raise _bad(f"scheme {scheme[:20]!r}: only http and https are supported")
    rest = text[found.end() :]
    if not rest.startswith("//"):
        raise _bad("no host")
    ends = _END.search(rest, 2)
    end = ends.start() if ends else len(rest)
    place = _place(rest[2:end])
    tail = rest[end:].partition("#")[0]
    try:
        if not _PLAIN.fullmatch(tail):
            tail = urllib.parse.quote(tail.encode("utf-8", "surrogateescape"), safe=_KEPT)
        slash = "" if tail.startswith("/") else "/"
        return yarl.URL(f"{scheme}://{place}{slash}{tail}", encoded=True)
    except (ValueError, UnicodeError) as error:
        raise _bad(str(error)[:200]) from None


def resolve_redirect(url: yarl.URL, location: str) -> yarl.URL:
    """Return the target of a redirect. Raises Refused."""
    try:
        target = urllib.parse.urljoin(str(url), location.strip(_BLANK))
    except ValueError as error:
        raise _bad(str(error)[:200]) from None
    return parse_url(target)


def host_of(url: yarl.URL) -> str:
    """Return host:port, the key for politeness limits and for the health of a host."""
    return f"{url.raw_host}:{url.port}"


def is_public(address: str) -> bool:
    """Whether an IP address is public, so that a URL from an untrusted list may lead to it."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ip.ipv4_mapped or ip.sixtofour
        if any(ip in network for network in _CARRIERS):
            carried = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if carried is None:
            return ip.is_global and ip in _UNICAST and ip not in _DOCUMENTATION
        ip = carried
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _CLOUDS)


def refuse_private(url: yarl.URL) -> None:
    """Refuse a URL whose host is a literal private address: the resolver never sees it, nor names sent to a proxy."""
    host = url.raw_host or ""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 6.3: always loopback
        raise RefusedURLError(Reason.FORBIDDEN_ADDRESS, f"{host} is this machine")
    try:
        public = is_public(host)
    except ValueError:
        return
    if not public:
        raise RefusedURLError(Reason.FORBIDDEN_ADDRESS, f"{host} is not a public address")


def _place(authority: str) -> str:
    """Return host[:port] of an authority in a canonical form that all parsers read alike."""
    if "@" in authority:
        raise _bad("a user name or password in the URL")
    if authority.startswith("["):
        inner, closed, port = authority[1:].partition("]")
        try:
            host = f"[{ipaddress.IPv6Address(inner).compressed}]"
        except ValueError:
            raise _bad("the host is not an IPv6 address") from None
        if not closed or "%" in inner or (port and not port.startswith(":")):
            raise _bad("the host is not an IPv6 address")
        port = port[1:]
    else:
        name, _, port = authority.partition(":")
        host = _host(name)
    if not port:
        return host
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        raise _bad("the port is not a number up to 65535")
    if int(port) in _BAD_PORTS:
        raise _bad(f"port {int(port)} is not a web port")
    return f"{host}:{int(port)}"


def _host(name: str) -> str:
    if not name.isascii():
        try:
            name = yarl.URL.build(scheme="http", host=name).raw_host or ""
        except (ValueError, UnicodeError):
            raise _bad("the host is not a domain name") from None
    host = name.lower().removesuffix(".")
    if not host:
        raise _bad("no host")
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise _bad("the host is not a domain name")
    if _NUMBER.search(host):  # as resolvers do: 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            raise _bad("the host is not an address") from None
    return host


def _bad(detail: str) -> RefusedURLError:
    return RefusedURLError(Reason.BAD_URL, detail)


class ProxySettings:
    """Proxies read once from the environment. `hosts` are the hosts of the proxies. Raises UsageError."""

    def __init__(self) -> None:
        self._by_scheme = _from_environment()
        places = (urllib.parse.urlsplit(proxy) for scheme, proxy in self._by_scheme.items() if scheme != "no")
        self.hosts = frozenset(place.hostname for place in places if place.hostname)

    def proxy_for(self, url: yarl.URL) -> str | None:
        """Return the proxy for a URL, or None for a direct request. Hot: called once per request."""
        if not self._by_scheme or url.scheme not in self._by_scheme:
            return None
        host = f"{url.host}:{url.port}"
        passes_by = urllib.request.proxy_bypass_environment(host, self._by_scheme)  # type: ignore[attr-defined]
        return None if passes_by else self._by_scheme[url.scheme]

    def refuse_proxy_host(self, url: yarl.URL) -> None:
        """Refuse direct requests to a proxy's host: its address, which may be private, is exempt only as a proxy."""
        if url.raw_host in self.hosts and self.proxy_for(url) is None:
            raise RefusedURLError(Reason.FORBIDDEN_ADDRESS, f"{url.raw_host} is a proxy of this machine")


def _from_environment() -> dict[str, str]:
    """Return the proxies for http and https, and the `no` list."""
    found = urllib.request.getproxies()
    kept = {}
    for scheme in ("http", "https"):
        proxy = found.get(scheme) or found.get("all")
        if not proxy:
            continue
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        parts = urllib.parse.urlsplit(proxy)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{scheme}_proxy: only http:// and https:// proxies are supported")
        kept[scheme] = proxy
    return kept | ({"no": found["no"]} if kept and "no" in found else {})
