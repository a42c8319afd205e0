"""Which hosts are put aside: they do not answer, and their other URLs would cost a time-out each; or they asked for it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_KEPT = 200_000  # hosts with failures that are remembered


@dataclass(slots=True)
class _Record:
    failures: int = 0
    until: float = 0.0


class Health:
    """URLs in a row that failed, by host; `failures` of them put it aside for `rest` seconds. Time is passed in, in seconds.

    After the rest its next URL is a probe: one success and all is forgotten, one failure and it is aside again.

    What depends on luck: which URLs of a host that is down carry its own failure (those asked before it was put aside)
    and which `host_down`; all of them are `failed`, and can be asked again. What does not: a host that answers at least
    one of any `failures` URLs in a row loses no URL this way, and one that is never put aside has no `host_down`.
    """

    def __init__(self, *, failures: int, rest: float) -> None:
        self._failures, self._rest = failures, rest
        self._hosts: OrderedDict[str, _Record] = OrderedDict()

    def is_aside(self, host: str, now: float) -> bool:
        found = self._hosts.get(host)
        return found is not None and found.until > now

    def is_suspect(self, host: str) -> bool:
        """Whether it was put aside and has not answered since: to be probed with one request at a time."""
        found = self._hosts.get(host)
        return found is not None and found.failures >= self._failures

    def failed(self, host: str, now: float) -> bool:
        """Count a failure; whether the host is aside now."""
        found = self._record(host)
        found.failures += 1
        if found.failures >= self._failures and found.until <= now:
            found.until = now + self._rest
        return found.until > now

    def answered(self, host: str) -> None:
        self._hosts.pop(host, None)

    def leave_alone(self, host: str, until: float) -> None:
        """Put a host aside that asked for it."""
        found = self._record(host)
        found.failures, found.until = max(found.failures, self._failures), until

    def _record(self, host: str) -> _Record:
        found = self._hosts.get(host)
        if found is None:
            found = self._hosts[host] = _Record()
            if len(self._hosts) > _KEPT:
                self._hosts.popitem(last=False)
        return found
