"""align: warp the chosen face from the original photo onto the ArcFace template, or crop it around its box."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataprep.errors import UsageError
from dataprep.imaging import quality
from dataprep.imaging.codec import CODECS, Pixels, codec_versions, encode_jpeg, encode_png, make_portable
from dataprep.imaging.crops import FIT_MODES, Crop, extended_crop, fit_crop, fit_enlargement, margin_crop, output_margin
from dataprep.imaging.geometry import (
    BORDER_MODES,
    INTERPOLATIONS,
    AffineMatrix,
    Points,
    estimate_similarity,
    outside_fraction,
    scale_template,
    warp_image,
)
from dataprep.params import StageParams, counted_field
from dataprep.reasons import Reason
from dataprep.stages.base import Item, MapStage
from dataprep.types import Box, Row


@dataclass(frozen=True, kw_only=True)
class AlignParams(StageParams):
    """How a face is aligned or cropped, and the quality filters.

    An unknown value never drops a face; published landmarks, for example, have no probability.
    """

    size: str = counted_field(
        "112", "output size in pixels, SIDE or WIDTHxHEIGHT: a multiple of 112 or 128, or 96x112; keep: faces that are "
               "aligned already stay as they are, of whatever size"
    )  # fmt: skip
    extend: float | None = counted_field(
        None, "without alignment: crop the face box enlarged by this share (0.3 is VGGFace2's tight crop)", minimum=0.0
    )
    margin: int | None = counted_field(
        None, "without alignment: crop the face box plus a margin in pixels (facenet: 44 for 182, 32 for 160)",
        minimum=0,
    )  # fmt: skip
    margin_rule: str = counted_field(
        "source", "measure the margin in pixels of the photo (facenet) or of the output (facenet-pytorch)",
        choices=("source", "output"),
    )  # fmt: skip
    fit: str = counted_field(
        "auto", "resizing of an oblong crop: short-centre (shorter side to 256/224 of the output, then centre; auto "
                "with --extend), stretch (auto with --margin), pad, or none (keep the size)", choices=("auto", *FIT_MODES),
    )  # fmt: skip
    interpolation: str = counted_field(
        "auto",
        "interpolation; auto: linear for a warp; for a crop, area if it shrinks, else linear",
        choices=INTERPOLATIONS,
    )
    border: str = counted_field("black", "fill of pixels outside the photo", choices=BORDER_MODES)
    max_scale: float = counted_field(0.0, "drop faces enlarged by more than this factor; 0 keeps all", minimum=0.0)
    max_outside: float = counted_field(
        1.0, "drop faces with more than this share outside the photo", minimum=0.0, maximum=1.0
    )
    min_prob: float = counted_field(0.0, "drop faces with a lower detector score than this", minimum=0.0, maximum=1.0)
    min_size: float = counted_field(0.0, "drop faces whose shorter box side is below this many pixels", minimum=0.0)
    max_yaw: float | None = counted_field(
        None, "drop faces with |yaw| above this many degrees, estimated from the landmarks", minimum=0.0, maximum=90.0
    )
    max_roll: float | None = counted_field(
        None, "drop faces with |roll| (eye line) above this many degrees", minimum=0.0, maximum=180.0
    )
    max_residual: float | None = counted_field(
        None, "drop faces whose landmarks deviate from the template by more pixels than this (RMS)", minimum=0.0
    )
    min_sharpness: float = counted_field(
        0.0, "drop faces whose aligned image has a lower variance of the Laplacian than this", minimum=0.0
    )
    format: str = counted_field("jpg", "image format: jpg, or lossless png", choices=("jpg", "png"))
    quality: int = counted_field(95, "JPEG quality", minimum=1, maximum=100)
    encoder: str = counted_field("pillow", "JPEG encoder", choices=CODECS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extend is not None and self.margin is not None:
            raise UsageError("extend and margin are two ways to crop", hint="give --extend or --margin, not both")
        if self.keeps_size:
            return
        try:
            if not re.fullmatch(r"\d+(x\d+)?", self.size, re.ASCII):
                raise ValueError("expected SIDE or WIDTHxHEIGHT in pixels, such as 112 or 96x112")
            width, height = self.width_height
            if not 1 <= min(width, height) <= max(width, height) <= 4096:
                raise ValueError("width and height must be between 1 and 4096 pixels")
            if not self.crops:
                scale_template(height, width)
        except ValueError as error:
            raise UsageError(
                f"size {self.size}: {error}",
                hint="give another --size; faces that are aligned already may have any, with --size keep",
            ) from None
        if self.fit != "auto" and not self.crops:
            raise UsageError(f"fit {self.fit!r} applies to crops only", hint="add --extend or --margin")
        if self.margin is not None and self.margin_rule == "output" and self.margin >= min(width, height):
            raise UsageError(
                f"a margin of {self.margin} leaves no pixels of an output of {self.size}",
                hint="give a smaller --margin",
            )

    @property
    def keeps_size(self) -> bool:
        """Whether only faces that are aligned already are taken, as they are."""
        return self.size == "keep"

    @property
    def width_height(self) -> tuple[int, int]:
        """The output's (width, height); raises ValueError where the size is kept."""
        width, _, height = self.size.partition("x")
        return int(width), int(height or width)

    @property
    def crops(self) -> bool:
        """Whether faces are cropped around their box instead of aligned."""
        return self.extend is not None or self.margin is not None

    @property
    def resolved_fit(self) -> str:
        return self.fit if self.fit != "auto" else "short-centre" if self.extend is not None else "stretch"


class AlignStage(MapStage[AlignParams]):
    name = "align"
    version = 2
    needs = "detect"
    columns = {
        "width": "int32",
        "height": "int32",
        "scale": "double",  # enlargement of the face
        "alignment_error": "double",  # RMS landmark error, in template pixels (of 112x112 for a crop)
        "matrix": "list<double>",
        "outside_fraction": "double",  # share of the output outside the photo
        "score": "double",
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
        if self.params.keeps_size:
            return item.rejected(Reason.SIZE_MISMATCH, "a photo, not an aligned face; it takes a --size in pixels")
        chosen = item.value("detect", "selected")
        points = np.array(item.value("detect", "landmarks"), np.float64).reshape(-1, 5, 2)[chosen]
        box = item.value("detect", "boxes")[4 * chosen : 4 * chosen + 4]
        seen = {
            "score": item.value("detect", "scores")[chosen],
            "box_side": min(box[2] - box[0], box[3] - box[1]) if box else None,
            "roll": quality.estimate_roll(points),
            "yaw": quality.estimate_yaw(points),
        }
        if self.params.crops:
            return self._cropped(item, Box(*box) if box else None, points, seen)
        return self._aligned(item, points, seen)

    def _as_it_is(self, item: Item) -> Row:
        """Pass an already aligned face through unchanged if it has the output size."""
        pixels = item.photo.pixels
        height, width = pixels.shape[:2]
        kept = self.params.keeps_size or self.params.resolved_fit == "none"
        if not kept and (width, height) != self.params.width_height:
            return item.rejected(
                Reason.SIZE_MISMATCH, f"aligned to {width}x{height}; the output size is {self.params.size}"
            )
        values = {"scale": 1.0, "sharpness": quality.measure_sharpness(pixels)}
        return self._judged(item, values) or item.ok(
            payload=make_portable(item.photo.data), width=width, height=height, **_complete(values)
        )

    def _aligned(self, item: Item, points: Points, seen: Mapping[str, Any]) -> Row:
        width, height = self.params.width_height
        target = scale_template(height, width)
        try:
            matrix = estimate_similarity(points, target)
        except ValueError as error:
            return item.rejected(Reason.BAD_LANDMARKS, str(error), **seen)
        photo = item.photo.pixels
        values = {
            **seen,
            "scale": _scale(matrix),
            "alignment_error": quality.alignment_error(points, matrix, target),
            "matrix": matrix.ravel().tolist(),
            "outside_fraction": outside_fraction(matrix, height, width, photo.shape[:2]),
        }
        p = self.params
        return self._judged(item, values) or self._written(
            item, warp_image(photo, matrix, height, width, interpolation=p.interpolation, border=p.border), values
        )

    def _cropped(self, item: Item, box: Box | None, points: Points, seen: Mapping[str, Any]) -> Row:
        p, photo = self.params, item.photo.pixels
        width, height = p.width_height
        if box is None:
            return item.rejected(
                Reason.BAD_BOX, "the source has landmarks but no box; detecting landmarks would give one", **seen
            )
        crop = self._crop(box, photo)
        if crop.width < 2 or crop.height < 2:
            return item.rejected(Reason.BOX_OUTSIDE, "the face's box lies outside the photo", **seen)
        values = {
            **seen,
            "scale": fit_enlargement(crop, width, height, p.resolved_fit),
            "alignment_error": _residual(points),
            "outside_fraction": crop.outside,
        }
        lost = self._judged(item, values)
        if lost is not None:
            return lost
        pixels = fit_crop(
            photo, crop, width, height, fit=p.resolved_fit, interpolation=p.interpolation, border=p.border
        )
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
            (Reason.LOW_CONFIDENCE, "score", -1, p.min_prob or None, "probability {0:.3f}"),
            (Reason.FACE_TOO_SMALL, "box_side", -1, p.min_size or None, "{0:.0f} pixels"),
            (Reason.UPSCALED, "scale", 1, p.max_scale or None, "would be enlarged {0:.1f} times"),
            (Reason.ROLL_TOO_LARGE, "roll", 1, p.max_roll, "tilted {0:.0f} degrees"),
            (Reason.YAW_TOO_LARGE, "yaw", 1, p.max_yaw, "turned {0:.0f} degrees"),
            (Reason.ALIGNMENT_ERROR, "alignment_error", 1, p.max_residual, "landmarks {0:.1f} pixels off the template"),
            (Reason.FACE_OUT_OF_FRAME, "outside_fraction", 1, p.max_outside, "{0:.0%} beyond the photo"),
            (Reason.BLURRED, "sharpness", -1, p.min_sharpness or None, "sharpness {0:.1f}"),
        )
        for reason, name, sign, limit, told in limits:
            value = values.get(name)
            if value is None or limit is None:
                continue
            if sign * abs(value) > sign * limit:
                return item.rejected(reason, told.format(value), **_complete(values))
        return None

    def _written(self, item: Item, pixels: Pixels, values: Mapping[str, Any]) -> Row:
        p = self.params
        values = {**values, "sharpness": quality.measure_sharpness(pixels)}
        blurred = self._judged(item, values)
        if blurred is not None:
            return blurred
        encoded = encode_png(pixels) if p.format == "png" else encode_jpeg(pixels, quality=p.quality, codec=p.encoder)
        return item.ok(payload=encoded, width=pixels.shape[1], height=pixels.shape[0], **_complete(values))


def _scale(matrix: AffineMatrix) -> float:
    return math.hypot(matrix[0, 0], matrix[1, 0])


def _residual(points: Points) -> float | None:
    target = scale_template(112, 112)
    try:
        return quality.alignment_error(points, estimate_similarity(points, target), target)
    except ValueError:
        return None


def _complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every measured column, null where the value is unknown."""
    return {name: values.get(name) for name in AlignStage.columns if name not in ("width", "height")}
