"""The augmentations: what they do to a face, by their sources' constants."""

from __future__ import annotations

import colorsys
import subprocess
import sys

import numpy as np
import pytest
from helpers.command import ROOT, environment

from dataprep.train.data.augment import AUGMENT_PRESETS, AugmentConfig

SIDE = 112


def face(seed: int = 0) -> np.ndarray:
    import cv2

    small = np.random.default_rng(seed).integers(30, 226, (8, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


def apply(augment: AugmentConfig, seed: int, pixels: np.ndarray | None = None, side: int = SIDE) -> np.ndarray:
    given = face() if pixels is None else pixels
    before = given.copy()
    out = augment.apply(given, np.random.default_rng(seed), height=side, width=side)
    assert np.array_equal(given, before), "the decoded face is not ours to change"
    assert out.dtype == np.uint8
    assert out.shape == (side, side, 3)
    return out


def share_changed(augment: AugmentConfig, draws: int = 400) -> float:
    return float(np.mean([not np.array_equal(apply(augment, seed), face()) for seed in range(draws)]))


@pytest.mark.parametrize("name", [name for name in AUGMENT_PRESETS if name != "vggface2"])
def test_the_same_draw_gives_the_same_face(name: str) -> None:
    augment = AUGMENT_PRESETS[name]
    assert all(np.array_equal(apply(augment, seed), apply(augment, seed)) for seed in range(10))
    assert augment.is_random == (name not in ("none", "flip"))


def test_each_happens_as_often_as_its_source_says() -> None:
    assert share_changed(AUGMENT_PRESETS["none"], 20) == 0
    assert share_changed(AUGMENT_PRESETS["arcface_torch"]) == pytest.approx(1 - 0.9 * 0.8 * 0.8 * 0.9, abs=0.08)
    assert share_changed(AUGMENT_PRESETS["adaface"]) == pytest.approx(1 - 0.8**3, abs=0.08)
    assert share_changed(AugmentConfig(cutoff=16)) == pytest.approx(0.5, abs=0.08)
    assert share_changed(AugmentConfig(compress=0.5)) == pytest.approx(0.5, abs=0.08)
    assert share_changed(AugmentConfig(jitter=0.125), 20) == 1


def test_a_cut_out_is_a_grey_square_about_a_pixel() -> None:
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    areas = set()
    for seed in range(200):
        out = apply(AugmentConfig(cutoff=16), seed, black)
        assert set(np.unique(out)) <= {0, 128}
        rows, columns = np.flatnonzero(out.any(axis=(1, 2))), np.flatnonzero(out.any(axis=(0, 2)))
        areas.add(len(rows) * len(columns))
        assert (out[..., 0] == 128).sum() == len(rows) * len(columns)
    assert max(areas) == 16 * 16
    assert {0, 256} < areas  # and cut by the edge, now and then


def test_grey_is_the_luma_in_all_channels() -> None:
    out = apply(AugmentConfig(gray=1.0), 0)
    expected = np.rint(face().astype(np.float64) @ [0.299, 0.587, 0.114])
    assert np.abs(out - expected[:, :, None]).max() <= 1
    assert (out[..., 0] == out[..., 1]).all()


def test_hue_turns_by_up_to_twenty_degrees_and_luma_stays() -> None:
    from dataprep.train.data.augment import _hsv

    skin = np.full((2, 2, 3), (200, 150, 120), np.uint8)
    assert np.abs(_hsv(skin, 0.0, 1.0).astype(int) - skin).max() <= 1
    turned = _hsv(skin, 20.0, 1.2).astype(float)
    luma = np.array([0.299, 0.587, 0.114])
    assert turned[0, 0] @ luma == pytest.approx(skin[0, 0] @ luma, abs=1.5)
    before, after = (colorsys.rgb_to_hsv(*(pixels[0, 0] / 255)) for pixels in (skin.astype(float), turned))
    assert 5 < abs(after[0] - before[0]) * 360 < 40
    grey = _hsv(skin, 0.0, 0.0)
    assert np.ptp(grey[0, 0].astype(int)) <= 1


def test_a_crop_leaves_a_window_where_it_was() -> None:
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    shares = []
    for seed in range(100):
        out = apply(AugmentConfig(crop=1.0), seed, white)
        rows, columns = np.flatnonzero(out.any(axis=(1, 2))), np.flatnonzero(out.any(axis=(0, 2)))
        assert (out == 255).sum() == len(rows) * len(columns) * 3
        shares.append(len(rows) * len(columns) / SIDE**2)
        assert 0.72 <= len(columns) / len(rows) <= 1.4
        assert np.array_equal(apply(AugmentConfig(crop=1.0), seed)[rows][:, columns], face()[rows][:, columns])
    assert 0.19 <= min(shares) < 0.3
    assert max(shares) > 0.9


def test_what_takes_detail_takes_it_and_keeps_the_mean() -> None:
    noisy = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for augment in (AugmentConfig(low_res=1.0), AugmentConfig(compress=1.0)):
        outs = [apply(augment, seed, noisy).astype(float) for seed in range(20)]
        assert (
            np.mean([np.abs(np.diff(out, axis=0)).mean() for out in outs])
            < 0.9 * np.abs(np.diff(noisy.astype(float), axis=0)).mean()
        )
        assert np.mean([out.mean() for out in outs]) == pytest.approx(noisy.mean(), abs=3)


def test_jitter_stays_within_its_strength() -> None:
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)  # contrast and saturation leave it alone
    means = [apply(AugmentConfig(jitter=0.125), seed, grey).mean() for seed in range(200)]
    assert 86 < min(means) < 90
    assert 110 < max(means) < 114
    means = [apply(AugmentConfig(photometric=1.0), seed, grey).mean() for seed in range(200)]
    assert 49 < min(means) < 56
    assert 144 < max(means) < 151


def test_a_random_window_is_of_the_face_at_256_for_224() -> None:
    wide = np.zeros((300, 400, 3), np.uint8)
    wide[:, :, 0] = np.linspace(0, 255, 400).astype(np.uint8)  # tells the column
    lefts = []
    for seed in range(50):
        out = apply(AUGMENT_PRESETS["vggface2"] if seed else AugmentConfig(resize_crop=True), seed, wide, side=224)
        if (out[..., 0] != out[..., 1]).any():  # not grey
            lefts.append(int(out[0, 0, 0]))
            span = int(out[0, -1, 0]) - lefts[-1]
            assert span == pytest.approx(255 * 224 / (400 * 256 / 300), abs=3)
    assert max(lefts) - min(lefts) > 60
    small = apply(AugmentConfig(resize_crop=True), 0, face(), side=224)  # 112 to 256
    assert small.mean() == pytest.approx(face().mean(), abs=6)


def test_the_names_are_had_without_opencv() -> None:
    code = "import sys, dataprep.train.data.augment; sys.exit('cv2' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=False).returncode == 0
