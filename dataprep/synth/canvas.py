"""Painting for drawn faces: projected polygons, light on a relief, backgrounds and camera effects.

Pictures are RGB uint8 arrays of shape (height, width, 3). `Canvas` takes points in face units and draws them in pixels,
where (0, 0) is the centre of the top-left pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dataprep.synth.traits import Colour, PhotoTraits, make_generator

__all__ = ["Canvas", "Picture", "Polyline", "apply_camera", "draw_backdrop", "light_up", "smooth_curve"]

Polyline: TypeAlias = NDArray[np.float64]
Picture: TypeAlias = NDArray[np.uint8]

_SHIFT = 4  # sub-pixel bits of the polygon corners
_DEPTH = 0.85  # height of the dome of the face, in face units


def smooth_curve(points: Polyline, *, closed: bool, steps: int = 6) -> Polyline:
    """A Catmull-Rom curve through `points`, `steps` samples per segment."""
    if closed:
        padded = np.concatenate((points[-1:], points, points[:2]))
    else:
        padded = np.concatenate((2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]))
    a, b, c, d = (padded[i : len(padded) - 3 + i, None, :] for i in range(4))
    t = (np.arange(steps) / steps)[None, :, None]
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate((flat, points[-1:]))


def _ribbon(points: Polyline, width: NDArray[np.float64] | float) -> Polyline:
    """The outline of a line of the given width (a single value, or a value for each point)."""
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.sqrt((along * along).sum(axis=1, keepdims=True)), 1e-9)
    normal = np.stack((-along[:, 1], along[:, 0]), axis=1) * (0.5 * np.broadcast_to(width, len(points)))[:, None]
    return np.concatenate((points + normal, (points - normal)[::-1]))


class Canvas:
    """A picture with the pose of a face, on which shapes in face units are drawn.

    `z` is the height above the surface of the face or, with `flat`, above the plane of the head outline. With yaw and
    pitch, higher points move further sideways.
    """

    def __init__(
        self,
        picture: Picture,
        *,
        scale: float,
        roll: float,
        yaw: float,
        pitch: float,
        middle: tuple[float, float],
        centre_y: float,
        radii: tuple[float, float],
        dome_y: float,
    ) -> None:
        self.picture = picture
        self.scale = scale
        self.radii, self.dome_y = radii, dome_y
        self._tilt = (float(np.cos(yaw)), float(np.sin(yaw)), float(np.sin(pitch)))
        cos, sin = scale * float(np.cos(roll)), scale * float(np.sin(roll))
        self.turn = np.array(((cos, sin), (-sin, cos)))
        self.origin = np.array(middle) - np.array((0.0, centre_y)) @ self.turn

    def plane(self, points: Polyline, z: float = 0.0, *, flat: bool = False) -> Polyline:
        """Points in face units after yaw and pitch, before roll, scale and shift."""
        lift = np.full(len(points), z)
        if not flat:
            u, v = points[:, 0] / self.radii[0], (points[:, 1] - self.dome_y) / self.radii[1]
            lift += _DEPTH * np.sqrt(np.maximum(1.0 - u * u - v * v, 0.0))
        cos_yaw, sin_yaw, sin_pitch = self._tilt
        return np.stack((points[:, 0] * cos_yaw + lift * sin_yaw, points[:, 1] + lift * sin_pitch), axis=1)

    def place(self, points: Polyline, z: float = 0.0, *, flat: bool = False) -> Polyline:
        """Pixel coordinates of points in face units."""
        return self._pixels(self.plane(points, z, flat=flat))

    def fill(self, points: Polyline, colour: Colour, *, z: float = 0.0, flat: bool = False) -> None:
        """Fill a polygon."""
        self.fill_plane(self.plane(points, z, flat=flat), colour)

    def fill_plane(self, points: Polyline, colour: Colour) -> None:
        """Fill a polygon given after yaw and pitch."""
        _polygon(self.picture, self._pixels(points), colour)

    def tint(
        self, points: Polyline, colour: Colour, alpha: float, *, z: float = 0.0, flat: bool = False, soft: float = 0.0
    ) -> None:
        """Blend a polygon in with opacity `alpha`, its edge blurred over `soft` face units."""
        self._tint_pixels(self.place(points, z, flat=flat), colour, alpha, soft)

    def stroke(
        self,
        points: Polyline,
        width: NDArray[np.float64] | float,
        colour: Colour,
        *,
        z: float = 0.0,
        flat: bool = False,
        alpha: float = 1.0,
    ) -> None:
        """Draw a line of the given width in face units."""
        self.stroke_plane(self.plane(points, z, flat=flat), width, colour, alpha=alpha)

    def stroke_plane(
        self, points: Polyline, width: NDArray[np.float64] | float, colour: Colour, *, alpha: float = 1.0
    ) -> None:
        """Draw a line given after yaw and pitch."""
        outline = _ribbon(points, width)
        if alpha >= 1.0:
            self.fill_plane(outline, colour)
        elif alpha > 0.02:
            self._tint_pixels(self._pixels(outline), colour, alpha, 0.0)

    @contextmanager
    def clipped(self, points: Polyline, z: float = 0.0) -> Iterator[None]:
        """Clip everything drawn within the block to the polygon."""
        outline = self.place(points, z)
        window = self._window(outline, 1)
        if window is None:
            yield
            return
        whole, part = self.picture, self.picture[window]
        corner = np.array((window[1].start, window[0].start), dtype=np.float64)
        self.picture, self.origin = part.copy(), self.origin - corner
        yield
        inside = self.picture
        self.picture, self.origin = whole, self.origin + corner
        part[:] = _blend(part, inside, _mask(outline, window, 255))

    def _pixels(self, points: Polyline) -> Polyline:
        return np.asarray(points @ self.turn + self.origin)

    def _tint_pixels(self, outline: Polyline, colour: Colour, alpha: float, soft: float) -> None:
        reach = int(soft * self.scale)
        window = self._window(outline, 2 * reach + 1)
        if window is None:
            return
        mask = _mask(outline, window, int(255 * alpha))
        if reach > 0:
            mask = np.asarray(cv2.blur(cv2.blur(mask, (2 * reach + 1,) * 2), (2 * reach + 1,) * 2), dtype=np.uint8)
        part = self.picture[window]
        part[:] = _blend(part, np.clip(np.array(colour), 0, 255).astype(np.uint8), mask)

    def _window(self, outline: Polyline, margin: int) -> tuple[slice, slice] | None:
        height, width = self.picture.shape[:2]
        left, top = np.floor(outline.min(axis=0)).astype(int) - margin
        right, bottom = np.ceil(outline.max(axis=0)).astype(int) + margin + 1
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _corners(outline: Polyline) -> NDArray[np.int32]:
    return np.rint(outline * (1 << _SHIFT)).astype(np.int32)


def _polygon(picture: Picture, outline: Polyline, colour: Colour) -> None:
    cv2.fillPoly(picture, [_corners(outline)], colour, lineType=cv2.LINE_AA, shift=_SHIFT)


def _mask(outline: Polyline, window: tuple[slice, slice], level: int) -> Picture:
    """The coverage of a polygon in a window, from 0 to `level`."""
    rows, columns = window
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.uint8)
    cv2.fillPoly(mask, [_corners(outline - (columns.start, rows.start))], (level,), lineType=cv2.LINE_AA, shift=_SHIFT)
    return mask


def _blend(under: Picture, over: Picture, mask: Picture) -> Picture:
    weight = mask[:, :, None].astype(np.uint16)
    mixed = under * (255 - weight) + over * weight + 127
    return (mixed // 255).astype(np.uint8)


def _paint(rng: np.random.Generator) -> NDArray[np.float64]:
    """A random colour, mostly muted."""
    return np.asarray(rng.uniform(25, 230) + rng.uniform(0.1, 1.0) * rng.uniform(-70, 70, 3))


def draw_backdrop(seed: tuple[int, int], width: int, height: int) -> Picture:
    """A background: a two-colour gradient with cloudy texture, then blobs or lines."""
    rng = make_generator(3, *seed)
    rows, columns = int(rng.integers(3, 14)), int(rng.integers(3, 14))
    first, second = _paint(rng), _paint(rng)
    turn = rng.uniform(0.0, 2.0 * np.pi)
    ramp = np.cos(turn) * np.linspace(-1, 1, columns)[None, :] + np.sin(turn) * np.linspace(-1, 1, rows)[:, None]
    share = np.clip(0.5 + 0.5 * ramp, 0, 1)[:, :, None]
    cloud = rng.uniform(-1.0, 1.0, (rows, columns, 1)) + 0.5 * rng.uniform(-1.0, 1.0, (rows, columns, 3))
    small = np.clip(first + (second - first) * share + cloud * rng.uniform(5, 45), 0, 255).astype(np.uint8)
    picture = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    size = min(width, height)
    kind = int(rng.integers(4))
    for _ in range(int(rng.integers(3, 12)) if kind else 0):
        colour = tuple(float(c) for c in _paint(rng))
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        if kind == 1:
            radius = int(rng.uniform(0.02, 0.14) * size)
            cv2.circle(picture, (int(x), int(y)), radius, colour, -1, cv2.LINE_AA)
        elif kind == 2:
            far = (int(x + rng.uniform(-1, 1) * width), int(y + rng.uniform(-1, 1) * height))
            cv2.line(picture, (int(x), int(y)), far, colour, 1 + int(rng.uniform(0, 0.05) * size), cv2.LINE_AA)
        else:
            far = (int(x + rng.uniform(0.05, 0.4) * size), int(y + rng.uniform(0.05, 0.4) * size))
            cv2.rectangle(picture, (int(x), int(y)), far, colour, -1)
    return picture


def light_up(canvas: Canvas, shot: PhotoTraits, bumps: list[tuple[float, float, float, float, float]]) -> None:
    """Shade the whole picture by lighting the relief of the face, a dome with Gaussian `bumps`.

    The factors are computed on a coarse grid, stored as 64 = 1.0, and enlarged.
    """
    height, width = canvas.picture.shape[:2]
    step = max(2.0, canvas.scale / 14.0)
    columns, rows = int(np.ceil(width / step)), int(np.ceil(height / step))
    x = (np.arange(columns) + 0.5) * (width / columns) - 0.5 - canvas.origin[0]
    y = (np.arange(rows) + 0.5) * (height / rows) - 0.5 - canvas.origin[1]
    back = canvas.turn.T / (canvas.scale * canvas.scale)
    u = (x[None, :] * back[0, 0] + y[:, None] * back[1, 0]).astype(np.float32)
    v = (x[None, :] * back[0, 1] + y[:, None] * back[1, 1]).astype(np.float32)
    square = (u / canvas.radii[0]) ** 2 + ((v - canvas.dome_y) / canvas.radii[1]) ** 2
    relief = 0.8 * np.exp(-square * square)
    centres = canvas.plane(np.array([bump[:2] for bump in bumps]), 0.1)
    for (px, py), (_, _, sx, sy, rise) in zip(centres, bumps, strict=True):
        relief += rise * np.exp(-(((u - px) / sx) ** 2) - ((v - py) / sy) ** 2)
    grid = step / canvas.scale
    down, right = np.gradient(relief, grid)
    cos, sin = canvas.turn[0] / canvas.scale
    slope_u, slope_v = right * cos + down * sin, -right * sin + down * cos
    lx, ly, lz = shot.light
    facing = np.maximum(lz - lx * slope_u - ly * slope_v, 0.0) / np.sqrt(1.0 + slope_u**2 + slope_v**2)
    if shot.shadow is not None:
        turn, offset, depth = shot.shadow
        edge = np.cos(turn) * u + np.sin(turn) * (v - 0.4) - offset
        facing *= 1.0 - depth / (1.0 + np.exp(np.clip(-9.0 * edge, -30, 30)))
    parts = [
        64.0 * (shot.ambient * cold + (1.05 - shot.ambient) * 1.25 * warm * facing)
        for cold, warm in zip(shot.ambient_colour, shot.light_colour, strict=True)
    ]
    small = np.clip(np.stack(parts, axis=2), 0, 255).astype(np.uint8)
    factor = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.multiply(canvas.picture, factor, dst=canvas.picture, scale=1.0 / 64.0)


def apply_camera(canvas: Canvas, shot: PhotoTraits) -> Picture:
    """Apply the camera effects: blur, exposure, white balance, gamma and noise."""
    picture = canvas.picture
    sigma = shot.blur * canvas.scale
    if sigma > 0.3:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.uint8)
    levels = np.arange(256) / 255.0
    table = np.stack(
        [255.0 * np.clip(levels * shot.exposure * gain, 0, 1) ** shot.gamma for gain in shot.white], axis=1
    )
    picture = np.asarray(cv2.LUT(picture, np.rint(table).astype(np.uint8)[None]), dtype=np.uint8)
    rng = make_generator(4, *shot.seed)
    grain = rng.integers(0, 256, picture.shape, dtype=np.uint8).astype(np.int16)
    grain += rng.integers(0, 256, picture.shape, dtype=np.uint8)
    strength = int(shot.noise * 2.4)
    grain = ((grain - 255) * strength) >> 8
    return np.asarray(np.clip(picture + grain, 0, 255), dtype=np.uint8)
