"""Builds the head of a loss, which turns embeddings and labels into the loss value. losses.py lists the names."""

from __future__ import annotations

from dataprep.train.losses.head import ClassificationHead
from dataprep.train.losses.margins import AdaFaceMargin, CombinedMargin, Margin, StraightThroughMargin
from dataprep.train.losses.options import LOSS_PRESETS, LossParams
from dataprep.train.losses.partial_fc import CenterLoss, PartialFC
from dataprep.train.losses.triplet import TripletLoss

__all__ = ["ClassificationHead", "make_loss_head"]


def make_loss_head(
    params: LossParams, embedding_size: int, num_classes: int, *, rank: int = 0, world_size: int = 1, seed: int = 0
) -> ClassificationHead:
    """Make the head of `params.loss`. The initial class centres do not depend on `world`."""
    preset = LOSS_PRESETS[params.loss]
    if preset.triplet_margin is not None:
        margin = preset.triplet_margin if params.triplet_margin is None else params.triplet_margin
        angular = preset.kind == "angular-triplet"
        return TripletLoss(num_classes, margin=margin, angular=angular, rank=rank, world_size=world_size, seed=seed)
    if preset.kind == "center":
        return CenterLoss(
            embedding_size,
            num_classes,
            weight=params.center_weight,
            rate=params.center_rate,
            sample_rate=params.sample_rate,
            rank=rank,
            world_size=world_size,
            seed=seed,
        )
    return PartialFC(
        embedding_size,
        num_classes,
        margin=None if preset.kind == "softmax" else _margin(params),
        scale=params.scale,
        subcenters=preset.subcenters if params.subcenters is None else params.subcenters,
        sample_rate=params.sample_rate,
        rank=rank,
        world_size=world_size,
        seed=seed,
    )


def _margin(params: LossParams) -> Margin:
    if LOSS_PRESETS[params.loss].kind == "adaface":
        return AdaFaceMargin(params.margins()[1], params.adaface_h, params.adaface_t_alpha)
    if params.arcface_gradient == "arcface_torch":
        return StraightThroughMargin(params.margins())
    return CombinedMargin(params.margins())
