"""The settings of a training run. No torch here, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from dataprep.params import param, runtime
from dataprep.train.data.augment import AUGMENTS
from dataprep.train.losses.options import LossParams

_NETWORK, _STEPS, _RATE = "Network", "Optimiser", "Learning rate"
_DATA, _CHECK, _MACHINE = "Data", "Verification and checkpoints", "Machine"


@dataclass(frozen=True, kw_only=True)
class TrainParams(LossParams):
    """What is trained and how. A run goes on only under the parameters that count."""

    network: str | None = param(
        None,
        "the backbone; default: that of --pretrained, else mobilefacenet; --list-networks shows all",
        group=_NETWORK,
    )
    embedding: int | None = param(
        None, "length of the embedding; default: the network's own", minimum=2, group=_NETWORK
    )
    embedding_head: str = param(
        "own", "what makes the embedding of the feature map: the network's own, BN-dropout-FC-BN, GDC, or the mean",
        choices=("own", "e", "gdc", "pool"), group=_NETWORK,
    )  # fmt: skip
    train: str = param(
        "all", "what learns: all, or the head alone on a backbone that stays", choices=("all", "head"), group=_NETWORK
    )
    ema: float = param(
        0.0, "decay of an average of the weights, which is then what is saved; 0: none", minimum=0.0, maximum=0.99999,
        group=_NETWORK,
    )  # fmt: skip

    epochs: int = param(10, "passes over the pack", minimum=1, group=_STEPS)
    batch_size: int = param(64, "images per step, over all processes", minimum=2, group=_STEPS)
    accumulate: int = param(1, "parts in which a step's images go through the network", minimum=1, group=_STEPS)
    optimizer: str = param("sgd", "what makes the steps", choices=("sgd", "adamw"), group=_STEPS)
    momentum: float = param(0.9, "momentum of SGD", minimum=0.0, maximum=1.0, group=_STEPS)
    nesterov: bool = param(False, "Nesterov's momentum", group=_STEPS)
    weight_decay: float = param(5e-4, "weight decay", minimum=0.0, group=_STEPS)
    clip: float = param(5.0, "the largest norm of the gradient; 0: any", minimum=0.0, group=_STEPS)
    seed: int = param(0, "initial weights, order and flips", minimum=0, maximum=2**31 - 1, group=_STEPS)

    lr: float = param(0.1, "learning rate at a batch of 128, scaled linearly to others", minimum=0.0, group=_RATE)
    schedule: str = param("poly", "how it falls after the warm-up", choices=("poly", "step", "constant"), group=_RATE)
    warmup: float = param(
        0.1, "share of the steps in which the rate rises from 0", minimum=0.0, maximum=1.0, group=_RATE
    )
    lr_steps: str = param("", "of --schedule step: the steps at which it falls, as 100000,160000", group=_RATE)
    step_size: int = param(0, "of --schedule step: it falls every so many steps", minimum=0, group=_RATE)
    gamma: float = param(0.1, "of --schedule step: what it is multiplied by", minimum=0.0, maximum=1.0, group=_RATE)

    flip: bool = param(True, "mirror half of the images", group=_DATA)
    augment: str = param(
        "none", "alter the images as that trainer does where asked to",
        choices=tuple(name for name in AUGMENTS if name != "flip"), group=_DATA,
    )  # fmt: skip
    join: str = param(
        "offset", "whose labels of several packs mean the same: none of them, or those of one name in labels.tsv",
        choices=("offset", "name"), group=_DATA,
    )  # fmt: skip

    validate_every: int = runtime(2000, "steps between verifications, and one at the end", minimum=1, group=_CHECK)
    best: str = runtime(
        "last",
        "what decides which model is kept as best.pt: the last set, or the mean of all",
        choices=("last", "mean"),
        group=_CHECK,
    )
    checkpoint_every: int = runtime(500, "steps between checkpoints", minimum=1, group=_CHECK)
    tensorboard: bool = runtime(False, "also draw the curves for TensorBoard, under tensorboard/", group=_CHECK)

    device: str = runtime("auto", "where: cpu, cuda, cuda:1, ...; auto takes CUDA where there is one", group=_MACHINE)
    precision: str = runtime(
        "auto", "of the backbone; auto is bf16 on CUDA, fp32 on a CPU", choices=("auto", "fp32", "bf16", "fp16"),
        group=_MACHINE,
    )  # fmt: skip
    compile: bool = runtime(
        False, "compile the network (torch.compile): minutes at the start, faster steps on a GPU", group=_MACHINE
    )
    sync_bn: bool = runtime(
        False, "batch norm over the images of all processes; else each normalises by its own", group=_MACHINE
    )
    workers: int = runtime(0, "loader processes", minimum=0, maximum=512, group=_MACHINE)
