"""The augmentations of other trainers, with the constants from their source code, in numpy and OpenCV.

Each takes (height, width, 3) RGB uint8 pixels and draws its random numbers from the given generator. OpenCV is imported
inside the functions because the command line imports this module for the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataprep.imaging.codec import Pixels, decode_image, encode_jpeg

Generator = np.random.Generator

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in all four sources
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_FILLING = 128  # the grey that mxnet's iterator fills a cut-out with
_INTERPOLATIONS = 5  # OpenCV's 0 to 4: nearest, linear, cubic, area, Lanczos


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """The augmentation of a training image. Values from 0 to 1 are probabilities.

    `dali` is arcface_torch's `dali_aug` (dataset.py). `compress`, `jitter` (strength) and `cutoff` (side in pixels) come
    from insightface's mxnet iterator (image_iter.py), where `--color 2` means compress 0.5 and jitter 0.125. That iterator
    cuts out after normalisation, so its fill value 128 appears as glaring white; here it is grey. `crop`, `low_res` and
    `photometric` are AdaFace's (dataset/augmenter.py). `resize_crop` and `gray` are VGGFace2-pytorch's
    (datasets/vgg_face2.py): resize the shorter side to 256/224 of the input, then crop randomly. They take any image size.
    """

    flip: bool = True
    dali: bool = False
    compress: float = 0.0
    jitter: float = 0.0
    cutoff: int = 0
    crop: float = 0.0
    low_res: float = 0.0
    photometric: float = 0.0
    resize_crop: bool = False
    gray: float = 0.0

    @property
    def is_random(self) -> bool:
        """Whether any augmentation other than the flip is enabled."""
        return self != AugmentConfig(flip=self.flip)

    def apply(self, pixels: Pixels, generator: Generator, *, height: int, width: int) -> Pixels:
        """Apply all but the flip, in field order. Only `resize_crop` changes the size, to (height, width, 3)."""
        if self.dali:
            pixels = _dali(pixels, generator)
        if self.compress and generator.random() < self.compress:
            pixels = decode_image(encode_jpeg(pixels, quality=int(generator.integers(2, 21))))[0]
        if self.jitter:
            pixels = _jittered(pixels, generator, self.jitter)
        if self.cutoff and generator.random() < 0.5:
            pixels = _cut_out(pixels, generator, self.cutoff)
        if self.crop and generator.random() < self.crop:
            pixels = _cropped(pixels, generator)
        if self.low_res and generator.random() < self.low_res:
            pixels = _low_resolution(pixels, generator)
        if self.photometric and generator.random() < self.photometric:
            pixels = _jittered(pixels, generator, 0.5)
        if self.resize_crop:
            pixels = _window(pixels, generator, height, width)
        if self.gray and generator.random() < self.gray:
            pixels = _saturated(pixels.astype(np.float32), 0.0).round().astype(np.uint8)
        return pixels


# by trainer; mxnet's iterator has no default side for the cut-out
AUGMENT_PRESETS: Mapping[str, AugmentConfig] = {
    "none": AugmentConfig(flip=False),
    "flip": AugmentConfig(),
    "arcface_torch": AugmentConfig(dali=True),
    "mxnet": AugmentConfig(compress=0.5, jitter=0.125, cutoff=16),
    "adaface": AugmentConfig(crop=0.2, low_res=0.2, photometric=0.2),
    "vggface2": AugmentConfig(resize_crop=True, gray=0.2),
}


def _dali(pixels: Pixels, generator: Generator) -> Pixels:
    """Downscale to 0.5..0.8 and upscale again (p 0.1), 3-pixel Gaussian blur (p 0.2), hue by 0..20 degrees with saturation
    by 1..1.2 (p 0.2), grey (p 0.1). arcface_torch draws the blur size as an integer in [1, 2): always 3, sigma 0.8."""
    import cv2

    height, width = pixels.shape[:2]
    if generator.random() < 0.1:
        side = generator.uniform(0.5, int(112 * 0.8) / 112)
        small = cv2.resize(pixels, (round(width * side), round(height * side)), interpolation=cv2.INTER_AREA)
        pixels = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if generator.random() < 0.2:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (3, 3), 0.8), np.uint8)
    if generator.random() < 0.2:
        pixels = _hsv(pixels, generator.uniform(0, 20), generator.uniform(1.0, 1.2))
    if generator.random() < 0.1:
        pixels = _hsv(pixels, 0.0, 0.0)
    return pixels


def _hsv(pixels: Pixels, hue: float, saturation: float) -> Pixels:
    """DALI's `fn.hsv`. It is linear: in YIQ, hue is an angle (degrees) and saturation a length."""
    import cv2

    c, s = saturation * np.cos(np.radians(hue)), saturation * np.sin(np.radians(hue))
    turned = np.linalg.inv(_YIQ) @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]]) @ _YIQ
    return np.asarray(cv2.transform(pixels, turned), np.uint8)  # rounded and saturated


def _jittered(pixels: Pixels, generator: Generator, strength: float) -> Pixels:
    """Scale brightness, contrast and saturation by 1 +- strength, in random order, like mxnet's ColorJitterAug and
    torchvision's ColorJitter. Values are clipped to 0..255 after each step, as in torchvision."""
    values = pixels.astype(np.float32)
    for step in generator.permutation(3):
        factor = generator.uniform(1 - strength, 1 + strength)
        if step == 0:
            values = values * np.float32(factor)
        elif step == 1:
            values = values * np.float32(factor) + np.float32((1 - factor) * float((values @ _LUMA).mean()))
        else:
            values = _saturated(values, factor)
        values = values.clip(0, 255)
    return values.round().astype(np.uint8)


def _saturated(values: npt.NDArray[np.float32], factor: float) -> npt.NDArray[np.float32]:
    """Factor 0 gives a grey image, 1 the image itself."""
    return np.asarray(values * np.float32(factor) + np.float32(1 - factor) * (values @ _LUMA)[:, :, None], np.float32)


def _cut_out(pixels: Pixels, generator: Generator, side: int) -> Pixels:
    """Fill a square around a random pixel with grey, clipped to the image."""
    y, x = (int(generator.integers(length)) for length in pixels.shape[:2])
    half = side // 2
    pixels = pixels.copy()
    pixels[max(0, y - half) : y + half, max(0, x - half) : x + half] = _FILLING
    return pixels


def _cropped(pixels: Pixels, generator: Generator) -> Pixels:
    """Blacken all but a random window of 0.2 to 1 of the area, 3:4 to 4:3 (as torchvision's RandomResizedCrop)."""
    height, width = pixels.shape[:2]
    y, x, h, w = 0, 0, height, width  # after ten failed draws, theirs takes the largest window that fits
    for _ in range(10):
        area = height * width * generator.uniform(0.2, 1.0)
        ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        one, other = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
        if 0 < one <= height and 0 < other <= width:
            y, x = int(generator.integers(height - one + 1)), int(generator.integers(width - other + 1))
            h, w = one, other
            break
    out = np.zeros_like(pixels)
    out[y : y + h, x : x + w] = pixels[y : y + h, x : x + w]
    return out


def _low_resolution(pixels: Pixels, generator: Generator) -> Pixels:
    """Downscale to 0.2..1 of the side and upscale again, each with a random interpolation."""
    import cv2

    height, width = pixels.shape[:2]
    small = max(1, int(generator.uniform(0.2, 1.0) * height))
    down, up = generator.integers(_INTERPOLATIONS, size=2).tolist()
    shrunk = cv2.resize(pixels, (small, small), interpolation=down)
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=up), np.uint8)


def _window(pixels: Pixels, generator: Generator, height: int, width: int) -> Pixels:
    """Resize the shorter side to 256/224 of the window's longer side and cut a random window."""
    import cv2

    scale = max(height, width) * 256 / 224 / min(pixels.shape[:2])
    size = (max(width, round(pixels.shape[1] * scale)), max(height, round(pixels.shape[0] * scale)))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    y, x = int(generator.integers(size[1] - height + 1)), int(generator.integers(size[0] - width + 1))
    return np.asarray(resized[y : y + height, x : x + width], np.uint8)
