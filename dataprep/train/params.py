"""The settings of a training run. No torch here, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from dataprep.params import param, runtime
from dataprep.train.losses import LossParams


@dataclass(frozen=True, kw_only=True)
class TrainParams(LossParams):
    """What is trained and how. A run goes on only under the parameters that count."""

    network: str = param("mobilefacenet", "the backbone")
    embedding: int = param(128, "length of the embedding", minimum=2)
    epochs: int = param(10, "passes over the pack", minimum=1)
    batch_size: int = param(64, "images per step", minimum=2)
    lr: float = param(0.1, "learning rate at a batch of 128, scaled linearly to others", minimum=0.0)
    momentum: float = param(0.9, "momentum of SGD", minimum=0.0, maximum=1.0)
    weight_decay: float = param(5e-4, "weight decay", minimum=0.0)
    warmup: float = param(0.1, "share of the steps in which the rate rises from 0", minimum=0.0, maximum=1.0)
    clip: float = param(5.0, "the largest norm of the gradient", minimum=0.0)
    seed: int = param(0, "initial weights, order and flips")
    device: str = runtime("auto", "cpu, cuda, cuda:1, ...; auto takes CUDA where there is one")
    precision: str = runtime("auto", "autocast on CUDA; auto is bf16", choices=("auto", "fp32", "bf16", "fp16"))
    workers: int = runtime(0, "loader processes", minimum=0)
    checkpoint_every: int = runtime(100, "steps between checkpoints", minimum=1)
