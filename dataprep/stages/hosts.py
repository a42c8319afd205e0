"""A circuit breaker per host: hosts that do not answer cost a time-out per URL, and some ask to be left alone."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_KEPT = 200_000  # hosts that are remembered, of each kind
_PROBES = 2  # other URLs that are tried before a host that accepts connections, and has never answered, is given up


@dataclass(slots=True)
class _Record:
    failures: int = 0
    open_until: float = 0.0
    rests: int = 0  # how often it was opened since the host last answered
    asked_for_rest: bool = False


class CircuitBreaker:
    """Counts the URLs in a row that got no answer, by host. Times are passed in, in seconds of one clock.

    After `failures` of them a host is on probation: one request at a time, of any of its URLs, since it may be the URLs
    that hang and not the host. The circuit opens, for `rest` seconds, when the probes fail too: `failures` probes of a host
    that has answered before, two of one that accepts connections, none of one that cannot be connected to. After the rest
    the next URL is a probe: one answer closes the circuit, one failure opens it again.

    `is_recoverable` says whether the URLs of an open circuit wait for the end of the rest, as they do once for a host that
    has ever answered. The others end as `host_down`, and `retry` asks for them again. Which URLs of a dead host carry their
    own failure and which `host_down` is chance; a host that answers any of its URLs loses none of the others.
    """

    def __init__(self, *, failures: int, rest: float) -> None:
        self._failures, self._rest = failures, rest
        self._hosts: OrderedDict[str, _Record] = OrderedDict()
        self._answered: set[str] = set()

    def is_open(self, host: str, now: float) -> bool:
        """Whether nothing may be asked of the host now."""
        record = self._hosts.get(host)
        return record is not None and record.open_until > now

    def is_probing(self, host: str) -> bool:
        """Whether the host gets one request at a time, until it answers."""
        record = self._hosts.get(host)
        return record is not None and record.failures >= self._failures

    def is_recoverable(self, host: str) -> bool:
        record = self._hosts.get(host)
        return record is None or (host in self._answered and record.rests <= 1 and not record.asked_for_rest)

    def remaining(self, host: str, now: float) -> float:
        """Seconds until the circuit closes."""
        record = self._hosts.get(host)
        return max(0.0, record.open_until - now) if record else 0.0

    def record_failure(self, host: str, now: float, *, connected: bool = False) -> bool:
        """Count a URL without an answer; whether the circuit is open now. `connected`: the host took the connection."""
        record = self._record(host)
        record.failures += 1
        probes = self._failures if host in self._answered else _PROBES if connected else 0
        if record.open_until <= now and (record.rests or record.failures >= self._failures + probes):
            record.open_until = now + self._rest
            record.rests += 1
        return record.open_until > now

    def record_answer(self, host: str) -> None:
        """The host has answered, be it with an error. Hot: once per request."""
        self._hosts.pop(host, None)
        if len(self._answered) < _KEPT:
            self._answered.add(host)

    def trip(self, host: str, until: float) -> None:
        """Open the circuit of a host that asked to be left alone."""
        record = self._record(host)
        record.failures, record.open_until = max(record.failures, self._failures), until
        record.asked_for_rest = True

    def _record(self, host: str) -> _Record:
        record = self._hosts.get(host)
        if record is None:
            record = self._hosts[host] = _Record()
            if len(self._hosts) > _KEPT:
                self._hosts.popitem(last=False)
        return record
