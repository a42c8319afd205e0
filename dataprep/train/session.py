"""The state of a training run (source, networks, optimiser): built from the settings, saved and restored."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dataprep.errors import ModelError, UsageError
from dataprep.models.model_files import FaceModel, save_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.storage import Folder, file_sha256
from dataprep.train import checkpoint as checkpoints
from dataprep.train.backbone import make_backbone, place_on_device, wrap_for_training
from dataprep.train.callback import BestScore
from dataprep.train.config import TrainParams
from dataprep.train.data.augment import AUGMENT_PRESETS, AugmentConfig
from dataprep.train.data.dataset import PackDataset, open_dataset
from dataprep.train.data.loader import check_input
from dataprep.train.data.sampler import pk_order
from dataprep.train.distributed.process_group import World
from dataprep.train.losses.factory import ClassificationHead, make_loss_head
from dataprep.train.losses.options import LOSS_PRESETS
from dataprep.train.optim import (
    EMA,
    average_buffers,
    check_optimizer,
    check_schedule,
    gather_optimizer_state,
    load_optimizer_state,
    make_optimizer,
)
from dataprep.train.step import TrainStep, choose_precision


@dataclass(slots=True, kw_only=True)
class TrainerState:
    """A run between two steps. `step` counts finished steps. A run resumes only if its `identity` is unchanged."""

    params: TrainParams
    world: World
    device: torch.device
    source: PackDataset
    identity: dict[str, Any]
    model: FaceModel  # model.module is the backbone
    head: ClassificationHead
    optimizer: torch.optim.Optimizer
    train_step: TrainStep
    ema: EMA | None
    best: BestScore
    about: dict[str, Any]
    steps_per_epoch: int
    step: int = 0

    @property
    def backbone(self) -> nn.Module:
        return self.model.module

    @property
    def preprocessing(self) -> Preprocessing:
        return self.model.preprocessing

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.params.epochs

    @property
    def result(self) -> nn.Module:
        """The network that is verified and saved."""
        return self.backbone if self.ema is None else self.ema.module

    def train_mode(self) -> None:
        """Switch to training mode, but keep a frozen backbone in evaluation mode, unless its batch norm is to adapt."""
        self.backbone.train(self.params.train == "all" or self.params.frozen_bn == "train")

    def take_step(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        """Take a training step and return the loss, on the device."""
        loss = self.train_step(images, labels, rate=rate)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.backbone, self.step)
        return loss

    def sync_buffers(self) -> None:
        """Average the running statistics of batch norm, so that all processes have the same network."""
        average_buffers(self.backbone, self.world)
        if self.ema is not None:
            average_buffers(self.ema.module, self.world)

    def finish(self, folder: Folder) -> None:
        self.sync_buffers()
        if self.world.is_first:
            self.save_model(folder, "model.pt")
        self.world.agree()

    def save_model(self, folder: Folder, name: str, **more: Any) -> None:
        save_model(
            folder / name,
            self.result,
            network=self.model.network,
            embedding=self.model.embedding,
            preprocessing=self.model.preprocessing,
            head=self.model.head,
            about={**self.about, "steps": self.step, **more},
        )

    def save(self, folder: Folder) -> None:
        """Write the checkpoint. All processes take part; the first one writes. Raises ModelError if the weights are not
        finite, because such a checkpoint would be useless."""
        self.sync_buffers()
        self.world.run_everywhere(self._check_finite)
        states = self.world.gather(checkpoints.random_state(self.device))
        content = {
            "identity": json.dumps(self.identity, sort_keys=True),
            "step": self.step,
            "network": self.model.network,
            "embedding": self.model.embedding,
            "head": self.model.head,
            "input": asdict(self.preprocessing),
            "backbone": self.backbone.state_dict(),
            "classifier": self.head.full_state(),
            "slots": gather_optimizer_state(self.optimizer, self.backbone),
            "classifier_slots": self.head.full_optimizer_state(self.optimizer),
            "scaler": self.train_step.scaler.state_dict(),
            "average": None if self.ema is None else self.ema.module.state_dict(),
            "best": asdict(self.best),
            "random": states,
        }
        self.world.run_once(lambda: checkpoints.write_checkpoint(folder, content))

    def _check_finite(self) -> None:
        for name, tensor in chain(self.backbone.state_dict().items(), self.head.state_dict().items()):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f"{name} is not finite after step {self.step}; the last checkpoint is kept",
                    hint=f"lower --lr (now {self.params.lr}) or raise --warmup",
                )

    def resume(self, folder: Folder) -> None:
        """Resume from the checkpoint in `folder`, if there is one. Raises ModelError if it does not fit."""
        content = self.world.run_everywhere(lambda: checkpoints.read_checkpoint(folder))
        if content is not None:
            self.world.run_everywhere(lambda: self._restore(folder, content))

    def _restore(self, folder: Folder, content: dict[str, Any]) -> None:
        if content.get("identity") != json.dumps(self.identity, sort_keys=True):
            raise checkpoints.not_resumable(
                folder, ModelError("it belongs to a run with other settings, weights or packs")
            )
        try:
            self.backbone.load_state_dict(content["backbone"])
            self.head.load_full_state(content["classifier"])
            load_optimizer_state(self.optimizer, self.backbone, content["slots"])
            self.head.load_full_optimizer_state(self.optimizer, content["classifier_slots"])
            self.train_step.scaler.load_state_dict(content["scaler"])
            if self.ema is not None:
                self.ema.module.load_state_dict(content["average"])
            self.best = BestScore(**{**content["best"], "rule": self.best.rule})
            self.step = content["step"]
            checkpoints.restore_random(
                content["random"], seed=self.params.seed, step=self.step, world=self.world, device=self.device
            )
        except Exception as error:  # another architecture, or an edited file
            raise checkpoints.not_resumable(folder, error) from None


def build_trainer_state(
    packs: Sequence[Path], params: TrainParams, *, pretrained: Path | None, world: World, device: torch.device
) -> TrainerState:
    """Build everything at step 0. Raises ModelError, RecordError or UsageError; an error in one process is raised in all."""
    source, params, model = world.run_everywhere(lambda: _open_training(packs, params, pretrained, world))
    world.run_everywhere(lambda: choose_precision(params, device))
    backbone = world.run_everywhere(lambda: place_on_device(model.module, params, world, device))
    head = make_loss_head(
        params, model.embedding, source.num_classes, rank=world.rank, world_size=world.size, seed=params.seed
    )
    head.labels_known = True  # open_source has checked all of them
    head.to(device)
    optimizer = make_optimizer(params, backbone, head)
    stepper = TrainStep(wrap_for_training(backbone, params, world, device), head, optimizer, params, world, device)
    if world.size > 1:  # dropout must differ between processes
        checkpoints.seed_all(params.seed * 1_009 + world.rank)
    identity = {
        "params": params.counted(),
        "pack_digest": source.digest(),
        "pretrained_sha256": file_sha256(pretrained) if pretrained else None,
    }
    return TrainerState(
        params=params,
        world=world,
        device=device,
        source=source,
        identity=identity,
        model=model,
        head=head,
        optimizer=optimizer,
        train_step=stepper,
        ema=EMA(backbone, params.ema) if params.ema else None,
        best=BestScore(rule=params.best),
        about=_about(identity, packs, source, model),
        steps_per_epoch=_epoch_length(params, source) // params.batch_size,
    )


def _open_training(
    packs: Sequence[Path], params: TrainParams, pretrained: Path | None, world: World
) -> tuple[PackDataset, TrainParams, FaceModel]:
    """Open the source and make the model, with the final parameters. All checks of user settings are made here."""
    check_schedule(params)
    check_optimizer(params)
    if params.train == "head" and pretrained is None:
        raise UsageError(
            "the backbone is frozen, so it must be a trained one", hint="add --pretrained FILE, or use --train all"
        )
    source = open_dataset(packs, merge_labels=params.join)
    params = _fit_params(params, source, world)
    checkpoints.seed_all(params.seed)
    model = make_backbone(params, (source.height, source.width), pretrained)
    params = replace(params, network=model.network)
    check_input(source, model.preprocessing, resolve_augmentation(params))
    return source, params, model


def _fit_params(params: TrainParams, dataset: PackDataset, world: World) -> TrainParams:
    """Set the batch size of triplet losses, and raise if the parameters do not fit the pack or the processes."""
    preset = LOSS_PRESETS[params.loss]
    if preset.by_identity:
        size = params.identities_per_batch * params.images_per_identity
        params = replace(params, batch_size=size)
        if params.train == "head":
            raise UsageError(
                f"there is nothing to train: the backbone is frozen and the loss {params.loss} has no weights",
                hint="use --train all",
            )
        if params.accumulate > 1:
            raise UsageError(
                f"gradient accumulation does not work with the loss {params.loss}, which compares the images of a batch",
                hint="leave out --accumulate",
            )
    if params.batch_size % (world.size * params.accumulate):
        raise UsageError(
            f"a batch of {params.batch_size} cannot be divided into {world.size} processes x {params.accumulate} parts",
            hint="--batch-size counts the images of all processes together; change it or --accumulate",
        )
    part = params.batch_size // params.accumulate // (1 if params.sync_bn else world.size)
    if part < 2 and params.train == "all":
        raise UsageError(
            f"a batch of {params.batch_size} in {world.size} processes x {params.accumulate} parts gives batch norm one "
            "image at a time",
            hint="raise --batch-size or lower --accumulate",
        )
    if dataset.num_classes < 2:
        raise ModelError(
            f"the pack has {dataset.num_classes} identity, and there is nothing to learn from one",
            hint="if the folder that was imported is one level too high, import the folder that holds the people's",
        )
    if _epoch_length(params, dataset) < params.batch_size:
        raise ModelError(
            f"{len(dataset.labels)} images do not fill a batch of {params.batch_size}", hint="lower --batch-size"
        )
    return params


def resolve_augmentation(params: TrainParams) -> AugmentConfig:
    """The augmentations of the chosen trainer, at its usual strength."""
    return replace(AUGMENT_PRESETS[params.augment], flip=params.random_flip)


def epoch_order(params: TrainParams, dataset: PackDataset, epoch: int) -> npt.NDArray[np.int64] | None:
    """The order of an epoch's images if the loss needs a special one, else None."""
    if not LOSS_PRESETS[params.loss].by_identity:
        return None
    return pk_order(
        dataset.labels,
        identities=params.identities_per_batch,
        images=params.images_per_identity,
        seed=params.seed,
        epoch=epoch,
    )


def _epoch_length(params: TrainParams, dataset: PackDataset) -> int:
    order = epoch_order(params, dataset, 0)
    return len(dataset.labels) if order is None else len(order)


def _about(identity: dict[str, Any], packs: Sequence[Path], dataset: PackDataset, model: FaceModel) -> dict[str, Any]:
    """The metadata of the model's file. It lists the packs, for leakage checks, and the source of pretrained weights, whose
    licence may also apply to this model."""
    began = {"source": model.about["source"]} if "source" in model.about else {}
    return {
        **identity,
        **began,
        "pack_index_sha256": dataset.contents[0],
        "pack": os.path.realpath(packs[0]),
        "packs": [os.path.realpath(pack) for pack in packs],
        "packs_sha256": list(dataset.contents),
        "identities": dataset.num_classes,
        "images": len(dataset.labels),
    }
