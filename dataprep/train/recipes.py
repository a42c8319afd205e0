"""The settings of published trainers by name, as options of `dataprep train`. torch is not imported here.

Each value is taken from the trainer's code or launch script, named in `source`. The rate is given at batch size
128, which `--lr` counts by. `theirs` lists what a recipe cannot set: where our loop, network or data differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """Options, by name with underscores, and where they come from."""

    source: str
    options: Mapping[str, str | int | float | bool]
    theirs: str


_COMMON: dict[str, str | int | float | bool] = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "warmup": 0.0,
    "random_flip": True,
    "augment": "none",
}

RECIPES: Mapping[str, TrainingRecipe] = MappingProxyType(
    {
        "arcface_torch": TrainingRecipe(
            source="insightface 7fadd420, recognition/arcface_torch: configs/base.py, configs/ms1mv3_r50.py, train_v2.py",
            options={
                **_COMMON,
                "network": "ir50", "embedding": 512, "loss": "arcface", "m2": 0.5, "scale": 64.0,
                "arcface_gradient": "arcface_torch",  # losses.py:40-44
                "lr": 0.0125, "batch_size": 1024, "epochs": 20,  # 0.1 for 8 x 128: ms1mv3_r50.py:17-18
                "schedule": "poly", "poly_power": 1.0,  # lr_scheduler.py:7
                "clip": 5.0, "clip_scope": "backbone",  # train_v2.py:189, 196
                "weight_decay": 0.0005, "growth_interval": 100, "sample_rate": 1.0,
                "order": "RGB", "mean": "127.5", "std": "127.5",  # dataset.py:144, 167
            },
            theirs="its logged loss counts no image above 69.08; its warm-up, where a config has one, is a step behind",
        ),
        "adaface": TrainingRecipe(
            source="AdaFace c60eaa7: config.py, train_val.py, head.py, scripts/run_ir50_ms1mv2.sh",
            options={
                **_COMMON,
                "network": "ir50", "embedding": 512, "loss": "adaface", "m2": 0.4, "scale": 64.0,
                "adaface_h": 0.333, "adaface_t_alpha": 0.01,
                "lr": 0.025, "batch_size": 512, "epochs": 26,  # 0.1 for 2 x 256: the script's lines 12, 16
                "schedule": "step", "lr_epochs": "12,20,24", "gamma": 0.1,
                "clip": 0.0, "weight_decay": 0.0005, "bn_weight_decay": False,  # train_val.py:211-220
                "augment": "adaface", "growth_interval": 2000,
                "order": "BGR", "mean": "127.5", "std": "127.5",  # dataset/record_dataset.py:55-56
            },
            theirs="its norm statistics are each GPU's own, and its augmentation sees BGR pixels",
        ),
        "mxnet-arcface": TrainingRecipe(
            source="insightface 7fadd420, recognition/arcface_mxnet: train.py, sample_config.py (r100, emore, arcface)",
            options={
                **_COMMON,
                "network": "ir100", "embedding": 512, "loss": "arcface", "m2": 0.5, "scale": 64.0,
                "lr": 0.025, "batch_size": 512, "epochs": 20,  # 0.1 for 4 GPUs x 128: sample_config.py:196-199
                "schedule": "step", "lr_steps": "100000,160000,220000", "gamma": 0.1,  # sample_config.py:201
                "optimizer": "sgd-mxnet", "clip": 0.0, "weight_decay": 0.0005,
                "order": "RGB", "mean": "127.5", "std": "128",  # symbol/fresnet.py:1059-1060
            },
            theirs="it ends when it is stopped; past pi its margin rises again",
        ),
        "vggface2": TrainingRecipe(
            source="VGGFace2-pytorch c6e10f2: demo.py, trainer.py, datasets/vgg_face2.py",
            options={
                **_COMMON,
                "network": "vggface2-resnet50", "loss": "softmax",
                "train": "head", "frozen_bn": "train",  # demo.py:139-145 gives the optimizer the last layer alone
                "lr": 0.4, "bias_lr": 2.0, "batch_size": 32, "epochs": 10,  # 0.1 for 32: demo.py:19, 56
                "schedule": "step", "step_size": 1000000, "gamma": 0.1,
                "clip": 0.0, "weight_decay": 0.0, "random_flip": False, "augment": "vggface2",
                "order": "BGR", "mean": "91.4953,103.8827,131.0912", "std": "1",
            },
            theirs="it needs --pretrained; its length is a million steps; the paper's own training code was never published",
        ),
        "face_pytorch": TrainingRecipe(
            source="Face_Pytorch 3afd941: train.py, dataset/casia_webface.py",
            options={
                **_COMMON,
                "network": "mobilefacenet", "embedding": 512, "loss": "arcface", "m2": 0.5, "scale": 32.0,
                "lr": 0.064, "batch_size": 200, "epochs": 18, "nesterov": True,  # train.py:114, 241, 251
                "schedule": "step", "lr_epochs": "6,11,16", "gamma": 0.1,  # train.py:115
                "clip": 0.0, "weight_decay": 0.0005,
                "order": "BGR", "mean": "127.5", "std": "127.5",  # casia_webface.py:22
            },
            theirs="past pi - m its margin is cos - m sin(m)",
        ),
    }
)  # fmt: skip
