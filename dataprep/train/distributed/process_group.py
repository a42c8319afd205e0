"""One process, or several under `torchrun` that stop at the same step and report a single error."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dataprep.errors import DataprepError, ModelError

T = TypeVar("T")
_PATIENCE = datetime.timedelta(hours=1)  # the other processes wait while the first verifies


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process's place among all. `control` is a gloo group on the CPU, so that flags never wait for the GPU stream.

    Only the first process writes files and prints. On a shared error the others exit silently with its exit code.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def agree(self, *, stop: bool = False, error: DataprepError | None = None) -> bool:
        """Whether any process was asked to stop. An error in any process is raised in all of them."""
        if self.size == 1:
            if error is not None:
                raise error
            return stop
        flags = torch.tensor([stop, error is not None], dtype=torch.uint8)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.control)
        if flags[1]:
            self._raise(next(found for found in self.gather(error) if found is not None))
        return bool(flags[0])

    def run_once(self, act: Callable[[], T]) -> T:
        """Run `act` in the first process only; return its result, or raise its error, in all of them."""
        result: T | None = None
        error = None
        if self.is_first:
            try:
                result = act()
            except DataprepError as raised:
                error = raised
        self.agree(error=error)
        return self.gather(result)[0]  # type: ignore[return-value]

    def run_everywhere(self, act: Callable[[], T]) -> T:
        """Run `act` in every process and return its own result. An error in any process is raised in all."""
        result: T | None = None
        error = None
        try:
            result = act()
        except DataprepError as raised:
            error = raised
        self.agree(error=error)
        return result  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, ordered by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def _raise(self, error: DataprepError) -> None:
        if not self.is_first:
            raise SystemExit(error.exit_code)
        raise error


@contextmanager
def join_world(device: str) -> Iterator[tuple[World, torch.device]]:
    """The world described by torchrun's environment variables, and this process's device. Without them, a single process.

    The backend is gloo on CPUs and nccl on GPUs. Raises ModelError for a device that does not exist.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield World(), choose_device(device)
        return
    rank, local = _number("RANK", 0), _number("LOCAL_RANK", 0)
    chosen = choose_device(device, local)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield World(rank=rank, size=size, local_rank=local, control=control), chosen
    except RuntimeError as error:
        if not _is_about_peers(error):
            raise
        raise ModelError(
            f"process {rank} of {size} lost its connection to another process; see that process's message"
        ) from None
    finally:
        dist.destroy_process_group()


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` is a GPU if there is one, else the CPU. With `auto` or `cuda`, each of several processes gets its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {name!r}: torch {torch.__version__} finds no CUDA device", hint="use --device cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"no such device: {name!r}", hint="use --device cpu, cuda or cuda:1, for example") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ModelError(f"device {name!r} is not supported, only cpu and cuda")
    number = local_rank if device.index is None else device.index
    if number >= torch.cuda.device_count():
        raise ModelError(
            f"device {name!r}: process {local_rank} of this machine needs GPU {number}, but there are only "
            f"{torch.cuda.device_count()}",
            hint="lower torchrun's --nproc-per-node, or choose another --device",
        )
    return torch.device("cuda", number)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise ModelError(f"the environment variable {name}={text}, which torchrun sets, is not a number")
    return int(text)


def _is_about_peers(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(
        words in str(error) for words in ("Connection closed by peer", "Connection reset by peer", "timed out waiting")
    )
