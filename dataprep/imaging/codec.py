"""Decoding and encoding of photos.

Pixels are always (height, width, 3) uint8 arrays in RGB order, rotated upright according to EXIF. Photos on disk are
never modified.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import resource
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import ImagingError
from dataprep.imaging.sniff import identify_format, reject_reason
from dataprep.reasons import Reason

if TYPE_CHECKING:
    from PIL import Image as PILImage


Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 178_956_970  # twice the number at which Pillow warns of decompression bombs
CODECS = ("pillow", "opencv")
_READABLE = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
# formats that not every Pillow reads, by the names of `identify_format`: Pillow's name, and what brings it
_OPTIONAL = {
    "tiff": ("TIFF", "a Pillow with libtiff"),
    "jpeg 2000": ("JPEG2000", "a Pillow with OpenJPEG"),
    "avif": ("AVIF", "Pillow 11.3 or later"),
    "heic": ("HEIF", "pip install 'face-dataprep[heic]'"),
}
_PORTABLE = ("jpeg", "png", "webp", "bmp")  # decoded by OpenCV and mxnet everywhere
_REDUCED, _RAW_TAG, _SUBFILE_TAG, _PHOTOMETRIC_TAG = 1, 50706, 254, 262
_SENSOR = (32803, 34892)  # a sensor's mosaic, and linear raw: TIFF/EP, DNG
_ORIENTATION_TAG = 0x0112
_BYTES_PER_PIXEL = 16  # that decoding takes at most, with all copies: a lossless WebP
_LARGE = 20_000_000  # pixels; below, asking for the free memory would not be worth its time
_BLOCK = 2_000_000  # pixels, 8 MB; Pillow's memory blocks have 16 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """The header of a photo file. `width` and `height` are those of the upright photo, in pixels."""

    format: str
    mode: str
    orientation: int
    width: int
    height: int

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) of the stored pixel grid, before the EXIF rotation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Read format, colour mode, EXIF orientation and size, without decoding.

    Raises ImagingError for data that is not an image, unsupported formats, animations and more than `max_pixels` pixels.
    """
    with _Opened(data) as image:
        return _header(image, max_pixels)


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, codec: str = "pillow") -> tuple[Pixels, ImageHeader]:
    """Decode a photo completely, into upright RGB pixels and the header.

    CMYK, grayscale, 16-bit and palette images are converted to RGB; transparent images are composited over white.
    Raises ImagingError with the reason for the ledger, MemoryError if a large photo needs more memory than is free.
    """
    with _Opened(data) as image:
        header = _header(image, max_pixels)
        _check_memory(header)
        if header.format == "png":
            _check_sums(data)
        if codec == "opencv" and header.format == "jpeg":
            pixels = _decode_opencv(data)
        else:
            pixels = _decode_pillow(image)
    return turn_pixels(pixels, header.orientation), header


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that memory ran out, as reported by Python, OpenCV (StsNoMem, -4) or Pillow."""
    return isinstance(error, MemoryError) or getattr(error, "code", None) == -4 or "out of memory" in str(error)


def turn_pixels(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (1 to 8, Exif 2.32 tag 0x0112) to stored pixels."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    # after the transposition for 5 to 8, only mirroring is left
    across = orientation in (2, 3, 6, 7)
    down = orientation in (3, 4, 7, 8)
    pixels = pixels[:: -1 if down else 1, :: -1 if across else 1]
    return np.ascontiguousarray(pixels)


def encode_jpeg(pixels: Pixels, *, quality: int = 95, codec: str = "pillow") -> bytes:
    """Encode RGB pixels as baseline JPEG with 4:2:0 chroma, like `cv2.imencode` and insightface's packer."""
    if codec == "opencv":
        import cv2

        ok, buffer = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise ImagingError(Reason.CORRUPT, "OpenCV cannot encode the image")
        return bytes(buffer)
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    return stream.getvalue()


def encode_png(pixels: Pixels) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def make_portable(data: bytes) -> bytes:
    """The bytes of an image as they are if every reader of packs decodes its format (JPEG, PNG, WebP, BMP), else as
    PNG, upright and without loss. Raises ImagingError."""
    return data if identify_format(data) in _PORTABLE else encode_png(decode_image(data)[0])


def codec_versions(codec: str) -> dict[str, str]:
    """Versions of the libraries that can affect decoded pixels or encoded bytes."""
    if codec == "opencv":
        import cv2

        return {"opencv": cv2.__version__}
    import PIL
    from PIL import features

    return {"pillow": PIL.__version__, "libjpeg": str(features.version("jpg") or features.version("libjpeg_turbo"))}


class _Opened:
    """A context that opens bytes as a Pillow image and converts errors in opening or decoding to ImagingError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> PILImage.Image:
        from PIL import Image, UnidentifiedImageError

        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is checked instead
        try:
            self._image = Image.open(io.BytesIO(self._data), formats=_pillow_formats(self._data))
            if self._image.format == "TIFF":
                _refuse_raw(self._image)
        except ImagingError:
            self._warnings.__exit__(None, None, None)
            raise
        except UnidentifiedImageError:
            self._warnings.__exit__(None, None, None)
            raise ImagingError(*(reject_reason(self._data) or (Reason.CORRUPT, "unreadable header"))) from None
        except Exception as error:
            self._warnings.__exit__(None, None, None)
            if is_out_of_memory(error):
                raise MemoryError(_short(error)) from None
            raise ImagingError(Reason.CORRUPT, _short(error)) from None
        return self._image

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        width, height = self._image.size
        self._image.close()
        self._warnings.__exit__(None, None, None)
        if error is None or isinstance(error, (ImagingError, KeyboardInterrupt)):
            return
        if is_out_of_memory(error):
            if _free_memory() > 2 * (_BYTES_PER_PIXEL * width * height + len(self._data)):
                raise ImagingError(Reason.CORRUPT, f"{width}x{height}: the decoder refuses to allocate it") from None
            raise MemoryError(_short(error)) from None  # not the photo's fault
        text = _short(error)
        cut = isinstance(error, OSError) and "truncated" in text
        raise ImagingError(Reason.TRUNCATED if cut else Reason.CORRUPT, text) from None


def _check_memory(header: ImageHeader) -> None:
    """Raise MemoryError, after which a run decodes the photo with nothing beside it, before the system kills the process."""
    pixels = header.width * header.height
    needed = pixels * (_BYTES_PER_PIXEL // 2 if header.format in ("jpeg", "bmp") else _BYTES_PER_PIXEL)
    if pixels > _LARGE and 0 < _free_memory() < needed:
        raise MemoryError(f"decoding {header.width}x{header.height} takes up to {needed >> 20} MiB")


def _free_memory() -> int:
    """The bytes that this process may still allocate; 0 if that is not known."""
    try:
        with open("/proc/meminfo") as stream:
            free = next(int(line.split()[1]) * 1024 for line in stream if line.startswith("MemAvailable:"))
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            with open("/proc/self/statm") as stream:
                free = min(free, limit - int(stream.read().split()[0]) * resource.getpagesize())
    except (OSError, ValueError, IndexError, StopIteration):
        return 0
    return free


def _pillow_formats(data: bytes) -> tuple[str, ...]:
    """The formats for `Image.open`. Raises ImagingError if this installation does not read that of the data."""
    kind = identify_format(data)
    if kind not in _OPTIONAL:
        return _READABLE
    name, source = _OPTIONAL[kind]
    if not _can_read(name):
        raise ImagingError(Reason.WRONG_TYPE, f"{kind}, which needs {source}")
    return (name,)


@functools.cache
def _can_read(format: str) -> bool:
    from PIL import Image, features

    if format == "HEIF":
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            return False
        register_heif_opener()
        return True
    Image.init()
    feature = {"TIFF": "libtiff", "JPEG2000": "jpg_2000", "AVIF": "avif"}[format]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an older Pillow that does not know the feature
        return format in Image.OPEN and bool(features.check(feature))


def _refuse_raw(image: Any) -> None:
    """Raise ImagingError for a camera's raw file, which is a TIFF with a thumbnail in place of the photo."""
    tags = image.tag_v2
    if tags.get(_SUBFILE_TAG, 0) & _REDUCED or _RAW_TAG in tags or tags.get(_PHOTOMETRIC_TAG) in _SENSOR:
        image.close()
        raise ImagingError(Reason.WRONG_TYPE, "a camera's raw file; develop it first")


def _header(image: PILImage.Image, max_pixels: int) -> ImageHeader:
    width, height = image.size
    if width * height > max_pixels:
        raise ImagingError(Reason.BOMB, f"{width}x{height}")
    name = "jpeg" if image.format == "MPO" else str(image.format).lower()
    if name not in ("jpeg", "tiff") and getattr(image, "is_animated", False):
        raise ImagingError(Reason.ANIMATED, f"{name} of {getattr(image, 'n_frames', 2)} frames")
    orientation = _orientation(image)
    if orientation >= 5:
        width, height = height, width
    return ImageHeader(format=name, mode=image.mode, orientation=orientation, width=width, height=height)


def _orientation(image: PILImage.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF does not affect the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode_pillow(image: PILImage.Image) -> Pixels:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_gray(np.asarray(image), image.mode)[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return _packed(Image.alpha_composite(white, rgba).convert("RGB"))
    return _packed(image if image.mode == "RGB" else image.convert("RGB"))


def _gray(values: npt.NDArray[Any], mode: str) -> Pixels:
    """Gray of 16 bits, of 32 bits, or real (TIFF: 0 to 1, or 0 to 255), as 8 bits."""
    if mode == "F":
        values = values * 255.0 if values.max(initial=0) <= 1 else values
        return np.clip(np.nan_to_num(values), 0, 255).round().astype(np.uint8)
    # Pillow before 10.3 gives 16-bit PNG as 32 bits; files of 32 bits that hold bytes exist
    wide = values.astype(np.int64)
    return np.clip(wide >> 8 if mode != "I" or wide.max(initial=0) > 255 else wide, 0, 255).astype(np.uint8)


def _packed(image: PILImage.Image) -> Pixels:
    """The pixels of an RGB image, equal to `numpy.array(image)` but faster. Pillow stores four bytes per pixel and exposes
    them to Arrow if they are in one memory block; OpenCV drops the fourth byte in a fraction of Pillow's time."""
    image.load()
    if not (hasattr(image, "__arrow_c_array__") and importlib.util.find_spec("pyarrow")):
        return np.array(image)  # Pillow before 11.2, or no pyarrow, as in a minimal environment for mxnet
    import cv2
    import pyarrow as pa

    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    step = max(1, _BLOCK // width)
    for top in range(0, height, step):
        rows = min(step, height - top)
        part = image if rows == height else image.crop((0, top, width, top + rows))
        try:
            loose = pa.array(part).values.to_numpy().reshape(rows, width, 4)
        except ValueError:  # several memory blocks after all
            return np.array(image)
        cv2.cvtColor(loose, cv2.COLOR_RGBA2RGB, dst=pixels[top : top + rows])
    return pixels


def _check_sums(data: bytes) -> None:
    """Reject a PNG with wrong checksums: it is damaged, even if it can be decoded."""
    with _Opened(data) as image:
        image.verify()


def _decode_opencv(data: bytes) -> Pixels:
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise ImagingError(Reason.CORRUPT, "OpenCV cannot decode the image")
    return np.asarray(pixels[:, :, ::-1], np.uint8)


def _short(error: BaseException) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__


_SOI, _EOI = b"\xff\xd8\xff", b"\xff\xd9"


def decode_face(data: bytes, *, order: str = "RGB") -> Pixels:
    """Decode to (height, width, 3) in `order` (RGB or BGR), bit for bit as `decode_image` does.

    OpenCV and Pillow both use libjpeg-turbo, but OpenCV has less overhead. Files that OpenCV might decode differently
    (truncated JPEGs, possible CMYK, other formats) go to `decode_image`. Raises ImagingError.
    """
    if data.startswith(_SOI) and data.endswith(_EOI) and b"Adobe" not in data:
        import cv2

        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if found is not None:
            return np.asarray(found if order == "BGR" else cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)
    pixels, _ = decode_image(data)
    return pixels if order == "RGB" else np.ascontiguousarray(pixels[:, :, ::-1])
