"""Crops around a face box without alignment, as in VGGFace2 and facenet, and their fit to the output size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dataprep.imaging.codec import Pixels
from dataprep.imaging.geometry import border_mode, clamp_box
from dataprep.types import Box

FIT_MODES = ("short-centre", "stretch", "pad", "none")
_OBLONG = 8  # times the shorter side


class Crop(NamedTuple):
    """Whole pixels inside a photo, right and bottom exclusive. `outside` is the share cut off by the photo's border."""

    left: int
    top: int
    right: int
    bottom: int
    outside: float

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


def extended_crop(box: Box, extend: float, width: int, height: int) -> Crop:
    """VGGFace2's crop around a face box in a photo of the given size.

    The box is widened to at least 112/128 of its height, grown by `extend` around its centre, rounded half away from zero
    and clamped (ox-vgg/vgg_face2, standard_evaluation/demo_proj.m). As in MATLAB, pixels count from 1 and the last one is
    included. The same holds for MTCNN's boxes, whose code came from MATLAB.
    """
    ratio = max(112 / 128, box.width / box.height)
    grown_width, grown_height = box.height * ratio * (1 + extend), box.height * (1 + extend)
    x, y = box.centre
    grown = Box(x - grown_width / 2, y - grown_height / 2, x + grown_width / 2, y + grown_height / 2)
    return Crop(
        max(1, _round(grown.left)) - 1,
        max(1, _round(grown.top)) - 1,
        min(width, _round(grown.right)),
        min(height, _round(grown.bottom)),
        _outside(grown, width, height),
    )


def margin_crop(box: Box, margin: tuple[float, float], width: int, height: int) -> Crop:
    """facenet's crop: half of `margin` (across, down; photo pixels) is added on each side, clamped and truncated.

    davidsandberg/facenet, src/align/align_dataset_mtcnn.py: `bb[0] = np.maximum(det[0]-args.margin/2, 0)` into int32.
    """
    across, down = margin[0] / 2, margin[1] / 2
    grown = Box(box.left - across, box.top - down, box.right + across, box.bottom + down)
    return Crop(
        int(max(grown.left, 0.0)),
        int(max(grown.top, 0.0)),
        int(min(grown.right, float(width))),
        int(min(grown.bottom, float(height))),
        _outside(grown, width, height),
    )


def output_margin(box: Box, margin: float, width: int, height: int) -> tuple[float, float]:
    """facenet-pytorch's margin, for `margin_crop`: `margin` is in pixels of the output, whose size is given
    (utils/detect_face.py, extract_face)."""
    return margin * box.width / (width - margin), margin * box.height / (height - margin)


def fit_enlargement(crop: Crop, width: int, height: int, fit: str) -> float:
    """The scale factor by which `fit_crop` enlarges a crop; the larger of both axes for `stretch`.

    `short-centre` resizes the shorter side to 256 for an output of 224, as in VGGFace2's evaluation.
    """
    across, down = width / crop.width, height / crop.height
    if fit == "none":
        return 1.0
    if fit == "pad":
        return min(across, down)
    return max(across, down) * (256 / 224 if fit == "short-centre" else 1.0)


def fit_crop(
    pixels: Pixels, crop: Crop, width: int, height: int, *, fit: str, interpolation: str, border: str
) -> Pixels:
    """Cut the crop from a photo and fit it to the given size. With `fit` none it keeps its own size."""
    import cv2

    cut = pixels[crop.top : crop.bottom, crop.left : crop.right]
    scale = fit_enlargement(crop, width, height, fit)
    if fit == "none":
        return np.ascontiguousarray(cut)
    if fit == "stretch":
        return resize(cut, width, height, interpolation)
    if fit == "short-centre":  # parts far from the centre are cut off before resizing, to save memory
        most = _OBLONG * min(crop.width, crop.height)
        x, y = max(0, crop.width - most) // 2, max(0, crop.height - most) // 2
        cut = cut[y : crop.height - y, x : crop.width - x]
    across, down = round(cut.shape[1] * scale), round(cut.shape[0] * scale)
    if fit == "short-centre":
        resized = resize(cut, max(width, across), max(height, down), interpolation)
        x, y = (resized.shape[1] - width) // 2, (resized.shape[0] - height) // 2
        return np.ascontiguousarray(resized[y : y + height, x : x + width], np.uint8)
    resized = resize(cut, min(width, max(1, across)), min(height, max(1, down)), interpolation)
    x, y = (width - resized.shape[1]) // 2, (height - resized.shape[0]) // 2
    right, bottom = width - resized.shape[1] - x, height - resized.shape[0] - y
    return np.asarray(cv2.copyMakeBorder(resized, y, bottom, x, right, border_mode(border)), np.uint8)


def resize(pixels: Pixels, width: int, height: int, interpolation: str = "auto") -> Pixels:
    """Resize an image. `auto` means area if it shrinks in both directions, else linear."""
    import cv2

    if interpolation == "auto":
        shrinks = width < pixels.shape[1] and height < pixels.shape[0]
        interpolation = "area" if shrinks else "linear"
    flags = {"cubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4, "area": cv2.INTER_AREA}
    chosen = flags.get(interpolation, cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=chosen), np.uint8)


def _outside(grown: Box, width: int, height: int) -> float:
    inside = clamp_box(grown, width, height)
    return 1 - inside.area / grown.area if inside else 1.0


def _round(value: float) -> int:
    return math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1)
