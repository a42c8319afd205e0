"""align: warp the chosen face from the original photo onto the ArcFace template, or crop it around its box."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataprep.errors import UsageError
from dataprep.imaging import quality
from dataprep.imaging.codec import CODECS, Pixels, codec_versions, encode_jpeg, encode_png
from dataprep.imaging.crops import FITS, Crop, extended_crop, fit_scale, fitted, margin_crop, output_margin
from dataprep.imaging.geometry import BORDERS, INTERPOLATIONS, Matrix, Points, share_outside, similarity, template, warp
from dataprep.params import StageParams, param
from dataprep.reasons import Reason
from dataprep.stages.base import Item, MapStage
from dataprep.types import Box, Row


@dataclass(frozen=True, kw_only=True)
class AlignParams(StageParams):
    """How a face is aligned or cropped, and the quality filters.

    An unknown value never drops a face; published landmarks, for example, have no probability.
    """

    size: str = param("112", "output size in pixels, SIDE or WIDTHxHEIGHT: a multiple of 112 or 128, or 96x112")
    extend: float | None = param(
        None, "without alignment: crop the face box enlarged by this share (0.3 is VGGFace2's tight crop)", minimum=0.0
    )
    margin: int | None = param(
        None, "without alignment: crop the face box plus a margin in pixels (facenet: 44 for 182, 32 for 160)",
        minimum=0,
    )  # fmt: skip
    margin_rule: str = param(
        "source", "measure the margin in pixels of the photo (facenet) or of the output (facenet-pytorch)",
        choices=("source", "output"),
    )  # fmt: skip
    fit: str = param(
        "auto", "resizing of an oblong crop: short-centre (shorter side to 256/224 of the output, then centre; auto "
                "with --extend), stretch (auto with --margin), pad, or none (keep the size)", choices=("auto", *FITS),
    )  # fmt: skip
    interpolation: str = param(
        "auto",
        "interpolation; auto: linear for a warp; for a crop, area if it shrinks, else linear",
        choices=INTERPOLATIONS,
    )
    border: str = param("black", "fill of pixels outside the photo", choices=BORDERS)
    max_scale: float = param(0.0, "drop faces enlarged by more than this factor; 0 keeps all", minimum=0.0)
    max_outside: float = param(1.0, "drop faces with more than this share outside the photo", minimum=0.0, maximum=1.0)
    min_prob: float = param(0.0, "drop faces with a lower detector score than this", minimum=0.0, maximum=1.0)
    min_size: float = param(0.0, "drop faces whose shorter box side is below this many pixels", minimum=0.0)
    max_yaw: float | None = param(
        None, "drop faces with |yaw| above this many degrees, estimated from the landmarks", minimum=0.0, maximum=90.0
    )
    max_roll: float | None = param(
        None, "drop faces with |roll| (eye line) above this many degrees", minimum=0.0, maximum=180.0
    )
    max_residual: float | None = param(
        None, "drop faces whose landmarks deviate from the template by more pixels than this (RMS)", minimum=0.0
    )
    min_sharpness: float = param(
        0.0, "drop faces whose aligned image has a lower variance of the Laplacian than this", minimum=0.0
    )
    format: str = param("jpg", "image format: jpg, or lossless png", choices=("jpg", "png"))
    quality: int = param(95, "JPEG quality", minimum=1, maximum=100)
    encoder: str = param("pillow", "JPEG encoder", choices=CODECS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extend is not None and self.margin is not None:
            raise UsageError("extend and margin are two ways to crop", hint="give --extend or --margin, not both")
        try:
            width, height = self.width_height
            if not 1 <= min(width, height) <= max(width, height) <= 4096:
                raise ValueError("width and height must be between 1 and 4096 pixels")
            if not self.crops:
                template(height, width)
        except ValueError as error:
            raise UsageError(f"size {self.size}: {error}", hint="give another --size") from None
        if self.fit != "auto" and not self.crops:
            raise UsageError(f"fit {self.fit!r} applies to crops only", hint="add --extend or --margin")
        if self.margin is not None and self.margin_rule == "output" and self.margin >= min(width, height):
            raise UsageError(
                f"a margin of {self.margin} leaves no pixels of an output of {self.size}",
                hint="give a smaller --margin",
            )

    @property
    def width_height(self) -> tuple[int, int]:
        width, _, height = self.size.partition("x")
        return int(width), int(height or width)

    @property
    def crops(self) -> bool:
        """Whether faces are cropped around their box instead of aligned."""
        return self.extend is not None or self.margin is not None

    @property
    def settled_fit(self) -> str:
        return self.fit if self.fit != "auto" else "short-centre" if self.extend is not None else "stretch"


class Align(MapStage[AlignParams]):
    name = "align"
    version = 2
    needs = "detect"
    columns = {
        "width": "int32",
        "height": "int32",
        "scale": "double",  # enlargement of the face
        "residual": "double",  # RMS landmark error, in template pixels (of 112x112 for a crop)
        "matrix": "list<double>",
        "outside": "double",  # share of the output outside the photo
        "probability": "double",
        "box_side": "double",  # shorter side of the face's box, in photo pixels
        "roll": "double",  # degrees, like yaw
        "yaw": "double",
        "sharpness": "double",
    }
    Params = AlignParams

    def versions(self) -> dict[str, str]:
        return codec_versions("opencv") | codec_versions(self.params.encoder)

    def apply(self, item: Item) -> Row:
        if item.sample.aligned:
            return self._as_it_is(item)
        chosen = item.value("detect", "chosen")
        points = np.array(item.value("detect", "points"), np.float64).reshape(-1, 5, 2)[chosen]
        box = item.value("detect", "boxes")[4 * chosen : 4 * chosen + 4]
        seen = {
            "probability": item.value("detect", "probabilities")[chosen],
            "box_side": min(box[2] - box[0], box[3] - box[1]) if box else None,
            "roll": quality.roll(points),
            "yaw": quality.yaw(points),
        }
        if self.params.crops:
            return self._cropped(item, Box(*box) if box else None, points, seen)
        return self._aligned(item, points, seen)

    def _as_it_is(self, item: Item) -> Row:
        """Pass an already aligned face through unchanged if it has the output size."""
        pixels = item.photo.pixels
        height, width = pixels.shape[:2]
        if (width, height) != self.params.width_height and self.params.settled_fit != "none":
            return item.lost(Reason.OTHER_SIZE, f"aligned to {width}x{height}; the output size is {self.params.size}")
        values = {"scale": 1.0, "sharpness": quality.sharpness(pixels)}
        return self._judged(item, values) or item.ok(
            payload=item.photo.data, width=width, height=height, **_complete(values)
        )

    def _aligned(self, item: Item, points: Points, seen: Mapping[str, Any]) -> Row:
        width, height = self.params.width_height
        target = template(height, width)
        try:
            matrix = similarity(points, target)
        except ValueError as error:
            return item.lost(Reason.BAD_LANDMARKS, str(error), **seen)
        photo = item.photo.pixels
        values = {
            **seen,
            "scale": _scale(matrix),
            "residual": quality.residual(points, matrix, target),
            "matrix": matrix.ravel().tolist(),
            "outside": share_outside(matrix, height, width, photo.shape[:2]),
        }
        p = self.params
        return self._judged(item, values) or self._written(
            item, warp(photo, matrix, height, width, interpolation=p.interpolation, border=p.border), values
        )

    def _cropped(self, item: Item, box: Box | None, points: Points, seen: Mapping[str, Any]) -> Row:
        p, photo = self.params, item.photo.pixels
        width, height = p.width_height
        if box is None:
            return item.lost(
                Reason.BAD_BOX, "the source has landmarks but no box; detecting landmarks would give one", **seen
            )
        crop = self._crop(box, photo)
        if crop.width < 2 or crop.height < 2:
            return item.lost(Reason.BOX_OUTSIDE, "the face's box lies outside the photo", **seen)
        values = {
            **seen,
            "scale": fit_scale(crop, width, height, p.settled_fit),
            "residual": _residual(points),
            "outside": crop.outside,
        }
        lost = self._judged(item, values)
        if lost is not None:
            return lost
        pixels = fitted(photo, crop, width, height, fit=p.settled_fit, interpolation=p.interpolation, border=p.border)
        return self._written(item, pixels, values)

    def _crop(self, box: Box, photo: Pixels) -> Crop:
        p, (height, width) = self.params, photo.shape[:2]
        if p.extend is not None:
            return extended_crop(box, p.extend, width, height)
        margin = float(p.margin or 0)
        if p.margin_rule == "source":
            return margin_crop(box, (margin, margin), width, height)
        return margin_crop(box, output_margin(box, margin, *p.width_height), width, height)

    def _judged(self, item: Item, values: Mapping[str, Any]) -> Row | None:
        """Return the row of a face that a filter drops, with the values measured so far; None if it passes."""
        p = self.params
        limits = (
            (Reason.LOW_PROBABILITY, "probability", -1, p.min_prob or None, "probability {0:.3f}"),
            (Reason.SMALL_FACE, "box_side", -1, p.min_size or None, "{0:.0f} pixels"),
            (Reason.TINY_FACE, "scale", 1, p.max_scale or None, "would be enlarged {0:.1f} times"),
            (Reason.ROLLED, "roll", 1, p.max_roll, "tilted {0:.0f} degrees"),
            (Reason.PROFILE, "yaw", 1, p.max_yaw, "turned {0:.0f} degrees"),
            (Reason.MISFIT, "residual", 1, p.max_residual, "landmarks {0:.1f} pixels off the template"),
            (Reason.CUT_FACE, "outside", 1, p.max_outside, "{0:.0%} beyond the photo"),
            (Reason.BLURRED, "sharpness", -1, p.min_sharpness or None, "sharpness {0:.1f}"),
        )
        for reason, name, sign, limit, told in limits:
            value = values.get(name)
            if value is None or limit is None:
                continue
            if sign * abs(value) > sign * limit:
                return item.lost(reason, told.format(value), **_complete(values))
        return None

    def _written(self, item: Item, pixels: Pixels, values: Mapping[str, Any]) -> Row:
        p = self.params
        values = {**values, "sharpness": quality.sharpness(pixels)}
        blurred = self._judged(item, values)
        if blurred is not None:
            return blurred
        encoded = encode_png(pixels) if p.format == "png" else encode_jpeg(pixels, quality=p.quality, codec=p.encoder)
        return item.ok(payload=encoded, width=pixels.shape[1], height=pixels.shape[0], **_complete(values))


def _scale(matrix: Matrix) -> float:
    return math.hypot(matrix[0, 0], matrix[1, 0])


def _residual(points: Points) -> float | None:
    target = template(112, 112)
    try:
        return quality.residual(points, similarity(points, target), target)
    except ValueError:
        return None


def _complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every measured column, null where the value is unknown."""
    return {name: values.get(name) for name in Align.columns if name not in ("width", "height")}
