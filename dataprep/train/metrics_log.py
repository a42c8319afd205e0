"""Logs of loss and verification accuracy by step: always as JSON lines, optionally for TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from dataprep.errors import ModelError
from dataprep.storage import Folder


class MetricsLog:
    """log.jsonl has a line for each step, validation.jsonl a line for each verification."""

    def __init__(self, steps: IO[str], scores: IO[str], board: Any) -> None:
        self._steps, self._scores, self._board = steps, scores, board

    def log_step(self, step: int, *, epoch: int, loss: float, rate: float) -> None:
        self._steps.write(json.dumps({"step": step, "epoch": epoch, "loss": loss, "lr": rate}) + "\n")
        self._steps.flush()
        if self._board is not None:
            self._board.add_scalar("train/loss", loss, step)
            self._board.add_scalar("train/lr", rate, step)

    def log_speed(self, step: int, images_per_second: float) -> None:
        if self._board is not None:
            self._board.add_scalar("train/images_per_second", images_per_second, step)

    def log_scores(self, step: int, found: Mapping[str, float]) -> None:
        self._scores.write(json.dumps({"step": step, "accuracy": dict(found)}) + "\n")
        self._scores.flush()
        for name, accuracy in found.items():
            if self._board is not None:
                self._board.add_scalar(f"verification/{name}", accuracy, step)


@contextmanager
def open_metrics_log(folder: Folder, *, step: int, tensorboard: bool) -> Iterator[MetricsLog]:
    """The logs of a run that continues after `step`. Lines that an interrupted run wrote beyond it are removed."""
    board = _board(folder, step) if tensorboard else None
    for name in ("log.jsonl", "validation.jsonl"):
        _cut(folder, name, step)
    try:
        with (
            open(folder / "log.jsonl", "a", encoding="utf-8") as steps,
            open(folder / "validation.jsonl", "a", encoding="utf-8") as scores,
        ):
            yield MetricsLog(steps, scores, board)
    finally:
        if board is not None:
            board.close()


def _cut(folder: Folder, name: str, step: int) -> None:
    path = folder / name
    kept = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            known = json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            break  # a line cut short by a kill is the last one
        if known:
            kept.append(line + "\n")
    folder.put(name, "".join(kept).encode())


def _board(folder: Folder, step: int) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ModelError(
            "the package tensorboard is not installed", hint="pip install 'face-dataprep[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
