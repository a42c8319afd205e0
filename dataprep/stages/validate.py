"""validate: check that each file is a complete, usable photo and record its properties. Never rewrites it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.errors import ImagingError
from dataprep.imaging.codec import CODECS, MAX_PIXELS, codec_versions
from dataprep.imaging.sniff import reject_reason
from dataprep.params import StageParams, counted_field
from dataprep.reasons import Reason
from dataprep.stages.base import Item, MapStage
from dataprep.types import Row


@dataclass(frozen=True, kw_only=True)
class ValidateParams(StageParams):
    """Criteria for a usable photo."""

    min_side: int = counted_field(32, "drop photos whose shorter side is below this many pixels", minimum=1)
    max_pixels: int = counted_field(
        MAX_PIXELS, "drop photos with more pixels than this (decompression bombs)", minimum=1
    )
    other_formats: str = counted_field(
        "keep", "keep or drop PNG, WebP, BMP and still GIF, including those named .jpg", choices=("keep", "drop")
    )
    codec: str = counted_field("pillow", "JPEG decoder for this and all later stages", choices=CODECS)


class ValidateStage(MapStage[ValidateParams]):
    name = "validate"
    version = 2
    needs = "download"
    columns = {
        "format": "string",
        "mode": "string",
        "orientation": "int32",
        "width": "int32",  # of the upright photo
        "height": "int32",
        "bytes": "int64",
        "photo_sha256": "string",
        "mtime_ns": "int64",  # of a local file, when it was read
    }
    volatile = frozenset({"mtime_ns"})
    Params = ValidateParams

    def versions(self) -> dict[str, str]:
        return codec_versions("pillow") | codec_versions(self.params.codec)

    def apply(self, item: Item) -> Row:
        if item.sample.error:
            return item.rejected(item.sample.error, item.sample.detail)
        seen: dict[str, Any] = {}  # of a local file also where it is rejected, so that it is known when it changes
        try:
            if not item.sample.url:
                found = os.stat(item.sample.path)  # before reading, so that a later change shows
                seen = {"mtime_ns": found.st_mtime_ns, "bytes": found.st_size}
            data = item.photo.data
            seen |= {"bytes": len(data), "photo_sha256": hashlib.sha256(data).hexdigest()}
            return self._judged(item, data, seen)
        except OSError as error:
            return item.rejected(Reason.IO_ERROR, f"{item.sample.path}: {error.strerror or error}", **seen)
        except ImagingError as error:
            return item.rejected(error.reason, error.detail, **seen)

    def _judged(self, item: Item, data: bytes, seen: Mapping[str, Any]) -> Row:
        doubt = reject_reason(data)
        if doubt and doubt[0] is not Reason.TRUNCATED:  # the decoder decides on truncation
            return item.rejected(*doubt, **seen)
        try:
            header = item.photo.header
        except ImagingError:
            if doubt:
                return item.rejected(*doubt, **seen)
            raise
        if min(header.width, header.height) < self.params.min_side:
            return item.rejected(Reason.TOO_SMALL, f"{header.width}x{header.height}", **seen)
        if header.format != "jpeg" and self.params.other_formats == "drop":
            named = Path(item.sample.url or item.sample.path).suffix
            shown = f"{header.format}, {'suffix ' + named if named else 'no suffix'}"
            return item.rejected(Reason.WRONG_TYPE, shown, **seen)
        return item.ok(
            format=header.format,
            mode=header.mode,
            orientation=header.orientation,
            width=header.width,
            height=header.height,
            **{"mtime_ns": None, **seen},
        )
