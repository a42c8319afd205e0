"""Simulated faults of the web: the ways in which old URLs fail, each with the reason code expected in the ledger."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dataprep.imaging.codec import Pixels, encode_jpeg, encode_png, turn_pixels
from dataprep.imaging.geometry import turn_points
from dataprep.reasons import Reason
from dataprep.synth.photos import DrawnPhoto
from dataprep.types import Box

NOT_FOUND_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Not here</title></head><body><h1>This image is no longer available</h1>"
    b"<p>Our new homepage has much more to offer.</p></body></html>\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPhoto:
    """A published photo: the bytes of the file, the box in the list, and the behaviour of the server."""

    body: bytes
    box: Box
    behaviour: str = "plain"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: its weight among the faults, and the reason expected in the ledger (None if the sample stays usable)."""

    weight: float
    ends_as: Reason | None
    publish: Callable[[DrawnPhoto, np.random.Generator], PublishedPhoto]


def publish_unchanged(drawn: DrawnPhoto, generator: np.random.Generator) -> PublishedPhoto:
    """A photo without any fault."""
    return PublishedPhoto(body=encode_jpeg(drawn.pixels, quality=drawn.quality), box=drawn.box)


def _behaves(behaviour: str) -> Callable[[DrawnPhoto, np.random.Generator], PublishedPhoto]:
    """A good photo on a server with the given behaviour."""

    def publish(drawn: DrawnPhoto, generator: np.random.Generator) -> PublishedPhoto:
        return PublishedPhoto(body=publish_unchanged(drawn, generator).body, box=drawn.box, behaviour=behaviour)

    return publish


def _body(make: Callable[[DrawnPhoto], bytes]) -> Callable[[DrawnPhoto, np.random.Generator], PublishedPhoto]:
    """A faulty file on a well-behaved server."""

    def publish(drawn: DrawnPhoto, generator: np.random.Generator) -> PublishedPhoto:
        return PublishedPhoto(body=make(drawn), box=drawn.box)

    return publish


def _pillow(mode: str, form: str) -> Callable[[DrawnPhoto], bytes]:
    def make(drawn: DrawnPhoto) -> bytes:
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(drawn.pixels).convert(mode).save(stream, form, quality=drawn.quality)
        return stream.getvalue()

    return make


def _cut(drawn: DrawnPhoto) -> bytes:
    whole = encode_jpeg(drawn.pixels, quality=drawn.quality)
    return whole[: len(whole) * 2 // 3].replace(b"\xff\xd9", b"")


def _thumbnail(drawn: DrawnPhoto) -> bytes:
    return encode_jpeg(np.ascontiguousarray(drawn.pixels[::12, ::12]), quality=90)


def _animation(drawn: DrawnPhoto) -> bytes:
    from PIL import Image

    frames = [Image.fromarray(np.ascontiguousarray(drawn.pixels[::2, ::step])) for step in (2, -2)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return stream.getvalue()


def _no_face(drawn: DrawnPhoto) -> bytes:
    """A landscape: sky above a meadow."""
    height, width = drawn.pixels.shape[:2]
    rows = np.linspace(0, 1, height)[:, None, None]
    sky, meadow = np.array([120.0, 170.0, 230.0]), np.array([70.0, 130.0, 60.0])
    picture = np.where(rows < 0.6, sky + 80 * rows, meadow + 60 * (1 - rows)) + np.zeros((height, width, 3))
    return encode_jpeg(picture.astype(np.uint8), quality=drawn.quality)


def _turned(drawn: DrawnPhoto, generator: np.random.Generator) -> PublishedPhoto:
    """A photo stored rotated or mirrored, with the EXIF orientation. The box ignores EXIF, as some detectors do."""
    orientation = int(generator.integers(2, 9))
    height, width = drawn.pixels.shape[:2]
    back = {6: 8, 8: 6}.get(orientation, orientation)  # the inverse orientation
    corners = turn_points([drawn.box[:2], drawn.box[2:]], back, width, height)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    body = with_orientation(turn_pixels(drawn.pixels, back), orientation, drawn.quality)
    return PublishedPhoto(body=body, box=Box(float(left), float(top), float(right), float(bottom)))


def with_orientation(pixels: Pixels, orientation: int, quality: int) -> bytes:
    """Encode the pixels as JPEG with the given EXIF orientation."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, exif=exif)
    return stream.getvalue()


def _box_beyond(drawn: DrawnPhoto, generator: np.random.Generator) -> PublishedPhoto:
    """A box that extends beyond the photo, as DPM detections do, and still contains the face."""
    left, top, right, bottom = drawn.box
    width = drawn.pixels.shape[1]
    grown = Box(min(left, -5.5), min(top, -3.25), max(right, width + 4.75), bottom)
    return PublishedPhoto(body=publish_unchanged(drawn, generator).body, box=grown)


def _box_elsewhere(drawn: DrawnPhoto, generator: np.random.Generator) -> PublishedPhoto:
    """A box for a larger copy of the photo, so that it is entirely outside this one."""
    height, width = drawn.pixels.shape[:2]
    moved = Box(width + 40.0, height + 25.0, width + 140.0, height + 125.0)
    return PublishedPhoto(body=publish_unchanged(drawn, generator).body, box=moved)


FAULTS: Mapping[str, Fault] = {
    "dead": Fault(2, Reason.CONNECTION, _behaves("dead")),
    "403": Fault(1, Reason.HTTP_4XX, _behaves("403")),
    "404": Fault(3, Reason.HTTP_404, _behaves("404")),
    "410": Fault(1, Reason.HTTP_404, _behaves("410")),
    "500": Fault(1, Reason.HTTP_5XX, _behaves("500")),
    "slow": Fault(1, None, _behaves("slow")),
    "stalled": Fault(0.5, Reason.TIMEOUT, _behaves("stalled")),
    "redirect": Fault(1, None, _behaves("redirect")),
    "redirect_loop": Fault(1, Reason.REDIRECTS, _behaves("redirect_loop")),
    "html": Fault(2, Reason.HTML, _body(lambda drawn: NOT_FOUND_PAGE)),
    "png": Fault(1, None, _body(lambda drawn: encode_png(drawn.pixels))),
    "webp": Fault(1, None, _body(_pillow("RGB", "WEBP"))),
    "truncated": Fault(1, Reason.TRUNCATED, _body(_cut)),
    "empty": Fault(1, Reason.EMPTY, _body(lambda drawn: b"")),
    "short": Fault(1, Reason.SHORT_BODY, _behaves("short")),
    "thumbnail": Fault(1, Reason.TOO_SMALL, _body(_thumbnail)),
    "animation": Fault(1, Reason.ANIMATED, _body(_animation)),
    "no_face": Fault(1, Reason.NO_FACE, _body(_no_face)),
    "box_beyond": Fault(1, None, _box_beyond),
    "box_elsewhere": Fault(1, Reason.BOX_OUTSIDE, _box_elsewhere),
    "turned": Fault(2, None, _turned),
    "cmyk": Fault(1, None, _body(_pillow("CMYK", "JPEG"))),
    "gray": Fault(1, None, _body(_pillow("L", "JPEG"))),
}
