"""Quality estimates for filtering: head pose, fit to the alignment template, and sharpness."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dataprep.imaging.codec import Pixels
from dataprep.imaging.geometry import AffineMatrix, Points

# Distance of the nose tip from the plane of eyes and mouth, divided by half the distance between the pupils. From the
# generic head model of OpenCV's head pose examples (S. Mallick, 2016: nose tip (0, 0, 0), outer eye corners
# (-+225, 170, -135), mouth corners (-+150, -150, -125)), with pupils 63 mm and outer corners 90 mm apart: 130 / 157.5.
_NOSE = 0.825


def estimate_roll(points: npt.ArrayLike) -> float:
    """In-plane rotation of the line between the eyes in degrees, positive clockwise."""
    (left_x, left_y), (right_x, right_y) = np.asarray(points, np.float64)[:2]
    return math.degrees(math.atan2(right_y - left_y, right_x - left_x))


def estimate_yaw(points: npt.ArrayLike) -> float:
    """Estimated yaw in degrees, positive if the nose points to the right of the picture.

    The face axis runs from the midpoint of the eyes to the midpoint of the mouth. When the head turns, the nose moves off
    this axis by depth * sin(yaw), and half the distance between the eyes shrinks to half * cos(yaw). Their ratio is
    (depth / half) * tan(yaw), where depth / half is taken from a generic head. Above about 60 degrees the landmarks
    themselves are guesses, so such values only mean "more than 60".
    """
    left, right, nose, mouth_left, mouth_right = np.asarray(points, np.float64)
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    down = mouth - eyes
    length = math.hypot(down[0], down[1])
    if length < 1e-9:
        return 0.0
    across = np.array([down[1], -down[0]]) / length  # points right in the picture for an upright face
    half = abs(float((right - left) @ across)) / 2
    return math.degrees(math.atan2(float((nose - eyes) @ across), _NOSE * half))


def alignment_error(points: npt.ArrayLike, matrix: AffineMatrix, target: Points) -> float:
    """Root mean square distance between the fitted landmarks and the template, in template pixels."""
    fitted = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return float(np.sqrt(((fitted - target) ** 2).sum(axis=1).mean()))


def measure_sharpness(face: Pixels) -> float:
    """Variance of the Laplacian of the gray face (Pech-Pacheco et al. 2000). Comparable only between faces of equal size."""
    import cv2

    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())
