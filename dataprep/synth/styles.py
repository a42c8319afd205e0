"""Draws the parts that only some faces have: beard, hair, glasses, and things in front of the face."""

from __future__ import annotations

import numpy as np

from dataprep.synth.canvas import Canvas, Polyline, smooth_curve
from dataprep.synth.shapes import DARK, Sitter, ellipse, head_outline, line, mixed, mouth_shape, scaled
from dataprep.synth.traits import Colour, IdentityTraits

__all__ = ["draw_beard", "draw_glasses", "draw_hair", "draw_occluder"]


def draw_beard(sitter: Sitter, canvas: Canvas) -> None:
    who, shot = sitter.who, sitter.shot
    if who.beard == "none":
        return
    half, corner, _ = mouth_shape(who, shot)
    hair, alpha = mixed(sitter.hair, DARK, 0.2), who.beard_strength
    if who.beard in ("moustache", "goatee", "full"):
        y = who.nose_y + 0.17
        lip = who.mouth_y - who.lip_upper
        canvas.tint(
            line(
                (-half - 0.1, corner + 0.02),
                (-0.6 * half, y + 0.05),
                (0.0, y),
                (0.6 * half, y + 0.05),
                (half + 0.1, corner + 0.02),
                (0.4 * half, lip),
                (-0.4 * half, lip),
            ),
            hair,
            alpha,
            z=0.05,
            soft=0.02,
        )
    if who.beard == "goatee":
        canvas.tint(
            ellipse(0.0, 0.5 * (who.mouth_y + who.chin_y) + 0.16, 0.8 * half, 0.5 * (who.chin_y - who.mouth_y)),
            hair,
            alpha,
            soft=0.03,
        )
    if who.beard == "chin":
        canvas.tint(ellipse(0.0, who.chin_y - 0.10, 0.22, 0.22), hair, alpha, z=0.05, soft=0.03)
    if who.beard in ("full", "strap"):
        head = head_outline(who)
        rim = head[(head[:, 1] > 0.2)]
        inset = 0.34 if who.beard == "full" else 0.16
        centre = np.array((0.0, who.mouth_y - 0.12))
        inner = centre + (rim - centre) * (1.0 - inset)
        if who.beard == "full":
            inner[:, 1] = np.minimum(inner[:, 1], who.mouth_y + 0.30)
        canvas.tint(np.concatenate((rim, inner[::-1])), hair, alpha, flat=True, soft=0.03)


def _flipped(rim: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(-x, y) for x, y in reversed(rim)]


def _hair_rim(who: IdentityTraits) -> Polyline | None:
    """The lower rim of the front hair from the left to the right temple, or None if bald.

    In the table, x is in half widths of the head. A row that ends at x = 0 is mirrored.
    """
    front, side, wide = who.hairline_y, who.hair_side, who.face * who.temple
    rims: dict[str, list[tuple[float, float]]] = {
        "buzz": [(-0.75, front + 0.25), (-0.4, front), (0.0, front - 0.04)],
        "crop": [(-0.86, front + 0.3), (-0.6, front + 0.02), (0.0, front)],
        "fringe": [(-0.9, -0.30), (-0.65, -0.58), (-0.2, -0.54), (0.2, -0.60), (0.65, -0.54), (0.9, -0.30)],
        "part_left": [
            (-0.9, front + 0.45),
            (-0.45, front - 0.12),
            (0.1, front + 0.12),
            (0.6, front + 0.36),
            (0.93, -0.2),
        ],
        "peak": [(-0.8, front + 0.4), (-0.5, front - 0.22), (-0.2, front - 0.05), (0.0, front + 0.16)],
        "curly": [(-0.95, front + 0.5), (-0.6, front + 0.1), (-0.3, front + 0.16), (0.0, front + 0.04)],
        "long": [(-0.98, 0.7), (-0.88, -0.1), (-0.66, front + 0.30), (-0.3, front + 0.02), (0.0, front - 0.10)],
        "bob": [(-0.95, 0.5), (-0.86, -0.3), (-0.6, -0.56), (0.0, -0.62)],
    }
    rims = {name: rim if rim[-1][0] > 0.0 else rim + _flipped(rim)[1:] for name, rim in rims.items()}
    rims["part_right"] = _flipped(rims["part_left"])
    if who.hair not in rims:
        return None
    rim = [(wide * px, py) for px, py in rims[who.hair]]
    if who.hair in ("buzz", "crop", "part_left", "part_right", "peak"):
        burn = (-0.93 * wide, side - 0.02)
        rim = [(-wide, side), burn, *rim, (-burn[0], burn[1]), (wide, side)]
    return line(*rim)


def draw_hair(sitter: Sitter, canvas: Canvas) -> None:
    who = sitter.who
    rim = _hair_rim(who)
    if rim is None:
        return
    volume = 0.03 if who.hair == "buzz" else who.hair_volume
    wide, top = who.face * who.temple + 0.02 + 0.5 * volume, who.crown_y - volume
    low = float(rim[0, 1])
    over = line(
        (wide, low),
        (wide + 0.4 * volume, -0.6),
        (0.80 * wide + 0.2 * volume, who.crown_y + 0.30),
        (0.3 * wide, top),
        (-0.3 * wide, top),
        (-0.80 * wide - 0.2 * volume, who.crown_y + 0.30),
        (-wide - 0.4 * volume, -0.6),
        (-wide, low),
    )
    under = canvas.plane(rim)
    shell = canvas.plane(over, flat=True)
    canvas.fill_plane(np.concatenate((under, shell)), sitter.hair)
    if who.hair == "curly":
        for x, y in over[::3]:
            canvas.fill(ellipse(x, y, 0.17, 0.17), sitter.hair, flat=True)
    mirror = shell[::-1]
    steps = np.linspace(0.0, 1.0, 6)[:, None]
    for number in range(2, 23):
        share = number / 24.0
        start, end = mirror[int(share * (len(mirror) - 1))], under[int(share * (len(under) - 1))]
        strand = start + (end - start) * steps + (0.06, 0.0) * np.sin(np.pi * steps)
        canvas.stroke_plane(strand, 0.035, scaled(sitter.hair, 0.72 if number % 2 else 1.3), alpha=0.6)


def draw_glasses(sitter: Sitter, canvas: Canvas) -> None:
    who, shot = sitter.who, sitter.shot
    shades = shot.occluder == "shades"
    if who.glasses == "none" and not shades:
        return
    style, size = ("square", 0.36) if shades else (who.glasses, who.glasses_size)
    thick, alpha = who.frame_thick, 0.75  # solid rings around the eyes would hide some faces from detectors
    frame: Colour = (24.0, 24.0, 28.0) if shades else who.frame_colour
    for side in (-1.0, 1.0):
        x = side * (who.half_eye + 0.02)
        if style == "round":
            lens = ellipse(x, 0.04, size, size)
        else:
            tall = 0.78 * size if style == "square" else 0.58 * size
            corners = np.array(
                [
                    (x + u * size, 0.04 + v * tall)
                    for u, v in (
                        (-1, -0.5),
                        (-0.7, -1),
                        (0.7, -1),
                        (1, -0.5),
                        (0.9, 0.6),
                        (0.5, 1),
                        (-0.5, 1),
                        (-0.9, 0.6),
                    )
                ]
            )
            lens = smooth_curve(corners, closed=True)
        canvas.tint(lens, (40.0, 44.0, 52.0) if shades else (225.0, 235.0, 240.0), 0.72 if shades else 0.10, z=0.08)
        canvas.stroke(np.concatenate((lens, lens[:1])), thick, frame, alpha=alpha, z=0.08)
        canvas.stroke(np.array(((x + side * size, -0.06), (side * who.face * 0.99, -0.04))), thick, frame, alpha=alpha)
    canvas.stroke(
        line((-who.half_eye + size - 0.03, 0.0), (0.0, -0.06), (who.half_eye - size + 0.03, 0.0)),
        thick,
        frame,
        alpha=alpha,
        z=0.14,
    )


def draw_occluder(sitter: Sitter, canvas: Canvas) -> None:
    who, shot = sitter.who, sitter.shot
    if shot.occluder == "cap":
        rim, wide = who.hairline_y + 0.12, who.face + 0.14
        canvas.fill(
            line(
                (-wide, rim + 0.22),
                (-wide, rim - 0.4),
                (-0.6 * wide, who.crown_y - 0.2),
                (0.0, who.crown_y - 0.32),
                (0.6 * wide, who.crown_y - 0.2),
                (wide, rim - 0.4),
                (wide, rim + 0.22),
                (0.0, rim),
            ),
            shot.clothes,
            flat=True,
        )
        canvas.fill(
            line(
                (-wide, rim + 0.22),
                (0.0, rim - 0.1),
                (wide, rim + 0.22),
                (0.5 * wide, rim + 0.2),
                (-0.5 * wide, rim + 0.2),
            ),
            scaled(shot.clothes, 0.6),
            flat=True,
            z=0.3,
        )
    elif shot.occluder == "hand":
        side = -1.0 if shot.occluder_at < 0.5 else 1.0
        for finger in range(4):
            y = 1.15 + 0.21 * finger
            canvas.stroke(
                line((side * 2.2, y + 0.5), (side * 1.4, y + 0.2), (side * (0.85 - 0.06 * finger), y)),
                0.22,
                sitter.shade(0.75),
                flat=True,
            )
            canvas.stroke(
                line((side * 2.2, y + 0.5), (side * 1.4, y + 0.2), (side * (0.86 - 0.06 * finger), y)),
                0.16,
                sitter.shade(0.98),
                flat=True,
            )
