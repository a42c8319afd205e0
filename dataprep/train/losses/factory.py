"""Heads by name: what stands between the embedding and the loss. The names are in losses.py."""

from __future__ import annotations

from dataprep.train.losses.head import Head
from dataprep.train.losses.margins import AdaFace, Combined, Margin
from dataprep.train.losses.options import LOSSES, LossParams
from dataprep.train.losses.partial_fc import CenterLoss, Classifier
from dataprep.train.losses.triplet import TripletLoss

__all__ = ["Head", "make_head"]


def make_head(
    params: LossParams, embedding: int, classes: int, *, rank: int = 0, world: int = 1, seed: int = 0
) -> Head:
    """The head of `params.loss`, with the same initial class centres under any `world`."""
    preset = LOSSES[params.loss]
    if preset.triplet_margin is not None:
        margin = preset.triplet_margin if params.triplet_margin is None else params.triplet_margin
        angular = preset.kind == "angular-triplet"
        return TripletLoss(classes, margin=margin, angular=angular, rank=rank, world=world, seed=seed)
    if preset.kind == "center":
        return CenterLoss(
            embedding,
            classes,
            weight=params.center_weight,
            rate=params.center_rate,
            sample_rate=params.sample_rate,
            rank=rank,
            world=world,
            seed=seed,
        )
    return Classifier(
        embedding,
        classes,
        margin=None if preset.kind == "softmax" else _margin(params),
        scale=params.scale,
        subcenters=preset.subcenters if params.subcenters is None else params.subcenters,
        sample_rate=params.sample_rate,
        rank=rank,
        world=world,
        seed=seed,
    )


def _margin(params: LossParams) -> Margin:
    if LOSSES[params.loss].kind == "adaface":
        return AdaFace(params.margins()[1], params.adaface_h, params.adaface_t_alpha)
    return Combined(params.margins())
