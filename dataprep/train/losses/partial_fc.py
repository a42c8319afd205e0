"""Softmax over all identities or a sample of them, in one process or sharded over several (PartialFC).

An, Deng et al. 2022 (arXiv:2203.15565). At a sample rate of 1 it equals the plain loss for any number of processes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dataprep.train.distributed.collectives import all_reduce_sum, sharded_cross_entropy
from dataprep.train.losses.head import ClassificationHead, init_rows, seeded_generator
from dataprep.train.losses.margins import Margin


class PartialFC(ClassificationHead):
    """Mean softmax cross-entropy over class centres.

    With a margin, the logits are cosines times `scale`; each class uses the nearest of its `subcenters` centres. Without
    a margin, they come from a linear layer with bias. In a training step, a process uses the classes in the batch, and
    draws others of its own from the seed and the step number until `sample_rate` of its classes take part.
    """

    def __init__(
        self,
        embedding: int,
        classes: int,
        *,
        margin: Margin | None,
        scale: float = 1.0,
        subcenters: int = 1,
        sample_rate: float = 1.0,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(classes, rank=rank, world_size=world_size, seed=seed)
        self.margin, self.scale, self.sample_rate = margin, scale, sample_rate
        shape = (embedding,) if subcenters == 1 else (subcenters, embedding)
        self.weight = nn.Parameter(init_rows(self.own, *shape, seed=seed))
        self.bias = nn.Parameter(torch.zeros(len(self.own))) if margin is None else None

    def loss(self, embedded: Tensor, labels: Tensor) -> Tensor:
        """The loss of the whole batch, computed from this process's classes."""
        targets = torch.where((labels >= self.own.start) & (labels < self.own.stop), labels - self.own.start, -1)
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if self.training and self.sample_rate < 1:
            kept = sample_classes(
                targets, len(self.own), self.sample_rate, seeded_generator(self.seed, self.step, self.rank)
            )
            targets = torch.where(targets >= 0, torch.searchsorted(kept, targets), -1)
            weight, bias = weight[kept], None if bias is None else bias[kept]
        weight = weight.to(embedded.dtype)
        if self.margin is not None:
            logits = self._cosines(embedded, weight, targets, self.margin) * self.scale
        else:
            logits = functional.linear(embedded, weight, None if bias is None else bias.to(embedded.dtype))
        return sharded_cross_entropy(logits, targets, self.world)

    def _cosines(self, embedded: Tensor, weight: Tensor, targets: Tensor, margin: Margin) -> Tensor:
        cosine = functional.normalize(embedded) @ functional.normalize(weight, dim=-1).flatten(0, -2).T
        if weight.ndim == 3:
            cosine = cosine.view(len(embedded), *weight.shape[:2]).max(2).values
        if margin.bound < 1:
            cosine = cosine.clamp(-margin.bound, margin.bound)
        lengths = torch.linalg.vector_norm(embedded.detach(), dim=1)
        if not cosine.shape[1]:
            margin(lengths, lengths)  # keep the running statistics equal in a process without classes
            return cosine
        place = targets.clamp(min=0)[:, None]
        plain = cosine.gather(1, place)[:, 0]
        moved = torch.where(targets >= 0, margin(plain, lengths), plain)
        return cosine.scatter(1, place, moved[:, None])


class CenterLoss(PartialFC):
    """Softmax plus `weight` times the mean squared distance to the centre of the own class (Wen et al. 2016).

    The centres start at 0 and are updated by the paper's rule (eq. 4, `rate` is its alpha), not by the optimiser. The
    distance is defined as in Face_Pytorch, so the paper's lambda is twice this weight.
    """

    by_class = ("centers",)
    centers: Tensor

    def __init__(
        self,
        embedding: int,
        classes: int,
        *,
        weight: float,
        rate: float,
        sample_rate: float = 1.0,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            embedding, classes, margin=None, sample_rate=sample_rate, rank=rank, world_size=world_size, seed=seed
        )
        self.center_weight, self.rate = weight, rate
        self.register_buffer("centers", torch.zeros(len(self.own), embedding))

    def loss(self, embedded: Tensor, labels: Tensor) -> Tensor:
        here = (labels >= self.own.start) & (labels < self.own.stop)
        own = labels[here] - self.own.start
        away = embedded[here] - self.centers[own].to(embedded.dtype)
        distance = all_reduce_sum(away.square().sum(), self.world) / len(embedded)
        if self.training:
            with torch.no_grad():
                total = torch.zeros_like(self.centers).index_add_(0, own, away.to(self.centers.dtype))
                images = torch.bincount(own, minlength=len(self.own))[:, None]
                self.centers += self.rate * total / (1 + images)
        return super().loss(embedded, labels) + self.center_weight * distance


def sample_classes(targets: Tensor, classes: int, rate: float, generator: torch.Generator) -> Tensor:
    """The sorted classes that take part: all in `targets`, and random others up to a share of `rate`. -1 is ignored."""
    others = torch.ones(classes, dtype=torch.bool, device=targets.device)
    others[targets[targets >= 0]] = False
    positive = (~others).nonzero()[:, 0]
    order = torch.randperm(classes, generator=generator).to(targets.device)
    negative = order[others[order]][: max(0, int(rate * classes) - len(positive))]
    return torch.cat([positive, negative]).sort().values
