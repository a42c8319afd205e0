"""Procedural cartoon faces with exact ground truth, for trying a face pipeline without real photos.

`render_face` draws one photo of an invented person. The person depends on `identity_seed` only; pose, expression,
light, camera and surroundings depend on both seeds. Shapes are anti-aliased polygons in picture coordinates. The returned
box and landmarks pass through the same transform as the drawing, so they are exact.

Pictures are RGB uint8 arrays of shape (height, width, 3). Pixel coordinates have x to the right and y down, and (0, 0) is
the centre of the top-left pixel. `traits` describes the face units used internally.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataprep.synth.canvas import Canvas, apply_camera, draw_backdrop, light_up
from dataprep.synth.features import draw_behind, draw_eyes, draw_marks, draw_mouth, draw_nose
from dataprep.synth.shapes import Sitter, bumps, eye_centre, head_outline, mouth_shape, scaled
from dataprep.synth.styles import draw_beard, draw_glasses, draw_hair, draw_occluder
from dataprep.synth.traits import IdentityTraits, PhotoTraits, sample_identity, sample_photo, skin_colour

__all__ = ["RenderedFace", "render_face"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedFace:
    """A drawn photo with its ground truth."""

    pixels: NDArray[np.uint8]
    """RGB, shape (height, width, 3)."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels: forehead to chin, ear to ear."""
    landmarks: NDArray[np.float32]
    """Shape (5, 2), x and y in pixels: left eye, right eye, nose tip, left and right mouth corner, where
    left is the smaller x of an upright face."""


def _landmarks(who: IdentityTraits, shot: PhotoTraits, canvas: Canvas) -> NDArray[np.float32]:
    half, corner, _ = mouth_shape(who, shot)
    eyes = np.array((eye_centre(who, -1.0), eye_centre(who, 1.0)))
    mouth = np.array(((-half, corner), (half, corner)))
    nose = np.array(((0.0, who.nose_y - 0.02),))
    points = np.concatenate((canvas.place(eyes), canvas.place(nose, 0.32), canvas.place(mouth, 0.06)))
    return points.astype(np.float32)


def _framing(who: IdentityTraits, shot: PhotoTraits, width: int, height: int) -> tuple[float, tuple[float, float]]:
    """Pixels per face unit, and the centre of the face box."""
    tall = who.chin_y - who.hairline_y
    largest = min(0.62 * height, 0.62 * width * tall / (2.0 * who.face))
    smallest = min(0.36 * height, 90.0 * (min(width, height) / 250.0) ** 0.5)
    pixels = smallest + (largest - smallest) * shot.fill
    room_x, room_y = width - 1.05 * pixels, height - 1.15 * pixels
    x = 0.5 * (width - room_x) + room_x * shot.place[0]
    y = 0.5 * (height - room_y) + room_y * (0.15 + 0.75 * shot.place[1])
    return pixels / tall, (x, y)


def render_face(identity_seed: int, photo_seed: int, *, width: int = 250, height: int = 250) -> RenderedFace:
    """Draw photo `photo_seed` of person `identity_seed`, `width` by `height` pixels."""
    who, shot = sample_identity(identity_seed), sample_photo(identity_seed, photo_seed)
    hair = scaled(who.hair_colour, shot.hair_shade)
    sitter = Sitter(who, shot, skin_colour(who.melanin + shot.tan, who.skin_warmth), hair)
    scale, middle = _framing(who, shot, width, height)
    canvas = Canvas(
        draw_backdrop(shot.seed, width, height),
        scale=scale,
        roll=shot.roll,
        yaw=shot.yaw,
        pitch=shot.pitch,
        middle=middle,
        centre_y=0.5 * (who.hairline_y + who.chin_y),
        radii=(who.face, 0.5 * (who.chin_y - who.crown_y)),
        dome_y=0.5 * (who.chin_y + who.crown_y),
    )
    draw_behind(sitter, canvas)
    head = head_outline(who)
    canvas.fill(head, sitter.skin, flat=True)
    draw_marks(sitter, canvas)
    draw_beard(sitter, canvas)
    draw_eyes(sitter, canvas)
    draw_nose(sitter, canvas)
    draw_mouth(sitter, canvas)
    draw_hair(sitter, canvas)
    draw_glasses(sitter, canvas)
    draw_occluder(sitter, canvas)
    light_up(canvas, shot, bumps(who, shot))
    face = canvas.place(np.concatenate((head[head[:, 1] >= who.hairline_y], ((0.0, who.hairline_y),))), flat=True)
    (left, top), (right, bottom) = face.min(axis=0), face.max(axis=0)
    return RenderedFace(
        pixels=apply_camera(canvas, shot),
        box=(float(left), float(top), float(right), float(bottom)),
        landmarks=_landmarks(who, shot, canvas),
    )
