"""Models as functions from aligned faces to embeddings: ours, and ONNX files of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from dataprep.errors import ImagingError, ModelError, RecordError
from dataprep.imaging.photo import Pixels, decode

if TYPE_CHECKING:
    from dataprep.models.files import Model

Embeddings = npt.NDArray[np.float32]


class Embedder(Protocol):
    """(n, height, width, 3) RGB bytes to (n, d) embeddings, not normalised."""

    height: int
    width: int

    def __call__(self, images: npt.NDArray[np.uint8]) -> Embeddings: ...


class TorchEmbedder:
    """A network of ours on a device (`auto` takes CUDA where there is one)."""

    def __init__(self, model: Model, *, device: str = "auto") -> None:
        import torch

        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self._module = model.module.to(name)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"--device {device}: {str(error).splitlines()[0]}") from None
        self.model, self._device = model, name
        self.height, self.width = model.input.height, model.input.width

    def __call__(self, images: npt.NDArray[np.uint8]) -> Embeddings:
        import torch

        with torch.inference_mode():
            batch = self.model.input.normalise(images).to(self._device)
            return np.asarray(self._module(batch).float().cpu().numpy(), np.float32)


class OnnxEmbedder:
    """An ONNX file: (n, 3, h, w) in, (n, d) out; `mean` and `std` are of RGB values 0..255."""

    def __init__(
        self, path: Path, *, mean: Sequence[float] = (127.5,) * 3, std: Sequence[float] = (127.5,) * 3
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ModelError("ONNX models need onnxruntime: pip install 'face-dataprep[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{path}: not a readable ONNX model ({str(error)[:200]})") from None
        described = self._session.get_inputs()[0]
        self._name, self._one = described.name, described.shape[0] == 1
        self.height, self.width = (side if isinstance(side, int) else 112 for side in described.shape[2:4])
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)

    def __call__(self, images: npt.NDArray[np.uint8]) -> Embeddings:
        batch = ((images.astype(np.float32) - self._mean) / self._std).transpose(0, 3, 1, 2)
        chunks = [batch[i : i + 1] for i in range(len(batch))] if self._one else [batch]
        return np.concatenate([self._session.run(None, {self._name: chunk})[0] for chunk in chunks])


def embed_pairs(
    embedder: Embedder,
    images: Sequence[bytes],
    *,
    flip: bool = True,
    batch: int = 64,
    tick: Callable[[int], None] = lambda done: None,
) -> Embeddings:
    """Unit embeddings of encoded faces, that of the mirrored face added before normalising (insightface's way).

    Equal images are embedded once. Raises RecordError for an image that cannot be read, has another size than the model
    takes, or embeds to something that has no direction.
    """
    unique = list(dict.fromkeys(images))
    out: list[Embeddings] = []
    for start in range(0, len(unique), batch):
        faces = np.stack([_face(data, embedder, start + i) for i, data in enumerate(unique[start : start + batch])])
        embedded = embedder(faces)
        if flip:
            embedded = embedded + embedder(np.ascontiguousarray(faces[:, :, ::-1]))
        out.append(embedded)
        tick(min(start + batch, len(unique)))
    found = np.concatenate(out)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise RecordError("the model gives embeddings that are zero or not finite; it cannot be scored")
    position = {data: i for i, data in enumerate(unique)}
    return np.asarray((found / norms)[[position[data] for data in images]], np.float32)


def decode_faces(images: Sequence[bytes]) -> list[Pixels]:
    """The pixels of encoded faces."""
    return [_decoded(data, i) for i, data in enumerate(images)]


def _face(data: bytes, embedder: Embedder, number: int) -> Pixels:
    pixels = _decoded(data, number)
    if pixels.shape[:2] != (embedder.height, embedder.width):
        raise RecordError(
            f"image {number} of the set is {pixels.shape[1]}x{pixels.shape[0]}, the model takes "
            f"{embedder.width}x{embedder.height}"
        )
    return pixels


def _decoded(data: bytes, number: int) -> Pixels:
    try:
        return decode(data)[0]
    except ImagingError as error:
        raise RecordError(f"image {number} of the set cannot be read: {error}") from None
