"""Batch norm whose statistics are those of the images of all processes, on CPUs (gloo) and GPUs (nccl) alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every batch norm by one over all processes, in place; names and weights stay. (torch's own is for GPUs.)"""
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(module, name, _Shared(child))
        else:
            convert_sync_batchnorm(child)
    return module


class _Shared(nn.BatchNorm2d):
    """Forward in training: sums are taken over the processes, their gradients too."""

    def __init__(self, one: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__(one.num_features, one.eps, one.momentum, one.affine, one.track_running_stats)
        self._parameters, self._buffers = one._parameters, one._buffers
        self.train(one.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # (n, c) and (n, c, h, w)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        wide = input if input.dtype == torch.float64 else input.float()
        count = wide.numel() // wide.shape[1] * dist.get_world_size()  # all processes have equally many images
        mean = _sum(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count  # in a second pass: the difference of sums would cancel
        self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _AllReduceSum(Function):
    """The sum over all processes, each of which goes on with it: the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


_sum: Callable[[Tensor], Tensor] = _AllReduceSum.apply  # torch leaves `apply` untyped
