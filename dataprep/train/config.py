"""The parameters of a training run. torch is not imported here, so that `--help` is quick."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dataprep.errors import UsageError
from dataprep.params import counted_field, runtime_field
from dataprep.text import read_yaml, similar_to
from dataprep.train.data.augment import AUGMENT_PRESETS
from dataprep.train.losses.options import LossParams

_NETWORK, _STEPS, _RATE = "Network", "Optimiser", "Learning rate"
_DATA, _CHECK, _MACHINE = "Data", "Verification and checkpoints", "Machine"


@dataclass(frozen=True, kw_only=True)
class TrainParams(LossParams):
    """Training parameters. A run resumes only if all its `param()` fields are unchanged."""

    network: str | None = counted_field(
        None,
        "backbone; default: that of --pretrained, else mobilefacenet; see --list-networks",
        group=_NETWORK,
    )
    embedding: int | None = counted_field(
        None, "embedding dimension; default: the network's own", minimum=2, group=_NETWORK
    )
    embedding_head: str = counted_field(
        "own", "layers from feature map to embedding: the network's own, BN-dropout-FC-BN, GDC, or mean pooling",
        choices=("own", "e", "gdc", "pool"), group=_NETWORK,
    )  # fmt: skip
    train: str = counted_field(
        "all",
        "train the whole network, or only the head with the backbone frozen",
        choices=("all", "head"),
        group=_NETWORK,
    )
    frozen_bn: str = counted_field(
        "eval", "with --train head: batch norm of the frozen backbone uses its running statistics, or adapts them (train)",
        choices=("eval", "train"), group=_NETWORK,
    )  # fmt: skip
    ema: float = counted_field(
        0.0, "decay of the EMA of the weights, which is saved instead of them; 0: no EMA", minimum=0.0, maximum=0.99999,
        group=_NETWORK,
    )  # fmt: skip

    epochs: int = counted_field(10, "passes over the training data", minimum=1, group=_STEPS)
    batch_size: int = counted_field(64, "images per step, over all processes", minimum=2, group=_STEPS)
    accumulate: int = counted_field(1, "gradient accumulation: micro-batches per step", minimum=1, group=_STEPS)
    optimizer: str = counted_field(
        "sgd", "optimizer; mxnet's SGD keeps the rate in the velocity, so that a fall of the rate acts at once only on new "
        "gradients", choices=("sgd", "sgd-mxnet", "adamw"), group=_STEPS,
    )  # fmt: skip
    momentum: float = counted_field(0.9, "momentum of SGD", minimum=0.0, maximum=1.0, group=_STEPS)
    nesterov: bool = counted_field(False, "use Nesterov momentum", group=_STEPS)
    weight_decay: float = counted_field(5e-4, "weight decay", minimum=0.0, group=_STEPS)
    bn_weight_decay: bool = counted_field(True, "decay the weights of batch norm too", group=_STEPS)
    bias_lr: float = counted_field(1.0, "factor of the rate of the softmax layer's bias", minimum=0.0, group=_STEPS)
    clip: float = counted_field(5.0, "maximum gradient norm; 0: no clipping", minimum=0.0, group=_STEPS)
    clip_scope: str = counted_field(
        "all", "clip the gradient of backbone and head together, or the backbone's alone, as arcface_torch does",
        choices=("all", "backbone"), group=_STEPS,
    )  # fmt: skip
    seed: int = counted_field(
        0, "seed of initial weights, data order and augmentation", minimum=0, maximum=2**31 - 1, group=_STEPS
    )

    lr: float = counted_field(
        0.1, "learning rate at batch size 128, scaled linearly to other sizes", minimum=0.0, group=_RATE
    )
    schedule: str = counted_field(
        "poly", "learning rate schedule after the warm-up", choices=("poly", "step", "constant"), group=_RATE
    )
    poly_power: float = counted_field(
        1.0, "power of --schedule poly: 1 as in arcface_torch since April 2023, 2 before", minimum=0.0, group=_RATE
    )
    warmup: float = counted_field(
        0.1, "share of the steps in which the rate rises from 0", minimum=0.0, maximum=1.0, group=_RATE
    )
    lr_steps: str = counted_field(
        "", "for --schedule step: the steps at which the rate falls, such as 100000,160000", group=_RATE
    )
    lr_epochs: str = counted_field(
        "", "for --schedule step: the epochs after which the rate falls, such as 12,20,24", group=_RATE
    )
    step_size: int = counted_field(0, "for --schedule step: steps between falls of the rate", minimum=0, group=_RATE)
    gamma: float = counted_field(0.1, "for --schedule step: factor of each fall", minimum=0.0, maximum=1.0, group=_RATE)

    order: str = counted_field(
        "own", "channel order of the network's input; own: that of the network, or of --pretrained",
        choices=("own", "RGB", "BGR"), group=_DATA,
    )  # fmt: skip
    mean: str = counted_field(
        "", "mean of the network's input (0..255): one number or three, in its order", group=_DATA
    )
    std: str = counted_field("", "divisor of the network's input: one number or three, in its order", group=_DATA)
    random_flip: bool = counted_field(True, "mirror half of the images", group=_DATA)
    augment: str = counted_field(
        "none", "augment like the trainer of this name",
        choices=tuple(name for name in AUGMENT_PRESETS if name != "flip"), group=_DATA,
    )  # fmt: skip
    join: str = counted_field(
        "offset", "labels of several packs: keep them distinct, or unify equal names in labels.tsv",
        choices=("offset", "name"), group=_DATA,
    )  # fmt: skip

    validate_every: int = runtime_field(
        2000, "steps between verifications; the last step is always verified", minimum=1, group=_CHECK
    )
    best: str = runtime_field(
        "last",
        "verification score that selects best.pt: the last set's, or the mean of all sets",
        choices=("last", "mean"),
        group=_CHECK,
    )
    checkpoint_every: int = runtime_field(500, "steps between checkpoints", minimum=1, group=_CHECK)
    tensorboard: bool = runtime_field(False, "also write TensorBoard curves to tensorboard/", group=_CHECK)

    device: str = runtime_field("auto", "device: cpu, cuda, cuda:1, ...; auto uses CUDA if available", group=_MACHINE)
    precision: str = runtime_field(
        "auto", "backbone precision; auto: bf16 on CUDA, fp32 on a CPU", choices=("auto", "fp32", "bf16", "fp16"),
        group=_MACHINE,
    )  # fmt: skip
    growth_interval: int = counted_field(
        2000,
        "steps without overflow after which fp16 doubles its loss scale; arcface_torch: 100",
        minimum=1,
        group=_MACHINE,
    )
    compile: bool = runtime_field(
        False, "compile the network with torch.compile: slower start (minutes), faster steps on a GPU", group=_MACHINE
    )
    sync_bn: bool = runtime_field(
        False, "synchronise batch norm over all processes; default: per process", group=_MACHINE
    )
    num_workers: int = runtime_field(0, "data loading processes", minimum=0, maximum=512, group=_MACHINE)


def read_config(path: Path, names: Collection[str], *, several: Collection[str] = ()) -> dict[str, str | list[str]]:
    """Map option names (with underscores for dashes) to values as typed on the command line. A list stays a list for
    options in `several`; otherwise it is joined with commas. Raises UsageError, which lists similar names."""
    found = read_yaml(path)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected a mapping such as `network: r50`, found {type(found).__name__}")
    chosen: dict[str, str | list[str]] = {}
    for given, value in found.items():
        name = str(given).replace("-", "_")
        if name not in names:
            near = similar_to(name, names)
            known = f"; {near.replace('_', '-')}" if near else ""
            raise UsageError(
                f"{path}: unknown option {given!r}{known}", hint="`dataprep train --help-all` lists all options"
            )
        if name in chosen:
            raise UsageError(f"{path}: {given!r} appears twice")
        if isinstance(value, dict) or value is None:
            raise UsageError(f"{path}: {given!r} takes a plain value, not {value!r}")
        typed = [str(each) for each in (value if isinstance(value, list) else [value])]
        chosen[name] = typed if name in several else ",".join(typed)
    return chosen
