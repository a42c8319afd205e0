"""Training progress: a bar on a terminal, a line every ten seconds elsewhere, and an optional log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from dataprep.cli._options import is_quiet
from dataprep.errors import UsageError

if TYPE_CHECKING:
    from dataprep.train.trainer import TrainingProgress

_LINE_EVERY = 10.0  # seconds


class TrainingDisplay:
    """Shows each progress report of a training run; verification results stay on the screen."""

    def __init__(self, log: IO[str] | None) -> None:
        self._quiet = is_quiet()
        self._live, self._log = sys.stderr.isatty() and not self._quiet, log
        self._bar: Any = None
        self._next = 0.0

    def show(self, progress: TrainingProgress) -> None:
        if progress.scores is not None:
            found = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in progress.scores.items())
            self._line(f"step {progress.step}: {found}")
            return
        now = time.monotonic()
        due = now >= self._next or progress.step == progress.steps
        if self._live:
            self._draw(progress)
        if due:
            self._next = now + _LINE_EVERY
            self._line(_words(progress), screen=not self._live)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _line(self, text: str, *, screen: bool = True) -> None:
        if self._log is not None:
            self._log.write(f"{datetime.now().isoformat(' ', 'seconds')} {text}\n")
            self._log.flush()
        if screen and self._bar is not None:
            self._bar.console.print(text, highlight=False)
        elif screen and not self._quiet:
            click.echo(text, err=True)

    def _draw(self, progress: TrainingProgress) -> None:
        if self._bar is None:
            self._bar = _bar()
            self._bar.start()
            self._bar.add_task("train", total=progress.steps, epoch=1, loss="", rate="", left="")
        self._bar.update(
            self._bar.task_ids[0],
            completed=progress.step,
            epoch=progress.epoch + 1,
            loss=f"{progress.loss:.3f}",
            rate=f"{progress.images_per_second:.0f}",
            left=_clock(progress.seconds_left),
        )


@contextmanager
def open_display(log: Path | None) -> Iterator[TrainingDisplay]:
    """A display that also appends to the file `log`. Raises UsageError if `log` cannot be written."""
    try:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        stream = None if log is None else open(log, "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"--log {log}: {error.strerror}") from None
    display = TrainingDisplay(stream)
    try:
        yield display
    finally:
        display.close()
        if stream is not None:
            stream.close()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("epoch {task.fields[epoch]}  loss {task.fields[loss]}  {task.fields[rate]} images/s"),
        TextColumn("ETA {task.fields[left]}"),
        console=Console(file=sys.__stderr__),  # see cli/_streams.py
        refresh_per_second=4,
    )


def _words(progress: TrainingProgress) -> str:
    return (
        f"step {progress.step}/{progress.steps} epoch {progress.epoch + 1} loss {progress.loss:.3f} "
        f"{progress.images_per_second:.0f} images/s ETA {_clock(progress.seconds_left)}"
    )


def _clock(seconds: float) -> str:
    left = int(min(seconds, 359_999))
    return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}" if left >= 3600 else f"{left // 60}:{left % 60:02}"
