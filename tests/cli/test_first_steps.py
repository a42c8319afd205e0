"""The README's first screen, typed by somebody with few people: from a folder of photos to an accuracy."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.command import Run

from dataprep.imaging.codec import encode_jpeg
from dataprep.synth.photos import draw_photo

# photos per person of LFW's 5,749 people: 4,069 have one, 779 two, 291 three, ... and one has 530
LFW = [1] * 43 + [2] * 8 + [3] * 3 + [4] * 2 + [5, 7, 12, 40]


def draw_people(root: Path, photos: list[int]) -> Path:
    for person, count in enumerate(photos):
        (root / f"p{person:02d}").mkdir(parents=True)
        for number in range(count):
            drawn = draw_photo(person, number, width=160, height=160)
            (root / f"p{person:02d}/{number}.jpg").write_bytes(encode_jpeg(drawn.pixels))
    return root


def test_sixty_people_as_lfw_has_them_get_to_an_accuracy(tmp_path: Path, dataprep: Run) -> None:
    dataprep("import", "folder", draw_people(tmp_path / "photos", LFW))
    dataprep("align", "--size", 112)
    packed = dataprep("pack", "--holdout", 0.34)
    manifest = json.loads((tmp_path / "ws/packs/train/pack.json").read_text())
    # seventeen people have two photos; 0.34 of them are six, which make three folds
    assert manifest["folds"] == 3
    assert "(3 folds instead of 10: few people are held out)" in packed.stdout
    dataprep("train", "--epochs", 1, "--batch-size", 16, "--device", "cpu", "--num-workers", 1)
    assert "accuracy" in dataprep("test", "--device", "cpu").stdout


def aligned_people(root: Path, photos: list[int]) -> Path:
    generator = np.random.default_rng(0)
    for person, count in enumerate(photos):
        (root / f"p{person}").mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (112, 112, 3), np.uint8)
            (root / f"p{person}/{number}.jpg").write_bytes(encode_jpeg(pixels))
    return root


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("photos", [[2, 2, 2, 2], [2, 9, 2, 30, 2], [3] * 8])
def test_a_few_people_can_be_held_out(tmp_path: Path, dataprep: Run, photos: list[int], share: float) -> None:
    dataprep("import", "folder", aligned_people(tmp_path / "faces", photos), "--aligned")
    dataprep("pack", "--holdout", share, "-j", 0)
    manifest = json.loads((tmp_path / "ws/packs/train/pack.json").read_text())
    assert manifest["pairs"] >= 4
    assert manifest["counts"]["identities"] >= 2


def test_too_few_people_are_told_before_any_work(tmp_path: Path, dataprep: Run) -> None:
    dataprep("import", "folder", aligned_people(tmp_path / "faces", [2, 5, 2, 1]), "--aligned")
    said = dataprep("pack", "--holdout", 0.5, code=1).stderr
    assert "takes 4 people with two images each" in said
    assert "3 of 3 people have two" in said
    assert not list((tmp_path / "ws/stages").glob("*/done/*"))
