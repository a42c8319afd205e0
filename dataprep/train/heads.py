"""Margin heads: embeddings and labels to logits whose softmax cross-entropy is the loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class MarginHead(nn.Module):
    """Class centres on the unit sphere, and the combined margin (Deng et al. 2019, eq. 4).

    Where `m1 * theta + m2` passes pi the cosine would rise again; there the target logit goes on falling, linearly in
    the cosine of theta, from the value it had.
    """

    def __init__(self, embedding: int, classes: int, *, margins: tuple[float, float, float], scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, embedding))
        nn.init.normal_(self.weight, std=0.01)
        self.m1, self.m2, self.m3 = margins
        self.scale = scale

    def forward(self, embedded: Tensor, labels: Tensor) -> Tensor:
        """(n, embedding) and (n,) to (n, classes) logits, in float32 whatever autocast says."""
        with torch.autocast(embedded.device.type, enabled=False):
            cosine = functional.normalize(embedded.float()) @ functional.normalize(self.weight.float()).T
            if (self.m1, self.m2, self.m3) == (1.0, 0.0, 0.0):
                return cosine * self.scale
            target = cosine.gather(1, labels[:, None]).clamp(-1 + 1e-7, 1 - 1e-7)
            logit = self._margin(target)
            return cosine.scatter(1, labels[:, None], logit) * self.scale

    def _margin(self, cosine: Tensor) -> Tensor:
        theta = torch.arccos(cosine)
        angle = self.m1 * theta + self.m2
        turning = min(math.pi, (math.pi - self.m2) / self.m1)  # theta at which the angle reaches pi
        beyond = -1.0 + cosine - math.cos(turning)
        return torch.where(angle <= math.pi, torch.cos(angle), beyond) - self.m3
