import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import BSpline
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold

from dataprep.embeddings.embedder import embed_pairs
from dataprep.errors import RecordError
from dataprep.evaluate.verification import kfold as verification
from dataprep.evaluate.verification.pair_set import open_verification_set
from dataprep.evaluate.verification.scoring import ScoringOptions, score_model
from dataprep.imaging.codec import encode_jpeg
from dataprep.models.model_files import save_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.registry import create_model
from dataprep.packs.verification_bin import write_bin


def scores(pairs: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    same = generator.random(pairs) < 0.5
    distance = np.clip(np.where(same, generator.normal(1.0, 0.35, pairs), generator.normal(1.8, 0.3, pairs)), 0, 4)
    return distance, same


def insightface_accuracy(distance: np.ndarray, same: np.ndarray) -> np.ndarray:
    """calculate_roc of insightface's verification.py, from its formulas and scikit-learn's KFold."""
    thresholds = np.arange(0, 4, 0.01)
    out = []
    for train, test in KFold(n_splits=10, shuffle=False).split(distance):
        accuracy = [np.mean((distance[train] < t) == same[train]) for t in thresholds]
        out.append(np.mean((distance[test] < thresholds[int(np.argmax(accuracy))]) == same[test]))
    return np.array(out)


def insightface_validation(distance: np.ndarray, same: np.ndarray, target: float) -> tuple[np.ndarray, np.ndarray]:
    """calculate_val, likewise; theirs interpolates with scipy's interp1d (slinear), which refuses equal rates
    today: the spline that it made of them is written out."""
    thresholds = np.arange(0, 4, 0.001)
    val, far = [], []
    for train, test in KFold(n_splits=10, shuffle=False).split(distance):
        rates = np.array([np.mean(distance[train][~same[train]] < t) for t in thresholds])
        threshold = BSpline([rates[0], *rates, rates[-1]], thresholds, k=1)(target)
        val.append(np.mean(distance[test][same[test]] < threshold))
        far.append(np.mean(distance[test][~same[test]] < threshold))
    return np.array(val), np.array(far)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pairs", [1000, 1003])
def test_accuracy_and_validation_are_insightfaces(seed: int, pairs: int) -> None:
    distance, same = scores(pairs, seed)
    found = verification.verify_pairs(distance, same)
    accuracy = insightface_accuracy(distance, same)
    assert found.accuracy == pytest.approx(accuracy.mean(), abs=1e-12)
    assert found.accuracy_std == pytest.approx(accuracy.std(), abs=1e-12)
    validation, far = insightface_validation(distance, same, 1e-3)
    assert found.validation == pytest.approx(validation.mean(), abs=1e-12)
    assert found.validation_far == pytest.approx(far.mean(), abs=1e-12)


def test_validation_is_insightfaces_where_thresholds_have_the_very_rate_that_is_asked_for() -> None:
    generator = np.random.default_rng(0)
    same = np.arange(20_000) % 2 == 0  # nine folds hold 9,000 negatives: nine of them are 1e-3
    distance = np.clip(np.where(same, generator.normal(0.5, 0.2, 20_000), generator.normal(1.5, 0.3, 20_000)), 0, 4)
    validation, far = insightface_validation(distance, same, 1e-3)
    found = verification.verify_pairs(distance, same)
    assert found.validation == pytest.approx(validation.mean(), abs=1e-12)
    assert found.validation_far == pytest.approx(far.mean(), abs=1e-12)


def test_the_roc_is_scikit_learns() -> None:
    distance, same = scores(2000)
    distance = np.round(distance, 2)  # ties
    fpr, tpr = verification.roc(distance, same)
    their_fpr, their_tpr, _ = roc_curve(same, -distance, drop_intermediate=False)
    assert np.allclose(fpr, their_fpr)
    assert np.allclose(tpr, their_tpr)
    found = verification.verify_pairs(distance, same)
    assert found.auc == pytest.approx(roc_auc_score(same, -distance))
    for far, tar in found.tar_at_far.items():
        assert tar == max(t for f, t in zip(their_fpr, their_tpr, strict=True) if f <= float(far))
    assert set(found.tar_at_far) == {"0.1", "0.01"} or (~same).sum() >= 1000


def test_rates_that_too_few_negatives_are_there_for_are_not_claimed() -> None:
    distance, same = scores(100)
    assert set(verification.verify_pairs(distance, same).tar_at_far) == {"0.1", "0.01"} - (
        {"0.01"} if (~same).sum() < 100 else set()
    )


def test_sets_that_cannot_be_folded_are_named() -> None:
    distance, same = scores(10)
    with pytest.raises(RecordError, match="too few for 10 folds"):
        verification.verify_pairs(distance, same)
    distance, same = scores(100)
    with pytest.raises(RecordError, match="one kind only"):
        verification.verify_pairs(distance, np.arange(100) < 50)
    with pytest.raises(RecordError, match="all pairs are in one fold"):
        verification.verify_pairs(distance, same, np.zeros(100, np.int64))
    distance[3] = math.nan
    with pytest.raises(RecordError, match="not finite"):
        verification.verify_pairs(distance, same)


class Brightness:
    """An embedder that knows one thing; asymmetric, so that the mirrored face matters."""

    height = width = 112

    def __call__(self, images: np.ndarray) -> np.ndarray:
        left = images[:, :, :56].mean(axis=(1, 2, 3))
        return np.stack([left, np.full(len(images), 100.0)], axis=1).astype(np.float32)


def face(left: int, right: int) -> bytes:
    pixels = np.full((112, 112, 3), left, np.uint8)
    pixels[:, 56:] = right
    return encode_jpeg(pixels, quality=100)


def test_flip_fusion_adds_the_mirrored_face() -> None:
    one, other = embed_pairs(Brightness(), [face(50, 150), face(150, 50)])
    assert np.allclose(one, other, atol=1e-3)
    assert np.allclose(np.linalg.norm(one), 1)
    plain = embed_pairs(Brightness(), [face(50, 150), face(150, 50)], flip=False)
    assert abs(plain[0] - plain[1]).max() > 0.3


def test_faces_of_another_size_and_damaged_ones_are_named() -> None:
    with pytest.raises(RecordError, match="image 1 of the set is 10x10, but the model takes 112x112"):
        embed_pairs(Brightness(), [face(1, 2), encode_jpeg(np.zeros((10, 10, 3), np.uint8))])
    with pytest.raises(RecordError, match="image 0 of the set cannot be read"):
        embed_pairs(Brightness(), [b"junk"])


def test_a_bin_is_scored_from_files_to_result_and_picture(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    people = [generator.integers(0, 256, (7, 7, 3), dtype=np.uint8) for _ in range(30)]

    def photo(person: int) -> bytes:
        pixels = np.kron(people[person], np.ones((16, 16, 1))) + generator.normal(0, 5, (112, 112, 3))
        return encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8))

    images, same = [], []
    for i in range(60):
        person = i % 30
        other = person if i % 2 == 0 else (person + 7) % 30
        images += [photo(person), photo(other)]
        same.append(person == other)
    write_bin(tmp_path / "x.bin", images, same)
    import torch

    torch.manual_seed(0)
    save_model(
        tmp_path / "m.pt",
        create_model("mobilefacenet", 64),
        network="mobilefacenet",
        embedding=64,
        preprocessing=Preprocessing(),
        about={},
    )
    how = ScoringOptions(baselines=True, plots=True)
    result = score_model(tmp_path / "m.pt", open_verification_set(tmp_path / "x.bin"), tmp_path / "out", how)
    assert result.verification.accuracy > 0.9  # patterns this plain are told apart by any network
    assert set(result.baselines) == {"mean colour alone", "raw-pixel cosine", "the untrained network"}
    assert result.baselines["raw-pixel cosine"] > 0.95
    saved = json.loads((tmp_path / "out/result.json").read_text())
    assert saved["verification"]["pairs"] == 60
    assert (saved["protocol"], saved["flip"]) == ("insightface", "sum")
    assert saved["versions"]["torch"]
    for name in ("roc", "det", "scores", "wrong"):
        assert (tmp_path / f"out/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_small_lfw_is_too_small_to_fold_and_says_so(tmp_path: Path, shared: Path) -> None:
    save_model(
        tmp_path / "m.pt",
        create_model("mobilefacenet", 64),
        network="mobilefacenet",
        embedding=64,
        preprocessing=Preprocessing(),
        about={},
    )
    with pytest.raises(RecordError, match=r"small_lfw\.bin: 10 pairs are too few"):
        score_model(tmp_path / "m.pt", open_verification_set(shared / "bin/small_lfw.bin"), tmp_path / "out")
