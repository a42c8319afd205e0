"""Rules of sites for robots: the `X-Robots-Tag` header, and robots.txt if the user enables it."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import yarl

ROBOTS_TOKEN = "dataprep"  # our name in robots.txt and X-Robots-Tag
MAX_ROBOTS_BYTES = 500 * 1024  # bytes of robots.txt that are read: RFC 9309 2.5

_OPT_OUTS = frozenset({"noai", "noimageai"})
# directives with a value after a colon; the name before the colon is not a user agent
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_KEPT = 10_000  # sites whose rules are cached
_DAY = 86_400.0  # the maximum of RFC 9309 2.4
_MINUTE = 60.0


def find_opt_out(tags: Iterable[str]) -> str | None:
    """Return the first X-Robots-Tag with noai or noimageai for all robots or for this one, or None.

    `otherbot: noai` applies to another robot. As in other crawlers, a name applies to all directives after it.
    """
    for tag in tags:
        for_us = True
        for part in tag.lower().split(","):
            name, colon, directive = part.partition(":")
            if colon and name.strip() not in _WITH_VALUE:
                for_us = name.strip() in ("*", ROBOTS_TOKEN)
                part = directive
            if for_us and part.strip() in _OPT_OUTS:
                return tag
    return None


class RobotsUnreachableError(Exception):
    """robots.txt could not be fetched, so nothing of its site may be requested."""


@dataclass(slots=True)
class _Site:
    until: float
    rules: RobotsRules | None  # None: everything is allowed
    trouble: str = ""


class RobotsCache:
    """Cache of the visited sites' robots.txt, each fetched once, as in RFC 9309.

    `ask` returns the status and the first bytes of a URL after redirects, or raises Unreachable. A 4xx other than 429
    allows everything. Without a response, or with 429 or 5xx, nothing is allowed, and the file is fetched again after
    a minute. Any other exception of `ask` propagates, and nothing is cached.
    """

    def __init__(self, ask: Callable[[yarl.URL], Awaitable[tuple[int, bytes]]]) -> None:
        self._ask = ask
        self._sites: OrderedDict[str, _Site] = OrderedDict()
        self._coming: dict[str, asyncio.Task[_Site]] = {}

    async def allows(self, url: yarl.URL) -> bool:
        """Whether a URL may be requested. Raises Unreachable."""
        place = str(url.origin())
        site = self._sites.get(place)
        if site is None or site.until < time.monotonic():
            coming = self._coming.get(place)
            if coming is None:
                coming = self._coming[place] = asyncio.create_task(self._learn(place))
                coming.add_done_callback(lambda task: task.cancelled() or task.exception())  # all callers may be gone
            site = await asyncio.shield(coming)
        else:
            self._sites.move_to_end(place)
        if site.trouble:
            raise RobotsUnreachableError(site.trouble)
        return site.rules is None or site.rules.is_allowed(url)

    async def close(self) -> None:
        for task in self._coming.values():
            task.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)

    async def _learn(self, place: str) -> _Site:
        try:
            site = await self._read(yarl.URL(f"{place}/robots.txt", encoded=True))
            self._sites[place] = site
            if len(self._sites) > _KEPT:
                self._sites.popitem(last=False)
            return site
        finally:
            del self._coming[place]

    async def _read(self, url: yarl.URL) -> _Site:
        now = time.monotonic()
        try:
            status, body = await self._ask(url)
        except RobotsUnreachableError as error:
            return _Site(now + _MINUTE, None, str(error))
        if status == 429 or status >= 500:
            return _Site(now + _MINUTE, None, f"robots.txt: HTTP {status}")
        if status != 200:
            return _Site(now + _DAY, None)
        return _Site(now + _DAY, RobotsRules(body.decode("utf-8-sig", "replace"), ROBOTS_TOKEN))


@dataclass(frozen=True, slots=True)
class _Rule:
    pieces: tuple[str, ...]  # the parts between the stars
    anchored: bool
    weight: int
    allows: bool

    def matches(self, path: str) -> bool:
        """Search for each piece once, from left to right: any pattern takes at most a few passes over the path."""
        first, *rest = self.pieces
        if not path.startswith(first):
            return False
        at, end = len(first), len(path)
        if self.anchored:
            if not rest:
                return at == end
            last = rest.pop()
            end -= len(last)
            if end < at or not path.endswith(last):
                return False
        for piece in rest:
            found = path.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


class RobotsRules:
    """The rules of a robots.txt for `token`: those of its own groups, or else those for all robots."""

    def __init__(self, text: str, token: str) -> None:
        ours: list[_Rule] = []
        others: list[_Rule] = []
        named = False  # a group names our token
        speaks: set[str] = set()
        among_agents = False
        for line in text.splitlines():
            name, colon, value = line.partition("#")[0].partition(":")
            name, value = name.strip().lower(), value.strip()
            if not colon:
                continue
            if name == "user-agent":
                if not among_agents:
                    speaks = set()
                among_agents = True
                speaks.add(value.partition("/")[0].strip().lower())
                named = named or token in speaks
            elif name in ("allow", "disallow"):
                among_agents = False
                if value and token in speaks:
                    ours.append(_rule(value, name == "allow"))
                if value and "*" in speaks:
                    others.append(_rule(value, name == "allow"))
        chosen = ours if named else others
        self._rules: Sequence[_Rule] = sorted(chosen, key=lambda rule: (-rule.weight, not rule.allows))

    def is_allowed(self, url: yarl.URL) -> bool:
        """Whether a URL may be requested."""
        path = _normal(url.raw_path_qs or "/")
        return next((rule.allows for rule in self._rules if rule.matches(path)), True)


def _rule(value: str, allows: bool) -> _Rule:
    anchored = value.endswith("$")
    pieces = tuple(_normal(piece) for piece in value.removesuffix("$").split("*"))
    return _Rule(pieces, anchored, len(value), allows)


def _normal(text: str) -> str:
    """Normalise escapes, so that equivalent paths compare equal."""
    return urllib.parse.quote(
        urllib.parse.unquote(text, errors="surrogateescape"), safe="/?=&", errors="surrogateescape"
    )
