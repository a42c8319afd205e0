"""A progress line on stderr: count, rate and ETA."""

from __future__ import annotations

import sys
import time

import click

from dataprep.cli._options import is_quiet


class ProgressBar:
    """Call with a label, the number done, and the total if known. `what` may end in a remark in brackets.

    On a terminal the line is rewritten twice a second; elsewhere a line is printed every ten seconds. Short work
    prints nothing.
    """

    def __init__(self) -> None:
        self._live, self._quiet = sys.stderr.isatty(), is_quiet()
        self._what = ""

    def __call__(self, what: str, done: int, total: int | None = None) -> None:
        if self._quiet:
            return
        now = time.monotonic()
        if what.partition(" (")[0] != self._what:
            self._what, self._began, self._first = what.partition(" (")[0], now, done
            self._next = now + (0.5 if self._live else 5.0)
        last = done == total
        if now < self._next and not (last and now - self._began > 2):
            return
        self._next = now + (0.5 if self._live else 10.0)
        rate = (done - self._first) / max(now - self._began, 1e-9)
        text = f"{what} {done}, {rate:.0f}/s"
        if total is not None:
            left = int((total - done) / rate) if rate else 0
            text = f"{what} {done}/{total}, {rate:.0f}/s, ETA {left // 60}:{left % 60:02}"
        click.echo(f"\r{text:<70}" if self._live else text, err=True, nl=last or not self._live)
