"""A model in one file: weights, which network they belong to, and what its input has to look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataprep.errors import ModelError
from dataprep.models.input import Input
from dataprep.models.registry import build
from dataprep.storage import Folder


def save_model(
    path: Path, module: nn.Module, *, network: str, embedding: int, input: Input, about: Mapping[str, Any]
) -> None:
    """Write atomically; only plain values and tensors, so that the file opens without running code."""
    content = {
        "network": network,
        "embedding": embedding,
        "input": asdict(input),
        "about": dict(about),
        "weights": {name: tensor.cpu() for name, tensor in module.state_dict().items()},
    }
    with Folder(path.parent).writing(path.name) as stream:
        torch.save(content, stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network in evaluation mode, with what its file says of it."""

    module: nn.Module
    input: Input
    network: str
    embedding: int
    about: Mapping[str, Any]


def load_model(path: Path) -> Model:
    """Open a model's file; no code in it is run. Raises ModelError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        module = build(content["network"], content["embedding"])
        module.load_state_dict(content["weights"])
        described = content["input"]
        return Model(
            module=module.eval(),
            input=Input(**{**described, "mean": tuple(described["mean"]), "std": tuple(described["std"])}),
            network=content["network"],
            embedding=content["embedding"],
            about=dict(content["about"]),
        )
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model; `dataprep train` makes one") from None
    except ModelError:
        raise
    except Exception as error:  # torch.load raises nearly anything for a damaged or foreign file
        words = str(error).splitlines()[0][:200]
        raise ModelError(f"{path}: not a model of dataprep ({type(error).__name__}: {words})") from None


def untrained(model: Model, *, seed: int = 0) -> Model:
    """The same network with fresh weights: what the architecture alone can tell."""
    torch.manual_seed(seed)
    return replace(model, module=build(model.network, model.embedding).eval(), about={})
