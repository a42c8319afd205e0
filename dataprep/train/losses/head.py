"""Heads whose rows belong to classes, each process holding some of the classes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dataprep.errors import ModelError, RecordError
from dataprep.train.distributed.collectives import class_range, gather_batch, gather_labels, gather_rows


class ClassificationHead(nn.Module):
    """Embeddings and labels to a loss.

    With `world` processes each holds the rows of its own classes (`shard`): all parameters, and the buffers named by
    `by_class`. They are not to be averaged over the processes. What is saved holds all classes, whatever the world was.
    """

    by_class: tuple[str, ...] = ()
    whole = False  # whether each process computes all of the gradient, not its classes' part
    labels_known = False  # whether the caller has checked all labels that will come

    def __init__(self, classes: int, *, rank: int = 0, world_size: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.classes, self.rank, self.world, self.seed = classes, rank, world_size, seed
        self.own = class_range(classes, rank, world_size)
        self.step = 0  # training steps so far; with the seed it decides what is drawn

    def forward(self, embedded: Tensor, labels: Tensor) -> Tensor:
        """(n, d) and (n,) to the mean loss of the batch: float32 whatever autocast says, float64 from float64.

        Every process passes its part of the batch, all equally many, and gets the loss of the whole. The gradient of
        `embedded` is then `world` times that of the loss: averaged over the processes, as data-parallel training does,
        the backbone's gradient is right. Raises RecordError for a label that is not among the classes.
        """
        with torch.autocast(embedded.device.type, enabled=False):
            if embedded.dtype != torch.float64:
                embedded = embedded.float()
            labels = gather_labels(labels.long(), self.world)
            self.check_labels(labels)
            loss = self.loss(gather_batch(embedded, self.rank, self.world, whole=self.whole), labels)
        if self.training:
            self.step += 1
        return loss

    @abstractmethod
    def loss(self, embedded: Tensor, labels: Tensor) -> Tensor:
        """The same for the whole batch, its embeddings and labels gathered from all processes."""

    def full_state(self) -> dict[str, Tensor]:
        """All that the head knows, with the rows of all classes, on the CPU. Every process must call it."""
        named = set(dict(self.named_parameters())) | set(self.by_class)
        state = {
            name: gather_rows(value, self.classes, self.world) if name in named else value.detach().cpu().clone()
            for name, value in self.state_dict().items()
        }
        return {**state, "step": torch.tensor(self.step)}

    def load_full_state(self, state: dict[str, Tensor]) -> None:
        """What `full_state` gave, under any world. Raises ModelError where it is of another head."""
        named = set(dict(self.named_parameters())) | set(self.by_class)
        own = self.state_dict()
        if set(state) != {*own, "step"}:
            raise ModelError(
                f"the head saved holds {', '.join(sorted(state))}; this one {', '.join(sorted({*own, 'step'}))}: "
                "--loss is another, --fresh starts over"
            )
        for name, value in own.items():
            whole = (self.classes, *value.shape[1:]) if name in named else tuple(value.shape)
            if tuple(state[name].shape) != whole:
                raise ModelError(
                    f"the head saved has `{name}` as {tuple(state[name].shape)}, this one as {whole}: identities or "
                    "embedding are others, --fresh starts over"
                )
        rows = slice(self.own.start, self.own.stop)
        self.load_state_dict({name: state[name][rows] if name in named else state[name] for name in own})
        self.step = int(state["step"])

    def full_optimizer_state(self, optimizer: Optimizer) -> dict[str, dict[str, Any]]:
        """What the optimiser keeps for each parameter (momentum and the like), with the rows of all classes.

        Every process must call it.
        """
        return {
            name: {
                slot: gather_rows(value, self.classes, self.world) if _by_row(value, parameter) else value
                for slot, value in sorted(optimizer.state[parameter].items())
            }
            for name, parameter in self.named_parameters()
            if parameter in optimizer.state
        }

    def load_full_optimizer_state(self, optimizer: Optimizer, slots: dict[str, dict[str, Any]]) -> None:
        """What `full_slots` gave, under any world; `optimizer` has this head's parameters."""
        rows = slice(self.own.start, self.own.stop)
        for name, parameter in self.named_parameters():
            if name in slots:
                optimizer.state[parameter] = {
                    slot: value[rows].to(parameter.device, copy=True)
                    if isinstance(value, Tensor) and value.ndim and value.shape[1:] == parameter.shape[1:]
                    else value
                    for slot, value in slots[name].items()
                }

    def check_labels(self, labels: Tensor) -> None:
        """Raises RecordError for a label of no class; no process would own it, and its loss would be a constant. Nothing is
        looked at where `labels_known`: on a GPU each look would wait for all that is queued."""
        if self.labels_known:
            return
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if len(wrong):
            raise RecordError(
                f"label {int(wrong[0])} is not among 0..{self.classes - 1}, the identities that the head was made for: "
                "`dataprep verify` finds what is wrong with the pack"
            )


def init_rows(own: range, *shape: int, seed: int, std: float = 0.01) -> Tensor:
    """Normal random numbers for the classes `own`, (len(own), *shape); a class has the same under any world."""
    rows = torch.empty(len(own), *shape)
    for block in range(own.start // _BLOCK, (own.stop - 1) // _BLOCK + 1 if len(own) else 0):
        drawn = torch.randn(_BLOCK, *shape, generator=seeded_generator(seed, block)) * std
        first, last = max(own.start, block * _BLOCK), min(own.stop, (block + 1) * _BLOCK)
        rows[first - own.start : last - own.start] = drawn[first - block * _BLOCK : last - block * _BLOCK]
    return rows


def seeded_generator(*seeds: int) -> torch.Generator:
    """A generator on the CPU that depends on nothing but the seeds."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1))


_BLOCK = 1024  # rows drawn at once


def _by_row(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape
