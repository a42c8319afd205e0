import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from dataprep.errors import ImagingError
from dataprep.imaging.codec import decode_image, encode_jpeg, encode_png, read_header, turn_pixels
from dataprep.imaging.sniff import identify_format, reject_reason
from dataprep.reasons import Reason
from dataprep.synth.faults import with_orientation


@pytest.fixture
def picture() -> np.ndarray:
    generator = np.random.default_rng(1)
    smooth = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(smooth).resize((80, 60), Image.Resampling.BICUBIC))


def saved(picture: np.ndarray, form: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_equals_pillows_exif_transpose(picture: np.ndarray, orientation: int) -> None:
    data = with_orientation(picture, orientation, 95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    pixels, header = decode_image(data)
    assert np.array_equal(pixels, expected)
    assert header.orientation == orientation
    assert (header.height, header.width) == expected.shape[:2]
    assert header.stored_size == (80, 60)


def test_turning_twice_by_opposite_orientations_gives_the_stored_pixels(picture: np.ndarray) -> None:
    for orientation, back in {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.items():
        assert np.array_equal(turn_pixels(turn_pixels(picture, orientation), back), picture)


@pytest.mark.parametrize(
    ("form", "mode"), [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("WEBP", "RGB"), ("BMP", "RGB")]
)
def test_every_usable_kind_becomes_the_same_rgb(picture: np.ndarray, form: str, mode: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {"quality": 98} if form == "JPEG" else {}
    pixels, header = decode_image(saved(picture, form, mode, **options))
    gray = np.repeat(np.asarray(Image.fromarray(picture).convert("L"))[:, :, None], 3, axis=2)
    expected = gray if mode == "L" else picture
    assert pixels.shape == picture.shape
    assert np.abs(pixels.astype(int) - expected).mean() < (3 if form == "JPEG" else 1e-9)
    assert header.mode == mode


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1999, 1001), (2003, 999), (3000, 1401), (1, 30_000), (30_000, 1)])
def test_photos_of_any_size_are_whole(size: tuple[int, int]) -> None:
    coarse = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for pixels in (decode_image(saved(coarse, "BMP"))[0], decode_image(saved(coarse, "PNG", "RGBA"))[0]):
        assert np.array_equal(pixels, coarse)
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable


def test_transparency_lies_over_white_and_sixteen_bits_become_eight(picture: np.ndarray) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 4), np.uint8)).save(stream, "PNG")
    assert (decode_image(stream.getvalue())[0] == 255).all()
    stream = io.BytesIO()
    Image.fromarray(np.full((40, 40), 0x8000, np.uint16)).save(stream, "PNG")
    assert (decode_image(stream.getvalue())[0] == 0x80).all()


def test_both_codecs_agree_closely(picture: np.ndarray) -> None:
    data = encode_jpeg(picture)
    one, two = decode_image(data, codec="pillow")[0], decode_image(data, codec="opencv")[0]
    assert np.abs(one.astype(int) - two).mean() < 1.5
    assert np.abs(decode_image(encode_jpeg(picture, codec="opencv"))[0].astype(int) - picture).mean() < 4


def reason_of(data: bytes, **options: int) -> Reason:
    with pytest.raises(ImagingError) as caught:
        decode_image(data, **options)
    return caught.value.reason


def test_what_is_no_usable_photo_says_why(picture: np.ndarray) -> None:
    whole = encode_jpeg(picture)
    assert reason_of(whole[: len(whole) // 2]) is Reason.TRUNCATED
    assert reason_of(b"<html><body>gone</body></html>") is Reason.HTML
    assert reason_of(b"") is Reason.EMPTY
    assert reason_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>") is Reason.SVG
    assert reason_of(b"%PDF-1.4") is Reason.WRONG_TYPE
    assert reason_of(bytes(range(200))) is Reason.NOT_AN_IMAGE
    assert reason_of(whole, max_pixels=100) is Reason.BOMB
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    for form in ("GIF", "WEBP", "PNG"):
        stream = io.BytesIO()
        frames[0].save(stream, form, save_all=True, append_images=frames[1:])
        assert reason_of(stream.getvalue()) is Reason.ANIMATED, form
    damaged = bytearray(encode_png(picture))
    damaged[60:90] = bytes(30)
    assert reason_of(bytes(damaged)) in (Reason.CORRUPT, Reason.TRUNCATED)


def test_a_damaged_exif_says_nothing_about_the_pixels(picture: np.ndarray) -> None:
    data = bytearray(with_orientation(picture, 6, 90))
    at = data.index(b"Exif\0\0") + 6
    data[at : at + 8] = b"\xff" * 8
    assert read_header(bytes(data), max_pixels=10**6).orientation == 1


def test_suspicion_passes_photos_and_catches_what_is_cut(picture: np.ndarray) -> None:
    for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        data = saved(picture, form)
        assert identify_format(data) == form.lower()
        assert reject_reason(data) is None
    for form in ("JPEG", "PNG", "WEBP", "BMP"):
        data = saved(picture, form)
        found = reject_reason(data[: len(data) // 2])
        assert found is not None
        assert found[0] is Reason.TRUNCATED, form
