"""A model in one file: weights, which network they belong to, and what its input has to look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataprep.errors import ModelError
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.registry import create_model
from dataprep.storage import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceModel:
    """A network in evaluation mode, with what its file says of it. `head` is None for that of the network's authors."""

    module: nn.Module
    preprocessing: Preprocessing
    network: str
    embedding: int
    about: Mapping[str, Any]
    head: str | None = None


def save_model(
    path: Path,
    module: nn.Module,
    *,
    network: str,
    embedding: int,
    preprocessing: Preprocessing,
    about: Mapping[str, Any],
    head: str | None = None,
) -> None:
    """Write atomically; only plain values and tensors, so that the file opens without running code."""
    content = {
        "network": network,
        "embedding": embedding,
        "input": asdict(preprocessing),
        "about": dict(about),
        "weights": {name: tensor.cpu() for name, tensor in module.state_dict().items()},
    }
    if head is not None:
        content["head"] = head
    with Folder(path.parent).writing(path.name) as stream:
        torch.save(content, stream)


def load_model(path: Path) -> FaceModel:
    """Open a model's file; no code in it is run. Raises ModelError."""
    try:
        return model_from_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model; `dataprep train` makes one") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except Exception as error:  # torch.load raises nearly anything for a damaged or foreign file
        words = str(error).splitlines()[0][:200]
        raise ModelError(f"{path}: not a model of dataprep ({type(error).__name__}: {words})") from None


def model_from_dict(content: Mapping[str, Any]) -> FaceModel:
    """The model of what `save_model` wrote."""
    input = Preprocessing.from_mapping(content["input"])
    network, embedding, head = content["network"], content["embedding"], content.get("head")
    module = create_model(network, embedding, input_size=(input.height, input.width), head=head)
    module.load_state_dict(content["weights"])
    return FaceModel(
        module=module.eval(),
        preprocessing=input,
        network=network,
        embedding=embedding,
        about=dict(content["about"]),
        head=head,
    )


def reinitialise(model: FaceModel, *, seed: int = 0) -> FaceModel:
    """The same network with fresh weights: what the architecture alone can tell."""
    torch.manual_seed(seed)
    size = (model.preprocessing.height, model.preprocessing.width)
    module = create_model(model.network, model.embedding, input_size=size, head=model.head)
    return replace(model, module=module.eval(), about={})
