"""Detects the type of content from its bytes, regardless of file name and Content-Type. Cheap: nothing is decoded.

The functions accept any bytes and never raise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dataprep.reasons import Reason

_HTML = re.compile(
    rb"<\s*(!doctype\s+html|html|head|body|script|meta|title|div|p|br|a|h1|center|iframe)\b", re.IGNORECASE
)
_PHOTOS = frozenset({"jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "heic", "jpeg 2000"})
# signatures of content that is definitely not a photo
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


def identify_format(data: bytes) -> str:
    """The type of content by its first bytes: a format name, `html`, `xml`, `json`, `text`, `empty` or `unknown`."""
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


def is_photo_format(format: str) -> bool:
    """Whether photos come in the format that `identify_format` names."""
    return format in _PHOTOS


def reject_reason(data: bytes, *, max_pixels: int | None = None, quote: bool = False) -> tuple[Reason, str] | None:
    """The rejection reason, or None if the bytes may be a complete still photo of at most `max_pixels`.

    Checks only signatures, headers and end markers, so that content which is clearly not a photo is never stored as
    one. `validate` decodes completely later. With `quote`, the detail quotes text that came instead: what a server says
    is of use, and what stands in a file of this machine is nobody's business.
    """
    kind = identify_format(data)
    if kind == "empty":
        return Reason.EMPTY, f"{len(data)} bytes"
    if kind == "html":
        return Reason.HTML, "a web page instead of a photo"
    if kind == "svg":
        return Reason.SVG, "a drawing instead of a photo"
    if kind in _WORDS:
        return Reason.NOT_AN_IMAGE, f"{kind}: {data[:60].decode('utf-8', 'replace')!r}" if quote else kind
    if kind == "unknown":
        return Reason.NOT_AN_IMAGE, f"begins with {data[:8].hex()}" if quote else "of no known format"
    if kind not in _PHOTOS:
        return Reason.WRONG_TYPE, kind
    return _doubt(parse_structure(kind, data), len(data), max_pixels)


def _doubt(seen: FileStructure, size: int, max_pixels: int | None) -> tuple[Reason, str] | None:
    if max_pixels is not None and seen.width * seen.height > max_pixels:
        return Reason.BOMB, f"{seen.width}x{seen.height}"
    if seen.frames > 1:
        return Reason.ANIMATED, f"{seen.kind} with several frames"
    if seen.slow:
        return Reason.TOO_SLOW, seen.slow
    if not seen.whole:
        return Reason.TRUNCATED, f"{seen.kind} of {size} bytes without an end marker"
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


_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # JPEG markers without a length
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU T.81 table B.1: SOF0 to SOF15
_SCANS = 100
_SUB_BLOCKS = 200_000  # of 255 bytes each: 50 MB
_MOST = 4096  # parts of a file that are walked; the decoder checks the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStructure:
    """The structure of an image file. The size is in pixels as stored, 0 if unknown; `frames` stops counting at 2.

    `whole` is False only if the end is definitely missing. The decoder judges other damage. `slow` says what would make the
    decoder slow, such as hundreds of scans.
    """

    kind: str
    width: int = 0
    height: int = 0
    frames: int = 1
    whole: bool = True
    slow: str = ""


def parse_structure(kind: str, data: bytes) -> FileStructure:
    """The outline of a `jpeg`, `png`, `gif`, `webp` or `bmp`. Other kinds count as complete and of unknown size."""
    walk = {"jpeg": _jpeg, "png": _png, "gif": _gif, "webp": _webp, "bmp": _bmp}.get(kind)
    return walk(data) if walk else FileStructure(kind=kind)


def _jpeg(data: bytes) -> FileStructure:
    """Walks segments up to the first scan. An end marker must follow; one in an embedded thumbnail does not count."""
    at, width, height = 2, 0, 0
    for _ in range(_MOST):
        if data[at : at + 2] == b"\xff\xff":  # a fill byte
            at += 1
            continue
        if at + 4 > len(data):
            return FileStructure(kind="jpeg", width=width, height=height, whole=False)
        if data[at] != 0xFF or data[at + 1] == 0:
            break
        marker = data[at + 1]
        if marker in _STANDALONE:
            at += 2
            continue
        if marker == 0xD9:
            break
        length = int.from_bytes(data[at + 2 : at + 4])
        if marker in _FRAME_HEADERS and not width:
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        if marker == 0xDA:
            # a progressive image is decoded anew with each scan; encoders write ten or so
            scans = data.count(b"\xff\xda", at)
            slow = f"a JPEG of {scans} scans" if scans > _SCANS else ""
            return FileStructure(
                kind="jpeg", width=width, height=height, whole=data.find(b"\xff\xd9", at) >= 0, slow=slow
            )
        at += 2 + length
    else:
        return FileStructure(kind="jpeg", width=width, height=height, slow=f"a JPEG of over {_MOST} segments")
    return FileStructure(kind="jpeg", width=width, height=height, whole=b"\xff\xd9" in data)


def _png(data: bytes) -> FileStructure:
    """Walks chunks. acTL before the first IDAT means an animation (APNG); IEND is the end."""
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    at, frames = 8, 1
    for _ in range(_MOST):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4:
            return FileStructure(kind="png", width=width, height=height, frames=frames, whole=False)
        if kind == b"acTL":
            frames = min(2, int.from_bytes(data[at + 8 : at + 12]))
        if kind == b"IEND":
            break
        at += 12 + int.from_bytes(data[at : at + 4])
    else:
        return FileStructure(kind="png", width=width, height=height, frames=frames, whole=b"IEND" in data)
    return FileStructure(kind="png", width=width, height=height, frames=max(1, frames))


def _gif(data: bytes) -> FileStructure:
    """Walks blocks up to the second image. A missing trailer alone is common and harmless."""
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at = 13 + _palette(data, 10)
    frames = 0
    for _ in range(_MOST):
        block = data[at : at + 1]
        if block == b"\x2c":
            frames += 1
            if frames > 1:
                break
            at = _after_sub_blocks(data, at + 11 + _palette(data, at + 9))
        elif block == b"\x21":
            at = _after_sub_blocks(data, at + 2)
        else:  # the trailer, end of data, or garbage after the last image
            return FileStructure(kind="gif", width=width, height=height, whole=frames > 0 or bool(block))
        if at > len(data):
            return FileStructure(kind="gif", width=width, height=height, whole=False)
    return FileStructure(kind="gif", width=width, height=height, frames=max(1, frames))


def _palette(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    """The end of a chain of sub-blocks. Past the end of the data if the chain is cut off, the end if it is too long."""
    for _ in range(_SUB_BLOCKS):
        if at >= len(data):
            return len(data) + 1
        if data[at] == 0:
            return at + 1
        at += 1 + data[at]
    return len(data)


def _webp(data: bytes) -> FileStructure:
    """Walks RIFF chunks. VP8X, VP8 or VP8L has the size; each ANMF is a frame of an animation."""
    width = height = frames = 0
    at = 12
    for _ in range(_MOST):
        kind, body = data[at : at + 4], data[at + 8 : at + 18]
        if len(body) < 10 and len(kind) < 4:
            break
        if kind == b"VP8X":
            width = int.from_bytes(body[4:7], "little") + 1
            height = int.from_bytes(body[7:10], "little") + 1
        elif kind == b"VP8 " and not width:
            width = int.from_bytes(body[6:8], "little") & 0x3FFF
            height = int.from_bytes(body[8:10], "little") & 0x3FFF
        elif kind == b"VP8L" and not width:
            bits = int.from_bytes(body[1:5], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"ANMF":
            frames += 1
            if frames > 1:
                break
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    declared = int.from_bytes(data[4:8], "little") + 8
    return FileStructure(
        kind="webp", width=width, height=height, frames=max(1, frames), whole=declared <= len(data) + 1
    )


def _bmp(data: bytes) -> FileStructure:
    """BITMAPINFOHEADER, whose height is negative for top-down rows, or the older core header with 16-bit sizes."""
    if int.from_bytes(data[14:18], "little") == 12:
        width, height = int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
    else:
        width = abs(int.from_bytes(data[18:22], "little", signed=True))
        height = abs(int.from_bytes(data[22:26], "little", signed=True))
    declared = int.from_bytes(data[2:6], "little")
    return FileStructure(kind="bmp", width=width, height=height, whole=declared <= len(data) + 1)
