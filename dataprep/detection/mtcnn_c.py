"""The cascade in C (`_mtcnn.c`): the same faces, several times faster, one image at a time and without the GIL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dataprep.detection import _mtcnn
from dataprep.detection.base import SELECTION_RULES, Detections, Target
from dataprep.detection.weights import find_weight_files, read_state_dict, weights_digest
from dataprep.imaging.codec import Pixels

Weights = Mapping[str, npt.NDArray[np.float32]]
Arrays = list[npt.NDArray[np.float32]]

LEVELS = ("generic", "avx2", "avx512")

# the kernel transform of Winograd's F(3,3), with points 0, 1, -1, 2 and infinity, for a kernel's three rows
_WINOGRAD = np.array(
    [[1 / 2, 0, 0], [-1 / 2, -1 / 2, -1 / 2], [-1 / 6, 1 / 6, -1 / 6], [1 / 6, 1 / 3, 2 / 3], [0, 0, 1]]
)


TargetQuery = tuple[int, tuple[float, float, float, float], float]  # rule (from 1), published box, minimum overlap
_EVERY_FACE: TargetQuery = (0, (0.0, 0.0, 0.0, 0.0), 0.0)


class CDetector:
    """MTCNN on one core. `level` forces an instruction set; if empty, the best one available is used.

    AVX2 and AVX-512 give bit-identical results. `generic` has no fused multiply-add and differs in the last digits.
    """

    def __init__(
        self,
        *,
        min_face: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        level: str = "",
    ) -> None:
        nets = {name: read_state_dict(path) for name, path in find_weight_files().items()}
        self._weights = pack_weights(nets["pnet"], nets["rnet"], nets["onet"])
        self._min_face, self._thresholds, self._factor, self._level = min_face, thresholds, factor, level
        self.level = _mtcnn.level(level)
        self.cells = 0  # cells of P-Net's grids processed so far

    def versions(self) -> dict[str, str]:
        return {"detector": "mtcnn-c" + ("-generic" if self.level == "generic" else ""), "weights": weights_digest()}

    def detect(self, images: Sequence[Pixels], targets: Sequence[Target] | None = None) -> list[Detections]:
        """All faces, or with `targets` only the target face of each photo, searched coarse to fine (see `_mtcnn.c`)."""
        if targets is None:
            return [self._detect(image, _EVERY_FACE) for image in images]
        return [self._detect(image, _question(target)) for image, target in zip(images, targets, strict=True)]

    def _detect(self, image: Pixels, question: TargetQuery) -> Detections:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected (height, width, 3) RGB bytes, got {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        raw, cells = _mtcnn.detect(
            self._weights,
            np.ascontiguousarray(image),
            width,
            height,
            float(self._min_face),
            self._thresholds,
            self._factor,
            self._level,
            *question,
        )
        self.cells += cells
        found = np.frombuffer(raw, np.float32).reshape(-1, 15)
        return Detections(
            boxes=found[:, :4].copy(), probabilities=found[:, 4].copy(), landmarks=found[:, 5:].reshape(-1, 5, 2).copy()
        )


def _question(target: Target) -> TargetQuery:
    rule = "area-centre" if target.rule == "overlap" and target.published is None else target.rule
    box = target.published
    corners = (box.left, box.top, box.right, box.bottom) if box else (0.0, 0.0, 0.0, 0.0)
    return 1 + SELECTION_RULES.index(rule), corners, target.min_overlap


def pack_weights(p: Weights, r: Weights, o: Weights) -> bytes:
    """The weights of the three networks in the order and layout that `_mtcnn.c` expects."""
    heads = np.concatenate([p["conv4_1.weight"], p["conv4_2.weight"]])[:, :, 0, 0]
    bias = np.concatenate([p["conv4_1.bias"], p["conv4_2.bias"]])
    parts = [p["conv1.weight"].transpose(1, 2, 3, 0), p["conv1.bias"], p["prelu1.weight"]]
    parts += _winograd(p, 2) + _winograd(p, 3) + _direct(p, 2) + _direct(p, 3)
    # the last column is the difference of the two logits, which suffices for the threshold
    parts += [np.concatenate([heads, heads[1:2] - heads[0:1]]).T, np.append(bias, bias[1] - bias[0])]
    parts += _direct(r, 1) + _winograd(r, 2) + _direct(r, 3) + _dense(r, 4) + _heads(r, ["dense5_1", "dense5_2"])
    parts += _direct(o, 1) + _winograd(o, 2) + _winograd(o, 3) + _direct(o, 4) + _dense(o, 5)
    parts += _heads(o, ["dense6_1", "dense6_2", "dense6_3"])
    return b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in parts)


def _direct(w: Weights, layer: int) -> Arrays:
    kernel = w[f"conv{layer}.weight"]
    out, channels, height, width = kernel.shape
    grouped = kernel.reshape(out // 4, 4, channels, height, width).transpose(0, 2, 3, 4, 1)
    return [grouped, w[f"conv{layer}.bias"], w[f"prelu{layer}.weight"]]


def _winograd(w: Weights, layer: int) -> Arrays:
    kernel = np.einsum("ty,oiyx->otix", _WINOGRAD, w[f"conv{layer}.weight"].astype(np.float64))
    out, _, channels, _ = kernel.shape
    grouped = kernel.reshape(out // 4, 4, 5, channels, 3).transpose(0, 2, 3, 4, 1)
    return [grouped.astype(np.float32), w[f"conv{layer}.bias"], w[f"prelu{layer}.weight"]]


def _dense(w: Weights, layer: int) -> Arrays:
    return [_blocks(w[f"dense{layer}.weight"]), w[f"dense{layer}.bias"], w[f"prelu{layer}.weight"]]


def _heads(w: Weights, names: Sequence[str]) -> Arrays:
    """Several small output layers, concatenated and padded to 16."""
    kernel = np.concatenate([w[f"{name}.weight"] for name in names])
    bias = np.concatenate([w[f"{name}.bias"] for name in names])
    missing = 16 - len(kernel)
    return [_blocks(np.pad(kernel, ((0, missing), (0, 0)))), np.pad(bias, (0, missing))]


def _blocks(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(out, in) as (out / 16, in, 16), so that the weights of 16 outputs are contiguous in memory."""
    return kernel.reshape(len(kernel) // 16, 16, -1).transpose(0, 2, 1)
