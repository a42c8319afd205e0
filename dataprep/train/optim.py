"""Optimisers, the norm of a gradient sharded over processes, and weight averaging."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dataprep.errors import UsageError
from dataprep.train.config import TrainParams
from dataprep.train.distributed.process_group import World


def make_optimizer(params: TrainParams, backbone: nn.Module, head: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer of all trainable parameters. The learning rate is set at each step: in each group it is the
    schedule's times the group's `rate_factor`."""
    norms = {id(p) for m in backbone.modules() if isinstance(m, _BATCH_NORM) for p in m.parameters()}
    biases = {id(p) for name, p in head.named_parameters() if name == "bias"}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in (*backbone.parameters(), *head.parameters()):
        if parameter.requires_grad:
            decay = 0.0 if id(parameter) in norms and not params.bn_weight_decay else params.weight_decay
            factor = params.bias_lr if id(parameter) in biases else 1.0
            groups.setdefault((decay, factor), []).append(parameter)
    chosen = [
        {"params": found, "weight_decay": decay, "rate_factor": factor} for (decay, factor), found in groups.items()
    ]
    if params.optimizer == "adamw":
        return torch.optim.AdamW(chosen, lr=0.0)
    if params.optimizer == "sgd-mxnet":
        return MxnetSGD(chosen, momentum=params.momentum)
    return torch.optim.SGD(chosen, lr=0.0, momentum=params.momentum, nesterov=params.nesterov)


_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class MxnetSGD(torch.optim.Optimizer):
    """SGD as mxnet has it (src/operator/optimizer_op-inl.h, SGDMomKernel): v = momentum * v - lr * (wd * w + g); w += v.

    torch's velocity holds no rate, so that after a fall of the rate it also slows the movement of earlier steps.
    """

    def __init__(self, params: Any, *, momentum: float) -> None:
        super().__init__(params, {"lr": 0.0, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(parameter)
                velocity = state["velocity"].mul_(group["momentum"])
                velocity.sub_(group["lr"] * (group["weight_decay"] * parameter + parameter.grad))
                parameter.add_(velocity)


def check_optimizer(params: TrainParams) -> None:
    """Raises UsageError for settings that contradict each other."""
    if params.bias_lr != 1 and params.loss != "softmax":
        raise UsageError(f"the loss {params.loss} has no bias", hint="leave out --bias-lr")
    if params.nesterov and (params.optimizer != "sgd" or not params.momentum):
        raise UsageError(
            "Nesterov momentum needs SGD with a momentum above 0", hint="leave out --nesterov, or raise --momentum"
        )


def gradient_norm(shared: Sequence[nn.Parameter], own: Sequence[nn.Parameter], world: World) -> Tensor:
    """The norm of the whole gradient. `shared` parameters are equal in all processes; `own` ones belong to one process."""
    device = (shared or own)[0].device
    squares = _square(own, device)
    if world.size > 1:
        dist.all_reduce(squares)
    return (_square(shared, device) + squares).sqrt()


def clip_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, largest: float) -> None:
    """Scale gradients of norm `norm` down to a norm of at most `largest`, as torch's clip_grad_norm_ does."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))


def share_overflow(parameters: Iterable[nn.Parameter], norm: Tensor) -> None:
    """Propagate a gradient overflow in one process to the GradScaler of all, so that all skip the step."""
    first = next(p.grad for p in parameters if p.grad is not None)
    first.add_(norm * 0)  # 0, or NaN


def gather_optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, dict[str, Any]]:
    """The optimiser state of each parameter of `module`, by parameter name."""
    named = module.named_parameters()
    return {name: dict(optimizer.state[parameter]) for name, parameter in named if parameter in optimizer.state}


def load_optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module, slots: dict[str, dict[str, Any]]) -> None:
    """Load optimiser state returned by `gather_optimizer_state`."""
    for name, parameter in module.named_parameters():
        if name in slots:
            optimizer.state[parameter] = {
                slot: value.to(parameter.device, copy=True) if isinstance(value, Tensor) and value.ndim else value
                for slot, value in slots[name].items()
            }


class EMA:
    """An exponential moving average of a network's weights. Its buffers are copies of the network's current ones."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Update after step `step` (from 1). The decay rises to its final value, so the initial weights fade quickly."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for mean, now in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
        for kept, current in zip(self.module.buffers(), module.buffers(), strict=True):
            kept.copy_(current)


@torch.no_grad()
def average_buffers(module: nn.Module, world: World) -> None:
    """Average the running statistics of batch norm over processes, as each has seen only its share of the images."""
    if world.size == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world.size


def _square(parameters: Sequence[nn.Parameter], device: torch.device) -> Tensor:
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=device)
    norms = torch.stack(torch._foreach_norm(gradients))
    return norms.to(torch.promote_types(norms.dtype, torch.float32)).square().sum()


_REFERENCE_BATCH = 128  # --lr is the rate at this batch size


def learning_rate(params: TrainParams, step: int, steps: int) -> float:
    """The learning rate at step `step` (from 0) of `steps`: linear warm-up, then one of these schedules:

    poly      (1 - share of the remaining steps done) ** poly_power (arcface_torch, lr_scheduler.py PolynomialLRWarmup)
    step      multiply by `gamma` at each of `lr_steps` (mxnet insightface), after each of `lr_epochs` (AdaFace,
              Face_Pytorch), or every `step_size` steps (VGGFace2-pytorch)
    constant  stay at the full rate
    """
    top = params.lr * params.batch_size / _REFERENCE_BATCH
    warm = int(params.warmup * steps)
    if step < warm:
        return top * (step + 1) / warm
    if params.schedule == "poly":
        return float(top * (1 - (step - warm) / max(1, steps - warm)) ** params.poly_power)
    if params.schedule == "step":
        falls = sum(step >= at for at in parse_milestones(params.lr_steps, "steps"))
        falls += sum(step * params.epochs >= at * steps for at in parse_milestones(params.lr_epochs, "epochs"))
        if params.step_size:
            falls += step // params.step_size
        return float(top * params.gamma**falls)
    return top


def parse_milestones(text: str, unit: str) -> list[int]:
    """Parse `lr_steps` or `lr_epochs`. Raises UsageError."""
    try:
        found = [int(part) for part in text.replace(" ", "").split(",") if part]
    except ValueError:
        found = [-1]
    if found != sorted(set(found)) or min(found, default=1) < 1:
        raise UsageError(
            f"invalid numbers of {unit} {text!r}: they must be positive and increasing",
            hint=f"give --lr-{unit} as 10,16, for example",
        )
    return found


def check_schedule(params: TrainParams) -> None:
    """Raises UsageError for settings that contradict each other."""
    milestones = parse_milestones(params.lr_steps, "steps"), parse_milestones(params.lr_epochs, "epochs")
    several = sum(map(bool, milestones)) + bool(params.step_size)
    if params.schedule == "step" and several != 1:
        raise UsageError(
            "the step schedule needs either steps, epochs or a step size",
            hint="give one of --lr-steps, --lr-epochs and --step-size",
        )
    if params.schedule != "step" and several:
        raise UsageError(
            f"step numbers and a step size do not apply to the schedule {params.schedule}",
            hint="add --schedule step, or leave out --lr-steps, --lr-epochs and --step-size",
        )
