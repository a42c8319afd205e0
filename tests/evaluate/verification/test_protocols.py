"""The protocols against what their authors published, written out as loops in float64, and against scikit-learn."""

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from dataprep.errors import RecordError, UsageError
from dataprep.evaluate.confidence import auc_interval, eer_interval, tar_interval, wilson_interval
from dataprep.evaluate.metrics import equal_error_rate, roc
from dataprep.evaluate.verification import protocols
from dataprep.evaluate.verification.protocols import score_pairs
from dataprep.packs.pair_sampling import consecutive_folds


def features(pairs: int = 600, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    same = generator.random(pairs) < 0.5
    left = generator.normal(0.3, 1, (pairs, width)).astype(np.float32)  # a mean worth subtracting
    right = generator.normal(0.3, 1, (pairs, width)).astype(np.float32)
    right[same] += 1.0 * left[same]
    return left, right, same


def face_pytorch(left: np.ndarray, right: np.ndarray, same: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """evaluation_10_fold of Face_Pytorch's eval_lfw.py, from its formulas, one threshold at a time."""
    thresholds = np.arange(-10000, 10001) * 1.0 / 10000
    out = []
    for i in range(10):
        train, test = fold != i, fold == i
        mean = np.mean(np.concatenate((left[train], right[train]), 0).astype(np.float64), 0)
        one, other = left.astype(np.float64) - mean, right.astype(np.float64) - mean
        one /= np.sqrt(np.sum(one**2, 1, keepdims=True))
        other /= np.sqrt(np.sum(other**2, 1, keepdims=True))
        scores = np.sum(one * other, 1)

        def accuracy(t: float, chosen: np.ndarray, scores: np.ndarray = scores) -> float:
            mine, truth = scores[chosen], same[chosen]
            return (np.sum(mine[truth] > t) + np.sum(mine[~truth] < t)) / len(mine)

        found = np.array([accuracy(t, train) for t in thresholds])
        out.append(accuracy(np.mean(thresholds[found == found.max()]), test))
    return np.array(out)


@pytest.mark.parametrize("seed", range(2))
def test_face_pytorch_is_theirs(seed: int) -> None:
    left, right, same = features(300, seed=seed)
    folds = consecutive_folds(300)
    found = score_pairs(left, right, same, folds, "face_pytorch").verification
    theirs = face_pytorch(left, right, same, folds)
    assert found.accuracy == pytest.approx(theirs.mean(), abs=1e-12)
    assert found.accuracy_std == pytest.approx(theirs.std(), abs=1e-12)


def test_a_score_at_face_pytorchs_threshold_is_wrong_whichever_it_is() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores = generator.integers(3000, 3010, 40) / 10000  # on the grid, so that ties decide
        same = generator.random(40) < 0.5
        grid = np.arange(-10000, 10001) * 1.0 / 10000
        right = np.array([np.sum(scores[same] > t) + np.sum(scores[~same] < t) for t in grid])
        assert protocols._face_pytorch_threshold(scores, same) == np.mean(grid[right == right.max()])


def test_face_pytorch_subtracts_the_mean_of_the_other_folds_only() -> None:
    left, right, same = features(200)
    folds = consecutive_folds(200)
    scored = score_pairs(left, right, same, folds, "face_pytorch")
    for pair in (0, 77, 199):
        train = folds != folds[pair]
        mean = np.concatenate([left[train], right[train]]).astype(np.float64).mean(0)
        one, other = left[pair] - mean, right[pair] - mean
        assert -scored.distance[pair] == pytest.approx(
            one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-12
        )


def test_plain_cosine_takes_the_exact_best_threshold() -> None:
    left, right, same = features(300)
    folds = consecutive_folds(300)
    one, other = left.astype(np.float64), right.astype(np.float64)
    cosine = np.sum(one * other, 1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    accuracies = []
    for i in range(10):
        train, test = folds != i, folds == i
        values = np.unique(cosine[train])
        cuts = [values[-1] + 1, *((values[1:] + values[:-1]) / 2)[::-1], values[0] - 1]  # from above
        best = max(cuts, key=lambda t: np.mean((cosine[train] > t) == same[train]))
        accuracies.append(np.mean((cosine[test] > best) == same[test]))
    found = score_pairs(left, right, same, folds, "cosine")
    assert found.verification.accuracy == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert -found.distance == pytest.approx(cosine, abs=1e-12)


def test_insightface_needs_no_normalised_features() -> None:
    left, right, same = features(300)
    scaled = score_pairs(left * 7, right, same, consecutive_folds(300))
    assert scored_equal(scaled.distance, score_pairs(left, right, same, consecutive_folds(300)).distance)
    one, other = (v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1)[:, None] for v in (left, right))
    assert scored_equal(scaled.distance, ((one - other) ** 2).sum(1))


def scored_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(one, other, rtol=0, atol=1e-6))


@pytest.mark.parametrize("protocol", ["insightface", "face_pytorch", "cosine"])
def test_the_curve_is_scikit_learns_and_the_wrong_pairs_are_those_of_the_accuracy(protocol: str) -> None:
    left, right, same = features(600, seed=3)
    scored = score_pairs(left, right, same, consecutive_folds(600), protocol)
    found = scored.verification
    fpr, tpr, _ = roc_curve(same, -scored.distance, drop_intermediate=False)
    assert found.auc == pytest.approx(roc_auc_score(same, -scored.distance), abs=1e-12)
    eer = brentq(lambda x: 1 - x - interp1d(fpr, tpr)(x), 0, 1)
    assert found.eer == pytest.approx(eer, abs=1e-9)
    for far, tar in found.tar_at_far.items():
        assert tar == max(t for f, t in zip(fpr, tpr, strict=True) if f <= float(far))
    assert 1 - scored.wrong.mean() == pytest.approx(found.accuracy, abs=1e-12)  # folds are equally long


@pytest.mark.parametrize("protocol", ["face_pytorch", "cosine"])
def test_val_is_taken_at_the_last_threshold_that_the_other_folds_allow(protocol: str) -> None:
    left, right, same = features(4000)
    folds = consecutive_folds(4000)
    found = score_pairs(left, right, same, folds, "cosine")
    vals, fars = [], []
    for i in range(10):
        train, test = folds != i, folds == i
        negatives = found.distance[train & ~same]
        best = max(t for t in np.unique(found.distance) if np.mean(negatives < t) <= 1e-3)
        vals.append(np.mean(found.distance[test & same] < best))
        fars.append(np.mean(found.distance[test & ~same] < best))
    assert found.verification.validation == pytest.approx(np.mean(vals), abs=1e-12)
    assert found.verification.validation_far == pytest.approx(np.mean(fars), abs=1e-12)
    few = score_pairs(left[:600], right[:600], same[:600], consecutive_folds(600), protocol).verification
    assert few.validation is None
    assert "validation" not in few.intervals


def test_rates_beyond_the_negatives_are_said_and_not_invented() -> None:
    left, right, same = features(4000)
    found = score_pairs(left, right, same, consecutive_folds(4000)).verification
    assert set(found.tar_at_far) == {"0.1", "0.01", "0.001"}
    assert found.negatives_needed == {"0.0001": 10_000, "1e-05": 100_000, "1e-06": 1_000_000}


def test_features_without_direction_and_unknown_protocols_are_refused() -> None:
    left, right, same = features(100)
    with pytest.raises(UsageError, match="one of insightface, face_pytorch, cosine"):
        score_pairs(left, right, same, consecutive_folds(100), "lfw")
    for value in (0.0, np.nan, np.inf):
        bad = left.copy()
        bad[7] = value
        with pytest.raises(RecordError, match=r"1 of 100 pairs \(first: pair 8\)"):
            score_pairs(bad, right, same, consecutive_folds(100))
    with pytest.raises(RecordError, match="equals the mean"):
        score_pairs(np.ones_like(left), np.ones_like(left), same, consecutive_folds(100), "face_pytorch")
    with pytest.raises(RecordError, match="one kind only"):
        score_pairs(left, right, np.arange(100) < 50, consecutive_folds(100), "cosine")


def test_the_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """300 samples of normal scores whose AUC, EER and TAR are known; 95 % of the intervals should hold them."""
    from statistics import NormalDist

    normal, apart, hits = NormalDist(), 2.0, np.zeros(4)
    truth = {
        "auc": normal.cdf(apart / 2**0.5),
        "eer": normal.cdf(-apart / 2),
        "tar": normal.cdf(normal.inv_cdf(0.01) + apart),
        "rate": 0.97,
    }
    trials = 300
    for seed in range(trials):
        generator = np.random.default_rng(seed)
        same = np.arange(1200) % 2 == 0
        distance = np.where(same, generator.normal(0, 1, 1200), generator.normal(apart, 1, 1200))
        fpr, tpr = roc(distance, same)
        auc = float((np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2).sum())
        spans = [
            (auc_interval(distance, same, auc), truth["auc"]),
            (eer_interval(distance, same, equal_error_rate(fpr, tpr)), truth["eer"]),
            (tar_interval(distance, same, 0.01), truth["tar"]),
            (wilson_interval(float((generator.random(500) < 0.97).mean()), 500), truth["rate"]),
        ]
        hits += [low <= value <= high for (low, high), value in spans]
    assert (hits / trials > 0.91).all(), hits / trials
    assert (hits / trials < 0.985).all(), hits / trials


def test_perfect_scores_get_intervals_that_are_no_points() -> None:
    left, right, same = features(200)
    right[same], right[~same] = left[same], -left[~same]
    found = score_pairs(left, right, same, consecutive_folds(200)).verification
    assert (found.accuracy, found.auc, found.eer) == (1.0, 1.0, 0.0)
    for name in ("accuracy", "auc", "tar@0.1"):
        low, high = found.intervals[name]
        assert 0.9 < low < 0.99
        assert high > 0.999
    assert 0 < found.intervals["eer"][1] < 0.06


def test_every_interval_holds_its_value() -> None:
    for seed in range(5):
        left, right, same = features(2000, seed=seed)
        for protocol in ("insightface", "face_pytorch", "cosine"):
            found = score_pairs(left, right, same, consecutive_folds(2000), protocol).verification
            values = {"accuracy": found.accuracy, "auc": found.auc, "eer": found.eer, "validation": found.validation}
            values |= {f"tar@{far}": tar for far, tar in found.tar_at_far.items()}
            for name, (low, high) in found.intervals.items():
                assert low <= values[name] <= high, (name, values[name], low, high)
