"""Margins on the cosine between an embedding and the centre of its own class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dataprep.errors import UsageError
from dataprep.train.losses.options import MarginTriple


class Margin(nn.Module):
    """Maps (n,) cosines of the own class and (n,) embedding norms to (n,) cosines with margin.

    All cosines, including those of other classes, are clipped to `bound` first.
    """

    bound = 1.0

    def forward(self, cosine: Tensor, lengths: Tensor) -> Tensor:
        raise NotImplementedError


class CombinedMargin(Margin):
    """cos(m1 * theta + m2) - m3 (Deng et al. 2019, eq. 4), made monotonic over theta in 0..pi; see `psi`."""

    def __init__(self, margins: MarginTriple) -> None:
        super().__init__()
        self.m1, self.m2, self.m3 = margins

    def forward(self, cosine: Tensor, lengths: Tensor) -> Tensor:
        if (self.m1, self.m2) == (1.0, 0.0):
            return cosine - self.m3
        return psi(self.m1 * safe_arccos(cosine) + self.m2) - self.m3


class StraightThroughMargin(Margin):
    """arcface_torch's margin (losses.py, CombinedMarginLoss, at 7fadd420): the values of its loss, and its gradient.

    It takes the arccos without gradient, so that the own cosine's gradient is that of the plain cosine: a slope of 1 where
    the loss has 1.154 at cos 0.5 and 0.601 at -0.5 (m2 = 0.5). Past pi the cosine rises again. With m3 > 0 it subtracts m3
    alone, and drops m1 and m2. All this is so that curves can be compared; `CombinedMargin` is the published formula.
    """

    def __init__(self, margins: MarginTriple) -> None:
        super().__init__()
        self.m1, self.m2, self.m3 = margins
        if self.m1 != 1.0 and not self.m3:
            raise UsageError(
                f"arcface_torch has no margin with m1 = {self.m1:g}",
                hint="leave out --arcface-gradient, or choose --m1 1",
            )

    def forward(self, cosine: Tensor, lengths: Tensor) -> Tensor:
        if self.m3:
            return cosine - self.m3
        moved = torch.cos(torch.arccos(cosine.detach().clamp(-1, 1)) + self.m2)
        return cosine + (moved - cosine.detach())


class AdaFaceMargin(Margin):
    """AdaFace (Kim et al. 2022, arXiv:2204.00964), following the authors' head.py.

    Blurred faces have embeddings of small norm. The margin is on the cosine for small norms and on the angle for large
    ones. `mean` and `std` are running statistics of the norms; `t_alpha` is the weight of a new batch.
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
        if self.training and len(lengths) > 1:  # a single norm has no standard deviation
            self.mean.lerp_(lengths.mean().to(self.mean), self.t_alpha)
            self.std.lerp_(lengths.std().to(self.std), self.t_alpha)
        quality = ((lengths - self.mean) / (self.std + self.eps) * self.h).clamp(-1, 1)
        theta = (safe_arccos(cosine) - self.m * quality).clamp(self.eps, math.pi - self.eps)
        return torch.cos(theta) - (self.m + self.m * quality)


def safe_arccos(cosine: Tensor) -> Tensor:
    """arccos with the input clamped one epsilon inside +-1, where its slope is 2e3 in float32 instead of infinite."""
    end = 1 - torch.finfo(cosine.dtype).eps
    return torch.arccos(cosine.clamp(-end, end))


def psi(angle: Tensor) -> Tensor:
    """The cosine, continued as a decreasing function: (-1)**k * cos(angle) - 2 * k, where k = floor(angle / pi).

    From SphereFace (Liu et al. 2017, arXiv:1704.08063, sec. 3.2). It is continuous and its slope is -|sin(angle)|, so a
    face is never pushed away from its own identity when the margin takes the angle past pi.
    """
    turns = torch.floor(angle.detach() / math.pi)
    sign = 1 - 2 * torch.remainder(turns, 2)
    return sign * torch.cos(angle) - 2 * turns
