"""What margins do to the cosine between an embedding and the centre of its own class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dataprep.train.losses.options import MarginTriple


class Margin(nn.Module):
    """(n,) cosines of the own class and (n,) lengths of the embeddings to (n,) cosines with margin.

    All cosines, of the own class and of the others, are clipped to `bound` before.
    """

    bound = 1.0

    def forward(self, cosine: Tensor, lengths: Tensor) -> Tensor:
        raise NotImplementedError


class CombinedMargin(Margin):
    """cos(m1 * theta + m2) - m3 (Deng et al. 2019, eq. 4), falling in theta over all of 0..pi; see `psi`."""

    def __init__(self, margins: MarginTriple) -> None:
        super().__init__()
        self.m1, self.m2, self.m3 = margins

    def forward(self, cosine: Tensor, lengths: Tensor) -> Tensor:
        if (self.m1, self.m2) == (1.0, 0.0):
            return cosine - self.m3
        return psi(self.m1 * safe_arccos(cosine) + self.m2) - self.m3


class AdaFaceMargin(Margin):
    """Kim et al. 2022 (arXiv:2204.00964), as its authors' head.py: blurred faces have short embeddings, and for them the
    margin is on the cosine; for long ones it is on the angle.

    `mean` and `std` of the lengths run over the batches; `t_alpha` is the new batch's weight.
    """

    mean: Tensor
    std: Tensor
    eps = 1e-3
    bound = 1.0 - eps

    def __init__(self, m: float, h: float, t_alpha: float) -> None:
        super().__init__()
        self.m, self.h, self.t_alpha = m, h, t_alpha
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("std", torch.tensor(100.0))

    def forward(self, cosine: Tensor, lengths: Tensor) -> Tensor:
        lengths = lengths.detach().clamp(0.001, 100)
        if self.training and len(lengths) > 1:  # one length has no deviation
            self.mean.lerp_(lengths.mean().to(self.mean), self.t_alpha)
            self.std.lerp_(lengths.std().to(self.std), self.t_alpha)
        quality = ((lengths - self.mean) / (self.std + self.eps) * self.h).clamp(-1, 1)
        theta = (safe_arccos(cosine) - self.m * quality).clamp(self.eps, math.pi - self.eps)
        return torch.cos(theta) - (self.m + self.m * quality)


def safe_arccos(cosine: Tensor) -> Tensor:
    """arccos with a finite slope: the ends are one float away, where it is 2e3 in float32 rather than infinite."""
    end = 1 - torch.finfo(cosine.dtype).eps
    return torch.arccos(cosine.clamp(-end, end))


def psi(angle: Tensor) -> Tensor:
    """The cosine of an angle, made to fall for ever: (-1)**k * cos(angle) - 2 * k, k = floor(angle / pi).

    Liu et al. 2017 (arXiv:1704.08063, sec. 3.2) for SphereFace. It is continuous, and its slope in the angle is -|sin|, so
    that no face is pushed away from its own identity where a margin takes the angle past pi.
    """
    turns = torch.floor(angle.detach() / math.pi)
    sign = 1 - 2 * torch.remainder(turns, 2)
    return sign * torch.cos(angle) - 2 * turns
