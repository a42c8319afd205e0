"""The training loop. A run that is stopped at any step and resumed gives the same losses."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataprep.errors import DataprepError, Interrupted, ModelError
from dataprep.interrupts import stop_requests
from dataprep.storage import Folder, lock_directory
from dataprep.train.callback import VerificationCallback
from dataprep.train.config import TrainParams
from dataprep.train.data.loader import iterate_batches, normalise_batch
from dataprep.train.distributed.process_group import join_world
from dataprep.train.metrics_log import MetricsLog, open_metrics_log
from dataprep.train.optim import learning_rate
from dataprep.train.session import TrainerState, build_trainer_state, epoch_order, resolve_augmentation

_RESULTS = ("checkpoint.pt", "checkpoint-previous.pt", "model.pt", "best.pt")
RUN_FILES = (*_RESULTS, "config.json", "log.jsonl", "validation.jsonl")
_UNREAD = 16  # limit of unread losses on a GPU: reading one waits for all work queued before it


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """Progress of a run, for display. `scores` holds accuracies by verification set, right after a verification."""

    step: int
    steps: int
    epoch: int
    loss: float
    images_per_second: float
    seconds_left: float
    scores: dict[str, float] | None = None


def train(
    packs: Sequence[Path] | Callable[[], Sequence[Path]],
    target: Path,
    params: TrainParams,
    *,
    pretrained: Path | None = None,
    overwrite: bool = False,
    validate: VerificationCallback | None = None,
    report: Callable[[TrainingProgress], None] = lambda progress: None,
) -> dict[str, Any] | None:
    """Train to the end, resuming any run in `target`. The first process returns the metadata stored in model.pt.

    `packs` are pack folders, read as one, or a function that returns them and is called in the first process only.
    Under torchrun each process calls this function; the first one writes and reports. Ctrl-C and SIGTERM save a checkpoint
    and raise Interrupted. Raises ModelError, RecordError or UsageError if settings, checkpoint or packs do not fit.
    """
    folder = Folder(target)
    with join_world(params.device) as (world, device), ExitStack() as stack:
        world.run_once(lambda: stack.enter_context(lock_directory(target, "the model")))
        world.run_once(folder.remove_leftovers)
        folders = world.run_once(packs) if callable(packs) else packs
        session = build_trainer_state(folders, params, pretrained=pretrained, world=world, device=device)
        if validate is not None:
            world.run_once(partial(validate.check, session.preprocessing))
        world.run_once(lambda: _prepare(folder, session.identity, overwrite=overwrite))
        session.resume(folder)
        world.run_once(lambda: folder.put_json("config.json", session.identity))
        try:
            return _TrainingRun(session, folder, validate, report).go()
        except torch.OutOfMemoryError:
            raise ModelError(
                f"{device} ran out of memory; the last checkpoint is kept",
                hint="lower --batch-size, or raise --accumulate to process each step's batch in smaller parts",
            ) from None


class _TrainingRun:
    def __init__(
        self,
        session: TrainerState,
        folder: Folder,
        validate: VerificationCallback | None,
        report: Callable[[TrainingProgress], None],
    ) -> None:
        self._session, self._folder, self._validate, self._report = session, folder, validate, report
        self._world = session.world
        self._unread: list[tuple[int, Tensor, float]] = []  # step, loss, learning rate
        self._mean = math.nan
        self._first, self._began = session.step, time.monotonic()

    def go(self) -> dict[str, Any] | None:
        session, params = self._session, self._session.params
        session.train_mode()
        with _stop_requested() as stop, self._curves() as drawn:
            while session.step < session.steps:
                epoch, skip = divmod(session.step, session.steps_per_epoch)
                for images, labels in self._agreed(prefetch_to_device(session, epoch=epoch, skip=skip), stop, drawn):
                    rate = learning_rate(params, session.step, session.steps)
                    self._unread.append((session.step + 1, session.take_step(images, labels, rate), rate))
                    self._show(drawn)
                    if session.step % params.validate_every == 0:
                        self._score(drawn)
                    if session.step % params.checkpoint_every == 0:
                        self._save(drawn)
            self._save(drawn)
            if self._validate is not None and session.best.scored != session.step:
                self._score(drawn)
                self._save(drawn)
        session.finish(self._folder)
        return session.about if self._world.is_first else None

    def _agreed(
        self, stream: Iterator[tuple[Tensor, Tensor]], stop: threading.Event, drawn: MetricsLog | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches until any process is asked to stop or fails to read its share."""
        while True:
            batch, error = None, None
            try:
                batch = next(stream, None)
            except DataprepError as raised:
                error = raised
            if self._world.agree(stop=stop.is_set(), error=error):
                self._save(drawn)
                done = f"stopped after step {self._session.step} of {self._session.steps}"
                self._world.agree(error=Interrupted(done, hint="run the same command again to resume"))
            if batch is None:
                return
            yield batch

    def _show(self, drawn: MetricsLog | None) -> None:
        """Read the losses (only every few steps on a GPU) and report progress."""
        session = self._session
        waits = len(self._unread) < _UNREAD and self._first + 1 < session.step < session.steps
        if session.device.type == "cuda" and waits:
            return
        self._read(drawn)
        if drawn is None:
            return
        spent = max(time.monotonic() - self._began, 1e-9)
        rate = (session.step - self._first) * session.params.batch_size / spent
        drawn.log_speed(session.step, rate)
        self._report(self._progress(rate))

    def _progress(self, rate: float, scores: dict[str, float] | None = None) -> TrainingProgress:
        session = self._session
        return TrainingProgress(
            step=session.step,
            steps=session.steps,
            epoch=(session.step - 1) // session.steps_per_epoch,
            loss=self._mean,
            images_per_second=rate,
            seconds_left=(session.steps - session.step) * session.params.batch_size / rate if rate else math.inf,
            scores=scores,
        )

    def _read(self, drawn: MetricsLog | None) -> None:
        """Log the unread losses. Raises ModelError in all processes if a loss is not finite."""
        for step, loss, rate in self._unread:
            value = float(loss)
            if not math.isfinite(value):
                self._unread.clear()
                self._world.agree(error=_diverged(value, step, self._session.params))
            self._mean = value if math.isnan(self._mean) else 0.95 * self._mean + 0.05 * value
            if drawn is not None:
                drawn.log_step(step, epoch=(step - 1) // self._session.steps_per_epoch, loss=value, rate=rate)
        self._unread.clear()

    def _score(self, drawn: MetricsLog | None) -> None:
        if self._validate is None:
            return
        self._read(drawn)
        session, validate = self._session, self._validate
        before = time.monotonic()
        session.sync_buffers()
        scores = self._world.run_once(lambda: dict(validate(session.result.eval(), session.preprocessing)))
        session.train_mode()
        if session.best.improves(scores, session.step) and self._world.is_first:
            session.save_model(self._folder, "best.pt", accuracy=scores)
        if drawn is not None:
            drawn.log_scores(session.step, scores)
            self._report(self._progress(0.0, scores))
        self._began += time.monotonic() - before  # leave verification out of the speed

    def _save(self, drawn: MetricsLog | None) -> None:
        self._read(drawn)
        self._session.save(self._folder)

    @contextmanager
    def _curves(self) -> Iterator[MetricsLog | None]:
        """The curves in the first process, None in the others."""
        with ExitStack() as stack:
            opened = open_metrics_log(
                self._folder, step=self._session.step, tensorboard=self._session.params.tensorboard
            )
            drawn: list[MetricsLog] = []
            self._world.run_once(lambda: drawn.append(stack.enter_context(opened)))
            yield drawn[0] if drawn else None


def _prepare(folder: Folder, identity: dict[str, Any], *, overwrite: bool) -> None:
    """With `fresh`, remove earlier results. Otherwise raise ModelError if they are of another run."""
    if overwrite:
        for name in RUN_FILES:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    found = folder.get_json("config.json")
    if found is None or found == identity or not any((folder / name).exists() for name in _RESULTS):
        return
    old, new = found.get("params", {}) if isinstance(found, dict) else {}, identity["params"]
    changed = [f"{name} {old.get(name)} -> {value}" for name, value in new.items() if old.get(name) != value]
    if not changed and found.get("pretrained_sha256") != identity["pretrained_sha256"]:
        changed = ["other pretrained weights"]
    what = ", ".join(changed) or "another pack"
    raise ModelError(
        f"{folder.path} holds a run with other settings ({what})",
        hint="use --overwrite to start over, or --name to keep both runs",
    )


def _diverged(value: float, step: int, params: TrainParams) -> ModelError:
    return ModelError(
        f"the loss is {value} at step {step}; the last checkpoint is kept",
        hint=f"lower --lr (now {params.lr}) or raise --warmup",
    )


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """An event that a request to stop sets while the block runs."""
    stop = threading.Event()
    with stop_requests(stop.set):
        yield stop


def prefetch_to_device(session: TrainerState, *, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of an epoch's batches after the first `skip`: normalised images (channels_last), and labels.

    For a GPU, the uint8 images are copied to the device and normalised there.
    """
    params, device = session.params, session.device
    stream = iterate_batches(
        session.source,
        session.preprocessing,
        batch_size=params.batch_size,
        seed=params.seed,
        epoch=epoch,
        skip=skip,
        workers=params.num_workers,
        rank=session.world.rank,
        world_size=session.world.size,
        augment=resolve_augmentation(params),
        order=epoch_order(params, session.source, epoch),
        dtype="uint8" if device.type == "cuda" else "float32",
    )
    for images, labels in stream:
        moved = images.to(device, non_blocking=True)
        if moved.dtype == torch.uint8:
            moved = normalise_batch(moved, session.preprocessing)
        yield moved.contiguous(memory_format=torch.channels_last), labels.to(device, non_blocking=True)
