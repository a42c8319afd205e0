"""Loads trained weights, our own or other projects', as a model. No code in a file is ever run.

Supported are our model.pt, checkpoints and safetensors, and state dicts, bare or in a checkpoint, of insightface's
arcface_torch (backbone.pth), Face_Pytorch (.ckpt), foamliu's MobileFaceNet and VGGFace2 (cydonia999's .pkl of numpy
arrays, Oxford's .pth). The network is recognised by the parameter names and shapes.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataprep.errors import ModelError, RecordError
from dataprep.models.card import METADATA_KEY
from dataprep.models.model_files import FaceModel, model_from_dict
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.registry import NETWORKS, create_meta_model, create_model
from dataprep.models.state_dicts import StateDict, find_state_dict_format
from dataprep.models.zip_checksums import check_archive
from dataprep.safe_pickle import PickledArray, load_plain

# keys of the network in checkpoints: ours, arcface_torch's, Face_Pytorch's, VGGFace2-pytorch's and other common ones
_INSIDE = ("weights", "backbone", "state_dict_backbone", "net_state_dict", "model_state_dict", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.")  # DataParallel, torch.compile, wrapper modules
_SIZES = ((112, 112), (112, 96), (96, 112), (128, 128), (160, 160), (224, 224))
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the magic number of torch.save before PyTorch 1.6
_UNCOUNTED = "num_batches_tracked"  # missing before PyTorch 0.4.1 and in numpy files; not needed for inference


def load_pretrained(path: Path, *, network: str | None = None, preprocessing: Preprocessing | None = None) -> FaceModel:
    """Load the model in a weight file. `network` chooses between networks with equal shapes; `input` sets the channel order
    and normalisation of a state dict. Raises ModelError."""
    try:
        model = _model(_read_weights(path), network, preprocessing)
    except ModelError as error:
        raise error.within(path) from None
    except RecordError as error:
        raise ModelError(f"{path}: {error}", hint=error.hint) from None
    if network is not None and model.network != network:
        raise ModelError(
            f"{path} holds the network {model.network}, not {network}", hint=f"use --network {model.network}"
        )
    return replace(model, about={"weights": path.name, **model.about})


def _model(content: Any, network: str | None, preprocessing: Preprocessing | None) -> FaceModel:
    described = _described(content)
    if described is None:
        return _foreign(_unwrapped(_state(content)), network, preprocessing)
    if preprocessing is not None:
        raise ModelError(
            "the file describes its own input, which cannot be changed", hint="leave out --mean, --std and --order"
        )
    _check_finite(described["weights"])
    try:
        return model_from_dict(described)
    except (KeyError, TypeError, RuntimeError) as error:
        words = " ".join(str(error).split())[:300]
        raise ModelError(f"the file is damaged, or from another version of dataprep ({words})") from None


def _described(content: Any) -> dict[str, Any] | None:
    """The content in the form that `save_model` writes, if the file is a dataprep model or checkpoint, else None."""
    if not isinstance(content, Mapping):
        return None
    if {"network", "embedding", "input"} <= content.keys():
        weights = content["weights"] if "weights" in content else content.get("backbone")
        return {"about": {}, **content, "weights": _unwrapped(_state(weights))}
    if {"identity", "backbone"} <= content.keys():  # older checkpoints do not describe their model
        identity = json.loads(content["identity"])
        _, height, width = map(int, identity["pack_property"].split(","))
        return {
            "network": identity["params"]["network"],
            "embedding": identity["params"]["embedding"],
            "input": asdict(Preprocessing(height=height, width=width)),
            "about": {},
            "weights": content["backbone"],
        }
    return None


def _foreign(state: StateDict, network: str | None, preprocessing: Preprocessing | None) -> FaceModel:
    """The model of a state dict, recognised by its parameter names and shapes."""
    _check_finite(state)
    known = find_state_dict_format(state)
    if known is None:
        few = ", ".join(list(state)[:3])
        raise ModelError(
            f"its parameter names ({few}, ...) match no supported network",
            hint="`dataprep train --list-networks` lists the supported networks",
        )
    if known.lookalike and network is None and preprocessing is None:
        raise ModelError(
            f"without their own last layer, weights of {known.citation} and {known.lookalike} cannot be told apart, and "
            "their input differs",
            hint=f"say which with --network {known.networks[0]} or {known.networks[-1]}, or with --order, --mean and --std",
        )
    state = known.convert(state)
    names = (network,) if network in known.networks else known.networks
    name, embedding, size = _fit(state, names, known.citation)
    module = create_model(name, embedding, input_size=size)
    module.load_state_dict({**module.state_dict(), **state})
    own = NETWORKS[name].preprocessing if known.lookalike and name == "resnet50" else known.preprocessing
    expected = replace(preprocessing or own, height=size[0], width=size[1])
    about = {"source": known.citation}
    return FaceModel(module=module.eval(), preprocessing=expected, network=name, embedding=embedding, about=about)


def _fit(state: StateDict, names: Sequence[str], source: str) -> tuple[str, int, tuple[int, int]]:
    """The (network, embedding, (height, width)) that fit `state`. Raises ModelError, which names the nearest network."""
    found = _shapes(state)
    nearest: tuple[int, str, dict[str, tuple[int, ...]]] | None = None
    for name in names:
        entry = NETWORKS[name]
        embedding = found[entry.embedding_parameter][0] if found.get(entry.embedding_parameter) else entry.embedding
        for size in dict.fromkeys([(entry.preprocessing.height, entry.preprocessing.width), *_SIZES]):
            expected = _shapes(create_meta_model(name, embedding, input_size=size).state_dict())
            if expected == found:
                return name, embedding, size
            apart = len(expected.items() ^ found.items())
            if nearest is None or apart < nearest[0]:
                nearest = (apart, name, expected)
            if expected.keys() != found.keys():
                break  # another size does not change the names
    assert nearest is not None
    _, name, expected = nearest
    raise ModelError(f"its parameters have names from {source}, but fit none of its networks; the nearest is {name}, with "
                     + "; ".join(_differences(expected, found)))  # fmt: skip


def _differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The differences between two sets of parameters, with up to three names of each kind."""
    shared = [name for name in expected if name in found and expected[name] != found[name]]
    for what, names in (
        ("missing", [name for name in expected if name not in found]),
        ("unexpected", [name for name in found if name not in expected]),
        ("of another shape", [f"{name} {found[name]} instead of {expected[name]}" for name in shared]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield f"{what}: {', '.join(names[:3])}{more}"


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith(_UNCOUNTED)}


def _check_finite(state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{name} has values that are not finite, so the training that wrote it had diverged")


def _state(content: Any) -> StateDict:
    """The state dict in a file, bare or in a checkpoint. Raises ModelError."""
    if isinstance(content, Mapping):
        inner = next((content[key] for key in _INSIDE if isinstance(content.get(key), Mapping)), content)
        tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
        if tensors and len(tensors) == len(inner):
            return tensors
    raise ModelError("the file holds no state dict (parameters by name), bare or in a checkpoint")


def _unwrapped(state: StateDict) -> StateDict:
    """Remove the prefixes that wrapper modules add."""
    for prefix in _WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            return _unwrapped({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return state


def _read_weights(path: Path) -> Any:
    """The content of a file, with tensors on the CPU. Raises ModelError or RecordError."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(16)
    except (FileNotFoundError, IsADirectoryError):
        raise ModelError("no such weight file", hint="train a model with `dataprep train`") from None
    if path.suffix == ".onnx":
        raise ModelError("an ONNX file can be tested, but not trained or exported: use the weights it was made from")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return _read_safetensors(path)
    if zipfile.is_zipfile(path) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        raise ModelError(
            "the file is TorchScript, a program, which is not run",
            hint="if you trust it, save its weights: torch.save(torch.jit.load(FILE).state_dict(), 'state.pt')",
        )
    if start.startswith(b"PK") or _LEGACY in start:
        return _read_torch(path)
    content = load_plain(path.read_bytes(), weights=True)
    if not isinstance(content, Mapping):
        raise ModelError("not a weight file: neither PyTorch, nor safetensors, nor a pickled dict of arrays")
    return {_text(name): _tensor(value) for name, value in content.items()}


def _read_torch(path: Path) -> Any:
    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load can raise almost any exception here
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            raise ModelError(
                f"its pickle refers to {asked[1][:120]}; only tensors and plain values are loaded, and no code is run"
            ) from None
        words = str(error).splitlines()[0][:200] if str(error) else ""
        raise ModelError(f"not a readable PyTorch file ({type(error).__name__}: {words})") from None


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ModelError(
            "reading the file needs the package safetensors", hint="pip install 'face-dataprep[onnx]'"
        ) from None
    try:
        with safe_open(path, framework="pt") as opened:
            said = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return {**json.loads(said[METADATA_KEY]), "weights": weights} if METADATA_KEY in said else weights
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"not a readable safetensors file ({error})") from None


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _tensor(value: Any) -> Any:
    if not isinstance(value, PickledArray):
        return value
    array = value.array()
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))  # a copy, because the array is read-only
