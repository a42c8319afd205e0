"""Size, number of frames, and whether the end is there, of the photo formats, by walking their structure."""

from __future__ import annotations

from dataclasses import dataclass

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # JPEG markers without a length
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU T.81 table B.1: SOF0 to SOF15
_SUB_BLOCKS = 200_000  # of 255 bytes: 50 MB
_MOST = 4096  # parts of a file that are walked; more are left to the decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a file's structure says. Size in pixels as stored, 0 if unknown; `frames` counts no further than 2.

    `whole` is False only where the end is missing for certain; a damaged structure is left to the decoder to judge.
    """

    kind: str
    width: int = 0
    height: int = 0
    frames: int = 1
    whole: bool = True


def outline(kind: str, data: bytes) -> Outline:
    """The outline of a `jpeg`, `png`, `gif`, `webp` or `bmp`; anything else is a whole one of unknown size."""
    walk = {"jpeg": _jpeg, "png": _png, "gif": _gif, "webp": _webp, "bmp": _bmp}.get(kind)
    return walk(data) if walk else Outline(kind=kind)


def _jpeg(data: bytes) -> Outline:
    """Segments up to the first scan; the end marker must follow it. One in an embedded thumbnail does not count."""
    at, width, height = 2, 0, 0
    for _ in range(_MOST):
        if data[at : at + 2] == b"\xff\xff":  # a fill byte
            at += 1
            continue
        if at + 4 > len(data):
            return Outline(kind="jpeg", width=width, height=height, whole=False)
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
            return Outline(kind="jpeg", width=width, height=height, whole=data.find(b"\xff\xd9", at) >= 0)
        at += 2 + length
    return Outline(kind="jpeg", width=width, height=height, whole=b"\xff\xd9" in data)


def _png(data: bytes) -> Outline:
    """Chunks: acTL before the first IDAT makes an animation (APNG), IEND ends it."""
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    at, frames = 8, 1
    for _ in range(_MOST):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4:
            return Outline(kind="png", width=width, height=height, frames=frames, whole=False)
        if kind == b"acTL":
            frames = min(2, int.from_bytes(data[at + 8 : at + 12]))
        if kind == b"IEND":
            break
        at += 12 + int.from_bytes(data[at : at + 4])
    else:
        return Outline(kind="png", width=width, height=height, frames=frames, whole=b"IEND" in data)
    return Outline(kind="png", width=width, height=height, frames=max(1, frames))


def _gif(data: bytes) -> Outline:
    """Blocks up to the second image. A missing trailer alone is common and harmless."""
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
        else:  # the trailer, nothing, or garbage after the last image
            return Outline(kind="gif", width=width, height=height, whole=frames > 0 or bool(block))
        if at > len(data):
            return Outline(kind="gif", width=width, height=height, whole=False)
    return Outline(kind="gif", width=width, height=height, frames=max(1, frames))


def _palette(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    """Where a chain of sub-blocks ends; beyond the data if that ends first, or if there are absurdly many."""
    for _ in range(_SUB_BLOCKS):
        if at >= len(data):
            return len(data) + 1
        if data[at] == 0:
            return at + 1
        at += 1 + data[at]
    return len(data)


def _webp(data: bytes) -> Outline:
    """RIFF chunks: the canvas from VP8X, VP8 or VP8L; ANMF is one frame of an animation."""
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
    return Outline(kind="webp", width=width, height=height, frames=max(1, frames), whole=declared <= len(data) + 1)


def _bmp(data: bytes) -> Outline:
    """BITMAPINFOHEADER; its height is negative if rows run from the top. The older core header has 16-bit sizes."""
    if int.from_bytes(data[14:18], "little") == 12:
        width, height = int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
    else:
        width = abs(int.from_bytes(data[18:22], "little", signed=True))
        height = abs(int.from_bytes(data[22:26], "little", signed=True))
    declared = int.from_bytes(data[2:6], "little")
    return Outline(kind="bmp", width=width, height=height, whole=declared <= len(data) + 1)
