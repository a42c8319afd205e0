"""robots.txt as RFC 9309 reads it: the longest rule that matches decides, `*` is anything, `$` the end.

The standard library's reader takes the first rule and knows neither sign: `Disallow: /*.jpg$` would forbid nothing.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

import yarl


@dataclass(frozen=True, slots=True)
class _Rule:
    pieces: tuple[str, ...]  # what stands between the stars
    anchored: bool
    weight: int
    allows: bool

    def matches(self, path: str) -> bool:
        """Each piece is looked for once, from left to right: no pattern takes longer than a few passes over the path."""
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


class Rules:
    """What a robots.txt says to `token`: its own groups, or else those of everybody."""

    def __init__(self, text: str, token: str) -> None:
        ours: list[_Rule] = []
        others: list[_Rule] = []
        named = False  # any group names us
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

    def allow(self, url: yarl.URL) -> bool:
        """Whether a URL may be asked for."""
        path = _normal(url.raw_path_qs or "/")
        return next((rule.allows for rule in self._rules if rule.matches(path)), True)


def _rule(value: str, allows: bool) -> _Rule:
    anchored = value.endswith("$")
    pieces = tuple(_normal(piece) for piece in value.removesuffix("$").split("*"))
    return _Rule(pieces, anchored, len(value), allows)


def _normal(text: str) -> str:
    """The same text for all ways to escape it."""
    return urllib.parse.quote(
        urllib.parse.unquote(text, errors="surrogateescape"), safe="/?=&", errors="surrogateescape"
    )
