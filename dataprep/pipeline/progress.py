"""Progress of a run: bars on a terminal, plain lines elsewhere, and always events in runs/*.jsonl."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from dataprep.names import printable
from dataprep.reasons import Reason
from dataprep.storage import redact

_LINE_EVERY = 5.0  # seconds between plain lines
_WIDE = 110  # columns from which a terminal has room for long bars


@dataclass(slots=True)
class StageProgress:
    """Progress of one stage, in samples."""

    stage: str
    total: int
    done: int = 0
    processed: int = 0  # done in this run, the basis of the rate
    bytes: int = 0  # received over the network
    ended: bool = False
    verdicts: Counter[str] = field(default_factory=Counter)
    started: float | None = None

    def advance(self, count: int) -> None:
        if self.started is None and count:
            self.started = time.monotonic()
        self.done += count
        self.processed += count

    @property
    def rate(self) -> float:
        """Samples per second since the first one."""
        spent = self._spent
        return self.processed / spent if spent > 0.5 else 0.0

    def format_line(self) -> str:
        """The stage on one line: `align 120/500 (41/s, ETA 0:09; ok 118; dropped no_face 2)`."""
        counts = f" {self.done}/{self.total}" if self.total else ""
        return f"{self.stage}{counts} ({self.format_state()})"

    def format_state(self) -> str:
        """`waiting`, the rate with the time left, or `done`; and the verdicts if not all are ok."""
        if self.done >= self.total and self.total:
            facts = ["done", *self._bandwidth()]
        elif self.started is None:
            facts = ["waiting"]
        else:
            facts = [f"{self.rate:.0f}/s", *self._bandwidth(), f"ETA {self._eta()}"]
        return ", ".join(facts) + self._losses()

    def _bandwidth(self) -> list[str]:
        """Network throughput; empty for a stage that uses no network."""
        spent = self._spent
        return [f"{self.bytes / spent / 1e6:.1f} MB/s"] if self.bytes and spent > 0.5 else []

    def _losses(self) -> str:
        """Counts of ok, dropped and failed samples by reason; empty if all are ok."""
        parts = []
        for verdict in ("dropped", "failed"):
            found = {n: c for n, c in sorted(self.verdicts.items()) if c and n != "ok" and _verdict(n) == verdict}
            if found:
                parts.append(f"{verdict} " + ", ".join(f"{name} {count}" for name, count in found.items()))
        return "; ".join([f"; ok {self.verdicts['ok']}", *parts]) if parts else ""

    def _eta(self) -> str:
        if not self.rate:
            return "-:--"
        left = int((self.total - self.done) / self.rate)
        return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}" if left >= 3600 else f"{left // 60}:{left % 60:02}"

    @property
    def _spent(self) -> float:
        return time.monotonic() - self.started if self.started else 0.0


def _verdict(code: str) -> str:
    return Reason.from_code(code).verdict


class ProgressDisplay(Protocol):
    """Shows gauges. `refresh` is called often; `note` prints a permanent line."""

    def refresh(self, gauges: Mapping[str, StageProgress]) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self, gauges: Mapping[str, StageProgress]) -> None: ...


class PlainDisplay:
    """Prints a line every few seconds, for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._next = time.monotonic() + 1.0
        self._last = ""

    def refresh(self, gauges: Mapping[str, StageProgress]) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY
            self._show(gauges)

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self, gauges: Mapping[str, StageProgress]) -> None:
        self._show(gauges)

    def _show(self, gauges: Mapping[str, StageProgress]) -> None:
        text = " | ".join(gauge.format_line() for gauge in gauges.values() if gauge.processed or not gauge.ended)
        if text and text != self._last:
            self._last = text
            self.note(text)


class BarDisplay:
    """Live progress bars, with rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        console = Console(file=sys.__stderr__)  # cli/_streams.py would escape the bars' own codes
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=40 if console.width >= _WIDE else 10),
            # reasons that do not fit go on in the next line
            TextColumn("{task.fields[state]}", table_column=Column(no_wrap=False, ratio=1)),
            console=console,
            expand=True,
            refresh_per_second=5,
        )
        self._tasks: dict[str, Any] = {}
        self._progress.start()

    def refresh(self, gauges: Mapping[str, StageProgress]) -> None:
        for name, gauge in gauges.items():
            state = f"{gauge.done}/{gauge.total}  {gauge.format_state()}" if gauge.total else gauge.format_state()
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=gauge.total or 1, state=state)
            self._progress.update(self._tasks[name], completed=gauge.done, total=gauge.total or 1, state=state)

    def note(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False)

    def close(self, gauges: Mapping[str, StageProgress]) -> None:
        self.refresh(gauges)
        self._progress.stop()


class NoDisplay:
    """Shows no progress, and only what a user must know."""

    def refresh(self, gauges: Mapping[str, StageProgress]) -> None:
        pass

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self, gauges: Mapping[str, StageProgress]) -> None:
        pass


class LastingDisplay:
    """A display that goes silent when its terminal or pipe is gone, so that the run does not end for it."""

    def __init__(self, display: ProgressDisplay) -> None:
        self._display: ProgressDisplay | None = display

    def refresh(self, gauges: Mapping[str, StageProgress]) -> None:
        self._try(lambda display: display.refresh(gauges))

    def note(self, text: str) -> None:
        self._try(lambda display: display.note(text))

    def close(self, gauges: Mapping[str, StageProgress]) -> None:
        self._try(lambda display: display.close(gauges))

    def _try(self, show: Callable[[ProgressDisplay], None]) -> None:
        if self._display is not None:
            try:
                show(self._display)
            except OSError:
                self._display = None


def make_display(*, quiet: bool = False) -> ProgressDisplay:
    if quiet:
        return NoDisplay()
    return BarDisplay() if sys.stderr.isatty() else PlainDisplay(sys.stderr)


class RunLog:
    """The log runs/*.jsonl: one JSON line per event."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}-{socket.gethostname()}-{os.getpid()}"
        self.board_path = folder / f".{self.name}.board"
        self._stream = open(folder / f"{self.name}.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def write_event(self, kind: str, **values: Any) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **values}
        self._stream.write(redact(json.dumps(line, ensure_ascii=False)) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()
        self.board_path.unlink(missing_ok=True)
