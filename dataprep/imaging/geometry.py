"""Geometry of boxes, EXIF rotation and face alignment.

Points are (x, y) in pixels, with x to the right and y down. Landmarks are five points in the usual order: left eye,
right eye, nose tip, left mouth corner, right mouth corner. Left means the smaller x in an upright face.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dataprep.imaging.codec import Pixels
from dataprep.types import Box

Points = npt.NDArray[np.float32]
AffineMatrix = npt.NDArray[np.float64]

INTERPOLATIONS = ("auto", "linear", "cubic", "area", "lanczos")
BORDER_MODES = ("black", "replicate", "reflect")
_FINEST = 16

# insightface, python-package/insightface/utils/face_align.py: the five points in a 112x112 crop
ARCFACE_TEMPLATE: Points = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float32,
)


def clamp_box(box: Box, width: int, height: int) -> Box | None:
    """The part of `box` inside a photo of the given size. None if it is empty or the box is not finite."""
    if not all(map(math.isfinite, box)):
        return None
    inside = Box(max(0.0, box.left), max(0.0, box.top), min(float(width), box.right), min(float(height), box.bottom))
    return inside if inside.width > 0 and inside.height > 0 else None


def box_iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, from 0 to 1."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (one.area + other.area - shared)


def turn_points(points: npt.ArrayLike, orientation: int, width: int, height: int) -> Points:
    """Map points in the stored pixel grid (width x height) through the EXIF rotation.

    Coordinates refer to pixel edges (a box of the whole photo spans 0 to width), so mirroring gives `width - x`.
    """
    x, y = np.asarray(points, np.float64).reshape(-1, 2).T
    if orientation >= 5:
        x, y = y, x
        width, height = height, width
    if orientation in (2, 3, 6, 7):
        x = width - x
    if orientation in (3, 4, 7, 8):
        y = height - y
    return np.stack([x, y], axis=1).astype(np.float32)


def turn_landmarks(points: npt.ArrayLike, orientation: int, width: int, height: int) -> Points:
    """Map landmarks in the stored pixel grid (width x height) through the EXIF rotation.

    As in `warp_image` and the template, whole numbers are at pixel centres, so mirroring gives `width - 1 - x`.
    Mirroring also swaps the left and right landmarks of a face.
    """
    if orientation == 1:
        return np.asarray(points, np.float32).reshape(-1, 2)
    turned = turn_points(np.asarray(points, np.float64) + 0.5, orientation, width, height) - np.float32(0.5)
    return turned[[1, 0, 2, 4, 3]] if orientation in (2, 4, 5, 7) and len(turned) == 5 else turned


def turn_box(box: Box, orientation: int, width: int, height: int) -> Box:
    """Map a box in the stored pixel grid (width x height) through the EXIF rotation."""
    if orientation == 1:
        return box
    corners = turn_points([[box.left, box.top], [box.right, box.bottom]], orientation, width, height)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return Box(float(left), float(top), float(right), float(bottom))


def scale_template(height: int, width: int) -> Points:
    """The target positions of the five landmarks in a crop of the given size.

    Multiples of 112x112 use ArcFace's template. Multiples of 128 shift x by 8 per 128, as in insightface's `estimate_norm`.
    112 high by 96 wide drops 8 columns on either side. Raises ValueError for other sizes.
    """
    if (height, width) == (112, 96):
        return ARCFACE_TEMPLATE - np.array([8.0, 0.0], np.float32)
    if height == width and height > 0 and height % 112 == 0:
        return ARCFACE_TEMPLATE * np.float32(height / 112)
    if height == width and height > 0 and height % 128 == 0:
        ratio = np.float32(height / 128)
        return ARCFACE_TEMPLATE * ratio + np.array([8.0 * ratio, 0.0], np.float32)
    raise ValueError(f"no template for {width}x{height}: use a multiple of 112, a multiple of 128, or 96x112")


def estimate_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> AffineMatrix:
    """The (2, 3) similarity transform (rotation, uniform scale, translation) that best maps `source` to `target` points.

    Least squares by Umeyama (1991), eq. 40 to 42, without reflection. Raises ValueError if the points coincide or are not
    finite.
    """
    src, dst = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if not (np.isfinite(src).all() and np.isfinite(dst).all()):
        raise ValueError("landmarks are not finite")
    src_mean, dst_mean = src.mean(axis=0), dst.mean(axis=0)
    src_centred, dst_centred = src - src_mean, dst - dst_mean
    variance = (src_centred**2).sum() / len(src)
    if variance < 1e-12:
        raise ValueError("landmarks coincide")
    u, singular, vt = np.linalg.svd(dst_centred.T @ src_centred / len(src))
    sign = np.ones(2)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        sign[1] = -1
    rotation = u @ np.diag(sign) @ vt
    scale = (singular * sign).sum() / variance
    matrix = np.empty((2, 3))
    matrix[:, :2] = scale * rotation
    matrix[:, 2] = dst_mean - scale * rotation @ src_mean
    return matrix


def warp_image(
    pixels: Pixels, matrix: AffineMatrix, height: int, width: int, *, interpolation: str = "auto", border: str = "black"
) -> Pixels:
    """Warp the photo by a (2, 3) matrix. The defaults (linear, black border) equal insightface's `norm_crop`.

    `area` averages over each output pixel's area: it warps to a grid finer by the reduction (at most 16) and averages.
    """
    import cv2

    shrinks = math.ceil(1 / max(1e-6, math.hypot(matrix[0, 0], matrix[1, 0])) - 1e-9)
    if interpolation == "area" and shrinks > 1:
        finer = min(shrinks, _FINEST)
        # the centre of output pixel i is (finer - 1) / 2 beyond finer * i
        fine = matrix * finer + np.array([[0, 0, (finer - 1) / 2]] * 2)
        drawn = warp_image(pixels, fine, height * finer, width * finer, interpolation="linear", border=border)
        return np.asarray(cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    flags = {"cubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}.get(interpolation, cv2.INTER_LINEAR)
    mode = border_mode(border)
    return np.asarray(
        cv2.warpAffine(pixels, matrix, (width, height), flags=flags, borderMode=mode, borderValue=0), np.uint8
    )


def border_mode(border: str) -> int:
    """OpenCV's constant for the border mode: black, the replicated edge pixel, or the mirror image."""
    import cv2

    return {"black": cv2.BORDER_CONSTANT, "replicate": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}[border]


def outside_fraction(matrix: AffineMatrix, height: int, width: int, photo: tuple[int, int]) -> float:
    """The share of the warp's output pixels whose centre maps to outside a photo of size (height, width)."""
    inverse = np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))
    for columns, rows in (([0, width - 1], [0, height - 1]), (np.arange(width), np.arange(height))):
        u, v = np.asarray(columns), np.asarray(rows)[:, None]
        x = inverse[0, 0] * u + inverse[0, 1] * v + inverse[0, 2]
        y = inverse[1, 0] * u + inverse[1, 1] * v + inverse[1, 2]
        inside = (x >= -0.5) & (x <= photo[1] - 0.5) & (y >= -0.5) & (y <= photo[0] - 0.5)
        if inside.all():  # if the corners are inside, so are all pixels
            return 0.0
    return float(1 - inside.mean())
