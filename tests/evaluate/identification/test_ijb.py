from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from dataprep.errors import RecordError
from dataprep.evaluate.identification import one_to_one
from dataprep.evaluate.identification.ijb import (
    Subjects,
    TemplatePairs,
    find_ijb_protocol,
    list_meta_files,
    read_subjects,
    read_template_media,
    read_template_pairs,
)
from dataprep.evaluate.identification.one_to_many import search_templates
from dataprep.evaluate.identification.one_to_one import _packed, pair_scores, tar_at_fars, verify_templates
from dataprep.evaluate.identification.templates import Templates

POINTS = "46.060 62.026 87.785 60.323 68.851 77.656 52.162 99.875 86.450 98.648"


def write_meta(folder: Path, faces: str = "1.jpg 1 69544\n2.jpg 2 5\n", pairs: str = "1 2 1\n2 1 0\n") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "ijbc_face_tid_mid.txt").write_text(faces)
    scores = "".join(f"{line.split(' ')[0]} {POINTS} 0.999\n" for line in faces.splitlines())
    (folder / "ijbc_name_5pts_score.txt").write_text(scores)
    (folder / "ijbc_template_pair_label.txt").write_text(pairs)


def unit(vectors: object, present: list[bool] | None = None) -> Templates:
    rows = np.array(vectors, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return Templates(
        number=np.arange(1, len(rows) + 1, dtype=np.int32),
        vectors=rows / np.where(norms > 0, norms, 1),
        present=np.array(present or [True] * len(rows)),
        faces=len(rows),
        zero_faces=0,
    )


def pairs_of(left: list[int], right: list[int], same: list[int]) -> TemplatePairs:
    return TemplatePairs(
        left=np.array(left, np.int32), right=np.array(right, np.int32), issame=np.array(same, np.bool_)
    )


def at_angle(*cosines: float) -> list[list[float]]:
    return [[c, (1 - c * c) ** 0.5] for c in cosines]


def test_the_meta_files_are_read(tmp_path: Path) -> None:
    write_meta(tmp_path)
    assert find_ijb_protocol(tmp_path) == "ijbc"
    files = list_meta_files(tmp_path, "ijbc", one_to_many=False)
    faces = read_template_media(*files[:2])
    assert faces.template.tolist() == [1, 2]
    assert faces.media.tolist() == [69544, 5]
    assert faces.score.tolist() == pytest.approx([0.999, 0.999])
    pairs = read_template_pairs(files[2])
    assert (pairs.left.tolist(), pairs.right.tolist(), pairs.issame.tolist()) == ([1, 2], [2, 1], [True, False])
    with pytest.raises(RecordError, match="no ijbb_face_tid_mid"):
        find_ijb_protocol(tmp_path, "ijbb")
    with pytest.raises(RecordError, match="no ijbb_ or ijbc_"):
        find_ijb_protocol(tmp_path / "none")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 2", "line 2: 2 fields"),
        ("1 2 1 1", "line 2: 4 fields"),
        ("1  2 1", "line 2: 4 fields"),
        ("", "line 2: 1 fields"),
        ("1 x 1", "line 2: second template: 'x' is not a number"),
        ("1 2.0 1", "line 2: second template: '2.0' is not a number"),
        ("99999999999 2 1", "line 2: first template: 99999999999 is out of range"),
        ("1 2 ", "line 2: label: '' is not a number"),
        ("1 2 NA", "line 2: label: 'NA' is not a number"),
        ("1 2 2", "line 2: label: 2 is neither 0 nor 1"),
    ],
)
def test_a_malformed_pair_is_named_with_line_and_field(tmp_path: Path, line: str, said: str) -> None:
    write_meta(tmp_path, pairs=f"1 2 1\n{line}\n2 1 0\n")
    with pytest.raises(RecordError, match=said) as error:
        read_template_pairs(tmp_path / "ijbc_template_pair_label.txt")
    assert "ijbc_template_pair_label.txt" in str(error.value)


def test_malformed_faces_scores_and_orders_are_named(tmp_path: Path) -> None:
    write_meta(tmp_path)
    one, other = tmp_path / "ijbc_face_tid_mid.txt", tmp_path / "ijbc_name_5pts_score.txt"
    good = other.read_text()
    lines = good.splitlines()
    for text, said in {
        "\n".join(reversed(lines)): r"line 1 is '2\.jpg', but ijbc_face_tid_mid\.txt has '1\.jpg'",
        lines[0]: "lists 2 faces.*lists 1",
        good.replace("0.999", "nan", 1): "line 1: score: nan is not a detector score",
        good.replace("87.785", "wide", 1): "line 1: x2: 'wide' is not a number",
        good.replace(" 46.060", "", 1): "line 1: 11 fields",
    }.items():
        other.write_text(text + "\n" * (not text.endswith("\n")))
        with pytest.raises(RecordError, match=said):
            read_template_media(one, other)
    one.write_text("")
    with pytest.raises(RecordError, match="is empty"):
        read_template_media(one, other)
    one.unlink()
    with pytest.raises(RecordError, match="no such file"):
        read_template_media(one, other)


def test_pairs_of_one_kind_only_are_refused(tmp_path: Path) -> None:
    write_meta(tmp_path, pairs="1 2 1\n")
    with pytest.raises(RecordError, match="pairs are of one kind"):
        read_template_pairs(tmp_path / "ijbc_template_pair_label.txt")


def test_galleries_may_repeat_a_template_but_not_change_its_subject(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n7,3,a.jpg\n5,1,b.jpg\n7,3,c.jpg\n")
    found = read_subjects(path, "g")
    assert (found.template.tolist(), found.subject.tolist()) == ([5, 7], [1, 3])
    for line, said in {"7,4,d.jpg": "line 5: subject", "x,4": "line 5: template: 'x'", "7": "line 5: 1 fields"}.items():
        path.write_text(f"T,S\n7,3\n5,1\n7,3\n{line}\n")
        with pytest.raises(RecordError, match=said):
            read_subjects(path, "g")


def test_a_field_that_no_csv_holds_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gallery.csv"
    path.write_text("T,S\n7,3\n" + "8" * 200_000 + ",3\n")
    with pytest.raises(RecordError, match=r"gallery\.csv: line 3: not valid CSV"):
        read_subjects(path, "g")


@pytest.mark.parametrize("block", [1 << 26, 4096])
@pytest.mark.parametrize("dense", [True, False])
def test_pair_scores_are_the_products_however_they_are_made(
    monkeypatch: pytest.MonkeyPatch, block: int, dense: bool
) -> None:
    monkeypatch.setattr(one_to_one, "_BLOCK_BYTES", block)
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(300, 16))
    count = 5000 if dense else 500
    left, right = generator.integers(0, 300, (2, count))
    if not dense:
        left, right = np.arange(0, 280) % 299, np.arange(1, 281) % 300
    same = generator.random(len(left)) < 0.3
    order = np.lexsort((same, right, left))
    expected = np.round((vectors[left] * vectors[right]).sum(axis=1), 12)[order]
    for given in (np.arange(len(left)), order, order[::-1]):
        scores, labels = pair_scores(vectors, left[given], right[given], same[given])
        assert np.abs(scores - expected).max() < 3e-12
        assert (np.round(scores, 12) == scores).all()
        assert labels.tolist() == same[order].tolist()


def test_pairs_are_packed_into_as_many_bits_as_they_need() -> None:
    left, right, same = np.array([0, 69_999]), np.array([1, 69_998]), np.array([True, False])
    assert _packed(left, right, same, 70_000, 70_000).tolist() == [3, 2 * (69_999 * 70_000 + 69_998)]
    assert _packed(left, right, same, 70_000, 70_000).dtype == np.uint64
    assert _packed(left[:1], right[:1], same[:1], 1 << 15, 1 << 16).dtype == np.uint64
    assert _packed(left[:1], right[:1], same[:1], 1 << 15, (1 << 16) - 1).dtype == np.uint32


def theirs(scores: np.ndarray, same: np.ndarray, far: float) -> float:
    """The table of ijb_11.py."""
    fpr, tpr, _ = roc_curve(same, scores)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    _, index = min(zip(abs(fpr - far), range(len(fpr)), strict=True))
    return float(tpr[index])


@pytest.mark.parametrize("decimals", [16, 2, 1])
def test_tar_at_far_is_scikit_learns_by_both_rules_with_ties(decimals: int) -> None:
    generator = np.random.default_rng(decimals)
    same = generator.random(30_000) < 0.1
    scores = np.round(generator.normal(same * 1.5, 1), decimals)
    exact, nearest = tar_at_fars(scores, same)
    assert set(exact) == set(nearest) == {"0.0001", "0.001", "0.01", "0.1"}
    fpr, tpr, _ = roc_curve(same, scores, drop_intermediate=False)
    for far in exact:
        assert exact[far] == tpr[fpr <= float(far)].max()
        assert nearest[far] == theirs(scores, same, float(far))
    assert exact != nearest


@pytest.mark.parametrize("top", [0, 10, 50, 59, 60])
def test_tar_at_far_is_scikit_learns_where_long_runs_are_of_one_kind(top: int) -> None:
    """All positives but the last ones above every negative: roc_curve leaves out what lies between."""
    scores = np.arange(20_000, 0, -1.0)
    same = np.zeros(20_000, np.bool_)
    same[:top] = True
    same[20_000 - (60 - top) :] = True
    exact, nearest = tar_at_fars(scores, same)
    fpr, tpr, _ = roc_curve(same, scores, drop_intermediate=False)
    for far in exact:
        assert exact[far] == tpr[fpr <= float(far)].max()
        assert nearest[far] == theirs(scores, same, float(far))


def test_one_to_one_by_hand_with_a_tie() -> None:
    """Template 1 against 2 to 5 at cosines 0.9 (same), 0.5 (same), 0.5 and 0.1: the tie at 0.5 costs the conservative
    rule, since FAR 0.1 of two negatives allows none."""
    templates = unit([[1, 0], *at_angle(0.9, 0.5, 0.5, 0.1)])
    found = verify_templates(templates, pairs_of([1, 1, 1, 1], [2, 3, 4, 5], [1, 1, 0, 0]))
    assert (found.pairs, found.positives) == (4, 2)
    assert found.tar_at_far == {}  # two negatives cannot show a rate of 0.1
    many = unit([[1, 0], *at_angle(0.9, 0.5), *at_angle(0.5, *np.linspace(-0.5, 0.3, 19))])
    found = verify_templates(many, pairs_of([1] * 22, list(range(2, 24)), [1, 1] + [0] * 20))
    assert found.tar_at_far == {"0.1": 1.0}
    found = verify_templates(many, pairs_of([1] * 12, list(range(2, 14)), [1, 1] + [0] * 10))
    assert found.tar_at_far == {"0.1": 1.0}
    three = unit([[1, 0], *at_angle(0.9, 0.5), *at_angle(0.6, 0.5, *np.linspace(-0.5, 0.3, 8))])
    found = verify_templates(three, pairs_of([1] * 12, list(range(2, 14)), [1, 1] + [0] * 10))
    assert found.tar_at_far == {"0.1": 0.5}  # 0.5 would accept two of ten


def test_templates_without_faces_stop_or_are_counted() -> None:
    templates = unit([[1, 0], [0, 0], *at_angle(0.9, 0.1)], [True, False, True, True])
    pairs = pairs_of([1, 1, 1, 1], [2, 3, 4, 99], [1, 1, 0, 0])
    with pytest.raises(RecordError, match="pair 1 names template 2, which has no face; so do 1 others"):
        verify_templates(templates, pairs)
    found = verify_templates(templates, pairs, exclude_missing=True)
    assert (found.pairs, found.pairs_excluded, found.positives, found.positives_excluded) == (2, 2, 1, 1)
    assert found.templates_without_faces == 2
    with pytest.raises(RecordError, match="pairs left are all of one kind"):
        verify_templates(templates, pairs_of([1, 1], [2, 3], [1, 1]), exclude_missing=True)


def subjects(name: str, template: list[int], subject: list[int]) -> Subjects:
    return Subjects(name=name, template=np.array(template, np.int32), subject=np.array(subject, np.int32))


def test_one_to_many_by_hand() -> None:
    """Gallery A: subjects 1 and 2 on the axes; B: subject 3 on the third. Probe 4 is nearest to its mate 1; probe 5 of
    subject 2 lies between 1 and 2, and a tie counts against it; probe 6 is its mate 3 exactly."""
    templates = unit([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.9, 0.1, 0], [1, 1, 0], [0, 0, 2]])
    found = search_templates(
        templates,
        [subjects("A", [1, 2], [1, 2]), subjects("B", [3], [3])],
        subjects("probes", [4, 5, 6], [1, 2, 3]),
    )
    assert found.rank == {"1": pytest.approx(2 / 3), "5": 1.0, "10": 1.0}
    one, other = found.galleries
    assert (one.mated, one.impostors, one.rank["1"]) == (2, 1, 0.5)
    assert (other.mated, other.impostors, other.rank["1"]) == (1, 2, 1.0)
    assert one.tpir_at_fpir == {}  # one impostor shows no rate of 0.1


def brute_force(
    scores: np.ndarray, gallery: np.ndarray, probes: np.ndarray, fpir: float
) -> tuple[dict[int, float], float, float]:
    """Ranks, the largest TPIR at an FPIR of at most `fpir` over all thresholds, and ijb_evals.py's, in loops."""
    ranks, good, impostors = [], [], []
    for row, subject in zip(scores, probes, strict=True):
        if subject in gallery:
            mate = int(np.flatnonzero(gallery == subject)[0])
            others = np.delete(row, mate)
            ranks.append(1 + int((others >= row[mate]).sum()))
            good.append((row[mate], row[mate] > others.max()))
        else:
            impostors.append(row.max())
    best = 0.0
    for threshold in [-np.inf, *np.unique(scores)]:
        if np.mean(np.array(impostors) > threshold) <= fpir:
            best = max(best, float(np.mean([first and own > threshold for own, first in good])))
    threshold = sorted(impostors, reverse=True)[max(int(len(impostors) * fpir) - 1, 0)]
    evals = float(np.mean([first and own > threshold for own, first in good]))
    return {rank: float(np.mean(np.array(ranks) <= rank)) for rank in (1, 5, 10)}, best, evals


def test_one_to_many_is_brute_force_in_both_galleries_and_their_union(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataprep.evaluate.identification.one_to_many._PROBES", 64)
    generator = np.random.default_rng(3)
    people = generator.normal(size=(60, 6))
    gallery, probe = np.arange(60), generator.integers(0, 60, 500)
    rows = np.round(np.concatenate([people, people[probe] + 0.7 * generator.normal(size=(500, 6))]), 1)  # some ties
    templates = unit(rows)
    first, second = np.split(generator.permutation(gallery), [35])
    found = search_templates(
        templates,
        [subjects("A", (first + 1).tolist(), first.tolist()), subjects("B", (second + 1).tolist(), second.tolist())],
        subjects("probes", list(range(61, 561)), probe.tolist()),
    )
    scores = np.round(templates.vectors[60:] @ templates.vectors[:60].T, 12)
    for chosen, search in zip((first, second), found.galleries, strict=True):
        for fpir in (0.01, 0.1):
            ranks, best, evals = brute_force(scores[:, chosen], chosen, probe, fpir)
            assert search.rank == {str(k): pytest.approx(v) for k, v in ranks.items()}
            assert search.tpir_at_fpir[f"{fpir:g}"] == pytest.approx(best)
            assert search.tpir_at_fpir_ijb_evals[f"{fpir:g}"] == pytest.approx(evals)
    ranks, _, _ = brute_force(np.c_[scores, np.full(500, -2)], np.r_[gallery, 99], np.r_[probe[:499], 98], 0.5)
    own = scores[np.arange(500), probe]
    assert found.rank["1"] == pytest.approx(np.mean((scores >= own[:, None]).sum(1) == 1))
    wrong = np.sort(scores[np.arange(60) != probe[:, None]])[::-1]
    for fpir, place in {"0.01": 5, "0.1": 50}.items():  # ijb_1n.py: the ceil(500 * x)-th highest of all wrong scores
        assert found.tpir_at_fpir_ijb_1n[fpir] == pytest.approx(np.mean(own > wrong[place - 1]))
    for fpir in ("0.01", "0.1"):
        assert found.mean_tpir_at_fpir[fpir] == pytest.approx(np.mean([g.tpir_at_fpir[fpir] for g in found.galleries]))


def test_galleries_with_two_templates_of_a_subject_or_without_faces() -> None:
    templates = unit([[1, 0], [0, 1], [1, 1], [0, 0]], [True, True, True, False])
    probes = subjects("probes", [3], [1])
    with pytest.raises(RecordError, match="A, B: subject 1 has more than one template"):
        search_templates(templates, [subjects("A", [1], [1]), subjects("B", [2], [1])], probes)
    galleries = [subjects("A", [1, 4], [1, 2]), subjects("B", [2], [3])]
    with pytest.raises(RecordError, match="A: template 4 has no face"):
        search_templates(templates, galleries, probes)
    probes = subjects("probes", [1, 2, 3, 4], [1, 2, 3, 3])  # the mate of 2 is excluded; 4 has no face itself
    found = search_templates(templates, galleries, probes, exclude_missing=True)
    assert (found.probes, found.probes_excluded, found.gallery_templates_excluded) == (2, 2, 1)
    with pytest.raises(RecordError, match="no probe has a mate"):
        search_templates(templates, [galleries[1]], subjects("probes", [3], [9]))
