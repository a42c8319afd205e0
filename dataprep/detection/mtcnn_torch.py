"""The P/R/O cascade in torch, step by step as in facenet-pytorch's `detect_face` on a single image.

Oddities (floors, truncations, `+ 1` in some areas but not others, the order among equal scores) are kept on purpose, so
that a dataset made here has the same faces as one made with facenet-pytorch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dataprep.detection.base import Detections, Target
from dataprep.detection.weights import find_weight_files, weights_digest
from dataprep.imaging.codec import Pixels

if TYPE_CHECKING:
    from torch import Tensor

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_CELL, _STRIDE = 12, 2  # PNet's window and stride in input pixels
_STRIP = 4_000_000  # pixels of a pyramid level processed by PNet at once: about 400 MB
_TOGETHER = 16_000_000  # pixels of photos processed by a GPU at once


class TorchDetector:
    """MTCNN on the CPU or CUDA. Parameters are as in `facenet_pytorch.MTCNN`; the thresholds are for P, R and O.

    Photos of equal size are batched up to `together` pixels. On the CPU the default is no batching, as in facenet-pytorch,
    because the last digits of a convolution can depend on the batch.
    """

    def __init__(
        self,
        *,
        min_face: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        device: str = "cpu",
        together: int | None = None,
    ) -> None:
        import torch

        self._torch = torch
        self._device = torch.device(device)
        self._together = (_TOGETHER if self._device.type == "cuda" else 0) if together is None else together
        self._min_face, self._thresholds, self._factor = min_face, thresholds, factor
        self._weights: dict[str, dict[str, Tensor]] = {
            name: {k: v.to(self._device) for k, v in torch.load(path, weights_only=True, map_location="cpu").items()}
            for name, path in find_weight_files().items()
        }

    def versions(self) -> dict[str, str]:
        return {"detector": "mtcnn-torch", "torch": self._torch.__version__, "weights": weights_digest()}

    def detect(self, images: Sequence[Pixels], targets: Sequence[Target] | None = None) -> list[Detections]:
        found = [Detections.empty()] * len(images)
        with self._torch.inference_mode(), self._exactly():
            for group in self._groups(images):
                for place, faces in zip(group, self._detect([images[place] for place in group]), strict=True):
                    found[place] = faces
        if targets is None:
            return found
        return [
            target.filter_detections(faces, width=image.shape[1], height=image.shape[0])
            for image, target, faces in zip(images, targets, found, strict=True)
        ]

    def _exactly(self) -> contextlib.AbstractContextManager[None]:
        """Disable TF32, by which CUDA shortens the mantissa to 10 bits by default."""
        if self._device.type != "cuda":
            return contextlib.nullcontext()
        return self._torch.backends.cudnn.flags(enabled=True, allow_tf32=False)

    def _groups(self, images: Sequence[Pixels]) -> Iterator[list[int]]:
        """Indices of images, grouped by size."""
        sizes: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            sizes.setdefault(image.shape, []).append(place)
        for (height, width, *_), places in sizes.items():
            most = max(1, self._together // max(1, height * width))
            yield from (places[at : at + most] for at in range(0, len(places), most))

    def _detect(self, images: Sequence[Pixels]) -> Iterator[Detections]:
        """The faces in images of equal size."""
        height, width = images[0].shape[:2]
        stacked = self._torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2).float()
        for number, boxes in enumerate(self._propose(stacked, height, width)):
            image = stacked[number : number + 1]
            if len(boxes):
                boxes = self._refine(image, boxes, height, width)
            yield self._output(image, boxes, height, width) if len(boxes) else Detections.empty()

    # the three stages -----------------------------------------------------------------------------------------------

    def _propose(self, images: Tensor, height: int, width: int) -> list[Float32Array]:
        """Run PNet over the pyramid. Returns square candidate boxes with scores, (n, 5), for each image."""
        found: list[list[Float32Array]] = [[] for _ in images]
        for scale in pyramid_scales(height, width, self._min_face, self._factor):
            size = (int(height * scale + 1), int(width * scale + 1))
            offsets, scores = self._scan(self._resize(images, size))
            for of_image, offset, score in zip(found, offsets, scores[:, 1], strict=True):
                candidates = self._candidates(offset, score, scale)
                if len(candidates):
                    of_image.append(candidates[nms(candidates[:, :4], candidates[:, 4], 0.5)])
        return [merge_candidates(candidates) for candidates in found]

    def _scan(self, level: Tensor) -> tuple[Float32Array, Float32Array]:
        """Run PNet on a level in strips of rows. Each cell sees the same pixels as without strips."""
        height, width = level.shape[2:]
        cells = -(-(height - 2) // 2) - 4
        step = max(1, _STRIP // (_STRIDE * width * len(level)))
        parts = []
        for first in range(0, cells, step):
            last = first + step >= cells
            part = level[:, :, _STRIDE * first : height if last else _STRIDE * (first + step) + _CELL - _STRIDE]
            parts.append(tuple(t.cpu().numpy() for t in self._pnet(part)))
        offsets, scores = (np.concatenate(found, axis=2) for found in zip(*parts, strict=True))
        return offsets, scores

    def _candidates(self, offsets: Float32Array, scores: Float32Array, scale: float) -> Float32Array:
        """The windows of a level that PNet classifies as faces: boxes, scores and offsets, (n, 9)."""
        ys, xs = np.nonzero(scores >= np.float32(self._thresholds[0]))
        # float32 as in facenet-pytorch, because it affects the floor of quotients near an integer
        cells = np.stack([xs, ys], axis=1).astype(np.float32)
        corner = np.floor((_STRIDE * cells + 1) / np.float32(scale))
        opposite = np.floor((_STRIDE * cells + _CELL) / np.float32(scale))
        columns = [corner, opposite, scores[ys, xs][:, None], offsets[:, ys, xs].T]
        return np.concatenate(columns, axis=1, dtype=np.float32)

    def _refine(self, image: Tensor, boxes: Float32Array, height: int, width: int) -> Float32Array:
        """RNet on 24x24 crops."""
        boxes, crops = self._crops(image, boxes, height, width, 24)
        if not len(boxes):
            return boxes
        offsets, scores = (t.cpu().numpy() for t in self._rnet(crops))
        passed = scores[:, 1] > np.float32(self._thresholds[1])
        boxes = np.concatenate([boxes[passed, :4], scores[passed, 1:2]], axis=1)
        keep = nms(boxes[:, :4], boxes[:, 4], 0.7)
        return square_boxes(regress_boxes(boxes[keep], offsets[passed][keep]))

    def _output(self, image: Tensor, boxes: Float32Array, height: int, width: int) -> Detections:
        """ONet on 48x48 crops: boxes and landmarks."""
        boxes, crops = self._crops(image, boxes, height, width, 48)
        if not len(boxes):
            return Detections.empty()
        offsets, points, scores = (t.cpu().numpy() for t in self._onet(crops))
        passed = scores[:, 1] > np.float32(self._thresholds[2])
        boxes = np.concatenate([boxes[passed, :4], scores[passed, 1:2]], axis=1)
        size = boxes[:, 2:4] - boxes[:, 0:2] + 1
        landmarks = np.stack(
            [
                size[:, 0:1] * points[passed, :5] + boxes[:, 0:1] - 1,
                size[:, 1:2] * points[passed, 5:] + boxes[:, 1:2] - 1,
            ],
            axis=2,
        )
        boxes = regress_boxes(boxes, offsets[passed])
        keep = nms_minimum(boxes[:, :4], boxes[:, 4], 0.7)
        return Detections(boxes=boxes[keep, :4], probabilities=boxes[keep, 4], landmarks=landmarks[keep])

    def _crops(
        self, image: Tensor, boxes: Float32Array, height: int, width: int, size: int
    ) -> tuple[Float32Array, Tensor]:
        """The boxes that overlap the photo, and their crops, resized to `size` and normalised."""
        left, top, right, bottom = np.trunc(boxes[:, :4]).astype(np.int64).T
        left, top = np.maximum(left, 1), np.maximum(top, 1)
        right, bottom = np.minimum(right, width), np.minimum(bottom, height)
        inside = (right > left - 1) & (bottom > top - 1)
        crops = [
            self._resize(image[:, :, top[i] - 1 : bottom[i], left[i] - 1 : right[i]], (size, size))
            for i in np.flatnonzero(inside)
        ]
        return boxes[inside], self._torch.cat(crops) if crops else image.new_zeros((0, 3, size, size))

    def _resize(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        resized = self._torch.nn.functional.interpolate(image, size=size, mode="area")
        normalised: Tensor = resized.sub(127.5).mul(0.0078125)
        return normalised

    # the three networks ---------------------------------------------------------------------------------------------

    def _pnet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f, w = self._torch.nn.functional, self._weights["pnet"]
        x = f.max_pool2d(self._conv(x, "pnet", 1), 2, 2, ceil_mode=True)
        x = self._conv(self._conv(x, "pnet", 2), "pnet", 3)
        scores = f.conv2d(x, w["conv4_1.weight"], w["conv4_1.bias"])
        return f.conv2d(x, w["conv4_2.weight"], w["conv4_2.bias"]), f.softmax(scores, dim=1)

    def _rnet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self._torch.nn.functional
        x = f.max_pool2d(self._conv(x, "rnet", 1), 3, 2, ceil_mode=True)
        x = f.max_pool2d(self._conv(x, "rnet", 2), 3, 2, ceil_mode=True)
        x = self._dense(self._flat(self._conv(x, "rnet", 3)), "rnet", 4)
        return self._linear(x, "rnet", "dense5_2"), f.softmax(self._linear(x, "rnet", "dense5_1"), dim=1)

    def _onet(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f = self._torch.nn.functional
        x = f.max_pool2d(self._conv(x, "onet", 1), 3, 2, ceil_mode=True)
        x = f.max_pool2d(self._conv(x, "onet", 2), 3, 2, ceil_mode=True)
        x = f.max_pool2d(self._conv(x, "onet", 3), 2, 2, ceil_mode=True)
        x = self._dense(self._flat(self._conv(x, "onet", 4)), "onet", 5)
        scores = f.softmax(self._linear(x, "onet", "dense6_1"), dim=1)
        return self._linear(x, "onet", "dense6_2"), self._linear(x, "onet", "dense6_3"), scores

    def _conv(self, x: Tensor, net: str, layer: int) -> Tensor:
        f, w = self._torch.nn.functional, self._weights[net]
        x = f.conv2d(x, w[f"conv{layer}.weight"], w[f"conv{layer}.bias"])
        activated: Tensor = f.prelu(x, w[f"prelu{layer}.weight"])
        return activated

    def _dense(self, x: Tensor, net: str, layer: int) -> Tensor:
        return self._torch.nn.functional.prelu(
            self._linear(x, net, f"dense{layer}"), self._weights[net][f"prelu{layer}.weight"]
        )

    def _linear(self, x: Tensor, net: str, name: str) -> Tensor:
        w = self._weights[net]
        return self._torch.nn.functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    @staticmethod
    def _flat(x: Tensor) -> Tensor:
        """Flatten with the width slowest, as the weights need, which were trained column-major in MATLAB."""
        return x.permute(0, 3, 2, 1).reshape(len(x), -1)


def pyramid_scales(height: int, width: int, min_face: int, factor: float) -> list[float]:
    """The scales at which PNet's 12-pixel window finds faces of at least `min_face` pixels."""
    scale = _CELL / min_face
    side = min(height, width) * scale
    scales = []
    while side >= _CELL:
        scales.append(scale)
        scale *= factor
        side *= factor
    return scales


def merge_candidates(candidates: Sequence[Float32Array]) -> Float32Array:
    """Merge the candidates of all levels and apply their offsets: squares with scores, (n, 5)."""
    if not candidates:
        return np.zeros((0, 5), np.float32)
    boxes = np.concatenate(candidates)
    boxes = boxes[nms(boxes[:, :4], boxes[:, 4], 0.7)]
    extent = np.tile(boxes[:, 2:4] - boxes[:, 0:2], 2)
    return square_boxes(np.concatenate([boxes[:, :4] + boxes[:, 5:9] * extent, boxes[:, 4:5]], axis=1))


def square_boxes(boxes: Float32Array) -> Float32Array:
    """Grow boxes to squares around their centres."""
    size = boxes[:, 2:4] - boxes[:, 0:2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([corner, corner + side, boxes[:, 4:]], axis=1)


def regress_boxes(boxes: Float32Array, offsets: Float32Array) -> Float32Array:
    """Move boxes by the offsets that R-Net and O-Net predict, in units of box size."""
    size = np.tile(boxes[:, 2:4] - boxes[:, 0:2] + 1, 2)
    return np.concatenate([boxes[:, :4] + offsets * size, boxes[:, 4:]], axis=1)


def nms(boxes: Float32Array, scores: Float32Array, threshold: float) -> IntArray:
    """Greedy suppression by intersection over union, as `torchvision.ops.nms`. Among equal scores the first wins."""
    left, top, right, bottom = boxes.T
    area = (right - left) * (bottom - top)
    rest = np.argsort(-scores, kind="stable")
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        shared = np.maximum(np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]), 0)
        shared = shared * np.maximum(np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]), 0)
        rest = rest[~(shared / (area[best] + area[rest] - shared) > threshold)]
    return np.array(kept, np.int64)


def nms_minimum(boxes: Float32Array, scores: Float32Array, threshold: float) -> IntArray:
    """Suppression by intersection over the smaller box, areas with `+ 1`. Among equal scores the *last* wins."""
    left, top, right, bottom = boxes.T
    area = (right - left + 1) * (bottom - top + 1)
    rest = np.argsort(scores, kind="stable")
    kept = []
    while len(rest):
        best, rest = rest[-1], rest[:-1]
        kept.append(best)
        shared = np.maximum(0.0, np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + 1)
        shared = shared * np.maximum(0.0, np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + 1)
        rest = rest[shared / np.minimum(area[best], area[rest]) <= threshold]
    return np.array(kept, np.int64)
