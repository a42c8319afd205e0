"""The base of heads with a row for each class, sharded over processes by class."""

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
    """Computes a loss from embeddings and labels.

    With `world` processes, each holds the rows of its own classes (`shard`) of all parameters and of the buffers named in
    `by_class`. These must not be averaged over processes. A saved state holds all classes, for any number of processes.
    """

    by_class: tuple[str, ...] = ()
    whole = False  # whether each process computes the full gradient, not only its classes' part
    labels_known = False  # whether the caller has already checked all labels

    def __init__(self, classes: int, *, rank: int = 0, world_size: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.classes, self.rank, self.world, self.seed = classes, rank, world_size, seed
        self.own = class_range(classes, rank, world_size)
        self.step = 0  # training steps so far; seed and step determine all random draws

    def forward(self, embedded: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of (n, d) embeddings and (n,) labels: in float32 even under autocast, or float64 for float64 input.

        Every process passes the same number of images and gets the loss of the whole batch. The gradient of `embedded` is
        `world` times that of the loss, so that data-parallel training, which averages over processes, gives the backbone
        the right gradient. Raises RecordError for a label outside the classes.
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
        """The loss of the whole batch, from embeddings and labels gathered over all processes."""

    def full_state(self) -> dict[str, Tensor]:
        """The state of the head with the rows of all classes, on the CPU. Every process must call this."""
        named = set(dict(self.named_parameters())) | set(self.by_class)
        state = {
            name: gather_rows(value, self.classes, self.world) if name in named else value.detach().cpu().clone()
            for name, value in self.state_dict().items()
        }
        return {**state, "step": torch.tensor(self.step)}

    def load_full_state(self, state: dict[str, Tensor]) -> None:
        """Load the result of `full_state`, from any number of processes. Raises ModelError if it is of another head."""
        named = set(dict(self.named_parameters())) | set(self.by_class)
        own = self.state_dict()
        if set(state) != {*own, "step"}:
            raise ModelError(
                f"the saved head is of another loss: it holds {', '.join(sorted(state))}, this one "
                f"{', '.join(sorted({*own, 'step'}))}",
                hint="use --overwrite to start over",
            )
        for name, value in own.items():
            whole = (self.classes, *value.shape[1:]) if name in named else tuple(value.shape)
            if tuple(state[name].shape) != whole:
                raise ModelError(
                    f"the saved head has `{name}` of shape {tuple(state[name].shape)}, this one of shape {whole}: the "
                    "identities or the embedding differ",
                    hint="use --overwrite to start over",
                )
        rows = slice(self.own.start, self.own.stop)
        self.load_state_dict({name: state[name][rows] if name in named else state[name] for name in own})
        self.step = int(state["step"])

    def full_optimizer_state(self, optimizer: Optimizer) -> dict[str, dict[str, Any]]:
        """The optimiser state of each parameter (such as momentum), with the rows of all classes.

        Every process must call this.
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
        """Load the result of `full_slots`, from any number of processes, into the optimiser of this head's parameters."""
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
        """Raises RecordError for a label outside the classes: no process would own it and its loss would be constant.
        Skipped if `labels_known`: on a GPU the check would wait for all queued work."""
        if self.labels_known:
            return
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if len(wrong):
            raise RecordError(
                f"label {int(wrong[0])} is not among 0..{self.classes - 1}, the identities of the head",
                hint="run `dataprep verify` to check the pack",
            )


def init_rows(own: range, *shape: int, seed: int, std: float = 0.01) -> Tensor:
    """Normal random rows for the classes `own`, (len(own), *shape). They do not depend on the number of processes."""
    rows = torch.empty(len(own), *shape)
    for block in range(own.start // _BLOCK, (own.stop - 1) // _BLOCK + 1 if len(own) else 0):
        drawn = torch.randn(_BLOCK, *shape, generator=seeded_generator(seed, block)) * std
        first, last = max(own.start, block * _BLOCK), min(own.stop, (block + 1) * _BLOCK)
        rows[first - own.start : last - own.start] = drawn[first - block * _BLOCK : last - block * _BLOCK]
    return rows


def seeded_generator(*seeds: int) -> torch.Generator:
    """A generator on the CPU that depends only on the seeds."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1))


_BLOCK = 1024  # rows drawn at once


def _by_row(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape
