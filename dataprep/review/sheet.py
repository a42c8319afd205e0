"""Sheets of pictures: an HTML page that stands alone, or one PNG. Photos have their boxes and landmarks drawn in."""

from __future__ import annotations

import base64
import importlib.resources
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.errors import DataprepError, ImagingError, UsageError
from dataprep.imaging.codec import Pixels, decode_image
from dataprep.names import printable
from dataprep.pipeline.pipeline import Pipeline
from dataprep.review.samples import SampleRecord
from dataprep.stages.base import read_local_photo
from dataprep.storage import Folder
from dataprep.workspace.workspace import Workspace

if TYPE_CHECKING:
    from PIL import Image as PILImage

_SIDE = 224  # pixels of a tile
_COLUMNS = 6  # of a PNG
_LINES = 3  # of text below a tile of a PNG
_PUBLISHED, _DETECTED, _SELECTED = (47, 125, 225), (217, 130, 43), (31, 157, 85)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One sample on a sheet; `image` is None if there is no picture of it."""

    key: str
    reason: str
    detail: str
    location: str
    image: PILImage.Image | None

    @property
    def data_url(self) -> str:
        """The picture, to be embedded in a page; empty if there is none."""
        if self.image is None:
            return ""
        stream = io.BytesIO()
        self.image.save(stream, "JPEG", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def write_sheet(workspace: str, path: Path, records: Iterable[SampleRecord], *, title: str, faces: bool) -> int:
    """Write a sheet of the samples to `path`, a .html or .png: with `faces` the aligned faces, else (and where there is
    no face) the photos. Returns the number of samples. Raises UsageError for another suffix."""
    draw = {".html": _page, ".png": _picture}.get(path.suffix.lower())
    if draw is None:
        raise UsageError(f"{path}: a sheet is an .html or a .png", hint="give --out such a name")
    pipeline = Pipeline(opened := Workspace(workspace), opened.recipe())
    tiles = [_tile(pipeline, record, faces) for record in records]
    Folder(path.parent).put(path.name, draw(title, tiles))
    return len(tiles)


def _tile(pipeline: Pipeline, record: SampleRecord, faces: bool) -> Tile:
    image = _aligned_face(pipeline, record) if faces else None
    return Tile(
        key=printable(record.sample.key),
        reason=record.reason,
        detail=printable(record.detail),
        location=printable(record.location),
        image=image or _photo(pipeline, record),
    )


def _aligned_face(pipeline: Pipeline, record: SampleRecord) -> PILImage.Image | None:
    data = _payload(pipeline, record, "align")
    pixels = _decoded(data) if data else None
    return None if pixels is None else _image(pixels)


def _photo(pipeline: Pipeline, record: SampleRecord) -> PILImage.Image | None:
    """The upright photo with the published box, the detected faces and the selected one drawn in, as a thumbnail."""
    from PIL import Image, ImageDraw

    data = _payload(pipeline, record, "download")
    if data is None and record.sample.path:
        try:
            data = read_local_photo(record.sample)
        except (OSError, ImagingError):
            return None
    pixels = _decoded(data) if data else None
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = _image(pixels).resize(size, Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    crop, detect = record.rows.get("crop", {}), record.rows.get("detect", {})
    boxes, points, chosen = detect.get("boxes") or [], detect.get("landmarks") or [], detect.get("selected")
    if crop.get("box"):
        draw.rectangle([value * scale for value in crop["box"]], outline=_PUBLISHED, width=2)
    for face in range(len(boxes) // 4):
        colour = _SELECTED if face == chosen else _DETECTED
        draw.rectangle([value * scale for value in boxes[4 * face : 4 * face + 4]], outline=colour, width=2)
    for x, y in zip(points[::2], points[1::2], strict=True):
        draw.ellipse([x * scale - 2, y * scale - 2, x * scale + 2, y * scale + 2], fill=_SELECTED)
    return image


def _payload(pipeline: Pipeline, record: SampleRecord, stage: str) -> bytes | None:
    """The image that a stage stored for this sample, None if it stored none."""
    row, node = record.rows.get(stage, {}), pipeline.node(stage)
    marker = node.store.marker(record.shard) if row.get("size") is not None else None
    if marker is None or marker.data is None:
        return None
    try:
        reader = node.store.payloads(marker)
        try:
            return reader.read(row["offset"], row["size"])
        finally:
            reader.close()
    except DataprepError:  # a sheet shows what can be shown; the stages report damage
        return None


def _decoded(data: bytes) -> Pixels | None:
    try:
        return decode_image(data)[0]
    except (ImagingError, MemoryError):
        return None


def _image(pixels: Pixels) -> PILImage.Image:
    from PIL import Image

    return Image.fromarray(pixels)


def _page(title: str, tiles: list[Tile]) -> bytes:
    import jinja2

    text = importlib.resources.files("dataprep.review").joinpath("templates/sheet.html").read_text("utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    reasons = sorted({tile.reason for tile in tiles})
    page: str = template.render(title=title, tiles=tiles, reasons=reasons)
    return page.encode()


def _picture(title: str, tiles: list[Tile]) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    font: Any = ImageFont.load_default(12)
    line, gap, top = 16, 8, 32
    columns = max(1, min(_COLUMNS, len(tiles)))
    cell_width, cell_height = _SIDE + gap, _SIDE + gap + line * _LINES
    sheet = Image.new("RGB", (gap + columns * cell_width, top + math.ceil(len(tiles) / columns) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), printable(title), "black", ImageFont.load_default(14))
    for position, tile in enumerate(tiles):
        x, y = gap + position % columns * cell_width, top + position // columns * cell_height
        if tile.image is None:
            draw.rectangle([x, y, x + _SIDE, y + _SIDE], outline="silver")
            draw.text((x + gap, y + _SIDE // 2), "no picture", "grey", font)
        else:
            width, height = tile.image.size
            sheet.paste(tile.image, (x + (_SIDE - width) // 2, y + (_SIDE - height) // 2))
        for number, text in enumerate((tile.key, tile.reason, tile.detail)):
            while text and draw.textlength(text, font) > _SIDE:
                text = text[:-1]
            draw.text((x, y + _SIDE + number * line), text, "firebrick" if number == 1 else "black", font)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()
