"""Where a URL of a stranger's list leads: what is sent, what is never asked, and which addresses are public."""

from __future__ import annotations

import ipaddress
import re
import socket
import urllib.parse
import urllib.request

import yarl

from dataprep.errors import UsageError
from dataprep.reasons import Reason

_LONGEST = 8000  # characters; RFC 9110 4.1 asks servers for no more
_BLANK = "".join(map(chr, range(33)))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_END = re.compile(r"[/?#]")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)$")
_PLAIN = re.compile(r"[A-Za-z0-9%/:=&?~+!$,;'@()*\[\]|._-]*")
_KEPT = "%/:=&?~+!$,;'@()*[]|"
# ports of other protocols, where a request could be taken for a command: https://fetch.spec.whatwg.org/#bad-port
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
# what is asked of all else in IPv6, be it only given out one day (RFC 4291 2.4); Python knows the exceptions within
_UNICAST, _DOCUMENTATION = ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("3fff::/20")
# clouds' metadata behind addresses that look public, or do to some versions of Python: Azure's, and Oracle's in RFC 6890
_CLOUDS = (ipaddress.IPv4Network("168.63.129.16/32"), ipaddress.IPv4Network("192.0.0.0/24"))


class Refused(Exception):
    """A URL, or an address behind it, that must not be asked."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def parse_url(text: str) -> yarl.URL:
    """The URL as it is to be sent: what is escaped stays escaped, the rest is escaped. Raises Refused.

    Read as a browser does where lists are sloppy (blanks, unicode, IDN, numbers for an address), and refused where
    readers differ on where it leads: user names, backslashes or escapes in the host, IPv6 zones. Hot: once per URL.
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
        raise _bad(f"scheme {scheme[:20]!r}: only http and https are asked")
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


def join(url: yarl.URL, location: str) -> yarl.URL:
    """Where a redirect leads. Raises Refused."""
    try:
        target = urllib.parse.urljoin(str(url), location.strip(_BLANK))
    except ValueError as error:
        raise _bad(str(error)[:200]) from None
    return parse_url(target)


def host_of(url: yarl.URL) -> str:
    """Whom a URL asks, as politeness and health know it: the host and the port."""
    return f"{url.raw_host}:{url.port}"


def is_public(address: str) -> bool:
    """Whether an IP address is one that a stranger's list may send us to."""
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
    """Refuse a URL with a private address for a name, which never meets the resolver; nor do names behind a proxy."""
    host = url.raw_host or ""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 6.3: loopback, whoever resolves it
        raise Refused(Reason.FORBIDDEN_ADDRESS, f"{host} is this machine")
    try:
        public = is_public(host)
    except ValueError:
        return
    if not public:
        raise Refused(Reason.FORBIDDEN_ADDRESS, f"{host} is not a public address")


def _place(authority: str) -> str:
    """host[:port] of an authority, in the one form that everybody reads alike."""
    if "@" in authority:
        raise _bad("a user name or password in the URL")
    if authority.startswith("["):
        inner, closed, port = authority[1:].partition("]")
        try:
            host = f"[{ipaddress.IPv6Address(inner).compressed}]"
        except ValueError:
            raise _bad("the host is no IPv6 address") from None
        if not closed or "%" in inner or (port and not port.startswith(":")):
            raise _bad("the host is no IPv6 address")
        port = port[1:]
    else:
        name, _, port = authority.partition(":")
        host = _host(name)
    if not port:
        return host
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        raise _bad("the port is no number up to 65535")
    if int(port) in _BAD_PORTS:
        raise _bad(f"port {int(port)} is not the web's")
    return f"{host}:{int(port)}"


def _host(name: str) -> str:
    if not name.isascii():
        try:
            name = yarl.URL.build(scheme="http", host=name).raw_host or ""
        except (ValueError, UnicodeError):
            raise _bad("the host is no domain name") from None
    host = name.lower().removesuffix(".")
    if not host:
        raise _bad("no host")
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise _bad("the host is no domain name")
    if _NUMBER.search(host):  # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to a resolver, so they are to us
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            raise _bad("the host is no address") from None
    return host


def _bad(detail: str) -> Refused:
    return Refused(Reason.BAD_URL, detail)


class Proxies:
    """Read from the environment once. `hosts` are those of the proxies themselves. Raises UsageError."""

    def __init__(self) -> None:
        self._by_scheme = _from_environment()
        places = (urllib.parse.urlsplit(proxy) for scheme, proxy in self._by_scheme.items() if scheme != "no")
        self.hosts = frozenset(place.hostname for place in places if place.hostname)

    def of(self, url: yarl.URL) -> str | None:
        """The proxy to ask for a URL; None: its host itself. Hot: once per request."""
        if not self._by_scheme or url.scheme not in self._by_scheme:
            return None
        host = f"{url.host}:{url.port}"
        passes_by = urllib.request.proxy_bypass_environment(host, self._by_scheme)  # type: ignore[attr-defined]
        return None if passes_by else self._by_scheme[url.scheme]

    def refuse_past(self, url: yarl.URL) -> None:
        """Refuse to ask a proxy's host but as a proxy: its address is the one that may be private."""
        if url.raw_host in self.hosts and self.of(url) is None:
            raise Refused(Reason.FORBIDDEN_ADDRESS, f"{url.raw_host} is a proxy of this machine's")


def _from_environment() -> dict[str, str]:
    """The proxies for http and https, and `no`."""
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
            raise UsageError(f"{scheme}_proxy: only http:// and https:// proxies are known")
        kept[scheme] = proxy
    return kept | ({"no": found["no"]} if kept and "no" in found else {})
