"""Which files are images is one question with one answer, by content; the rarer formats are decoded right."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from dataprep.errors import ImagingError
from dataprep.imaging.codec import decode_image, make_portable
from dataprep.imaging.image_files import list_images
from dataprep.imaging.sniff import identify_format, reject_reason
from dataprep.reasons import Reason

SMOOTH = np.asarray(
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (80, 60), Image.Resampling.BICUBIC
    )
)
KINDS = {"TIFF": "tiff", "AVIF": "avif", "JPEG2000": "jpeg 2000", "HEIF": "heic"}


def saved(form: str, pixels: np.ndarray = SMOOTH, **options: object) -> bytes:
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", KINDS)
def test_the_rarer_formats_are_photos_and_decoded(form: str) -> None:
    data = saved(form, **({} if form in ("TIFF", "JPEG2000") else {"quality": 95}))
    assert identify_format(data) == KINDS[form]
    assert reject_reason(data) is None
    pixels, header = decode_image(data)
    assert pixels.shape == SMOOTH.shape
    assert (header.width, header.height) == (80, 60)
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < (0.01 if form in ("TIFF", "JPEG2000") else 6)


@pytest.mark.parametrize("form", KINDS)
def test_a_cut_file_of_a_rarer_format_has_a_reason(form: str) -> None:
    data = saved(form)
    for length in (40, len(data) // 2, len(data) - 7):
        found: Reason | None = None
        try:
            pixels, _ = decode_image(data[:length])
        except ImagingError as error:
            found = error.reason
        whole = found is None and np.abs(pixels.astype(int) - SMOOTH).mean() < 6
        assert whole or found in (Reason.CORRUPT, Reason.TRUNCATED, Reason.NOT_AN_IMAGE, Reason.WRONG_TYPE)


def test_packs_get_images_that_every_reader_decodes() -> None:
    for form in ("TIFF", "JPEG2000", "AVIF"):
        portable = make_portable(saved(form))
        assert identify_format(portable) == "png"
        assert np.array_equal(
            cv2.imdecode(np.frombuffer(portable, np.uint8), 1)[:, :, ::-1], decode_image(saved(form))[0]
        )
    jpeg = saved("JPEG", quality=90)
    assert make_portable(jpeg) is jpeg


def test_sixteen_bits_are_scaled_as_opencv_scales_them() -> None:
    gray = np.linspace(0, 65535, 4800).astype(np.uint16).reshape(60, 80)
    _, png = cv2.imencode(".png", gray)
    _, tiff = cv2.imencode(".tiff", gray)
    _, colour = cv2.imencode(".png", np.dstack([gray, gray[::-1], gray[:, ::-1]]))
    for data in (png.tobytes(), tiff.tobytes()):
        assert np.array_equal(decode_image(data)[0][:, :, 0], (gray >> 8).astype(np.uint8))
    dark = np.full((60, 80), 200, np.uint16)  # nearly black, and not an image of 8 bits
    assert decode_image(cv2.imencode(".png", dark)[1].tobytes())[0].max() == 0
    expected = cv2.imdecode(colour, cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)
    assert np.abs(decode_image(colour.tobytes())[0].astype(int) - expected).max() <= 1


def test_real_numbers_from_0_to_1_are_not_black() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((60, 80), 0.5, np.float32)).save(stream, "TIFF")
    assert set(np.unique(decode_image(stream.getvalue())[0])) == {128}


def test_cmyk_is_as_pillow_and_photoshop_show_it() -> None:
    """Adobe's inverted CMYK: a red picture is red, in JPEG and in TIFF."""
    red = Image.new("RGB", (80, 60), (200, 30, 30)).convert("CMYK")
    for form in ("JPEG", "TIFF"):
        stream = io.BytesIO()
        red.save(stream, form)
        assert np.abs(decode_image(stream.getvalue())[0].mean(axis=(0, 1)) - (200, 30, 30)).max() < 4


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_a_cameras_raw_file_is_not_taken_for_its_thumbnail(tags: dict[int, object]) -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    directory = ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    stream = io.BytesIO()
    Image.fromarray(SMOOTH).save(stream, "TIFF", tiffinfo=directory)
    with pytest.raises(ImagingError) as raised:
        decode_image(stream.getvalue())
    assert (raised.value.reason, "raw" in raised.value.detail) == (Reason.WRONG_TYPE, True)


def test_images_are_found_by_content_and_the_rest_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "dataprep")
    jpeg = saved("JPEG")
    for name in ("b/a.Jpg", "b/without", "b/c.WEBP", "b/readme.txt", "b/.hidden.jpg", "@eaDir/t.jpg", "b/Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"words" if name.endswith(("txt", "db")) else jpeg)
    (tmp_path / "b/page.jpg").write_bytes(b"<html>")  # listed: whoever reads it says what it is
    assert [path.name for path in list_images(tmp_path)] == ["a.Jpg", "c.WEBP", "page.jpg", "without"]
    assert "left out 1 files that are no images" in caplog.text
    assert "readme.txt" in caplog.text


def progressive(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = saved("JPEG", progressive=True, quality=90)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (progressive(150), "scans"),
        (saved("JPEG")[:2] + b"\xff" * 1_000_000 + saved("JPEG")[2:], "over 4096 segments"),
        (saved("JPEG")[:2] + b"\xff\xe1\x00\x08Exif\0\0" * 200_000 + saved("JPEG")[2:], "over 4096 segments"),
    ],
    ids=["scans", "fill bytes", "segments"],
)
def test_a_jpeg_made_to_be_slow_is_refused_by_its_structure(data: bytes, said: str) -> None:
    found = reject_reason(data)
    assert found is not None
    assert (found[0], said in found[1]) == (Reason.TOO_SLOW, True)
    assert reject_reason(progressive(10)) is None


def test_a_decoder_that_refuses_memory_that_is_free_blames_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, mode: str) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", refuse)
    data = saved("PNG", SMOOTH[:, :, 0])
    with pytest.raises(ImagingError, match="80x60: the decoder refuses to allocate it"):
        decode_image(data)
    monkeypatch.setattr("dataprep.imaging.codec._free_memory", lambda: 1000)
    with pytest.raises(MemoryError):
        decode_image(data)


def test_a_large_photo_is_not_decoded_where_memory_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six kilobytes of WebP may take gigabytes: the header says so before anything is allocated."""
    large = saved("WEBP", np.zeros((5000, 5000, 3), np.uint8), lossless=True)
    assert len(large) < 10_000
    monkeypatch.setattr("dataprep.imaging.codec._free_memory", lambda: 300_000_000)
    with pytest.raises(MemoryError, match="takes up to 381 MiB"):
        decode_image(large)
    monkeypatch.setattr("dataprep.imaging.codec._free_memory", lambda: 500_000_000)
    assert decode_image(large)[0].shape == (5000, 5000, 3)
