"""Draws the parts that every face has: neck, ears, skin marks, eyes, brows, nose and mouth."""

from __future__ import annotations

import numpy as np

from dataprep.synth.canvas import Canvas
from dataprep.synth.shapes import DARK, Sitter, ellipse, eye_centre, line, mirrored, mixed, mouth_shape, scaled

__all__ = ["draw_behind", "draw_eyes", "draw_marks", "draw_mouth", "draw_nose"]


def draw_behind(sitter: Sitter, canvas: Canvas) -> None:
    """Draw the hair behind the head, the neck and shoulders, and the ears."""
    who, shot = sitter.who, sitter.shot
    wide, top = who.face + who.hair_volume, who.crown_y - who.hair_volume
    low = {"long": 2.5, "bob": 1.25, "curly": 0.75}.get(who.hair)
    if low is not None:
        canvas.fill(
            mirrored(
                [(0.4, top), (0.85 * wide, top + 0.4), (1.06 * wide, 0.0), (1.1 * wide, 0.6 * low), (0.8 * wide, low)]
            ),
            scaled(sitter.hair, 0.8),
            flat=True,
            z=-0.3,
        )
    neck = 0.62 + 0.25 * (who.jaw - 0.7)
    canvas.fill(
        np.array(((-neck, 0.8), (neck, 0.8), (neck + 0.1, 2.9), (-neck - 0.1, 2.9))),
        sitter.shade(0.84),
        flat=True,
        z=-0.3,
    )
    canvas.tint(ellipse(0.0, who.chin_y - 0.1, neck * 1.3, 0.45), sitter.shade(0.5), 0.55, flat=True, z=-0.1, soft=0.1)
    canvas.fill(
        mirrored([(0.5, 2.5), (0.9, 2.55), (1.9, 2.9), (2.5, 3.7), (2.7, 5.0), (2.7, 6.5), (2.7, 9.0)]),
        shot.clothes,
        flat=True,
        z=-0.3,
    )
    canvas.fill(line((-0.68, 2.45), (0.0, 2.85), (0.68, 2.45)), sitter.shade(0.8), flat=True, z=-0.3)
    for side in (-1.0, 1.0):
        x, y = side * (who.face + who.ear_out * 0.5), 0.22
        canvas.fill(ellipse(x, y, 0.10 + who.ear_out, who.ear, side * 0.15), sitter.shade(0.93), flat=True, z=-0.15)
        canvas.fill(
            ellipse(x + side * 0.02, y, 0.04 + 0.6 * who.ear_out, 0.6 * who.ear, side * 0.15),
            sitter.shade(0.68),
            flat=True,
            z=-0.15,
        )


def draw_marks(sitter: Sitter, canvas: Canvas) -> None:
    """Draw skin details: eye socket shade, blush, folds, freckles, moles and a scar."""
    who = sitter.who
    for side in (-1.0, 1.0):
        x = side * who.half_eye
        canvas.tint(ellipse(x, -0.03, 0.36, 0.20), sitter.shade(0.62), 0.40, soft=0.10)
        canvas.tint(ellipse(side * 0.68, 0.66, 0.24, 0.18), (206.0, 98.0, 92.0), 0.22, soft=0.12)
        canvas.stroke(
            line((x - 0.2, who.eye_height + 0.10), (x, who.eye_height + 0.15), (x + 0.2, who.eye_height + 0.10)),
            0.035,
            sitter.shade(0.70),
            alpha=0.75 * who.bags,
        )
        half = who.mouth_width
        canvas.stroke(
            line(
                (side * (who.nose_width + 0.05), who.nose_y),
                (side * (half + 0.06), who.mouth_y - 0.28),
                (side * (half + 0.13), who.mouth_y),
            ),
            0.045,
            sitter.shade(0.62),
            alpha=0.8 * who.cheek_line,
        )
    for number in range(who.forehead_lines):
        y = -0.62 - 0.12 * number
        canvas.stroke(line((-0.45, y), (0.0, y - 0.03), (0.45, y)), 0.03, sitter.shade(0.72), alpha=0.7)
    canvas.tint(ellipse(0.0, who.mouth_y + 0.33, 0.20, 0.035), sitter.shade(0.6), 0.55, soft=0.03)
    canvas.stroke(line((0.0, who.chin_y - 0.26), (0.01, who.chin_y - 0.10)), 0.05, sitter.shade(0.62), alpha=who.dimple)
    if who.birthmark is not None:
        x, y, radius = who.birthmark
        canvas.tint(
            ellipse(x, y, radius, 0.7 * radius), mixed(sitter.shade(0.5), (150.0, 50.0, 60.0), 0.4), 0.7, soft=0.02
        )
    for x, y, radius in who.freckles:
        canvas.fill(ellipse(x, y, radius, radius, count=8), mixed(sitter.shade(0.72), (150.0, 84.0, 50.0), 0.3))
    for x, y, radius in who.moles:
        canvas.fill(ellipse(x, y, radius, radius, count=12), mixed(sitter.shade(0.3), DARK, 0.5))
    if who.scar is not None:
        x, y, angle, length = who.scar
        dx, dy = 0.5 * length * float(np.cos(angle)), 0.5 * length * float(np.sin(angle))
        canvas.stroke(
            line((x - dx, y - dy), (x + 0.02, y), (x + dx, y + dy)),
            0.05,
            mixed(sitter.shade(0.8), (200.0, 90.0, 90.0), 0.5),
        )


def draw_eyes(sitter: Sitter, canvas: Canvas) -> None:
    who, shot = sitter.who, sitter.shot
    height = who.eye_height * shot.openness * (1.0 - 0.15 * max(shot.smile, 0.0))
    for side in (-1.0, 1.0):
        x, y = eye_centre(who, side)
        tilt = -side * who.eye_slant

        def at(u: float, v: float, x: float = x, y: float = y, tilt: float = tilt) -> tuple[float, float]:
            return x + u * who.eye_width, y + v + tilt * u * who.eye_width

        upper = line(at(-1.0, 0.02), at(-0.5, -0.8 * height), at(0.05, -height), at(0.6, -0.65 * height), at(1.0, 0.02))
        lower = line(at(1.0, 0.02), at(0.45, 0.72 * height), at(-0.45, 0.72 * height), at(-1.0, 0.02))
        gaze_x, gaze_y = x + shot.gaze[0] * who.iris, y - 0.1 * height + shot.gaze[1] * who.iris
        with canvas.clipped(np.concatenate((upper, lower))):
            canvas.fill(ellipse(x, y, 0.4, 0.3), (232.0, 228.0, 224.0))
            canvas.fill(ellipse(gaze_x, gaze_y, who.iris * 1.08, who.iris * 1.08), scaled(who.iris_colour, 0.5))
            canvas.fill(ellipse(gaze_x, gaze_y, who.iris * 0.92, who.iris * 0.92), who.iris_colour)
            canvas.fill(ellipse(gaze_x, gaze_y, who.iris * 0.52, who.iris * 0.52), (14.0, 12.0, 14.0))
            canvas.stroke(np.add(upper, (0.0, 0.02)), 0.05, (110.0, 96.0, 92.0), alpha=0.6)
            light = -0.4 if shot.light[0] < 0.0 else 0.4
            canvas.fill(
                ellipse(gaze_x + light * who.iris, gaze_y - 0.4 * who.iris, 0.022, 0.022), (250.0, 250.0, 250.0)
            )
        canvas.stroke(upper, who.lash, mixed(DARK, sitter.hair, 0.2))
        canvas.stroke(lower, 0.022, sitter.shade(0.5))
        if who.crease > 0.05:
            canvas.stroke(upper[3:-3] - (0.0, who.crease), 0.03, sitter.shade(0.52))
        _draw_brow(sitter, canvas, side)


def _draw_brow(sitter: Sitter, canvas: Canvas, side: float) -> None:
    who, shot = sitter.who, sitter.shot
    x, y = side * (who.half_eye + who.brow_inner), -who.brow_gap - shot.brow_raise
    length, tilt = who.brow_length, who.brow_tilt
    inner, outer = (x - side * length, y + tilt * length), (x + side * length, y - tilt * length)
    curve = line(inner, (x + side * 0.15 * length, y - who.brow_arch), outer)
    share = np.linspace(0.0, 1.0, len(curve))
    canvas.stroke(curve, who.brow_thick * (1.15 - 0.8 * share * share), mixed(sitter.hair, DARK, who.brow_dark))


def draw_nose(sitter: Sitter, canvas: Canvas) -> None:
    who, shot = sitter.who, sitter.shot
    y, half, bridge = who.nose_y, who.nose_width, who.bridge
    dark = 1.0 if shot.light[0] < 0.0 else -1.0
    canvas.tint(ellipse(0.0, y + 0.13, 0.9 * half, 0.10), sitter.shade(0.5), 0.5, z=0.1, soft=0.05)
    side = np.array(
        (
            (dark * bridge, -0.15),
            (dark * (bridge + 0.03), y - 0.2),
            (dark * half, y + 0.02),
            (dark * 0.3 * half, y - 0.03),
            (dark * 0.4 * bridge, 0.0),
        )
    )
    canvas.tint(side, sitter.shade(0.6), 0.5, z=0.18, soft=0.03)
    canvas.tint(ellipse(-dark * 0.03, 0.5 * y, 0.6 * bridge, 0.5 * y), sitter.shade(1.25), 0.35, z=0.2, soft=0.05)
    canvas.tint(ellipse(-dark * 0.03, y - 0.02, 0.5 * half, 0.09), sitter.shade(1.35), 0.5, z=0.3, soft=0.04)
    for sign in (-1.0, 1.0):
        wing = line(
            (sign * 0.75 * half, y - 0.13),
            (sign * 1.05 * half, y - 0.01),
            (sign * 0.82 * half, y + 0.10),
            (sign * 0.6 * half, y + 0.09),
        )
        canvas.stroke(wing, 0.035, sitter.shade(0.48), z=0.12)
        canvas.fill(
            ellipse(sign * 0.46 * half, y + 0.085, 1.25 * who.nostril, 0.7 * who.nostril, sign * 0.25),
            sitter.shade(0.28),
            z=0.2,
        )
    canvas.stroke(
        line((-0.4 * half, y + 0.10), (0.0, y + 0.125), (0.4 * half, y + 0.10)), 0.03, sitter.shade(0.52), z=0.2
    )


def draw_mouth(sitter: Sitter, canvas: Canvas) -> None:
    who, shot = sitter.who, sitter.shot
    half, corner, middle = mouth_shape(who, shot)
    gap = 0.20 * shot.mouth_open
    left, right = (-half, corner), (half, corner)
    low_in = middle + gap
    seam_up = line(left, (-0.4 * half, middle - 0.005), (0.0, middle + 0.01), (0.4 * half, middle - 0.005), right)
    seam_low = line(right, (0.5 * half, low_in - 0.01), (0.0, low_in + 0.015), (-0.5 * half, low_in - 0.01), left)
    top = line(
        left,
        (-0.32 * half, middle - who.lip_upper - 0.01),
        (0.0, middle - who.lip_upper + who.bow),
        (0.32 * half, middle - who.lip_upper - 0.01),
        right,
    )
    bottom = line(
        right,
        (0.45 * half, low_in + 0.8 * who.lip_lower),
        (0.0, low_in + who.lip_lower),
        (-0.45 * half, low_in + 0.8 * who.lip_lower),
        left,
    )
    lip = mixed(sitter.shade(0.78), who.lip_colour, who.lip_strength)
    canvas.fill(np.concatenate((top, seam_up[::-1])), scaled(lip, 0.85), z=0.06)
    canvas.fill(np.concatenate((bottom, seam_low[::-1])), lip, z=0.06)
    canvas.tint(
        ellipse(0.0, low_in + 0.5 * who.lip_lower, 0.4 * half, 0.25 * who.lip_lower),
        scaled(lip, 1.35),
        0.5,
        z=0.06,
        soft=0.02,
    )
    if gap > 0.0:
        with canvas.clipped(np.concatenate((seam_up, seam_low)), z=0.06):
            canvas.fill(ellipse(0.0, middle, 0.7, 0.6), (58.0, 22.0, 24.0), z=0.06)
            canvas.fill(ellipse(0.0, middle - 0.04, 0.8 * half, 0.04 + 0.5 * gap), (236.0, 232.0, 222.0), z=0.06)
    canvas.stroke(seam_up, 0.035, (72.0, 30.0, 32.0), z=0.06)
    for x, y in (left, right):
        canvas.fill(ellipse(x, y, 0.03, 0.025), (70.0, 34.0, 34.0), z=0.06)
