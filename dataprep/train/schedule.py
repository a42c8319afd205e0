"""The learning rate at each step."""

from __future__ import annotations

from dataprep.errors import UsageError
from dataprep.train.params import TrainParams

_REFERENCE_BATCH = 128  # --lr is meant for it


def learning_rate(params: TrainParams, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`: linear warm-up, then

    poly      (1 - share of the rest that is done) ** 2: arcface_torch's lr_scheduler.py
    step      times `gamma` at each of `lr_steps` (mxnet insightface), or every `step_size` steps (VGGFace2-pytorch)
    constant  as it is
    """
    top = params.lr * params.batch_size / _REFERENCE_BATCH
    warm = int(params.warmup * steps)
    if step < warm:
        return top * (step + 1) / warm
    if params.schedule == "poly":
        return float(top * (1 - (step - warm) / max(1, steps - warm)) ** 2)
    if params.schedule == "step":
        falls = sum(step >= at for at in milestones(params))
        if params.step_size:
            falls += step // params.step_size
        return float(top * params.gamma**falls)
    return top


def milestones(params: TrainParams) -> list[int]:
    """--lr-steps as numbers. Raises UsageError."""
    try:
        found = [int(part) for part in params.lr_steps.replace(" ", "").split(",") if part]
    except ValueError:
        found = [-1]
    if found != sorted(set(found)) or min(found, default=1) < 1:
        raise UsageError(f"--lr-steps {params.lr_steps}: rising numbers of steps, such as 100000,160000")
    return found


def check_schedule(params: TrainParams) -> None:
    """Raises UsageError for settings that contradict each other."""
    several = bool(milestones(params)) + bool(params.step_size)
    if params.schedule == "step" and several != 1:
        raise UsageError("--schedule step takes either --lr-steps or --step-size")
    if params.schedule != "step" and several:
        raise UsageError(
            f"--lr-steps and --step-size mean nothing with --schedule {params.schedule}: add --schedule step"
        )
