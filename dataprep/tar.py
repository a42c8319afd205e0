"""Reproducible members of tar archives, and file extensions by image content."""

from __future__ import annotations

import tarfile

_BLOCK = 512
_NAME, _LARGEST = 100, 0o77777777777  # limits of the fields of one header block
TAR_END = b"\0" * (2 * _BLOCK)
_EMPTY = tarfile.TarInfo().tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
_SUM = sum(_EMPTY[:124]) + sum(_EMPTY[135:148]) + sum(b" " * 8) + sum(_EMPTY[156:])

_EXTENSIONS = {
    b"\xff\xd8\xff": "jpg", b"\x89PN": "png", b"RIF": "webp", b"GIF": "gif", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif",
    b"\0\0\0\x0cjP": "jp2", b"\xff\x4f\xff\x51": "j2k",
}  # fmt: skip
_BRANDS = {b"avi": "avif", b"hei": "heic", b"hev": "heic", b"mif": "heic", b"msf": "heic"}


def make_member(name: str, data: bytes) -> tuple[bytes, int]:
    """A tar member (header, data, padding) and the offset of `data` in it. Equal input gives equal bytes."""
    header = _header(name, len(data))
    return b"".join((header, data, bytes(-len(data) % _BLOCK))), len(header)


def _header(name: str, size: int) -> bytes:
    """The header that tarfile would write. One-block headers are built by hand, which is ten times faster."""
    if not name.isascii() or len(name) > _NAME or size > _LARGEST:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    field = name.encode()
    octal = b"%011o" % size
    # POSIX 1003.1-2001, ustar: the sum of all bytes, with those of the sum itself as spaces
    check = b"%06o\0 " % (_SUM + sum(field) + sum(octal))
    return b"".join((field, _EMPTY[len(field) : 124], octal, _EMPTY[135:148], check, _EMPTY[156:]))


def image_extension(image: bytes) -> str:
    """jpg, png, webp, gif, bmp, tif, jp2, j2k, avif or heic, by the first bytes; otherwise bin."""
    if image[4:8] == b"ftyp":
        return _BRANDS.get(image[8:11], "bin")
    return next((name for start, name in _EXTENSIONS.items() if image.startswith(start)), "bin")


def make_member_name(key: str, data: bytes) -> str:
    """The key with the extension of its content."""
    return f"{key}.{image_extension(data)}"
