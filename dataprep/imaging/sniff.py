"""What a body of bytes really is, whatever its name or Content-Type say. Cheap: nothing is decoded."""

from __future__ import annotations

import re

from dataprep.errors import Reason

_HTML = re.compile(rb"<\s*(!doctype\s+html|html|head|body|script|meta|title|div|p|br|a)\b", re.IGNORECASE)
_PHOTOS = frozenset({"jpeg", "png", "webp", "bmp", "gif"})
_UNUSABLE = frozenset({"svg", "pdf", "avif", "heic", "ico", "flash", "tiff"})


def identify(data: bytes) -> str:
    """The kind of content by its first bytes: an image format, `html`, `empty` or `unknown`."""
    if not data.strip(b"\0 \t\r\n"):
        return "empty"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"BM") and len(data) > 26:
        return "bmp"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    if data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"mif", b"msf"):
        return "heic"
    if data.startswith(b"%PDF"):
        return "pdf"
    if data.startswith((b"FWS", b"CWS")):
        return "flash"
    if data.startswith(b"\0\0\1\0"):
        return "ico"
    head = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"<svg" in head.lower():
        return "svg"
    if _HTML.search(head) or head.startswith(b"<?xml"):
        return "html"
    return "unknown"


def suspicion(data: bytes) -> tuple[Reason, str] | None:
    """Why these bytes cannot be a whole photo, or None if they may be one.

    Looks at the signature and the end marker only. `validate` decodes in full later; this keeps what is plainly no
    photo from being stored as one.
    """
    kind = identify(data)
    if kind == "empty":
        return Reason.EMPTY, f"{len(data)} bytes"
    if kind == "html":
        return Reason.HTML, "a web page instead of a photo"
    if kind in _UNUSABLE:
        return Reason.WRONG_TYPE, kind
    if kind not in _PHOTOS:
        return Reason.NOT_AN_IMAGE, f"begins with {data[:8].hex()}"
    if _is_cut_short(kind, data):
        return Reason.TRUNCATED, f"{kind} of {len(data)} bytes without its end"
    return None


def _is_cut_short(kind: str, data: bytes) -> bool:
    if kind == "jpeg":
        return b"\xff\xd9" not in data
    if kind == "png":
        return b"IEND" not in data[-4096:] and b"IEND" not in data
    if kind in ("webp", "bmp"):
        start = 4 if kind == "webp" else 2
        declared = int.from_bytes(data[start : start + 4], "little") + (8 if kind == "webp" else 0)
        return declared > len(data) + 1
    return False
