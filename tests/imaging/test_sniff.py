"""What bytes are, whatever they are called: each kind of no photo has its reason; nothing makes it raise."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataprep.errors import ImagingError
from dataprep.imaging.codec import read_header
from dataprep.imaging.sniff import identify_format, parse_structure, reject_reason
from dataprep.reasons import Reason
from dataprep.synth.photos import draw_photo

PIXELS = draw_photo(0, 0).pixels
FRAMES = [Image.fromarray(np.ascontiguousarray(PIXELS[:: 2 + i, ::2])).resize((60, 50)) for i in range(3)]


def saved(form: str, frames: int = 1, **options: object) -> bytes:
    stream = io.BytesIO()
    images = FRAMES if frames > 1 else [Image.fromarray(PIXELS)]
    many = {"save_all": True, "append_images": images[1:frames], "duration": 90} if frames > 1 else {}
    images[0].save(stream, form, **many, **options)
    return stream.getvalue()


def thumbnailed() -> bytes:
    """A JPEG with a whole JPEG, end marker and all, in an APP1 segment, as cameras store thumbnails."""
    whole, small = saved("JPEG", quality=95), io.BytesIO()
    FRAMES[0].save(small, "JPEG")
    inner = b"Exif\0\0" + small.getvalue()
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + whole[2:]


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises more than it holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


WHOLE = {
    "jpeg": saved("JPEG"),
    "progressive": saved("JPEG", progressive=True),
    "thumbnailed": thumbnailed(),
    "jpeg with garbage after it": saved("JPEG") + b"<html>" * 9,
    "png": saved("PNG"),
    "gif": saved("GIF"),
    "gif without its trailer": saved("GIF")[:-1],
    "webp": saved("WEBP"),
    "lossless webp": saved("WEBP", lossless=True),
    "webp with exif": saved("WEBP", exif=Image.Exif()),
    "bmp": saved("BMP"),
    "apng of one frame": saved("PNG", save_all=True),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_photos_are_not_suspected_and_their_size_is_known(name: str) -> None:
    data = WHOLE[name]
    assert reject_reason(data, max_pixels=250 * 250) is None
    found = parse_structure(identify_format(data), data)
    assert (found.width, found.height) == Image.open(io.BytesIO(data)).size == (250, 250)
    assert reject_reason(data, max_pixels=250 * 250 - 1) == (Reason.BOMB, "250x250")


@pytest.mark.parametrize("name", [name for name in WHOLE if "garbage" not in name and "trailer" not in name])
def test_photos_cut_anywhere_are_suspected_or_left_to_the_decoder_to_refuse(name: str) -> None:
    data = WHOLE[name]
    caught = 0
    for share in (0.05, 0.2, 0.5, 0.8, 0.95):
        cut = data[: int(len(data) * share)]
        found = reject_reason(cut)
        assert found is None or found[0] is Reason.TRUNCATED
        caught += found is not None
    assert caught == 5, name


ANIMATIONS = {"gif": saved("GIF", 3), "apng": saved("PNG", 3), "webp": saved("WEBP", 3)}


@pytest.mark.parametrize("name", ANIMATIONS)
def test_animations_are_told_from_stills_as_pillow_tells_them(name: str) -> None:
    found = reject_reason(ANIMATIONS[name])
    assert found is not None
    assert found[0] is Reason.ANIMATED
    with pytest.raises(ImagingError) as refused:
        read_header(ANIMATIONS[name], max_pixels=10**9)
    assert refused.value.reason is Reason.ANIMATED


def test_a_bomb_is_known_by_its_header() -> None:
    assert reject_reason(png_of(60_000, 60_000), max_pixels=178_956_970) == (Reason.BOMB, "60000x60000")
    assert reject_reason(png_of(60, 60), max_pixels=178_956_970) is None


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", Reason.EMPTY, "0 bytes"),
        (b"\0\0 \r\n", Reason.EMPTY, "5 bytes"),
        (b"<!DOCTYPE html><html>", Reason.HTML, ""),
        (b"\xef\xbb\xbf\n\n<HTML>", Reason.HTML, ""),
        ("\ufeff<html><body>gone".encode("utf-16-le"), Reason.HTML, ""),
        (b"<?xml version='1.0'?><!DOCTYPE html PUBLIC><html>", Reason.HTML, ""),
        (b"<h1>404</h1>", Reason.HTML, ""),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.SVG, ""),
        (b"<?xml version='1.0'?><!-- x --><svg>", Reason.SVG, ""),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", Reason.NOT_AN_IMAGE, "xml"),
        (b'{"error": "not found"}', Reason.NOT_AN_IMAGE, "json"),
        (b"File not found.\n", Reason.NOT_AN_IMAGE, "text"),
        (b"\x00\x01\x02\x03\xfe\xff\x10", Reason.NOT_AN_IMAGE, "begins with"),
        (b"%PDF-1.7", Reason.WRONG_TYPE, "pdf"),
        (b"PK\x03\x04zip", Reason.WRONG_TYPE, "zip"),
        (b"\x1f\x8b\x08gz", Reason.WRONG_TYPE, "gzip"),
        (b"8BPS\0\1", Reason.WRONG_TYPE, "psd"),
        (b"\0\0\0\x18ftypmp42", Reason.WRONG_TYPE, "mp4"),
        (b"\0\0\0\x18ftypisom", Reason.WRONG_TYPE, "mp4"),
        (b"RIFF\0\0\0\0AVI LIST", Reason.WRONG_TYPE, "avi"),
        (b"\x1aE\xdf\xa3webm", Reason.WRONG_TYPE, "matroska"),
        (b"\0\0\x01\0\x01\0", Reason.WRONG_TYPE, "ico"),
        (b"FWS\x05", Reason.WRONG_TYPE, "flash"),
    ],
)
def test_what_is_no_photo_says_what_it_is(data: bytes, reason: Reason, detail: str) -> None:
    found = reject_reason(data, quote=True)
    assert found is not None
    assert found[0] is reason
    assert detail in found[1]


def test_the_content_of_a_local_file_is_not_quoted() -> None:
    for data in (b"root:x:0:0:root:/root:/bin/bash\n", b"\x00secret\xff\xfe", b'{"password": "secret"}'):
        found = reject_reason(data)
        assert found is not None
        assert not any(word in found[1] for word in ("root", "secret", data[:8].hex()))


STARTS = st.sampled_from(
    [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\xff\0\0\0WEBP", b"BM", b"\xff\xfe", b"\xfe\xff<\0",
     b"\xff\xd8\xff\xe1\0\0", b"GIF87a\1\0\1\0\x80\0\0", b"<?xml", b"{", b"\0\0\0\x18ftyp", *WHOLE.values()]
)  # fmt: skip


@given(STARTS, st.binary(max_size=300), st.integers(0, 400), st.binary(max_size=8))
@settings(max_examples=600, deadline=None)
def test_no_bytes_make_it_raise(start: bytes, tail: bytes, at: int, patch: bytes) -> None:
    data = start + tail
    data = data[:at] + patch + data[at + len(patch) :]
    found = reject_reason(data, max_pixels=1000)
    assert found is None or (isinstance(found[0], Reason) and len(found[1]) < 200)
    for kind in ("jpeg", "png", "gif", "webp", "bmp", "tiff"):
        seen = parse_structure(kind, data)
        assert seen.width >= 0
        assert seen.height >= 0
