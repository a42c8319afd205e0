"""One model on one verification set, from files to result.json and roc.png."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dataprep.errors import ModelError, RecordError
from dataprep.evaluate.embed import Embedder, OnnxEmbedder, TorchEmbedder, embed_pairs
from dataprep.evaluate.report import colour_accuracy, draw_roc, embedding_accuracy, pixel_accuracy
from dataprep.evaluate.verification import Verification, distances, verify
from dataprep.models.files import load_model, untrained
from dataprep.records.pairs import read_bin
from dataprep.storage import Folder, file_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """The scores, and what cheaper looks at the same pairs score (accuracy by name)."""

    verification: Verification
    baselines: dict[str, float]


def score_bin(
    model: Path, pairs: Path, target: Path, *, flip: bool = True, device: str = "auto", baselines: bool = False
) -> TestResult:
    """Score `model` (.pt of ours, or .onnx) on a .bin and write result.json and roc.png into `target`."""
    images, same = read_bin(pairs)
    embedder = open_model(model, device)
    try:
        embedded = embed_pairs(embedder, images, flip=flip)
        distance = distances(embedded[0::2], embedded[1::2])
        found = verify(distance, same)
    except RecordError as error:
        raise RecordError(f"{pairs}: {error}") from None
    simple: dict[str, float] = {}
    if baselines:
        simple["mean colour alone"] = colour_accuracy(images, same)
        simple["raw-pixel cosine"] = pixel_accuracy(images, same)
        if isinstance(embedder, TorchEmbedder):
            fresh = TorchEmbedder(untrained(embedder.model), device=device)
            raw = embed_pairs(fresh, images, flip=flip)
            simple["the untrained network"] = embedding_accuracy(raw, np.asarray(same))
    result = TestResult(verification=found, baselines=simple)
    folder = Folder(target)
    folder.put_json(
        "result.json",
        {
            "protocol": "insightface ten-fold, squared L2 of unit embeddings" + (", flip added" if flip else ""),
            "model": str(model),
            "model_sha256": file_sha256(model),
            "set": str(pairs),
            "set_sha256": file_sha256(pairs),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "numpy")},
            **asdict(result),
        },
    )
    draw_roc(folder / "roc.png", {f"{model.stem} ({found.accuracy:.2%})": (distance, same)})
    return result


def open_model(path: Path, device: str = "auto") -> Embedder:
    """An embedder for a model file, by its suffix."""
    if path.suffix == ".onnx":
        return OnnxEmbedder(path)
    if path.suffix == ".pt":
        return TorchEmbedder(load_model(path), device=device)
    raise ModelError(f"{path}: a model is .pt (of dataprep) or .onnx")
