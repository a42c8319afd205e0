import json
from pathlib import Path

import numpy as np
import pytest

from dataprep.embeddings import search
from dataprep.embeddings.files import Features
from dataprep.embeddings.search import search_nearest
from dataprep.errors import ModelError, RecordError
from dataprep.evaluate.identification import megaface as identification
from dataprep.evaluate.identification.megaface import (
    IdentificationResult,
    _allowed,
    identify_probes,
    list_genuine_pairs,
)
from dataprep.evaluate.identification.megaface_lists import (
    FeatureList,
    append_noise_column,
    find_noisy,
    read_feature_list,
    read_noises,
    refine_probes,
)


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return rows / np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)).astype(np.float32)[:, None]


def features(rows: object) -> Features:
    return Features(Path("distractors.npy"), np.asarray(rows, np.float32))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one.astype(np.float64) @ other.astype(np.float64).T).astype(np.float32)


def drawn(
    people: int, each: int, distractors: int, dim: int = 16, seed: int = 0
) -> tuple[np.ndarray, list[str], np.ndarray]:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(people, dim))
    probes = np.repeat(centres, each, axis=0) + 0.8 * generator.normal(size=(people * each, dim))
    return (
        unit(probes),
        [f"p{i}" for i in np.repeat(np.arange(people), each)],
        generator.normal(size=(distractors, dim)),
    )


def check(found: IdentificationResult, probes: np.ndarray, identities: list[str], distractors: np.ndarray) -> None:
    """Ranks in loops over all pairs, and rates at the thresholds that the sorted list of all negatives gives."""
    scores, own = cosines(probes, distractors), cosines(probes, probes)
    ranks, positives = [], []
    for i, one in enumerate(identities):
        for j, other in enumerate(identities):
            if i != j and one == other:
                ranks.append(1 + int((scores[i] >= own[i, j]).sum()))
                positives.append(own[i, j])
    assert found.rank == {str(r): float(np.mean(np.array(ranks) <= r)) for r in identification.MEGAFACE_RANKS}
    falling = np.sort(scores.ravel())[::-1]
    rates = {fpr: int(fpr * len(falling) + 1e-6) for fpr in identification.MEGAFACE_FPRS}
    assert found.tar_at_fpr == {
        f"{fpr:g}": float(np.mean(np.array(positives) > falling[allowed])) for fpr, allowed in rates.items() if allowed
    }


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_READ", 700)
    monkeypatch.setattr(search, "_BLOCK", 128)
    monkeypatch.setattr(search._NumpyFilter, "step", 128)
    monkeypatch.setattr(search._TorchFilter, "step", 128)
    monkeypatch.setattr(search, "_PROBES", 50)
    monkeypatch.setattr(search, "_WAITING", 3000)
    monkeypatch.setattr(identification, "MEGAFACE_FPRS", (1e-4, 1e-3, 1e-2))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [8, 1])
@pytest.mark.parametrize("device", ["cpu", "torch-cpu"])
@pytest.mark.usefixtures("small_blocks")
def test_ranks_and_rates_are_brute_force_to_the_last_digit(
    monkeypatch: pytest.MonkeyPatch, seed: int, decimals: int, device: str
) -> None:
    if device == "torch-cpu":  # the way of the GPU, on torch's CPU
        monkeypatch.setattr(search, "_NumpyFilter", lambda probes, threads: search._TorchFilter(probes, "cpu"))
    probes, identities, distractors = drawn(23, 5, 3001, dim=4 if decimals == 1 else 16, seed=seed)
    probes, distractors = unit(np.round(probes, decimals)), np.round(distractors, decimals)  # one decimal: many ties
    distractors = distractors[distractors.any(axis=1)]
    found = identify_probes(probes, identities, features(distractors))
    check(found, probes, identities, unit(distractors))
    assert found.negatives == 115 * len(distractors)
    assert (found.searches, found.positives) == (23 * 20, 23 * 10)


@pytest.mark.usefixtures("small_blocks")
def test_distractors_in_the_worst_order_are_counted_too() -> None:
    probes, identities, distractors = drawn(10, 4, 2000)
    near = cosines(probes, unit(distractors)).max(axis=0)
    for order in (np.argsort(near), np.argsort(-near)):
        check(identify_probes(probes, identities, features(distractors[order])), probes, identities, unit(distractors))


def test_ties_count_against_the_probe() -> None:
    """The mate at cosine 0.8, and one distractor at exactly the same place: rank 2, not 1."""
    probes = unit([[1, 0], [4, 3]])
    found = identify_probes(probes, ["a", "a"], features([[4, 3], [-1, 0], [0, -1]]))
    # the first search ties with (4, 3); in the second, the probe (4, 3) meets its own double at cosine 1
    assert found.rank == {"1": 0.0, "10": 1.0, "100": 1.0}
    found = identify_probes(probes, ["a", "a"], features([[4, 3.01], [-1, 0], [0, -1]]))
    assert found.rank["1"] == 0.5
    assert found.tar_at_fpr == {}


def test_a_positive_that_ties_with_the_first_refused_negative_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive scores 0.8; the four negatives 1, 0.8, 0.8 and 0.28."""
    monkeypatch.setattr(identification, "MEGAFACE_FPRS", (0.25, 0.5, 0.75))
    found = identify_probes(unit([[1, 0], [4, 3]]), ["a", "a"], features([[4, -3], [1, 0]]))
    assert found.tar_at_fpr == {"0.25": 0.0, "0.5": 0.0, "0.75": 1.0}


def test_a_rate_allows_only_whole_negatives() -> None:
    assert [_allowed(1e-6, n) for n in (999_999, 1_000_000, 2_999_999_999, 3_000_000_000)] == [0, 1, 2999, 3000]
    assert [_allowed(1e-3, 29_000), _allowed(0.29, 100)] == [29, 29]


def test_a_score_that_rounds_to_minus_zero_ties_with_zero() -> None:
    found = search_nearest(np.array([[1, 1e-25, 0]], np.float32), features([[0, -1e-25, 1], [0, 0, 1]]), keep=2)
    assert found.rows.tolist() == [[0, 1]]


@pytest.mark.parametrize("scale", [1, 2, 0.125, 1024])
def test_equal_directions_tie_whatever_their_length_or_place(scale: float) -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(2, 512)).astype(np.float32)
    rows[1] += rows[0]
    distractors = generator.normal(size=(2000, 512)).astype(np.float32)
    for place in (0, 777, 1999):
        distractors[place] = rows[1] * np.float32(scale)
        assert identify_probes(unit(rows), ["a", "a"], features(distractors)).rank["1"] == 0.0
        distractors[place] = -rows[1]
        assert identify_probes(unit(rows), ["a", "a"], features(distractors)).rank["1"] == 1.0


def test_only_the_first_distractors_are_searched() -> None:
    probes, identities, distractors = drawn(10, 3, 500)
    found = identify_probes(probes, identities, features(distractors), size=100)
    assert found.distractors == 100
    check(found, probes, identities, unit(distractors[:100]))
    with pytest.raises(RecordError, match="holds 500 distractors, not 501"):
        identify_probes(probes, identities, features(distractors), size=501)


def test_unusable_features_stop_or_are_counted() -> None:
    probes, identities, distractors = drawn(5, 3, 60)
    distractors[7] = 0
    with pytest.raises(RecordError, match=r"distractors\.npy: row 7 is all zeros"):
        identify_probes(probes, identities, features(distractors))
    present = np.ones(15, np.bool_)
    present[4] = False
    found = identify_probes(probes, identities, features(distractors), present=present, exclude_missing=True)
    assert (found.distractors, found.distractors_excluded, found.probes_excluded) == (59, 1, 1)
    rest = np.delete(np.arange(15), 4)
    check(found, probes[rest], [identities[i] for i in rest], unit(np.delete(distractors, 7, axis=0)))
    distractors[9, 3] = np.inf
    with pytest.raises(RecordError, match="row 9 holds NaN or infinity"):
        identify_probes(probes, identities, features(distractors), exclude_missing=True)
    with pytest.raises(RecordError, match="no person has two"):
        identify_probes(probes[:3], ["a", "b", "c"], features(distractors[:5]))


def test_the_nearest_rows_come_in_order_with_ties_by_row(small_blocks: None) -> None:
    generator = np.random.default_rng(1)
    rows = np.round(generator.normal(size=(1500, 3)), 1)
    rows = rows[rows.any(axis=1)]
    probes = unit(generator.normal(size=(60, 3)))
    found = search_nearest(probes, features(rows), keep=9)
    scores = cosines(probes, unit(rows))
    order = np.lexsort((np.broadcast_to(np.arange(len(rows)), scores.shape), -scores), axis=1)[:, :9]
    assert found.rows.tolist() == order.tolist()
    assert found.scores.tolist() == np.take_along_axis(scores, order, axis=1).tolist()
    few = search_nearest(probes, features(rows[:4]), keep=9)
    assert few.rows[:, 4:].tolist() == [[-1] * 5] * 60
    assert np.isneginf(few.scores[:, 4:]).all()
    assert few.rows[:, :4].min() == 0


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="device nonsense"):
        search_nearest(unit(np.ones((1, 3))), features(np.ones((2, 3))), keep=1, device="nonsense")


def test_the_device_is_chosen_where_none_is_named() -> None:
    probes, rows = unit(np.eye(3)), features(np.eye(3))
    assert search_nearest(probes, rows, keep=1, device="auto").rows.ravel().tolist() == [0, 1, 2]


def test_pairs_of_one_person() -> None:
    left, right, people = list_genuine_pairs(["b", "a", "b", "c", "b"])
    assert people == 3
    assert sorted(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 2), (0, 4), (2, 4)]


def l2_ranks(probes: np.ndarray, identities: list[str], distractors: np.ndarray) -> list[int]:
    """The devkit's: L2 distances of the files that remove_noises.py wrote, d + 1 values each."""
    far = ((probes[:, None].astype(np.float64) - distractors[None]) ** 2).sum(axis=2)
    own = ((probes[:, None].astype(np.float64) - probes[None]) ** 2).sum(axis=2)
    return [
        1 + int((far[i] <= own[i, j]).sum())
        for i, one in enumerate(identities)
        for j, other in enumerate(identities)
        if i != j and one == other
    ]


def test_the_refined_protocol_ranks_as_the_devkit_does_on_extended_features() -> None:
    probes, identities, distractors = drawn(20, 4, 400, dim=6, seed=5)
    distractors[:40] = probes[:40] + 0.01  # people of the probes among the distractors
    noise, others = np.zeros(80, np.bool_), np.arange(400) < 35
    noise[[3, 17, 18]] = True
    listed = FeatureList(names=tuple(map(str, range(80))), identities=tuple(identities))
    refined = refine_probes(probes, listed, noise, seed=1)
    found = identify_probes(refined, identities, features(distractors), pushed_away=others)
    ranks = l2_ranks(append_noise_column(refined), identities, append_noise_column(unit(distractors), others))
    assert found.rank == {str(r): float(np.mean(np.array(ranks) <= r)) for r in (1, 10, 100)}
    assert (found.distractors, found.distractors_pushed_away, found.negatives) == (400, 35, 80 * 400)
    plain = identify_probes(probes, identities, features(distractors))
    assert plain.rank["1"] < found.rank["1"]


def test_noisy_probes_become_their_persons_centre() -> None:
    probes = unit([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    listed = FeatureList(names=tuple("abcde"), identities=("x", "x", "x", "y", "y"))
    noise = np.array([False, False, True, False, False])
    out = refine_probes(probes, listed, noise, seed=3)
    assert out[[0, 1, 3, 4]].tolist() == probes[[0, 1, 3, 4]].tolist()
    assert out[2] == pytest.approx([0.5**0.5, 0.5**0.5, 0], abs=2e-3)
    assert out[2, 2] != 0  # disturbed
    assert np.linalg.norm(out[2]) == pytest.approx(1)
    assert (out == refine_probes(probes, listed, noise, seed=3)).all()
    assert (out != refine_probes(probes, listed, noise, seed=4)).any()
    with pytest.raises(RecordError, match="all photos of y are noise"):
        refine_probes(probes, listed, np.array([False, False, False, True, True]))
    written = append_noise_column(probes, noise)
    assert written.shape == (5, 4)
    assert written[:, 3].tolist() == [0, 0, 100, 0, 0]


def test_lists_and_noises_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"path": ["A/a_1.png", "B/b_2.png"], "id": ["A", 7]}))
    assert read_feature_list(path) == FeatureList(names=("A/a_1.png", "B/b_2.png"), identities=("A", "7"))
    path.write_text(json.dumps({"path": ["534/x/1.jpg"]}))
    assert read_feature_list(path).identities == ("x",)
    path.write_text(json.dumps(["facescrub/A/1.png", "facescrub/B/2.png", "3.png"]))
    assert read_feature_list(path, people=True).identities == ("A", "B", "3.png")
    path.write_text("a\u2028b/1.png\nc/2.png\n")
    assert read_feature_list(path).names == ("a\u2028b/1.png", "c/2.png")
    path.write_text("faces/A_1.png\nfaces/B_1.png\n")
    assert len(read_feature_list(path).names) == 2  # distractors may lie in one folder
    with pytest.raises(RecordError, match="all 2 files are in one folder, 'faces'"):
        read_feature_list(path, people=True)
    path.write_text("A/a_1.png\n\nB/b_2.png\n")
    assert read_feature_list(path) == FeatureList(names=("A/a_1.png", "B/b_2.png"), identities=("A", "B"))
    for text, said in {
        "{": "not JSON",
        "[" * 200_000: "not JSON",
        '["a", 1]': "must be a non-empty list of names",
        '{"path": []}': "must be a non-empty list of names",
        '{"path": ["a"], "id": []}': "one identity for each of the 1",
        "a\na\n": "1 names occur more than once",
    }.items():
        path.write_text(text)
        with pytest.raises(RecordError, match=said):
            read_feature_list(path)
    noises = tmp_path / "noises.txt"
    noises.write_text("# found by hand\na_1.png\n17\t534/x/1.jpg\n")
    found = read_noises(noises)
    assert found == {"a_1.png", "534/x/1.jpg"}
    assert find_noisy(["A/a_1.png", "B/b_2.png"], found, parts=1).tolist() == [True, False]
    assert find_noisy(["megaface/534/x/1.jpg", "535/x/1.jpg"], found, parts=3).tolist() == [True, False]
    noises.write_text("# nothing\n")
    with pytest.raises(RecordError, match="no names are listed"):
        read_noises(noises)
