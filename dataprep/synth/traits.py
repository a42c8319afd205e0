"""Random traits of a drawn face: those of the person and those of the photo.

Lengths are in *face units*: 1.0 is the usual distance between the eye centres, the origin is midway between the eyes, x
points right and y points down. Angles are in radians. Colours are RGB triples of floats in 0..255. All random numbers come
from numpy's PCG64, so a seed always gives the same result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np

__all__ = [
    "BEARDS",
    "GLASSES",
    "HAIRS",
    "Colour",
    "IdentityTraits",
    "PhotoTraits",
    "make_generator",
    "sample_identity",
    "sample_photo",
    "skin_colour",
]

Colour: TypeAlias = tuple[float, float, float]

_T = TypeVar("_T")
_STREAM = 0x5EEDFACE
HAIRS = ("bald", "buzz", "crop", "fringe", "part_left", "part_right", "peak", "curly", "long", "bob")
BEARDS = ("none", "none", "none", "none", "moustache", "goatee", "full", "strap", "chin")
GLASSES = ("none", "none", "none", "none", "round", "square", "wide")

_LIGHT_SKIN = np.array((233.0, 196.0, 172.0))
_DARK_SKIN = np.array((138.0, 94.0, 70.0))
_HAIR_PALETTE = ((38, 30, 28), (66, 45, 34), (104, 70, 44), (134, 68, 40), (168, 128, 78), (140, 136, 132))
_IRIS_PALETTE = ((70, 44, 28), (104, 74, 40), (84, 112, 74), (84, 124, 158), (110, 120, 126))
_LIP_PALETTE = ((186, 98, 96), (170, 84, 88), (198, 116, 108), (160, 92, 84))


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityTraits:
    """A person: the geometry, colours and marks that are the same in all of the person's photos."""

    half_eye: float  # half the distance between the eye centres
    face: float  # half width at the cheekbones
    temple: float  # half width at the temples, as a share of `face`
    jaw: float  # half width at mouth height, as a share of `face`
    chin: float  # half width of the chin, as a share of `face`
    chin_y: float
    crown_y: float
    hairline_y: float
    eye_width: float  # half width of one eye
    eye_height: float  # half height of one eye, at normal openness
    eye_slant: float  # positive: outer corners up
    lash: float  # thickness of the upper lid line
    iris: float  # iris radius
    crease: float  # height of the fold above the lid; below 0.05: none
    bags: float  # 0..1 strength of the line under the eye
    brow_gap: float  # eye centre to brow
    brow_thick: float
    brow_length: float  # half length
    brow_arch: float
    brow_tilt: float  # positive: outer ends up
    brow_inner: float  # sideways shift of the brows, outward
    brow_dark: float  # 0..1 how far the brows are darker than the hair
    nose_y: float  # nose tip
    nose_width: float  # half width at the wings
    bridge: float  # half width of the bridge
    nostril: float  # radius
    mouth_y: float
    mouth_width: float  # half width
    lip_upper: float
    lip_lower: float
    lip_strength: float  # 0..1 how far the lips differ from the skin
    bow: float  # depth of the dip in the upper lip
    cheek_line: float  # 0..1 strength of the fold from nose to mouth
    forehead_lines: int
    dimple: float  # 0..1 strength of the chin dimple
    ear: float  # half height of an ear
    ear_out: float  # how far the ears protrude
    hair: str
    hair_volume: float
    hair_side: float  # how low the sideburns reach
    beard: str
    beard_strength: float  # 0..1
    glasses: str
    glasses_size: float
    frame_thick: float
    melanin: float  # 0 light .. 1 dark
    skin_warmth: float
    hair_colour: Colour
    iris_colour: Colour
    lip_colour: Colour
    frame_colour: Colour
    moles: tuple[tuple[float, float, float], ...]  # x, y, radius
    freckles: tuple[tuple[float, float, float], ...]  # x, y, radius
    scar: tuple[float, float, float, float] | None  # x, y, angle, length
    birthmark: tuple[float, float, float] | None  # x, y, radius


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoTraits:
    """A photo: pose, expression, light, camera and surroundings."""

    seed: tuple[int, int]
    roll: float
    yaw: float
    pitch: float
    fill: float  # face height as a share of what the picture allows, 0..1
    place: tuple[float, float]  # position inside the free room, 0..1 each way
    openness: float  # factor on the eye height
    gaze: tuple[float, float]  # in iris radii
    brow_raise: float
    smile: float  # -0.3..1
    mouth_open: float  # 0..1
    light: tuple[float, float, float]  # direction towards the light, unit length, z to the viewer
    ambient: float  # share of light without direction
    light_colour: Colour  # factors around 1
    ambient_colour: Colour
    shadow: tuple[float, float, float] | None  # angle, offset (face units), depth 0..1 of a cast shadow
    exposure: float
    gamma: float
    white: Colour  # white-balance factors around 1
    tan: float  # added to melanin
    hair_shade: float  # factor on the hair colour
    blur: float  # sigma, as a share of the eye distance
    noise: float  # grey levels
    occluder: str  # "none", "cap", "hand", "shades"
    occluder_at: float  # 0..1
    clothes: Colour


def make_generator(*key: int) -> np.random.Generator:
    """An independent random stream for the given key."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((_STREAM, *key))))


def _bell(rng: np.random.Generator) -> float:
    """A bell-shaped random number in -3..3 with mean 0 and standard deviation 1 (a sum of three uniform ones)."""
    return float(2.0 * (rng.random() + rng.random() + rng.random() - 1.5))


def _near(rng: np.random.Generator, colour: tuple[int, int, int], spread: float) -> Colour:
    """A random colour within `spread` grey levels of `colour` in each channel."""
    red, green, blue = (float(np.clip(c + rng.uniform(-spread, spread), 0, 255)) for c in colour)
    return red, green, blue


def skin_colour(melanin: float, warmth: float) -> Colour:
    """The skin colour for a melanin level (0 light .. 1 dark) and a warmth in grey levels."""
    tone = _LIGHT_SKIN + (_DARK_SKIN - _LIGHT_SKIN) * min(max(melanin, 0.0), 1.0)
    return float(tone[0]), float(tone[1]) + 0.3 * warmth, float(tone[2]) - warmth


def sample_identity(seed: int) -> IdentityTraits:
    """The person with number `seed`."""
    rng = make_generator(1, seed)

    def between(low: float, high: float) -> float:
        share = float(rng.random())  # pushed outward, so that people differ
        return low + (high - low) * 0.5 * (share + 0.5 - 0.5 * math.cos(math.pi * share))

    def pick(options: tuple[_T, ...]) -> _T:
        return options[int(rng.integers(len(options)))]

    eye_width, mouth_width = between(0.20, 0.285), between(0.34, 0.48)
    face, chin_y, nose_y = between(1.02, 1.22), between(1.66, 1.98), between(0.53, 0.71)
    mouth_y = nose_y + between(0.42, 0.58)
    chin_y = max(chin_y, mouth_y + 0.5)
    moles = tuple(
        (between(-0.8, 0.8), between(0.15, 1.35), between(0.028, 0.060)) for _ in range(int(rng.integers(0, 5)))
    )
    freckled = rng.random() < 0.25
    freckles = tuple(
        (0.42 * _bell(rng), 0.42 + 0.13 * _bell(rng), between(0.012, 0.026))
        for _ in range(int(rng.integers(25, 60)) if freckled else 0)
    )
    scarred = rng.random() < 0.15
    scar = (between(-0.75, 0.75), between(-0.75, 1.3), between(-1.4, 1.4), between(0.18, 0.4))
    marked = rng.random() < 0.15
    birthmark = (between(-0.8, 0.8), between(-0.8, 1.3), between(0.10, 0.22))
    return IdentityTraits(
        half_eye=between(0.46, 0.54),
        face=face,
        temple=between(0.88, 0.99),
        jaw=between(0.70, 0.92),
        chin=between(0.24, 0.50),
        chin_y=chin_y,
        crown_y=between(-1.74, -1.50),
        hairline_y=between(-1.26, -0.85),
        eye_width=eye_width,
        eye_height=between(0.080, 0.155),
        eye_slant=between(-0.26, 0.26),
        lash=between(0.03, 0.08),
        iris=between(0.085, 0.115),
        crease=between(0.0, 0.11),
        bags=between(0.0, 1.0),
        brow_gap=between(0.25, 0.40),
        brow_thick=between(0.04, 0.15),
        brow_length=between(0.26, 0.37),
        brow_arch=between(-0.02, 0.13),
        brow_tilt=between(-0.22, 0.25),
        brow_inner=between(-0.08, 0.07),
        brow_dark=between(0.15, 0.7),
        nose_y=nose_y,
        nose_width=between(0.18, 0.34),
        bridge=between(0.06, 0.13),
        nostril=between(0.03, 0.06),
        mouth_y=mouth_y,
        mouth_width=mouth_width,
        lip_upper=between(0.04, 0.12),
        lip_lower=between(0.06, 0.17),
        lip_strength=between(0.35, 0.95),
        bow=between(0.0, 0.05),
        cheek_line=between(0.0, 1.0),
        forehead_lines=int(rng.integers(0, 4)),
        dimple=between(0.0, 1.0),
        ear=between(0.26, 0.42),
        ear_out=between(0.04, 0.2),
        hair=pick(HAIRS),
        hair_volume=between(0.05, 0.26),
        hair_side=between(-0.2, 0.55),
        beard=pick(BEARDS),
        beard_strength=between(0.35, 0.9),
        glasses=pick(GLASSES),
        glasses_size=between(0.29, 0.38),
        frame_thick=between(0.02, 0.04),
        melanin=between(0.0, 0.8),
        skin_warmth=between(-8.0, 8.0),
        hair_colour=_near(rng, pick(_HAIR_PALETTE), 12),
        iris_colour=_near(rng, pick(_IRIS_PALETTE), 15),
        lip_colour=_near(rng, pick(_LIP_PALETTE), 14),
        frame_colour=_near(rng, pick(((30, 28, 30), (92, 52, 36), (60, 66, 96), (120, 30, 40))), 12),
        moles=moles,
        freckles=freckles,
        scar=scar if scarred else None,
        birthmark=birthmark if marked else None,
    )


def sample_photo(identity_seed: int, photo_seed: int) -> PhotoTraits:
    """The traits of photo `photo_seed` of person `identity_seed`."""
    rng = make_generator(2, identity_seed, photo_seed)

    def about(spread: float, centre: float = 0.0) -> float:
        return centre + spread * min(max(_bell(rng), -2.0), 2.0)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    light = np.array((between(-0.65, 0.65), between(-0.6, 0.3), 0.75))
    light /= np.sqrt((light * light).sum())
    warm, cast, green = about(0.07), about(0.07), about(0.03)
    occluder = "none"
    chance = rng.random()
    for name, upto in (("cap", 0.012), ("hand", 0.045), ("shades", 0.05)):
        if occluder == "none" and chance < upto:
            occluder = name
    smile = between(-0.2, 0.7)
    return PhotoTraits(
        seed=(identity_seed, photo_seed),
        roll=about(0.16),
        yaw=about(0.125),
        pitch=about(0.09),
        fill=between(0.0, 1.0),
        place=(between(0.0, 1.0), between(0.0, 1.0)),
        openness=between(0.82, 1.12),
        gaze=(about(0.35), about(0.15)),
        brow_raise=about(0.025),
        smile=smile,
        mouth_open=between(0.15, 0.9) if rng.random() < 0.2 else 0.0,
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=between(0.5, 0.78),
        light_colour=(1.0 + warm, 1.0, 1.0 - warm),
        ambient_colour=(1.0 - 0.5 * warm, 1.0, 1.0 + 0.5 * warm),
        shadow=(between(0.0, 6.28), between(-0.6, 0.9), between(0.2, 0.5)) if rng.random() < 0.28 else None,
        exposure=math.exp(about(0.14)),
        gamma=math.exp(about(0.12)),
        white=(1.0 + cast, 1.0 + green, 1.0 - cast),
        tan=about(0.08),
        hair_shade=math.exp(about(0.1)),
        blur=max(0.0, between(-0.008, 0.021)),
        noise=between(0.0, 7.5),
        occluder=occluder,
        occluder_at=between(0.0, 1.0),
        clothes=_near(rng, (120, 110, 110), 100),
    )
