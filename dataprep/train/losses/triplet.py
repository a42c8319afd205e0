"""Triplet loss with semi-hard negatives: an anchor, a positive, and a negative only slightly farther away."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dataprep.train.losses.head import ClassificationHead, seeded_generator
from dataprep.train.losses.margins import safe_arccos


class TripletLoss(ClassificationHead):
    """mean(max(0, d(a, p) - d(a, n) + margin)) over semi-hard triplets of the batch (Schroff et al. 2015).

    d is the squared distance of unit embeddings or, with `angular`, the angle between them, as in insightface's two losses.
    Negatives satisfy d(a, p) < d(a, n) < d(a, p) + margin. For each positive pair that has any in the batch, one is drawn
    from the seed and the step number. The loss is 0 if there are no triplets. Batches have P identities with K images
    each (`pk_order`).
    """

    whole = True

    def __init__(
        self, classes: int, *, margin: float, angular: bool, rank: int = 0, world_size: int = 1, seed: int = 0
    ) -> None:
        super().__init__(classes, rank=rank, world_size=world_size, seed=seed)
        self.margin, self.angular = margin, angular

    def loss(self, embedded: Tensor, labels: Tensor) -> Tensor:
        apart = pairwise_distances(embedded, angular=self.angular)
        anchor, positive, negative = find_semi_hard_triplets(
            apart.detach(), labels, self.margin, seeded_generator(self.seed, self.step)
        )
        losses = functional.relu(apart[anchor, positive] - apart[anchor, negative] + self.margin)
        return losses.mean() if len(losses) else embedded.sum() * 0


def pairwise_distances(embedded: Tensor, *, angular: bool) -> Tensor:
    """(n, d) to (n, n): squared distances of the unit embeddings, or angles between them."""
    unit = functional.normalize(embedded)
    cosine = unit @ unit.T
    return safe_arccos(cosine) if angular else 2 - 2 * cosine


def find_semi_hard_triplets(
    apart: Tensor, labels: Tensor, margin: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors, positives and negatives, (t,) each: a random semi-hard negative for each positive pair that has any."""
    same = labels[:, None] == labels
    anchor, positive = (same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)).nonzero(as_tuple=True)
    near = apart[anchor, positive][:, None]
    candidates = ~same[anchor] & (near < apart[anchor]) & (apart[anchor] < near + margin)
    chance = torch.rand(candidates.shape, generator=generator).to(apart.device)
    negative = (chance + candidates).argmax(1)  # candidates score at least 1
    found = candidates.any(1)
    return anchor[found], positive[found], negative[found]
