"""Export of models as ONNX or safetensors, each checked against torch before it is written, with a model card."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataprep.errors import ModelError
from dataprep.models.card import METADATA_KEY, UNKNOWN_LICENCE, collect_facts, format_card
from dataprep.models.model_files import FaceModel, model_from_dict
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.pretrained import load_pretrained
from dataprep.storage import Folder

EXPORT_FORMATS = ("onnx", "safetensors")
EXPORT_TOLERANCE = 1e-4  # largest difference from torch, relative to the largest value of the embeddings
_OPSET = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """`difference` is the largest difference from torch's embeddings, relative to their largest value."""

    path: Path
    card: Path
    difference: float


def export_model(
    source: Path,
    target: Path,
    file_format: str,
    *,
    licence: str = UNKNOWN_LICENCE,
    preprocessing: Preprocessing | None = None,
) -> ExportResult:
    """Export the model in `source` (any file that `load_pretrained` opens) to `target`, with its card beside it as .md.

    `preprocessing` is the input of published weights, if it is not that of their authors. Nothing is written unless the
    exported model reproduces torch's embeddings. Raises ModelError.
    """
    if file_format not in EXPORT_FORMATS:
        raise ModelError(f"unknown format {file_format!r}; choose from {', '.join(EXPORT_FORMATS)}")
    if target.suffix != f".{file_format}":
        raise ModelError(f"{target}: the name of a file in {file_format} format must end in .{file_format}")
    if target.exists() and target.samefile(source):
        raise ModelError(f"{target} is the model to be exported", hint="choose another name with --out")
    model = load_pretrained(source, preprocessing=preprocessing)
    facts, batch = collect_facts(model, licence=licence), _probe(model)
    if file_format == "onnx":
        data = _onnx(model, facts)
        found = _run_onnx(data, batch)
    else:
        data = _safetensors(model, facts)
        found = _run_safetensors(data, facts, batch)
    expected = _run_torch(model, batch)
    difference = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    if not difference <= EXPORT_TOLERANCE:
        raise ModelError(
            f"{source}: the {file_format} model's embeddings differ from torch's by {difference:.1e} of their "
            f"largest value, more "
            f"than {EXPORT_TOLERANCE:.0e}; nothing was written"
        )
    folder = Folder(target.parent)
    card = folder.put(f"{target.name}.md", format_card(target.name, facts).encode())
    return ExportResult(path=folder.put(target.name, data), card=card, difference=difference)


def _probe(model: FaceModel) -> torch.Tensor:
    """Three noise images. A single one would not reveal a batch size that was fixed to 1."""
    shape = (3, model.preprocessing.height, model.preprocessing.width, 3)
    return model.preprocessing.normalise(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _run_torch(model: FaceModel, batch: torch.Tensor) -> Any:
    with torch.inference_mode():
        return model.module(batch).numpy()


def _onnx(model: FaceModel, facts: dict[str, Any]) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter is built on it
    except ImportError as error:
        raise ModelError(
            f"ONNX export needs the package {error.name}", hint="pip install 'face-dataprep[onnx]'"
        ) from None
    example = torch.zeros(2, 3, model.preprocessing.height, model.preprocessing.width)
    batch = torch.export.Dim("batch", min=1, max=65536)
    try:
        # the exporter prints its steps and warns about its own dependencies
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model.module, (example,), input_names=["input"], output_names=["embedding"], opset_version=_OPSET,
                dynamo=True, dynamic_shapes=({0: batch},), verbose=False,
            )  # fmt: skip
            assert program is not None
            exported = program.model_proto
    except Exception as error:  # the exporter can raise almost any exception
        words = str(error).splitlines()[0][:200] if str(error) else ""
        raise ModelError(f"{model.network} cannot be exported to ONNX ({type(error).__name__}: {words})") from None
    _add_facts(exported, facts)
    onnx.checker.check_model(exported)
    for node in exported.graph.node:  # the exporter's trace of where in the source each one came from
        del node.metadata_props[:]
    return bytes(exported.SerializeToString(deterministic=True))


def _add_facts(exported: Any, facts: dict[str, Any]) -> None:
    for key, value in ((METADATA_KEY, json.dumps(facts, sort_keys=True)), ("licence", facts["licence"])):
        entry = exported.metadata_props.add()
        entry.key, entry.value = key, value


def _run_onnx(data: bytes, batch: torch.Tensor) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(
            "checking an ONNX file needs the package onnxruntime", hint="pip install 'face-dataprep[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]


def _safetensors(model: FaceModel, facts: dict[str, Any]) -> bytes:
    try:
        from safetensors.torch import save
    except ImportError:
        raise ModelError("the package safetensors is not installed", hint="pip install 'face-dataprep[onnx]'") from None
    weights = {name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}
    return _sort_header(bytes(save(weights, {"format": "pt", METADATA_KEY: json.dumps(facts, sort_keys=True)})))


def _sort_header(data: bytes) -> bytes:
    """A safetensors file with its header sorted, so that equal models are equal bytes: a u64 length, JSON, the tensors.
    Source: https://huggingface.co/docs/safetensors, Format."""
    size = int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _run_safetensors(data: bytes, facts: dict[str, Any], batch: torch.Tensor) -> Any:
    from safetensors.torch import load

    return _run_torch(model_from_dict({**facts, "weights": load(data)}), batch)
