"""Batches and class centres sharded over processes. With a world size of 1 no process group is needed.

Every process computes the same loss of the whole batch, usually from its own shard of the classes. The gradient of a sum
over processes is therefore passed through unchanged, and the gradient of an embedding is summed over all processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function


def class_range(classes: int, rank: int, world_size: int) -> range:
    """A process's contiguous range of classes. The first `classes % world` processes get one more (as in arcface_torch)."""
    start = classes // world_size * rank + min(rank, classes % world_size)
    return range(start, start + classes // world_size + (rank < classes % world_size))


def gather_batch(embedded: Tensor, rank: int, world_size: int, *, whole: bool = False) -> Tensor:
    """Gather (n, d) from each process into (world * n, d) in all of them; n must be equal everywhere.

    The backward pass multiplies the gradient by `world`, because data-parallel training averages over processes.
    With `whole`, each process computes the full gradient rather than the part from its own classes.
    """
    return embedded if world_size == 1 else _gather(embedded, rank, world_size, whole)


def gather_labels(labels: Tensor, world_size: int) -> Tensor:
    """Gather (n,) from each process into (world * n,)."""
    if world_size == 1:
        return labels
    parts = [torch.empty_like(labels) for _ in range(world_size)]
    distributed.all_gather(parts, labels.contiguous())
    return torch.cat(parts)


def all_reduce_sum(value: Tensor, world_size: int) -> Tensor:
    """The sum over all processes, available in each."""
    return value if world_size == 1 else _sum(value)


def sharded_cross_entropy(logits: Tensor, targets: Tensor, world_size: int) -> Tensor:
    """Mean softmax cross-entropy of (n, own classes) logits. Target -1 means that another process has the class."""
    if world_size == 1:
        return torch.nn.functional.cross_entropy(logits, targets)
    return _cross_entropy(logits, targets)


def gather_rows(rows: Tensor, classes: int, world_size: int) -> Tensor:
    """Gather the rows of all classes on the CPU of every process. All processes must call this."""
    if world_size == 1:
        return rows.detach().cpu().clone()
    sizes = [len(class_range(classes, rank, world_size)) for rank in range(world_size)]
    padded = rows.new_zeros((sizes[0], *rows.shape[1:]))  # the first shard is the largest
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in range(world_size)]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size].cpu() for part, size in zip(parts, sizes, strict=True)])


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, embedded: Tensor, rank: int, world_size: int, whole: bool) -> Tensor:
        ctx.rank, ctx.world, ctx.whole = rank, world_size, whole
        parts = [torch.empty_like(embedded, memory_format=torch.contiguous_format) for _ in range(world_size)]
        distributed.all_gather(parts, embedded.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if not ctx.whole:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            distributed.all_reduce(gradient)
        return gradient.chunk(ctx.world)[ctx.rank] * ctx.world, None, None, None


class _AllReduceSumLocalGrad(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _CrossEntropy(Function):
    """Keeps only one matrix of the size of the logits; a million identities leave no room for more."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        here = targets >= 0
        rows, columns = here.nonzero()[:, 0], targets[here]
        if logits.shape[1]:
            top = logits.amax(1, keepdim=True)
        else:
            top = logits.new_full((len(logits), 1), -torch.inf)
        distributed.all_reduce(top, distributed.ReduceOp.MAX)
        shifted = logits - top
        target = torch.zeros_like(top)
        target[rows, 0] = shifted[rows, columns]
        probabilities = shifted.exp_()
        total = probabilities.sum(1, keepdim=True)
        distributed.all_reduce(target)
        distributed.all_reduce(total)
        ctx.save_for_backward(probabilities.div_(total), rows, columns)
        return (total.log() - target).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        probabilities, rows, columns = ctx.saved_tensors
        result = probabilities.clone()
        result[rows, columns] -= 1
        return result.mul_(gradient / len(result)), None


# `apply` is untyped in torch
_gather: Callable[[Tensor, int, int, bool], Tensor] = _Gather.apply
_sum: Callable[[Tensor], Tensor] = _AllReduceSumLocalGrad.apply
_cross_entropy: Callable[[Tensor, Tensor], Tensor] = _CrossEntropy.apply
