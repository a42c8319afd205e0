"""What a body of bytes really is, whatever its name or Content-Type say. Cheap: nothing is decoded.

All of these take any bytes and never raise.
"""

from __future__ import annotations

import re

from dataprep.errors import Reason
from dataprep.imaging.headers import Outline, outline

_HTML = re.compile(
    rb"<\s*(!doctype\s+html|html|head|body|script|meta|title|div|p|br|a|h1|center|iframe)\b", re.IGNORECASE
)
_PHOTOS = frozenset({"jpeg", "png", "webp", "bmp", "gif"})
# first bytes of what is something else for certain
_SIGNATURES = (
    (b"%PDF", "pdf"),
    (b"FWS", "flash"),
    (b"CWS", "flash"),
    (b"FLV\x01", "flash video"),
    (b"\0\0\1\0", "ico"),
    (b"\0\0\2\0", "cur"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"8BPS", "psd"),
    (b"PK\3\4", "zip"),
    (b"PK\5\6", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"(\xb5/\xfd", "zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\7", "rar"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\0\0\1\xba", "mpeg"),
    (b"\0\0\0\x0cjP  ", "jpeg 2000"),
    (b"\xff\x4f\xff\x51", "jpeg 2000"),
    (b"\0\0\0\x0cJXL ", "jpeg xl"),
    (b"\xff\x0a", "jpeg xl"),
    (b"II\xbc", "jpeg xr"),
    (b"\x7fELF", "program"),
    (b"MZ", "program"),
)
_BRANDS = ((b"avi", "avif"), (b"hei", "heic"), (b"hev", "heic"), (b"mif", "heic"), (b"msf", "heic"))
_TEXT = frozenset({*range(0x20, 0x7F), *range(0x80, 0x100), 9, 10, 12, 13})
_WORDS = frozenset({"html", "svg", "xml", "json", "text"})


def identify(data: bytes) -> str:
    """The kind of content by its first bytes: a format's name, `html`, `xml`, `json`, `text`, `empty` or `unknown`."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[:4] == b"RIFF":
        return {b"WEBP": "webp", b"AVI ": "avi", b"WAVE": "wav"}.get(data[8:12], "riff")
    if data.startswith(b"BM") and len(data) > 26:
        return "bmp"
    if data[4:8] == b"ftyp":
        return next((name for brand, name in _BRANDS if data[8:11] == brand), "mp4")
    found = next((name for start, name in _SIGNATURES if data.startswith(start)), None)
    if found:
        return found
    if not data.strip(b"\0 \t\r\n"):
        return "empty"
    return _kind_of_text(data[:2048])


def suspicion(data: bytes, *, max_pixels: int | None = None) -> tuple[Reason, str] | None:
    """Why these bytes cannot be a whole, still photo of at most `max_pixels`, or None if they may be one.

    Looks at signatures, headers and end markers only. `validate` decodes in full later; this keeps what is plainly no
    photo from being stored as one.
    """
    kind = identify(data)
    if kind == "empty":
        return Reason.EMPTY, f"{len(data)} bytes"
    if kind == "html":
        return Reason.HTML, "a web page instead of a photo"
    if kind == "svg":
        return Reason.SVG, "a drawing instead of a photo"
    if kind in _WORDS:
        return Reason.NOT_AN_IMAGE, f"{kind}: {data[:60].decode('utf-8', 'replace')!r}"
    if kind == "unknown":
        return Reason.NOT_AN_IMAGE, f"begins with {data[:8].hex()}"
    if kind not in _PHOTOS:
        return Reason.WRONG_TYPE, kind
    return _doubt(outline(kind, data), len(data), max_pixels)


def _doubt(seen: Outline, size: int, max_pixels: int | None) -> tuple[Reason, str] | None:
    if max_pixels is not None and seen.width * seen.height > max_pixels:
        return Reason.BOMB, f"{seen.width}x{seen.height}"
    if seen.frames > 1:
        return Reason.ANIMATED, f"{seen.kind} of several frames"
    if not seen.whole:
        return Reason.TRUNCATED, f"{seen.kind} of {size} bytes without its end"
    return None


def _kind_of_text(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "replace").encode("utf-8", "replace")
    head = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"<svg" in head.lower():
        return "svg"
    if _HTML.search(head):
        return "html"
    if head.startswith((b"<?xml", b"<")) and b">" in head:
        return "xml"
    if not all(byte in _TEXT for byte in head) or sum(byte >= 0x80 for byte in head) * 4 > len(head):
        return "unknown"
    return "json" if head.startswith((b"{", b"[")) else "text"
