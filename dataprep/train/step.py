"""One step of the optimiser: forward, loss, backward, clip, update."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from dataprep.errors import ModelError
from dataprep.train.config import TrainParams
from dataprep.train.distributed.process_group import World
from dataprep.train.optim import clip_gradients, gradient_norm, share_overflow


def choose_precision(params: TrainParams, device: torch.device) -> torch.dtype | None:
    """The autocast dtype of the backbone, or None for float32 without autocast. Raises ModelError."""
    if params.precision == "fp32" or (params.precision == "auto" and device.type == "cpu"):
        return None
    if params.precision == "fp16":
        if device.type == "cpu":
            raise ModelError("fp16 needs a GPU", hint="use --precision fp32 or bf16 on a CPU")
        return torch.float16
    return torch.bfloat16


class TrainStep:
    """Trains `backbone` (possibly wrapped or compiled) and `head` together.

    With `accumulate`, a batch is processed in parts. The gradient is that of the mean loss; batch norm sees single parts.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        optimizer: torch.optim.Optimizer,
        params: TrainParams,
        world: World,
        device: torch.device,
    ) -> None:
        self._backbone, self._head, self._optimizer = backbone, head, optimizer
        self._params, self._world, self._device = params, world, device
        self._precision = choose_precision(params, device)
        self._frozen = params.train == "head"
        self._shared = [] if self._frozen else list(backbone.parameters())
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=self._precision is torch.float16, growth_interval=params.growth_interval
        )

    def __call__(self, images: Tensor, labels: Tensor, *, rate: float) -> Tensor:
        """Take a step. Returns the mean loss over all processes, on the device and without synchronising."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        self._optimizer.zero_grad(set_to_none=True)
        parts = self._params.accumulate
        total: Tensor | None = None
        for number, (some, theirs) in enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True), 1):
            with self._unsynchronised() if number < parts else contextlib.nullcontext():
                loss = self._head(self._embed(some), theirs) / parts
                self._scaled(loss).backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
        self._update()
        assert total is not None
        return total

    def _embed(self, images: Tensor) -> Tensor:
        with (
            torch.autocast(self._device.type, dtype=self._precision, enabled=self._precision is not None),
            torch.set_grad_enabled(not self._frozen),
        ):
            embedded: Tensor = self._backbone(images)
        return embedded

    def _update(self) -> None:
        own = list(self._head.parameters())
        everything = [*self._shared, *own]
        if self._params.clip or self.scaler.is_enabled():
            norm = gradient_norm(self._shared, own, self._world)
            if self.scaler.is_enabled():
                share_overflow(everything, norm)
                self.scaler.unscale_(self._optimizer)
                norm = norm / self.scaler.get_scale()
            if self._params.clip:
                self._clip(everything, norm)
        self.scaler.step(self._optimizer)
        self.scaler.update()

    def _clip(self, everything: list[nn.Parameter], norm: Tensor) -> None:
        """Clip gradients of the given norm, or the backbone's alone by its own norm, which is equal in all processes."""
        if self._params.clip_scope == "all":
            clip_gradients(everything, norm, self._params.clip)
        elif self._shared:
            clip_gradients(self._shared, gradient_norm(self._shared, [], World()), self._params.clip)

    def _scaled(self, loss: Tensor) -> Tensor:
        scaled: Tensor = self.scaler.scale(loss)
        return scaled

    def _unsynchronised(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which gradients are not averaged over processes, for all parts but the last."""
        skip = getattr(self._backbone, "no_sync", contextlib.nullcontext)
        found: contextlib.AbstractContextManager[Any] = skip()
        return found
