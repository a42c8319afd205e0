"""Aligned faces to pixels, by the thousand: the same pixels as `photo.decode`, in half the time."""

from __future__ import annotations

import numpy as np

from dataprep.imaging.photo import Pixels, decode

_SOI, _EOI = b"\xff\xd8\xff", b"\xff\xd9"


def decode_face(data: bytes, *, order: str = "RGB") -> Pixels:
    """(height, width, 3) in `order` (RGB or BGR), to the bit what `decode` gives.

    OpenCV and Pillow decode JPEGs by the same libjpeg-turbo, but OpenCV begins sooner. What it would treat otherwise (a
    JPEG that is cut off, or perhaps CMYK; any other format) goes to `decode`. Raises ImagingError.
    """
    if data.startswith(_SOI) and data.endswith(_EOI) and b"Adobe" not in data:
        import cv2

        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if found is not None:
            return np.asarray(found if order == "BGR" else cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)
    pixels, _ = decode(data)
    return pixels if order == "RGB" else np.ascontiguousarray(pixels[:, :, ::-1])
