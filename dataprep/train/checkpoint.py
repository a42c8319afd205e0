"""The full state of a training run in one file, written atomically."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataprep.errors import ModelError
from dataprep.models.zip_checksums import check_archive
from dataprep.storage import Folder
from dataprep.train.distributed.process_group import World

_log = logging.getLogger(__name__)

CHECKPOINT_NAME, PREVIOUS_NAME = "checkpoint.pt", "checkpoint-previous.pt"


def write_checkpoint(folder: Folder, content: Mapping[str, Any]) -> None:
    """Write plain values and tensors only, so that loading the file runs no code. The checkpoint before is kept beside
    it."""
    last, previous = folder / CHECKPOINT_NAME, folder / PREVIOUS_NAME
    with folder.writing(CHECKPOINT_NAME) as stream:
        torch.save(dict(content), stream)
        if last.exists():
            previous.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a file system without hard links
                os.link(last, previous)


def read_checkpoint(folder: Folder) -> dict[str, Any] | None:
    """Read the last checkpoint onto the CPU, or the one before if that is damaged; None if there is none. Raises ModelError
    if both are damaged."""
    last, previous = folder / CHECKPOINT_NAME, folder / PREVIOUS_NAME
    try:
        return _read(last) if last.exists() else None
    except ModelError as error:
        if not previous.exists():
            raise
        content = _read(previous)
        _log.warning("%s; the run goes on from the checkpoint before it, step %d", error, content["step"])
        return content


def _read(path: Path) -> dict[str, Any]:
    try:
        check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        int(content["step"])
    except Exception as error:  # torch.load can raise almost any exception for a damaged file
        raise _cannot(path, error) from None
    found: dict[str, Any] = content
    return found


def not_resumable(folder: Folder, error: Exception) -> ModelError:
    """The error for a readable checkpoint that does not fit the run, such as one of another architecture."""
    return _cannot(folder / CHECKPOINT_NAME, error)


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the random generators of torch, numpy and Python, as tensors and plain values."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, numbers, following = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "python": (version, torch.tensor(numbers), following),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random(states: list[dict[str, Any]], *, seed: int, step: int, world: World, device: torch.device) -> None:
    """Restore each process's generators. If the number of processes has changed, reseed from seed, step and rank."""
    if len(states) != world.size:
        seed_all((seed * 1_000_003 + step) * 1_009 + world.rank)
        return
    state = states[world.rank]
    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, numbers, following = state["python"]
    random.setstate((version, tuple(numbers.tolist()), following))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def seed_all(seed: int) -> None:
    """Seed torch (including GPUs), numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _cannot(path: Path, error: Exception) -> ModelError:
    words = " ".join(str(error).split())[:300]
    return ModelError(f"{path} cannot be resumed ({words})", hint="use --overwrite to start over")
