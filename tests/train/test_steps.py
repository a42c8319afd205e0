import math
from pathlib import Path

import pytest
import torch
from torch import nn

from dataprep.errors import ModelError, UsageError
from dataprep.train.callback import BestScore
from dataprep.train.config import TrainParams, read_config
from dataprep.train.distributed.process_group import World, choose_device
from dataprep.train.losses.factory import make_loss_head
from dataprep.train.optim import (
    EMA,
    check_optimizer,
    check_schedule,
    clip_gradients,
    gradient_norm,
    learning_rate,
    make_optimizer,
)
from dataprep.train.step import TrainStep, choose_precision

CPU = torch.device("cpu")


def test_poly_rises_and_falls_to_its_power() -> None:
    for power in (1.0, 2.0):
        params = TrainParams(lr=0.1, batch_size=256, warmup=0.2, poly_power=power)
        rates = [learning_rate(params, step, 10) for step in range(10)]
        assert rates == pytest.approx([0.1, 0.2, *(0.2 * (1 - k / 8) ** power for k in range(8))])


def test_poly_is_arcface_torchs_since_april_2023() -> None:
    # lr_scheduler.py at 7fadd420, PolynomialLRWarmup of SGD(lr=0.1) with warmup_iters=0, total_iters=10: its own output
    theirs = [0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01]
    params = TrainParams(lr=0.1, batch_size=128, warmup=0.0)
    assert [learning_rate(params, step, 10) for step in range(10)] == pytest.approx(theirs)


def test_steps_fall_where_insightface_and_vggface2_let_them_fall() -> None:
    listed = TrainParams(lr=1.0, batch_size=128, warmup=0.0, schedule="step", lr_steps="2, 5", gamma=0.5)
    assert [learning_rate(listed, step, 7) for step in range(7)] == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    every = TrainParams(lr=1.0, batch_size=128, warmup=0.0, schedule="step", step_size=3, gamma=0.1)
    assert [learning_rate(every, step, 7) for step in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])
    constant = TrainParams(lr=1.0, batch_size=64, warmup=0.0, schedule="constant")
    assert {learning_rate(constant, step, 7) for step in range(7)} == {0.5}


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "step"},
        {"schedule": "step", "lr_steps": "1,2", "step_size": 3},
        {"lr_steps": "1,2"},
        {"schedule": "step", "lr_steps": "2,1"},
        {"schedule": "step", "lr_steps": "a"},
    ],
)
def test_schedules_that_contradict_themselves_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="step") as caught:
        check_schedule(TrainParams(**settings))
    assert "--lr-steps" in caught.value.hint


@pytest.mark.parametrize("largest", [0.7, 100.0])
def test_clipping_is_torchs(largest: float) -> None:
    torch.manual_seed(0)
    one, two = ([nn.Parameter(torch.ones(n)) for n in (3, 5)] for _ in range(2))
    for a, b in zip(one, two, strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    norm = gradient_norm(one[:1], one[1:], World())
    clip_gradients(one, norm, largest)
    assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(two, largest)))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_average_is_the_formulas_and_follows_the_buffers() -> None:
    net = nn.BatchNorm1d(1)
    average = EMA(net, 0.5)
    with torch.no_grad():
        net.weight.fill_(3.0)
        net.running_mean.fill_(7.0)
    average.update(net, 1)  # the decay is still (1 + 1) / (10 + 1)
    assert float(average.module.weight) == pytest.approx(2 / 11 * 1 + 9 / 11 * 3)
    average.update(net, 1000)
    assert float(average.module.weight) == pytest.approx(0.5 * (2 / 11 + 27 / 11) + 0.5 * 3)
    assert float(average.module.running_mean) == 7.0


def _stepper(params: TrainParams, backbone: nn.Module) -> tuple[TrainStep, nn.Module]:
    head = make_loss_head(params, 4, 3, seed=0)
    return TrainStep(backbone, head, make_optimizer(params, backbone, head), params, World(), CPU), head


def _linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(6, 4).double()


def test_a_step_in_parts_is_the_step_as_a_whole() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 3
    results = []
    for parts in (1, 4):
        net = _linear()
        stepper, head = _stepper(TrainParams(batch_size=8, accumulate=parts, loss="cosface", clip=0.1), net)
        losses = [float(stepper(images, labels, rate=0.1)) for _ in range(3)]
        results.append((losses, net.weight.detach().clone(), head.weight.detach().clone()))
    (one, a, b), (other, c, d) = results
    assert one == pytest.approx(other)
    assert one[-1] < one[0]
    torch.testing.assert_close(a, c)
    torch.testing.assert_close(b, d)


@pytest.mark.parametrize("settings", [{"nesterov": True}, {"optimizer": "adamw"}])
def test_a_step_is_that_of_torchs_optimisers(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 3
    params = TrainParams(batch_size=8, loss="norm-softmax", clip=0.0, weight_decay=0.01, **settings)
    net, same = _linear(), _linear()
    stepper, _ = _stepper(params, net)
    head = make_loss_head(params, 4, 3, seed=0)
    both = [*same.parameters(), *head.parameters()]
    if "nesterov" in settings:
        expected: torch.optim.Optimizer = torch.optim.SGD(both, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
    else:
        expected = torch.optim.AdamW(both, 0.1, weight_decay=0.01)
    for _ in range(3):
        stepper(images, labels, rate=0.1)
        expected.zero_grad()
        head(same(images), labels).backward()
        expected.step()
    torch.testing.assert_close(net.weight, same.weight)


def test_only_the_head_learns_where_that_is_asked_for() -> None:
    net = nn.Sequential(_linear(), nn.BatchNorm1d(4).double()).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    stepper, _ = _stepper(TrainParams(batch_size=8, train="head", loss="softmax", clip=1.0), net)
    images, labels = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 3
    losses = [float(stepper(images, labels, rate=0.5)) for _ in range(30)]
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_precisions_and_devices_that_are_not_there_are_named() -> None:
    assert choose_precision(TrainParams(), CPU) is None
    assert choose_precision(TrainParams(precision="bf16"), CPU) is torch.bfloat16
    with pytest.raises(ModelError, match="fp16 needs a GPU") as caught:
        choose_precision(TrainParams(precision="fp16"), CPU)
    assert "fp32 or bf16" in caught.value.hint
    with pytest.raises(ModelError, match="no such device: 'nonsense'"):
        choose_device("nonsense")
    with pytest.raises(UsageError, match="Nesterov") as caught:
        check_optimizer(TrainParams(nesterov=True, momentum=0.0))
    assert "--momentum" in caught.value.hint


def test_bf16_on_a_cpu_is_near_float32() -> None:
    images, labels = torch.randn(8, 6), torch.arange(8) % 3
    losses = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(1)
        stepper, _ = _stepper(TrainParams(batch_size=8, precision=precision, loss="softmax"), nn.Linear(6, 4))
        losses.append([float(stepper(images, labels, rate=0.1)) for _ in range(3)])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_best_is_of_the_last_set_or_of_the_mean() -> None:
    last, mean = BestScore(rule="last"), BestScore(rule="mean")
    turns = [{"a": 0.9, "b": 0.5}, {"a": 0.1, "b": 0.6}, {"a": 1.0, "b": 0.6}]
    assert [last.improves(scores, step) for step, scores in enumerate(turns)] == [True, True, False]
    assert [mean.improves(scores, step) for step, scores in enumerate(turns)] == [True, False, True]
    assert (last.step, mean.step) == (1, 2)
    assert math.isclose(mean.accuracy, 0.8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("netwrok: ir50", "network"),
        ("[1, 2]", "expected a mapping"),
        ("epochs: {a: 1}", "plain value"),
        ("epochs: [", "not valid YAML"),
        ("batch-size: 1\nbatch_size: 2", "twice"),
    ],
)
def test_configurations_that_cannot_be_read_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_config(file, {"network", "epochs", "batch_size"})


def test_a_configuration_is_a_mapping_of_options(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("batch-size: 8\nlr-steps: [10, 20]\npack: [a, b]\nflip: no\nepochs: 2.5\n")
    found = read_config(file, {"batch_size", "lr_steps", "pack", "flip", "epochs"}, several=["pack"])
    # words, as if typed: the command line converts them, and 2.5 epochs are refused there rather than cut to 2
    assert found == {"batch_size": "8", "lr_steps": "10,20", "pack": ["a", "b"], "flip": "False", "epochs": "2.5"}
