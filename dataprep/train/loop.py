"""The training loop: SGD on a margin head, stopped and resumed at any step with the same losses."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from dataprep.errors import Interrupted, ModelError
from dataprep.models.files import Input, build, save_model
from dataprep.storage import Folder
from dataprep.train.heads import MarginHead
from dataprep.train.loader import batches
from dataprep.train.params import PRESETS, TrainParams
from dataprep.train.source import Source, open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is, for the display."""

    step: int
    steps: int
    epoch: int
    loss: float
    images_per_second: float
    seconds_left: float


def train(
    pack_folder: Path,
    target: Path,
    params: TrainParams,
    *,
    fresh: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Train until done, resuming what `target` holds; returns what model.pt says about itself.

    Ctrl-C and SIGTERM save a checkpoint and raise Interrupted. Raises ModelError and RecordError for a configuration,
    a checkpoint or a pack that does not fit.
    """
    folder = Folder(target)
    source = open_source([pack_folder])
    identity = _identity(params, source)
    if fresh:
        for name in ("checkpoint.pt", "model.pt", "config.json", "log.jsonl"):
            (folder / name).unlink(missing_ok=True)
    _check_config(folder, identity)
    run = _Run(source, folder, params, identity)
    folder.put_json("config.json", identity)
    return run.go(report)


class _Run:
    def __init__(self, source: Source, folder: Folder, params: TrainParams, identity: dict[str, Any]) -> None:
        self._folder, self._params, self._identity, self._source = folder, params, identity, source
        self._device = _device(params.device)
        self._input = Input(height=source.height, width=source.width)
        if (source.height, source.width) != (112, 112):
            raise ModelError(f"{params.network} takes 112x112; {source.paths[0]} holds {source.width}x{source.height}")
        torch.manual_seed(params.seed)
        # twice as fast as the default layout on CPUs, and what tensor cores like
        backbone = build(params.network, params.embedding).to(self._device)
        self._backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        self._head = MarginHead(
            params.embedding, source.num_classes, margins=PRESETS[params.loss], scale=params.scale
        ).to(self._device)
        self._parameters = [*self._backbone.parameters(), *self._head.parameters()]
        self._optimizer = torch.optim.SGD(
            self._parameters, lr=0.0, momentum=params.momentum, weight_decay=params.weight_decay
        )
        self._per_epoch = len(source) // params.batch_size
        if not self._per_epoch:
            raise ModelError(f"{len(source)} images do not fill one batch of {params.batch_size}: lower --batch-size")
        self._steps = self._per_epoch * params.epochs
        self._step = 0
        precision = {"auto": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}.get(params.precision)
        self._autocast = precision if self._device.type == "cuda" else None
        self._scaler = torch.amp.GradScaler("cuda", enabled=self._autocast is torch.float16)

    def go(self, report: Callable[[Progress], None]) -> dict[str, Any]:
        self._resume()
        self._backbone.train()
        began, seen, mean = time.monotonic(), 0, 0.0
        with _stop_requested() as stop, self._log() as log:
            while self._step < self._steps:
                epoch, skip = divmod(self._step, self._per_epoch)
                for images, labels in batches(
                    self._source,
                    self._input,
                    batch_size=self._params.batch_size,
                    seed=self._params.seed,
                    epoch=epoch,
                    skip=skip,
                    workers=self._params.workers,
                ):
                    loss = self._train_step(
                        images.to(self._device, memory_format=torch.channels_last), labels.to(self._device)
                    )
                    self._step += 1
                    seen += len(labels)
                    log(self._step, epoch, loss)
                    mean = loss if seen == len(labels) else 0.95 * mean + 0.05 * loss
                    rate = seen / (time.monotonic() - began)
                    left = (self._steps - self._step) * self._params.batch_size / rate
                    report(
                        Progress(
                            step=self._step,
                            steps=self._steps,
                            epoch=epoch,
                            loss=mean,
                            images_per_second=rate,
                            seconds_left=left,
                        )
                    )
                    if stop.is_set() or self._step % self._params.checkpoint_every == 0:
                        self._save_checkpoint()
                    if stop.is_set():
                        raise Interrupted(f"stopped after step {self._step} of {self._steps}; type the same to go on")
            self._save_checkpoint()
        about = {
            **self._identity,
            "pack": str(self._source.paths[0].resolve()),  # so that a test can look for leaks
            "steps": self._steps,
            "identities": self._source.num_classes,
            "images": len(self._source),
        }
        save_model(
            self._folder / "model.pt",
            self._backbone,
            network=self._params.network,
            embedding=self._params.embedding,
            input=self._input,
            about=about,
        )
        return about

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self._step)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None):
            embedded = self._backbone(images)
        loss = functional.cross_entropy(self._head(embedded, labels), labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"the loss is {value} at step {self._step + 1}: lower --lr (now {self._params.lr}) or raise --warmup; "
                "the last checkpoint stands"
            )
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self._params.clip:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters, self._params.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return value

    def _rate(self, step: int) -> float:
        """Linear warm-up, then polynomial decay of power 2 to zero (arcface_torch's schedule)."""
        top = self._params.lr * self._params.batch_size / 128
        warm = int(self._params.warmup * self._steps)
        if step < warm:
            return top * (step + 1) / warm
        return float(top * (1 - (step - warm) / max(1, self._steps - warm)) ** 2)

    def _save_checkpoint(self) -> None:
        content = {
            "identity": json.dumps(self._identity, sort_keys=True),
            "step": self._step,
            "backbone": self._backbone.state_dict(),
            "head": self._head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        with self._folder.writing("checkpoint.pt") as stream:
            torch.save(content, stream)

    def _resume(self) -> None:
        path = self._folder / "checkpoint.pt"
        if not path.exists():
            return
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            self._backbone.load_state_dict(content["backbone"])
            self._head.load_state_dict(content["head"])
            self._optimizer.load_state_dict(content["optimizer"])
            self._scaler.load_state_dict(content["scaler"])
            torch.set_rng_state(content["rng"])
            self._step = content["step"]
        except Exception as error:  # torch.load raises nearly anything for a damaged file
            raise ModelError(f"{path} cannot be resumed ({error}); --fresh starts over") from None

    @contextmanager
    def _log(self) -> Iterator[Callable[[int, int, float], None]]:
        """log.jsonl: one line per step; lines after the step that is resumed from are cut."""
        path = self._folder / "log.jsonl"
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    known = json.loads(line)["step"] <= self._step
                except (ValueError, KeyError):
                    break
                if known:
                    kept.append(line + "\n")
        self._folder.put("log.jsonl", "".join(kept).encode())
        with open(path, "a", encoding="utf-8") as stream:

            def log(step: int, epoch: int, loss: float) -> None:
                stream.write(json.dumps({"step": step, "epoch": epoch, "loss": loss}) + "\n")
                stream.flush()

            yield log


def _identity(params: TrainParams, source: Source) -> dict[str, Any]:
    """What must be equal for a run to go on: the parameters that count, and the pack."""
    return {"params": params.counted(), "source": source.digest()}


def _check_config(folder: Folder, identity: dict[str, Any]) -> None:
    found = folder.get_json("config.json")
    if found is None or found == identity:
        return
    changed = [
        f"{name} {found.get('params', {}).get(name)} -> {value}"
        for name, value in identity["params"].items()
        if found.get("params", {}).get(name) != value
    ]
    what = ", ".join(changed) or "the pack is another one"
    raise ModelError(f"{folder.path} holds a run under other settings ({what}): --fresh starts over, --name keeps both")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: torch {torch.__version__} sees no CUDA device; --device cpu works")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"--device {name}: {str(error).splitlines()[0]}") from None


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """Set by Ctrl-C or SIGTERM within the block."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
