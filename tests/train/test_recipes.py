"""The first twenty steps of published trainers, by their own code, against ours under the recipe of their name.

recipe_facts.json was made by running each trainer's own loop (for mxnet, its formulas written out in torch) in float64 on
the network, weights and batches below: the loss of each step, and of each final tensor its sum and the length of its change.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command import Run
from torch import Tensor, nn

from dataprep.train.config import TrainParams
from dataprep.train.distributed.process_group import World
from dataprep.train.losses.factory import make_loss_head
from dataprep.train.optim import learning_rate, make_optimizer
from dataprep.train.recipes import RECIPES
from dataprep.train.step import TrainStep

FACTS = json.loads((Path(__file__).parent / "recipe_facts.json").read_text())
STEPS, BATCH, CLASSES, EMBEDDING = 20, 16, 10, 16
# what the small problem needs: its own batch, at the trainer's rate of 0.1, and a schedule within 20 steps
SMALL: dict[str, dict[str, Any]] = {
    "arcface_torch": {"epochs": 4},
    "arcface_torch cosface": {"epochs": 4, "loss": "cosface", "m2": None, "m3": 0.4, "weight_decay": 1e-4,
                              "arcface_gradient": "exact"},
    "arcface_torch combined": {"epochs": 4, "loss": "combined", "m2": None},
    "adaface": {"epochs": 4, "lr_epochs": "1,2,3"},
    "mxnet-arcface": {"epochs": 4, "lr_steps": "8,14"},
    "vggface2": {"epochs": 4, "step_size": 8},
    "face_pytorch": {"epochs": 20},
    "face_pytorch cosface": {"epochs": 20, "loss": "cosface", "m2": None, "m3": 0.35},
    "face_pytorch multimargin": {"epochs": 20, "loss": "multimargin", "m2": None},
}  # fmt: skip


class Tiny(nn.Module):
    """(n, 3, 8, 8) -> (n, 16), with every kind of parameter that a weight decay may leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.prelu = nn.PReLU(8)
        self.lin = nn.Linear(8 * 4 * 4, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING)

    def forward(self, images: Tensor) -> Tensor:
        embedded: Tensor = self.features(self.lin(self.prelu(self.bn(self.conv(images))).flatten(1)))
        return embedded


def problem() -> tuple[Tiny, Tensor, list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(20240917)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    net = Tiny().double()
    with torch.no_grad():
        for parameter in net.parameters():
            flat = parameter.ndim == 1 and parameter is not net.lin.bias
            parameter.copy_(draw(*parameter.shape) * 0.1 + (1.0 if flat else 0.0))
        net.prelu.weight.fill_(0.25)
    centres = draw(CLASSES, EMBEDDING) * 0.01
    means = draw(CLASSES, 3, 8, 8)
    batches = []
    for _ in range(STEPS):
        labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
        batches.append((means[labels] + draw(BATCH, 3, 8, 8), labels))
    return net, centres, batches


def steps_of(params: TrainParams) -> tuple[list[float], dict[str, Tensor]]:
    """Our losses and final weights."""
    net, centres, batches = problem()
    net.train(params.train == "all" or params.frozen_bn == "train")
    net.requires_grad_(params.train == "all")
    head = make_loss_head(params, EMBEDDING, CLASSES).double()
    with torch.no_grad():
        head.get_parameter("weight").copy_(centres)
    step = TrainStep(net, head, make_optimizer(params, net, head), params, World(), torch.device("cpu"))
    losses = [
        float(step(images, labels, rate=learning_rate(params, number, STEPS)))
        for number, (images, labels) in enumerate(batches)
    ]
    weights = {f"net/{name}": value for name, value in net.state_dict().items()}
    return losses, weights | {f"head/{name}": value for name, value in head.named_parameters()}


@pytest.mark.parametrize("case", SMALL)
def test_twenty_steps_are_those_of_the_trainer(case: str) -> None:
    recipe = RECIPES[case.split()[0]].options
    params = TrainParams(**{**recipe, "batch_size": BATCH, "lr": 0.1 * 128 / BATCH, **SMALL[case]})
    losses, weights = steps_of(params)
    facts = FACTS[case]
    if not case.startswith("arcface_torch"):  # its log counts no image above 69.08
        np.testing.assert_allclose(losses, facts["losses"], rtol=0, atol=1e-6)
    start = {f"net/{name}": value for name, value in problem()[0].state_dict().items()}
    start["head/weight"] = problem()[1]
    for name, (total, moved) in facts["weights"].items():
        value = weights[name].detach().double()
        assert float(value.sum()) == pytest.approx(total, abs=1e-6), name
        before = start.get(name, torch.zeros_like(value))
        assert float((value - before).norm()) == pytest.approx(moved, abs=1e-6), name


@pytest.mark.parametrize(
    ("recipe", "option", "value"),
    [
        ("arcface_torch", "poly_power", 2.0),
        ("arcface_torch", "clip_scope", "all"),
        ("arcface_torch", "arcface_gradient", "exact"),
        ("adaface", "bn_weight_decay", True),
        ("mxnet-arcface", "optimizer", "sgd"),
        ("vggface2", "bias_lr", 1.0),
        ("vggface2", "frozen_bn", "eval"),
        ("face_pytorch", "nesterov", False),
    ],
)
def test_each_setting_of_a_recipe_matters(recipe: str, option: str, value: Any) -> None:
    params = TrainParams(
        **{**RECIPES[recipe].options, "batch_size": BATCH, "lr": 0.1 * 128 / BATCH, **SMALL[recipe]}  # type: ignore[arg-type]
    )
    _, weights = steps_of(params)
    _, others = steps_of(replace(params, **{option: value}))
    assert max(float((weights[name] - others[name]).detach().abs().max()) for name in weights) > 1e-4


def test_a_recipe_is_told_and_overruled_by_the_command_line_and_the_config(
    drawn: Path, dataprep: Run, tmp_path: Path
) -> None:
    dataprep("import", "folder", drawn)
    dataprep("pack")
    (tmp_path / "c.yaml").write_text("epochs: 1\nscale: 16\n")
    common = ("--recipe", "face_pytorch", "--config", tmp_path / "c.yaml", "--batch-size", 12, "--device", "cpu")
    said = dataprep("train", *common, "--embedding", 64).stderr
    assert "recipe face_pytorch (Face_Pytorch 3afd941" in said
    assert "lr-epochs 6,11,16" in said
    assert "not from the recipe: embedding, scale, batch-size, epochs" in said
    config = json.loads((tmp_path / "ws/models/default/config.json").read_text())["params"]
    assert (config["embedding"], config["scale"], config["epochs"], config["order"]) == (64, 16.0, 1, "BGR")
    assert config["nesterov"] is True


def test_the_rate_falls_after_epochs_as_after_steps() -> None:
    params = TrainParams(schedule="step", lr_epochs="2,3", epochs=4, warmup=0.0, batch_size=128, lr=1.0)
    assert [round(learning_rate(params, step, 40), 6) for step in (19, 20, 29, 30, 39)] == [1, 0.1, 0.1, 0.01, 0.01]
