"""Members of tar archives that come out the same byte for byte, and the extension that an image's content asks for."""

from __future__ import annotations

import tarfile

_BLOCK = 512
END = b"\0" * (2 * _BLOCK)

_EXTENSIONS = {b"\xff\xd8\xff": "jpg", b"\x89PN": "png", b"RIF": "webp", b"GIF": "gif", b"BM": "bmp"}


def member(name: str, data: bytes) -> tuple[bytes, int]:
    """A tar member, header to padding, and the offset of `data` in it. The same input gives the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + data + b"\0" * (-len(data) % _BLOCK), len(header)


def extension(image: bytes) -> str:
    """jpg, png, webp, gif or bmp by the first bytes; bin for anything else."""
    return next((name for start, name in _EXTENSIONS.items() if image.startswith(start)), "bin")


def member_name(key: str, data: bytes) -> str:
    """The key with the extension that the content asks for."""
    return f"{key}.{extension(data)}"
