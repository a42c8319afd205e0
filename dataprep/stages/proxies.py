"""The user's proxies, from http_proxy, https_proxy, all_proxy and no_proxy: which one is asked for a URL."""

from __future__ import annotations

import urllib.parse
import urllib.request

import yarl

from dataprep.errors import Reason, UsageError
from dataprep.stages.address import Refused


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
