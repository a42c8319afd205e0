"""A model in one file: its weights, the name of the network, and the input it expects."""

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
from dataprep.models.zip_checksums import check_archive
from dataprep.storage import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceModel:
    """A network in evaluation mode, with its metadata. `head` is None for the network's original head."""

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
    """Write a model atomically. The file has plain values and tensors only, so that loading it runs no code."""
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
    """Load a model file without running any code in it. Raises ModelError."""
    try:
        check_archive(path)
        return model_from_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model", hint="train one with `dataprep train`") from None
    except ModelError as error:
        raise error if str(path) in str(error) else error.within(path) from None
    except Exception as error:  # torch.load can raise almost any exception here
        words = str(error).splitlines()[0][:200]
        raise ModelError(f"{path}: not a dataprep model ({type(error).__name__}: {words})") from None


def model_from_dict(content: Mapping[str, Any]) -> FaceModel:
    """Build the model from the content that `save_model` writes."""
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
    """The same network with random weights, as a baseline for the architecture alone."""
    torch.manual_seed(seed)
    size = (model.preprocessing.height, model.preprocessing.width)
    module = create_model(model.network, model.embedding, input_size=size, head=model.head)
    return replace(model, module=module.eval(), about={})
