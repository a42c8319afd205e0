"""Colours, outlines and measures shared by the parts of a drawn face.

Lengths are in face units and colours are RGB, as in `traits`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataprep.synth.canvas import Polyline, smooth_curve
from dataprep.synth.traits import Colour, IdentityTraits, PhotoTraits

__all__ = [
    "DARK",
    "Sitter",
    "bumps",
    "ellipse",
    "eye_centre",
    "head_outline",
    "line",
    "mirrored",
    "mixed",
    "mouth_shape",
    "scaled",
]

DARK: Colour = (34.0, 24.0, 24.0)


@dataclass(frozen=True, slots=True)
class Sitter:
    """The input of the drawing functions: the person, the photo and the colours in this photo."""

    who: IdentityTraits
    shot: PhotoTraits
    skin: Colour
    hair: Colour

    def shade(self, factor: float) -> Colour:
        """The skin colour, darkened or lightened."""
        return scaled(self.skin, factor)


def scaled(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with `share` (0..1) of `second` in it."""
    one, two, three = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return one, two, three


def mirrored(half: list[tuple[float, float]]) -> Polyline:
    """A closed outline, built from its right half, which is listed from top to bottom."""
    right = np.array(half, dtype=np.float64)
    left = right[::-1] * (-1.0, 1.0)
    return smooth_curve(np.concatenate((right, left)), closed=True)


def head_outline(who: IdentityTraits) -> Polyline:
    """The outline of skull and jaw."""
    face, crown = who.face, who.crown_y
    return mirrored(
        [
            (0.30 * face, crown),
            (0.78 * face * who.temple, crown + 0.38),
            (face * who.temple, -0.55),
            (face, 0.25),
            (face * who.jaw, who.mouth_y + 0.02),
            (who.chin + 0.12, who.chin_y - 0.22),
            (0.62 * who.chin, who.chin_y),
        ]
    )


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, count: int = 24) -> Polyline:
    turn = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = rx * np.cos(turn), ry * np.sin(turn)
    return np.stack((x + u * cos - v * sin, y + u * sin + v * cos), axis=1)


def line(*points: tuple[float, float]) -> Polyline:
    return smooth_curve(np.array(points, dtype=np.float64), closed=False)


def eye_centre(who: IdentityTraits, side: float) -> tuple[float, float]:
    return side * who.half_eye, 0.0


def mouth_shape(who: IdentityTraits, shot: PhotoTraits) -> tuple[float, float, float]:
    """The half width of the mouth, the height of its corners and the height of its middle."""
    half = who.mouth_width * (1.0 + 0.16 * shot.smile - 0.10 * shot.mouth_open)
    return half, who.mouth_y - 0.055 * shot.smile, who.mouth_y + 0.02 * shot.smile


def bumps(who: IdentityTraits, shot: PhotoTraits) -> list[tuple[float, float, float, float, float]]:
    """The relief on the dome of the head, for lighting: (x, y, spread x, spread y, height) for each bump."""
    eye = who.half_eye
    return [
        (0.0, 0.45 * who.nose_y, 0.6 * who.bridge + 0.06, 0.5 * who.nose_y, 0.12),
        (0.0, who.nose_y - 0.02, 0.65 * who.nose_width, 0.16, 0.20),
        (-eye, 0.0, 0.30, 0.18, -0.08),
        (eye, 0.0, 0.30, 0.18, -0.08),
        (-0.62, 0.58, 0.32, 0.26, 0.06 + 0.03 * shot.smile),
        (0.62, 0.58, 0.32, 0.26, 0.06 + 0.03 * shot.smile),
        (0.0, who.mouth_y, 0.45, 0.16, 0.07),
        (0.0, who.mouth_y + 0.30, 0.28, 0.09, -0.05),
        (0.0, who.chin_y - 0.2, who.chin, 0.18, 0.08),
    ]
