"""Batch norm with statistics over the images of all processes, on CPUs (gloo) and GPUs (nccl)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Make every batch norm synchronised, in place. Names and weights are kept. (torch's SyncBatchNorm needs a GPU.)"""
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(module, name, _Shared(child))
        else:
            convert_sync_batchnorm(child)
    return module


class _Shared(nn.BatchNorm2d):
    """In training, sums over the batch and their gradients are reduced over all processes."""

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
        count = wide.numel() // wide.shape[1] * dist.get_world_size()  # all processes have the same number of images
        mean = _sum(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count  # in a second pass: E[x^2] - E[x]^2 would cancel
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
    """Sum over all processes. Each process uses the sum, so the gradient is summed over them too."""

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


_sum: Callable[[Tensor], Tensor] = _AllReduceSum.apply  # `apply` is untyped in torch
