"""Models as functions from aligned faces to embeddings: PyTorch networks and ONNX files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from dataprep.errors import ImagingError, ModelError, RecordError, UsageError
from dataprep.imaging.codec import Pixels, decode_image

if TYPE_CHECKING:
    from dataprep.models.model_files import FaceModel
    from dataprep.models.preprocessing import Preprocessing


Embeddings = npt.NDArray[np.float32]

FLIP_MODES = ("sum", "concat", "none")
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".pkl")


class Embedder(Protocol):
    """(n, height, width, 3) RGB bytes to (n, d) embeddings, not normalised."""

    height: int
    width: int

    def __call__(self, images: npt.NDArray[np.uint8]) -> Embeddings: ...


class TorchEmbedder:
    """A PyTorch network on a device (`auto` uses CUDA if available)."""

    def __init__(self, model: FaceModel, *, device: str = "auto") -> None:
        import torch

        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self._module = model.module.to(name)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"device {device}: {str(error).splitlines()[0]}", hint="choose another --device") from None
        self.model, self._device = model, name
        self.height, self.width = model.preprocessing.height, model.preprocessing.width

    def __call__(self, images: npt.NDArray[np.uint8]) -> Embeddings:
        import torch

        with torch.inference_mode():
            batch = self.model.preprocessing.normalise(images).to(self._device)
            return np.asarray(self._module(batch).float().cpu().numpy(), np.float32)


class OnnxEmbedder:
    """An ONNX file: images (n, 3, h, w) or (n, h, w, 3) in, as float32, float16 or uint8; (n, d) out.

    `mean` and `std` apply to values 0..255, per channel in `order`; the metadata of a file from `export-model` overrides
    them. A uint8 input is given the bytes as they are. A graph that turns out to take single images, whatever it declares,
    is given single images.
    """

    def __init__(
        self,
        path: Path,
        *,
        mean: Sequence[float] = (127.5,) * 3,
        std: Sequence[float] = (127.5,) * 3,
        order: str = "RGB",
        device: str = "auto",
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ModelError("ONNX models need onnxruntime", hint="pip install 'face-dataprep[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        providers = _providers(device, onnxruntime.get_available_providers())
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise ModelError(f"{path}: not a readable ONNX model ({str(error)[:200]})") from None
        described = self._session.get_inputs()[0]
        shape = described.shape
        if len(shape) != 4 or described.type not in _ONNX_TYPES:
            raise ModelError(
                f"{path} takes an input of shape {shape}, {described.type}; images (n, 3, height, width) or (n, height, "
                f"width, 3) of {', '.join(_ONNX_TYPES)} are needed"
            )
        self._path, self._name, self._type = path, described.name, _ONNX_TYPES[described.type]
        self._channels_last = shape[3] == 3 and shape[1] != 3
        # a model exported with a fixed batch size accepts no other
        self._fixed = shape[0] if isinstance(shape[0], int) else None
        sides = shape[1:3] if self._channels_last else shape[2:4]
        self.height, self.width = (side if isinstance(side, int) else 112 for side in sides)
        self.described = _described(self._session.get_modelmeta().custom_metadata_map, path)
        if self.described is not None:
            mean, std, order = self.described.mean, self.described.std, self.described.order
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)
        self._turned = order == "BGR"

    def __call__(self, images: npt.NDArray[np.uint8]) -> Embeddings:
        pixels = images[..., ::-1] if self._turned else images
        batch: npt.NDArray[Any] = pixels
        if self._type is not np.uint8:
            batch = ((pixels.astype(np.float32) - self._mean) / self._std).astype(self._type)
        batch = batch if self._channels_last else batch.transpose(0, 3, 1, 2)
        try:
            return self._embed(batch, self._fixed or len(batch))
        except Exception as error:  # onnxruntime has an exception of its own for each status
            if self._fixed is None and len(batch) > 1:  # its graph may hold a reshape to one row
                self._fixed = 1
                return self(images)
            words = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{self._path}: the model cannot be run on images of {self.width}x{self.height} ({words})",
                hint="export it with the input that it declares: dynamic batch, and this size",
            ) from None

    def _embed(self, batch: npt.NDArray[Any], size: int) -> Embeddings:
        """Embed a batch in parts of `size`. Raises what onnxruntime raises, and ValueError for rows that do not fit."""
        out = []
        for start in range(0, len(batch), size):
            chunk = batch[start : start + size]
            padding = np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)
            full = np.ascontiguousarray(np.concatenate([chunk, padding]) if len(padding) else chunk)
            embedded = np.asarray(self._session.run(None, {self._name: full})[0], np.float32)
            if len(embedded) != size and embedded.size % size:
                raise ValueError(f"it returns {embedded.shape} for {size} images")
            out.append(embedded.reshape(size, -1)[: len(chunk)])
        return np.concatenate(out)


_ONNX_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


def _described(metadata: Mapping[str, str], path: Path) -> Preprocessing | None:
    """The input description in a file from `export-model`."""
    from dataprep.models.card import METADATA_KEY
    from dataprep.models.preprocessing import Preprocessing

    try:
        return (
            Preprocessing.from_mapping(json.loads(metadata[METADATA_KEY])["input"])
            if METADATA_KEY in metadata
            else None
        )
    except (ModelError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: its input description is damaged ({error})", hint="export it again") from None


def _providers(device: str, available: Sequence[str]) -> list[str]:
    cuda = "CUDAExecutionProvider" in available
    if device.startswith("cuda") and not cuda:
        raise ModelError(
            f"device {device}: this onnxruntime has no CUDA", hint="install onnxruntime-gpu, or use --device cpu"
        )
    return (["CUDAExecutionProvider"] if cuda and device != "cpu" else []) + ["CPUExecutionProvider"]


def open_model(path: Path, device: str = "auto", *, preprocessing: Preprocessing | None = None) -> Embedder:
    """An embedder for a model file: ONNX, or anything `load_pretrained` opens. `input` describes the network's input if
    the file does not; files made by dataprep do."""
    if not path.exists():
        raise ModelError(f"{path}: no such model", hint="train one with `dataprep train`, or pass --model PATH")
    from dataprep.models.preprocessing import Preprocessing
    from dataprep.models.pretrained import load_pretrained

    if path.suffix == ".onnx":
        given = preprocessing or Preprocessing()
        embedder = OnnxEmbedder(path, mean=given.mean, std=given.std, order=given.order, device=device)
        if preprocessing is not None and embedder.described is not None:
            raise ModelError(f"{path} describes its own input", hint="leave out --mean, --std and --order")
        return embedder
    if path.suffix not in _WEIGHTS:
        raise ModelError(f"{path}: not a model file; expected .onnx or weights ({', '.join(_WEIGHTS)})")
    return TorchEmbedder(load_pretrained(path, preprocessing=preprocessing), device=device)


def embed_batch(embedder: Embedder, faces: npt.NDArray[np.uint8], flip: str = "sum") -> Embeddings:
    """(n, d) embeddings of (n, height, width, 3) faces, not normalised. `flip` combines them with those of the mirrored
    faces: `sum`, `concat` (width 2d), or `none`."""
    if flip not in FLIP_MODES:
        raise UsageError(f"unknown flip {flip!r}: one of {', '.join(FLIP_MODES)}")
    embedded = embedder(faces)
    if flip == "none":
        return embedded
    mirrored = embedder(np.ascontiguousarray(faces[:, :, ::-1]))
    return embedded + mirrored if flip == "sum" else np.concatenate([embedded, mirrored], axis=1)


def embed_images(
    embedder: Embedder,
    images: Sequence[bytes],
    *,
    flip: str = "sum",
    batch: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Embeddings, dict[int, str]]:
    """Embeddings of encoded faces, and by position why an image has none (its row is NaN): it cannot be decoded, does
    not have the model's input size, or its embedding is zero or not finite."""
    out: list[Embeddings] = []
    bad: dict[int, str] = {}
    for start in range(0, len(images), batch):
        faces = np.zeros((min(batch, len(images) - start), embedder.height, embedder.width, 3), np.uint8)
        for i in range(len(faces)):
            try:
                faces[i] = decode_fitting_face(images[start + i], embedder)
            except RecordError as error:
                bad[start + i] = str(error)
        embedded = np.array(embed_batch(embedder, faces, flip), np.float32)
        usable = np.isfinite(embedded).all(axis=1) & embedded.any(axis=1)
        for row in np.flatnonzero(~usable):
            bad.setdefault(start + int(row), "its embedding is zero or not finite")
        embedded[[i - start for i in bad if i >= start]] = np.nan
        out.append(embedded)
        progress(start + len(faces))
    return np.concatenate(out) if out else np.zeros((0, 0), np.float32), bad


def embed_pairs(
    embedder: Embedder,
    images: Sequence[bytes],
    *,
    flip: bool = True,
    batch: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> Embeddings:
    """Unit embeddings of encoded faces; as in insightface, that of the mirrored face is added before normalising.

    Equal images are embedded once. Raises RecordError for an image that `embed_images` cannot embed.
    """
    unique = list(dict.fromkeys(images))
    found, bad = embed_images(embedder, unique, flip="sum" if flip else "none", batch=batch, progress=progress)
    for i, reason in bad.items():
        raise RecordError(f"image {i} of the set {reason}")
    position = {data: i for i, data in enumerate(unique)}
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray((found / norms)[[position[data] for data in images]], np.float32)


def decode_fitting_face(data: bytes, embedder: Embedder) -> Pixels:
    """The pixels of an encoded face that has the model's input size. Raises RecordError without naming the image."""
    pixels = _decoded(data)
    if pixels.shape[:2] != (embedder.height, embedder.width):
        raise RecordError(
            f"is {pixels.shape[1]}x{pixels.shape[0]}, but the model takes {embedder.width}x{embedder.height}: "
            "align the faces to that size"
        )
    return pixels


def decode_faces(images: Sequence[bytes]) -> list[Pixels]:
    """The pixels of encoded faces."""
    out = []
    for i, data in enumerate(images):
        try:
            out.append(_decoded(data))
        except RecordError as error:
            raise RecordError(f"image {i} of the set {error}") from None
    return out


def _decoded(data: bytes) -> Pixels:
    try:
        return decode_image(data)[0]
    except ImagingError as error:
        raise RecordError(f"cannot be read: {error}") from None


def find_unusable_rows(features: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """The rows that hold NaN or infinity, or only zeros."""
    out = np.empty(len(features), bool)
    for start in range(0, len(features), 8192):
        rows = slice(start, start + 8192)
        out[rows] = ~np.isfinite(features[rows]).all(axis=1) | ~features[rows].any(axis=1)
    return out
