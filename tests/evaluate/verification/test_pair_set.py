import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dataprep.embeddings.dumps import write_npy, write_parquet
from dataprep.embeddings.files import read_features
from dataprep.errors import RecordError
from dataprep.evaluate.verification.bin_tools import build_bin, inspect_bin, unpack_bin
from dataprep.evaluate.verification.pair_set import (
    VerificationSet,
    find_verification_set,
    open_verification_set,
    select_pair_features,
)
from dataprep.evaluate.verification.protocols import score_pairs
from dataprep.evaluate.verification.scoring import ScoringOptions, _version, score_features
from dataprep.imaging.codec import encode_jpeg, encode_png
from dataprep.packs.verification_bin import read_bin, write_bin


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Four people with three photos, one of the files a PNG."""
    for person in range(4):
        for photo in range(1, 4):
            pixels = np.full((112, 112, 3), 40 * person + 3 * photo, np.uint8)
            png = person == photo == 1
            path = tmp_path / f"faces/P{person}/P{person}_{photo:04d}{'.png' if png else '.jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(pixels) if png else encode_jpeg(pixels))
    return tmp_path / "faces"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    lines = ["10\t1"]
    for fold in range(10):
        lines += [f"P{fold % 4}\t1\t{2 + fold // 4 % 2}", f"P{fold % 4}\t1\tP{(fold + 1) % 4}\t2"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "pairs.txt"


def test_pairs_txt_finds_files_of_any_suffix_and_knows_the_people(faces: Path, pairs: Path) -> None:
    chosen = open_verification_set(pairs, images=faces)
    assert len(chosen) == 20
    assert len(chosen.images) == len(set(chosen.names)) == 12
    png = chosen.names.index("P1/P1_0001")
    assert chosen.images[png].startswith(b"\x89PNG")
    assert chosen.identities is not None
    assert set(chosen.identities) == {"P0", "P1", "P2", "P3"}
    for left, right, same in zip(chosen.left, chosen.right, chosen.issame, strict=True):
        assert (chosen.identities[left] == chosen.identities[right]) == same


def test_missing_files_are_named_or_cost_their_pairs(faces: Path, pairs: Path) -> None:
    (faces / "P2/P2_0003.jpg").unlink()
    with pytest.raises(RecordError, match=r"1 of 12 images are not under .*P2/P2_0003") as caught:
        open_verification_set(pairs, images=faces)
    assert "--skip-missing" in caught.value.hint
    chosen = open_verification_set(pairs, images=faces, skip_missing=True)
    hit = [line for line in pairs.read_text().splitlines()[1:] if line == "P2\t1\t3"]
    assert chosen.skipped_pairs == 20 - len(chosen) == len(hit)
    assert chosen.skipped == ("P2/P2_0003: no such file",)
    assert chosen.fold.tolist() == [fold for i, fold in enumerate(sorted([*range(10)] * 2)) if i != 12]  # as they were


def test_sets_are_found_by_name_in_the_workspace(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"bins/agedb_30\.bin"):
        find_verification_set("AgeDB-30", tmp_path)
    (tmp_path / "bins").mkdir()
    (tmp_path / "bins/agedb_30.bin").write_bytes(b"")
    assert find_verification_set("AgeDB-30", tmp_path) == tmp_path / "bins/agedb_30.bin"
    with pytest.raises(RecordError, match="no such verification set"):
        find_verification_set("other", tmp_path)


def test_a_folder_of_a_sets_name_is_not_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bins").mkdir()
    (tmp_path / "bins/lfw.bin").write_bytes(b"")
    (tmp_path / "lfw").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_verification_set("lfw", tmp_path) == tmp_path / "bins/lfw.bin"


def test_a_bin_built_from_pairs_holds_the_files_bytes_and_unpacks_to_them(
    faces: Path, pairs: Path, tmp_path: Path
) -> None:
    report = build_bin(open_verification_set(pairs, images=faces), tmp_path / "lfw.bin")
    images, same = read_bin(tmp_path / "lfw.bin")
    assert (report.pairs, report.positives, report.distinct) == (20, 10, 12)
    assert report.forms.keys() == {"112x112 jpeg", "112x112 png"}
    assert report.one_kind == []
    assert images[0] == (faces / "P0/P0_0001.jpg").read_bytes()
    assert images[3] == (faces / "P1/P1_0002.jpg").read_bytes()
    listed = unpack_bin(tmp_path / "lfw.bin", tmp_path / "out")
    assert listed.name == "lfw_pair.txt"
    assert listed.read_text().splitlines()[:3] == [
        "00001.jpg 00002.jpg 1",
        "00003.jpg 00004.jpg -1",
        "00005.png 00006.jpg 1",
    ]
    again = open_verification_set(listed)
    assert again.issame.tolist() == same.tolist()
    assert [again.images[i] for i in again.left] == images[0::2]
    with pytest.raises(RecordError, match="already exists"):
        unpack_bin(tmp_path / "lfw.bin", tmp_path / "out")


def test_the_folds_of_a_csv_are_those_of_its_bin(faces: Path, tmp_path: Path) -> None:
    rows = [(f"P{i % 4}/P{i % 4}_0001", f"P{i % 4}/P{i % 4}_0002", 1, i % 10) for i in range(20)]
    rows += [(f"P{i % 4}/P{i % 4}_0001", f"P{(i + 1) % 4}/P{(i + 1) % 4}_0003", 0, i % 10) for i in range(20)]

    def listed(rows: list[tuple[str, str, int, int]]) -> Path:
        (tmp_path / "p.csv").write_text("left,right,same,fold\n" + "".join(f"{a},{b},{s},{f}\n" for a, b, s, f in rows))
        return tmp_path / "p.csv"

    chosen = open_verification_set(listed(rows), images=faces)
    assert build_bin(chosen, tmp_path / "x.bin").refolded == 0
    built = open_verification_set(tmp_path / "x.bin")

    def by_fold(found: VerificationSet) -> list[tuple[int, bytes, bytes, bool]]:
        sides = [[found.images[i] for i in side] for side in (found.left, found.right)]
        return sorted(zip(found.fold.tolist(), *sides, found.issame.tolist(), strict=True))

    assert by_fold(built) == by_fold(chosen)
    assert build_bin(open_verification_set(listed(rows[:-1]), images=faces), tmp_path / "x.bin").refolded == 0
    assert build_bin(open_verification_set(listed(rows[1:]), images=faces), tmp_path / "x.bin").refolded == 9


def test_a_bin_of_pages_and_one_kind_folds_is_seen(tmp_path: Path) -> None:
    write_bin(tmp_path / "x.bin", [b"<html>"] * 40, [True] * 20)
    report = inspect_bin(tmp_path / "x.bin")
    assert report.forms == {"unreadable (html)": 40}
    assert report.one_kind == list(range(1, 11))
    with pytest.raises(RecordError, match="image 00001 is html"):
        unpack_bin(tmp_path / "x.bin", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def dumped(tmp_path: Path, count: int = 400) -> tuple[np.ndarray, Path]:
    """A .bin of 200 pairs and features that tell most of them."""
    generator = np.random.default_rng(0)
    same = np.arange(count // 2) % 2 == 0
    features = generator.standard_normal((count, 8)).astype(np.float32)
    features[1::2][same] += features[0::2][same]
    write_bin(tmp_path / "x.bin", [f"image {i}".encode() for i in range(count)], same.tolist())
    return features, tmp_path / "x.bin"


def test_features_are_scored_by_rows_and_by_names_alike(tmp_path: Path) -> None:
    features, path = dumped(tmp_path)
    chosen = open_verification_set(path)
    expected = score_pairs(features[0::2], features[1::2], chosen.issame, chosen.fold).verification
    np.save(tmp_path / "rows.npy", features)
    assert score_features(tmp_path / "rows.npy", chosen, tmp_path / "a").verification == expected
    order = np.random.default_rng(1).permutation(400)
    names = [f"{i + 1:05d}" for i in order]
    write_parquet(
        tmp_path / "f.parquet", [(names[:150], features[order][:150]), (names[150:], features[order][150:])], 8
    )
    assert score_features(tmp_path / "f.parquet", chosen, tmp_path / "b").verification == expected
    write_npy(tmp_path / "f.npy", [([f"{name}.jpg" for name in names], features[order])], 400, 8)
    result = score_features(tmp_path / "f.npy", chosen, tmp_path / "c", ScoringOptions(plots=False))
    assert result.verification == expected
    saved = json.loads((tmp_path / "c/result.json").read_text())
    assert saved["features_sha256"]
    assert saved["set_sha256"] == chosen.sha256


def test_features_that_are_missing_or_void_are_an_error_or_a_counted_exclusion(tmp_path: Path) -> None:
    features, path = dumped(tmp_path)
    chosen = open_verification_set(path)
    features[10] = np.nan
    features[31] = 0
    names = [f"{i + 1:05d}" for i in range(400)]
    write_parquet(tmp_path / "f.parquet", [(names[:-1], features[:-1])], 8)
    with pytest.raises(RecordError, match=r"1 of 400 images .* 00400") as caught:
        score_features(tmp_path / "f.parquet", chosen, tmp_path / "out")
    assert "--skip-missing" in caught.value.hint
    write_parquet(tmp_path / "g.parquet", [(names, features)], 8)
    with pytest.raises(RecordError, match=r"2 of 200 pairs \(first: pair 6\)"):
        score_features(tmp_path / "g.parquet", chosen, tmp_path / "out")
    result = score_features(tmp_path / "f.parquet", chosen, tmp_path / "out", ScoringOptions(skip_missing=True))
    assert result.skipped_pairs == 3
    assert result.verification.pairs == 197
    assert sorted(line.split(":")[0] for line in result.skipped) == ["00011", "00032", "00400"]
    assert json.loads((tmp_path / "out/result.json").read_text())["skipped_pairs"] == 3


@pytest.mark.parametrize("fold", [4, 9])
def test_a_fold_that_skipping_empties_is_an_error_and_not_left_away(tmp_path: Path, fold: int) -> None:
    features, path = dumped(tmp_path)
    chosen, names = open_verification_set(path), [f"{i + 1:05d}" for i in range(400)]
    gone = [*range(40 * fold, 40 * fold + 40)]
    write_parquet(tmp_path / "f.parquet", [(list(np.delete(names, gone)), np.delete(features, gone, axis=0))], 8)
    with pytest.raises(RecordError, match=rf"fold {fold + 1} of 10 has no pairs left: 20 were left out because of 40"):
        score_features(tmp_path / "f.parquet", chosen, tmp_path / "out", ScoringOptions(skip_missing=True))
    features[gone[::4]] = np.nan
    write_parquet(tmp_path / "g.parquet", [(names, features)], 8)
    with pytest.raises(RecordError, match=rf"fold {fold + 1} of 10 has no positive pairs left"):
        score_features(tmp_path / "g.parquet", chosen, tmp_path / "out", ScoringOptions(skip_missing=True))


def test_rows_without_names_of_photos_that_are_in_several_pairs_are_left_out_by_pair(tmp_path: Path) -> None:
    features, _ = dumped(tmp_path)
    images = [f"image {i // 4 if i % 2 == 0 else i}".encode() for i in range(400)]  # each left one in two pairs
    write_bin(tmp_path / "x.bin", images, [i % 2 == 0 for i in range(200)])
    features[20] = np.nan
    np.save(tmp_path / "rows.npy", features)
    chosen = open_verification_set(tmp_path / "x.bin")
    result = score_features(tmp_path / "rows.npy", chosen, tmp_path / "out", ScoringOptions(skip_missing=True))
    assert (result.skipped_pairs, result.verification.pairs) == (1, 199)
    rest = np.arange(200) != 10
    expected = score_pairs(features[0::2][rest], features[1::2][rest], chosen.issame[rest], chosen.fold[rest])
    assert result.verification == expected.verification


def test_the_result_does_not_depend_on_its_pictures(tmp_path: Path) -> None:
    features, path = dumped(tmp_path)
    np.save(tmp_path / "rows.npy", features)
    score_features(
        tmp_path / "rows.npy", open_verification_set(path), tmp_path / "a", ScoringOptions(plots=True)
    )  # its images are none
    assert (tmp_path / "a/wrong.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "b/roc.png").mkdir(parents=True)
    with pytest.raises(OSError, match=r"roc\.png"):
        score_features(tmp_path / "rows.npy", open_verification_set(path), tmp_path / "b")
    assert (tmp_path / "b/result.json").is_file()


def test_a_library_under_the_name_of_another_distribution_has_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "renamed", SimpleNamespace(__version__="1.2"))
    assert (_version("renamed"), _version("numpy"), _version("absent")) == ("1.2", np.__version__, "unknown")


def test_features_need_no_images(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="12 of 12 images"):
        open_verification_set(pairs, images=tmp_path / "nowhere")
    chosen = open_verification_set(pairs, look=False)
    names = [f"{name}.jpg" for name in chosen.names][::-1]
    features = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
    write_parquet(tmp_path / "f.parquet", [(names, features)], 8)
    assert score_features(tmp_path / "f.parquet", chosen, tmp_path / "out").verification.pairs == 20
    left, right, _ = select_pair_features(read_features(tmp_path / "f.parquet"), chosen)
    for i in range(20):
        assert np.array_equal(left[i], features[names.index(f"{chosen.names[chosen.left[i]]}.jpg")])
        assert np.array_equal(right[i], features[names.index(f"{chosen.names[chosen.right[i]]}.jpg")])


def test_feature_files_that_lie_are_refused(tmp_path: Path) -> None:
    features, path = dumped(tmp_path)
    chosen = open_verification_set(path)
    np.save(tmp_path / "x.npy", features)
    (tmp_path / "short.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-100])
    np.save(tmp_path / "rows.npy", features[:-2])
    np.save(tmp_path / "flat.npy", features.ravel())
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    np.save(tmp_path / "named.npy", features)
    (tmp_path / "named.npy.names.txt").write_text("one\ntwo\n")
    for name, said in (
        ("short.npy", "shorter than its header says"),
        ("flat.npy", "of shape"),
        ("junk.parquet", "junk.parquet"),
        ("named.npy", "2 names for the 400 rows"),
        ("none.npy", "no such feature file"),
    ):
        with pytest.raises(RecordError, match=said):
            read_features(tmp_path / name)
    with pytest.raises(RecordError, match="398 rows without names; the 200 pairs"):
        select_pair_features(read_features(tmp_path / "rows.npy"), chosen)
    write_npy(tmp_path / "twice.npy", [(["a", "a.jpg"], features[:2])], 2, 8)
    with pytest.raises(RecordError, match="occurs twice"):
        select_pair_features(read_features(tmp_path / "twice.npy"), chosen)
