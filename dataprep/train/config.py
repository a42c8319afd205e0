"""The parameters of a training run. torch is not imported here, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from dataprep.params import param, runtime
from dataprep.train.data.augment import AUGMENTS
from dataprep.train.losses.options import LossParams

_NETWORK, _STEPS, _RATE = "Network", "Optimiser", "Learning rate"
_DATA, _CHECK, _MACHINE = "Data", "Verification and checkpoints", "Machine"


@dataclass(frozen=True, kw_only=True)
class TrainParams(LossParams):
    """Training parameters. A run resumes only if all its `param()` fields are unchanged."""

    network: str | None = param(
        None,
        "backbone; default: that of --pretrained, else mobilefacenet; see --list-networks",
        group=_NETWORK,
    )
    embedding: int | None = param(None, "embedding dimension; default: the network's own", minimum=2, group=_NETWORK)
    embedding_head: str = param(
        "own", "layers from feature map to embedding: the network's own, BN-dropout-FC-BN, GDC, or mean pooling",
        choices=("own", "e", "gdc", "pool"), group=_NETWORK,
    )  # fmt: skip
    train: str = param(
        "all",
        "train the whole network, or only the head with the backbone frozen",
        choices=("all", "head"),
        group=_NETWORK,
    )
    ema: float = param(
        0.0, "decay of the EMA of the weights, which is saved instead of them; 0: no EMA", minimum=0.0, maximum=0.99999,
        group=_NETWORK,
    )  # fmt: skip

    epochs: int = param(10, "passes over the training data", minimum=1, group=_STEPS)
    batch_size: int = param(64, "images per step, over all processes", minimum=2, group=_STEPS)
    accumulate: int = param(1, "gradient accumulation: micro-batches per step", minimum=1, group=_STEPS)
    optimizer: str = param("sgd", "optimizer", choices=("sgd", "adamw"), group=_STEPS)
    momentum: float = param(0.9, "momentum of SGD", minimum=0.0, maximum=1.0, group=_STEPS)
    nesterov: bool = param(False, "use Nesterov momentum", group=_STEPS)
    weight_decay: float = param(5e-4, "weight decay", minimum=0.0, group=_STEPS)
    clip: float = param(5.0, "maximum gradient norm; 0: no clipping", minimum=0.0, group=_STEPS)
    seed: int = param(
        0, "seed of initial weights, data order and augmentation", minimum=0, maximum=2**31 - 1, group=_STEPS
    )

    lr: float = param(0.1, "learning rate at batch size 128, scaled linearly to other sizes", minimum=0.0, group=_RATE)
    schedule: str = param(
        "poly", "learning rate schedule after the warm-up", choices=("poly", "step", "constant"), group=_RATE
    )
    warmup: float = param(
        0.1, "share of the steps in which the rate rises from 0", minimum=0.0, maximum=1.0, group=_RATE
    )
    lr_steps: str = param(
        "", "for --schedule step: the steps at which the rate falls, such as 100000,160000", group=_RATE
    )
    step_size: int = param(0, "for --schedule step: steps between falls of the rate", minimum=0, group=_RATE)
    gamma: float = param(0.1, "for --schedule step: factor of each fall", minimum=0.0, maximum=1.0, group=_RATE)

    flip: bool = param(True, "mirror half of the images", group=_DATA)
    augment: str = param(
        "none", "augment like the trainer of this name",
        choices=tuple(name for name in AUGMENTS if name != "flip"), group=_DATA,
    )  # fmt: skip
    join: str = param(
        "offset", "labels of several packs: keep them distinct, or unify equal names in labels.tsv",
        choices=("offset", "name"), group=_DATA,
    )  # fmt: skip

    validate_every: int = runtime(
        2000, "steps between verifications; the last step is always verified", minimum=1, group=_CHECK
    )
    best: str = runtime(
        "last",
        "verification score that selects best.pt: the last set's, or the mean of all sets",
        choices=("last", "mean"),
        group=_CHECK,
    )
    checkpoint_every: int = runtime(500, "steps between checkpoints", minimum=1, group=_CHECK)
    tensorboard: bool = runtime(False, "also write TensorBoard curves to tensorboard/", group=_CHECK)

    device: str = runtime("auto", "device: cpu, cuda, cuda:1, ...; auto uses CUDA if available", group=_MACHINE)
    precision: str = runtime(
        "auto", "backbone precision; auto: bf16 on CUDA, fp32 on a CPU", choices=("auto", "fp32", "bf16", "fp16"),
        group=_MACHINE,
    )  # fmt: skip
    compile: bool = runtime(
        False, "compile the network with torch.compile: slower start (minutes), faster steps on a GPU", group=_MACHINE
    )
    sync_bn: bool = runtime(False, "synchronise batch norm over all processes; default: per process", group=_MACHINE)
    workers: int = runtime(0, "data loading processes", minimum=0, maximum=512, group=_MACHINE)
