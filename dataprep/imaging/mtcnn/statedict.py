"""Tensors from the files that torch saved before its zip format, as facenet-pytorch ships them; without torch.

Only dictionaries of plain tensors are read; the pickle in such a file cannot name anything else.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py


class _Tensor(NamedTuple):
    """A tensor before its storage is read: the format puts the numbers behind the pickle."""

    storage: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_state_dict(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 tensors of a legacy torch file by name. Raises ValueError or pickle.UnpicklingError."""
    with open(path, "rb") as stream:
        if _Unpickler(stream).load() != _MAGIC:
            raise ValueError(f"{path} was not saved in torch's legacy format")
        for _ in ("protocol version", "sizes of the machine that wrote it"):
            _Unpickler(stream).load()
        tensors: dict[str, _Tensor] = _Unpickler(stream).load()
        storages = {}
        for key in _Unpickler(stream).load():
            count = int.from_bytes(stream.read(8), "little")
            storages[str(key)] = np.frombuffer(stream.read(4 * count), "<f4")
    return {name: _array(tensor, storages[tensor.storage]) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, storage: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    if min(tensor.offset, 0, *tensor.size, *tensor.stride) < 0 or last >= len(storage):
        raise ValueError("a tensor that reaches beyond its storage")
    steps = [4 * step for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.size, steps).copy()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _Tensor(storage, offset, tuple(size), tuple(stride))
        if (module, name) == ("torch", "FloatStorage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} has no place among weights")

    def persistent_load(self, pid: Any) -> str:
        return str(pid[2])
