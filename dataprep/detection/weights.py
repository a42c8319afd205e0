"""MTCNN's weights from the installed facenet-pytorch, which is not imported because it would import torchvision."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import pickle
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.errors import ModelError

# the files of facenet-pytorch 2.5.3, unchanged since 2.0
WEIGHT_SHA256 = {
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}


@cache
def find_weight_files() -> dict[str, Path]:
    """Paths of pnet.pt, rnet.pt and onet.pt. Raises ModelError if facenet-pytorch is missing or its weights differ."""
    spec = importlib.util.find_spec("facenet_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "facenet-pytorch, which has MTCNN's weights, is not installed", hint="pip install 'facenet-pytorch==2.5.3'"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    files = {name: folder / f"{name}.pt" for name in WEIGHT_SHA256}
    for name, path in files.items():
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        if found != WEIGHT_SHA256[name]:
            try:
                version = importlib.metadata.version("facenet-pytorch")
            except importlib.metadata.PackageNotFoundError:  # a checkout
                version = "of unknown version"
            raise ModelError(
                f"{path} of facenet-pytorch {version} is not the published file (sha256 {found[:12]}, expected "
                f"{WEIGHT_SHA256[name][:12]})",
                hint="pip install --force-reinstall --no-deps 'facenet-pytorch==2.5.3'",
            )
    return files


def weights_digest() -> str:
    """A single hash of the three weight files, for fingerprints."""
    find_weight_files()
    return hashlib.sha256("".join(WEIGHT_SHA256[name] for name in sorted(WEIGHT_SHA256)).encode()).hexdigest()[:16]


_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py


class _Tensor(NamedTuple):
    """A tensor whose storage is not read yet, because the format puts storages after the pickle."""

    storage: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_state_dict(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 tensors in a legacy torch file, by name. Raises ValueError or pickle.UnpicklingError."""
    with open(path, "rb") as stream:
        if _Unpickler(stream).load() != _MAGIC:
            raise ValueError(f"{path} is not in torch's legacy format")
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
        raise ValueError("a tensor extends beyond its storage")
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
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weight file")

    def persistent_load(self, pid: Any) -> str:
        return str(pid[2])
