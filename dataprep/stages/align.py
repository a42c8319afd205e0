"""align: the chosen face, warped from the original photo onto the field's template, or cropped around its box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dataprep.errors import Reason, UsageError
from dataprep.imaging.geometry import extended_crop, similarity, template, warp
from dataprep.imaging.photo import CODECS, Pixels, codec_versions, encode_jpeg, encode_png
from dataprep.params import StageParams, param
from dataprep.samples import Box, Row
from dataprep.stages.base import Item, MapStage


@dataclass(frozen=True, kw_only=True)
class AlignParams(StageParams):
    """What the pixels of an aligned face are."""

    size: str = param("112", "side of the output in pixels, or WIDTHxHEIGHT: a multiple of 112 or 128, or 96x112")
    extend: float | None = param(
        None, "no alignment: crop the face's box grown by this share (0.3 is VGGFace2's tight crop)", minimum=0.0
    )
    max_scale: float = param(0.0, "drop faces that would be enlarged more than this; 0 keeps all", minimum=0.0)
    format: str = param("jpg", "jpg, or png without loss", choices=("jpg", "png"))
    quality: int = param(95, "JPEG quality", minimum=1, maximum=100)
    encoder: str = param("pillow", "JPEG encoder", choices=CODECS)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            width, height = self.width_height
            if self.extend is None:
                template(height, width)
            elif not 1 <= min(width, height) <= max(width, height) <= 4096:
                raise ValueError("between 1 and 4096 pixels")
        except ValueError as error:
            raise UsageError(f"--size {self.size}: {error}") from None

    @property
    def width_height(self) -> tuple[int, int]:
        width, _, height = self.size.partition("x")
        return int(width), int(height or width)


class Align(MapStage[AlignParams]):
    name = "align"
    version = 1
    needs = "detect"
    columns = {"width": "int32", "height": "int32", "scale": "double", "residual": "double", "matrix": "list<double>"}
    Params = AlignParams

    def versions(self) -> dict[str, str]:
        return codec_versions("opencv") | codec_versions(self.params.encoder)

    def apply(self, item: Item) -> Row:
        if item.sample.aligned:
            return self._as_it_is(item)
        chosen = item.value("detect", "chosen")
        if self.params.extend is None:
            points = np.array(item.value("detect", "points"), np.float64).reshape(-1, 5, 2)[chosen]
            return self._aligned(item, points)
        box = item.value("detect", "boxes")[4 * chosen : 4 * chosen + 4]
        return self._cropped(item, Box(*box), self.params.extend)

    def _as_it_is(self, item: Item) -> Row:
        """A face that somebody aligned before: its bytes, if it has the size that is asked for."""
        height, width = item.photo.pixels.shape[:2]
        if (width, height) != self.params.width_height:
            return item.lost(Reason.OTHER_SIZE, f"aligned to {width}x{height}; --size {width}x{height} takes it")
        return item.ok(payload=item.photo.data, width=width, height=height, scale=1.0, residual=None, matrix=None)

    def _aligned(self, item: Item, points: np.ndarray) -> Row:
        width, height = self.params.width_height
        target = template(height, width)
        try:
            matrix = similarity(points, target)
        except ValueError as error:
            return item.lost(Reason.BAD_LANDMARKS, str(error))
        scale = math.hypot(matrix[0, 0], matrix[1, 0])
        if self.params.max_scale and scale > self.params.max_scale:
            return item.lost(Reason.TINY_FACE, f"would be enlarged {scale:.1f} times")
        fitted = points @ matrix[:, :2].T + matrix[:, 2]
        residual = float(np.sqrt(((fitted - target) ** 2).sum(axis=1).mean()))
        pixels = warp(item.photo.pixels, matrix, height, width)
        return self._written(item, pixels, scale=scale, residual=residual, matrix=matrix.ravel().tolist())

    def _cropped(self, item: Item, box: Box, extend: float) -> Row:
        import cv2

        width, height = self.params.width_height
        photo = item.photo.pixels
        left, top, right, bottom = extended_crop(box, extend, photo.shape[1], photo.shape[0])
        if right - left < 2 or bottom - top < 2:
            return item.lost(Reason.BOX_OUTSIDE, "the face's box lies outside the photo")
        crop = photo[top:bottom, left:right]
        # shorter side to the output's at 256/224, then the centre: how VGGFace2 is evaluated
        scale = 256 / 224 * max(width / crop.shape[1], height / crop.shape[0])
        if self.params.max_scale and scale > self.params.max_scale:
            return item.lost(Reason.TINY_FACE, f"would be enlarged {scale:.1f} times")
        resized = cv2.resize(
            crop,
            (max(width, round(crop.shape[1] * scale)), max(height, round(crop.shape[0] * scale))),
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
        )
        x, y = (resized.shape[1] - width) // 2, (resized.shape[0] - height) // 2
        pixels = np.ascontiguousarray(resized[y : y + height, x : x + width], np.uint8)
        return self._written(item, pixels, scale=scale, residual=None, matrix=None)

    def _written(self, item: Item, pixels: Pixels, **values: object) -> Row:
        p = self.params
        encoded = encode_png(pixels) if p.format == "png" else encode_jpeg(pixels, quality=p.quality, codec=p.encoder)
        return item.ok(payload=encoded, width=pixels.shape[1], height=pixels.shape[0], **values)
