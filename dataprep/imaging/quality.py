"""How a face looks at us, how well it fits the template, and how sharp it is: estimates to filter by."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dataprep.imaging.codec import Pixels
from dataprep.imaging.geometry import AffineMatrix, Points

# How far the tip of the nose stands out of the plane of eyes and mouth, over half the distance of the pupils. From the
# generic head behind OpenCV's head pose examples (S. Mallick, 2016: tip of the nose (0, 0, 0), outer corners of the eyes
# (-+225, 170, -135), of the mouth (-+150, -150, -125)), with pupils 63 mm and outer corners 90 mm apart: 130 / 157.5.
_NOSE = 0.825


def estimate_roll(points: npt.ArrayLike) -> float:
    """Degrees by which the line of the eyes is turned in the picture, clockwise positive."""
    (left_x, left_y), (right_x, right_y) = np.asarray(points, np.float64)[:2]
    return math.degrees(math.atan2(right_y - left_y, right_x - left_x))


def estimate_yaw(points: npt.ArrayLike) -> float:
    """Degrees by which a face is turned sideways, an estimate; positive if the nose points to the picture's right.

    The axis of the face goes from the middle of the eyes to the middle of the mouth. On a head turned by yaw the nose
    leaves it by depth * sin(yaw) and half the distance of the eyes shrinks to half * cos(yaw), so their ratio is
    (depth / half) * tan(yaw); depth / half is that of a generic head. A face turned more than about 60 degrees gives
    values that only say "more", for there the landmarks themselves are guesses.
    """
    left, right, nose, mouth_left, mouth_right = np.asarray(points, np.float64)
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    down = mouth - eyes
    length = math.hypot(down[0], down[1])
    if length < 1e-9:
        return 0.0
    across = np.array([down[1], -down[0]]) / length  # to the picture's right on an upright face
    half = abs(float((right - left) @ across)) / 2
    return math.degrees(math.atan2(float((nose - eyes) @ across), _NOSE * half))


def alignment_error(points: npt.ArrayLike, matrix: AffineMatrix, target: Points) -> float:
    """Root mean square distance of the landmarks to the template after fitting, in pixels of the template."""
    fitted = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return float(np.sqrt(((fitted - target) ** 2).sum(axis=1).mean()))


def measure_sharpness(face: Pixels) -> float:
    """Variance of the Laplacian of the gray face (Pech-Pacheco et al. 2000); comparable between faces of one size."""
    import cv2

    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())
