"""One line on stderr for work that is counted: how much, how fast, how long still."""

from __future__ import annotations

import sys
import time

import click


class Ticker:
    """Call with the number done so far. On a terminal the line is rewritten; elsewhere it comes every ten seconds."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what, self._total = what, total
        self._live = sys.stderr.isatty()
        self._began = time.monotonic()
        self._next = self._began + (0.5 if self._live else 10.0)

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        last = done == self._total
        if now < self._next and not (last and self._live):
            return
        self._next = now + (0.5 if self._live else 10.0)
        rate = done / max(now - self._began, 1e-9)
        text = f"{done} {self._what}, {rate:.0f}/s"
        if self._total:
            left = int((self._total - done) / max(rate, 1e-9))
            text = f"{done}/{self._total} {self._what}, {rate:.0f}/s, ETA {left // 60}:{left % 60:02}"
        click.echo(f"\r{text:<70}" if self._live else text, err=True, nl=last or not self._live)
