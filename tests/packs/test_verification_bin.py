import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.small_faces import noise
from hypothesis import given
from hypothesis import strategies as st

from dataprep.errors import RecordError
from dataprep.packs.pair_sampling import PairList, level_folds, make_pairs
from dataprep.packs.verification_bin import read_bin, write_bin

PHOTOS = {f"p{i:02d}": [f"p{i:02d}/{j}" for j in range(2 + i % 5)] for i in range(40)}


def test_every_positive_pair_and_as_many_negatives_in_folds_without_shared_identities() -> None:
    pairs = make_pairs(PHOTOS, seed=3)
    positives = sum(len(v) * (len(v) - 1) // 2 for v in PHOTOS.values())
    assert pairs.issame.sum() == positives
    assert len(pairs) == 2 * positives
    people_of_fold: dict[int, set[str]] = {}
    for left, right, same, fold in zip(pairs.left, pairs.right, pairs.issame, pairs.fold, strict=True):
        one, other = left.split("/")[0], right.split("/")[0]
        assert (one == other) == same
        assert left != right
        people_of_fold.setdefault(int(fold), set()).update((one, other))
    assert sum(map(len, people_of_fold.values())) == len(set.union(*people_of_fold.values()))
    assert len(set(zip(pairs.left, pairs.right, strict=True))) == len(pairs)


def test_pairs_follow_the_seed_alone() -> None:
    again = make_pairs(dict(reversed(PHOTOS.items())), seed=3)
    assert again.left == make_pairs(PHOTOS, seed=3).left
    assert again.left != make_pairs(PHOTOS, seed=4).left


def test_level_folds_are_equal_and_mixed() -> None:
    pairs = level_folds(make_pairs(PHOTOS), at_most=100)
    assert len(pairs) == 100
    assert np.bincount(pairs.fold).tolist() == [10] * 10
    assert pairs.fold.tolist() == sorted(pairs.fold)
    assert (np.add.reduceat(pairs.issame, range(0, 100, 10)) == 5).all()


def people_of_folds(pairs: PairList) -> list[set[str]]:
    people: dict[int, set[str]] = {}
    for left, right, fold in zip(pairs.left, pairs.right, pairs.fold.tolist(), strict=True):
        people.setdefault(fold, set()).update((left.split("/")[0], right.split("/")[0]))
    return list(people.values())


def test_one_person_with_many_photos_fills_no_fold() -> None:
    photos = {f"p{i}": [f"p{i}/{k}" for k in range(5)] for i in range(500)}
    photos["big"] = [f"big/{k}" for k in range(200)]
    pairs = level_folds(make_pairs(photos, at_most=6000), at_most=6000)
    assert len(pairs) == 6000
    assert len(set(pairs.fold.tolist())) == 10
    assert sum(left.startswith("big/") for left, same in zip(pairs.left, pairs.issame, strict=True) if same) < 300


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 5), st.sampled_from([None, 20, 6000]))
def test_any_four_people_with_two_photos_can_be_paired(sizes: list[int], seed: int, at_most: int | None) -> None:
    photos = {f"p{i}": [f"p{i}/{k}" for k in range(size)] for i, size in enumerate(sizes)}
    several = sum(size > 1 for size in sizes)
    if several < 2:
        with pytest.raises(RecordError, match=f"{several} of {len(sizes)} ha"):
            make_pairs(photos, seed=seed, at_most=at_most)
        return
    pairs = level_folds(make_pairs(photos, seed=seed, at_most=at_most), at_most=at_most, seed=seed)
    folds = people_of_folds(pairs)
    assert len(folds) == max(2, min(10, len(sizes) // 2, several))
    for fold in range(len(folds)):
        assert set(pairs.issame[pairs.fold == fold].tolist()) == {True, False}
    assert len(set(np.bincount(pairs.fold).tolist())) == 1
    if several >= 4:
        assert sum(map(len, folds)) == len(set.union(*folds))


def test_a_bin_is_what_the_field_loads(tmp_path: Path) -> None:
    write_bin(tmp_path / "x.bin", [b"a", b"b", b"c", b"d"], [True, False])
    assert pickle.loads((tmp_path / "x.bin").read_bytes()) == ([b"a", b"b", b"c", b"d"], [True, False])
    images, same = read_bin(tmp_path / "x.bin")
    assert images == [b"a", b"b", b"c", b"d"]
    assert same.tolist() == [True, False]


def test_arrays_and_python_2_pickles_are_read(tmp_path: Path, shared: Path) -> None:
    images, same = read_bin(shared / "bin/small_lfw.bin")
    assert len(images) == 2 * len(same) == 20
    assert all(image.startswith((b"\xff\xd8", b"\x89PNG")) for image in images)
    # as Python 2 pickled a str of bytes: protocol 0, escapes above ASCII
    (tmp_path / "old.bin").write_bytes(b"((lp0\nS'\\xff\\xd8'\np1\naS'\\xff\\xd9'\np2\na(lp3\nI01\natp4\n.")
    images, same = read_bin(tmp_path / "old.bin")
    assert images == [b"\xff\xd8", b"\xff\xd9"]
    assert same.tolist() == [True]


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/should-never-exist",)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.bin").write_bytes(pickle.dumps(([Hostile()], [True])))
    with pytest.raises(RecordError, match=r"refers to .*system"):
        read_bin(tmp_path / "bad.bin")
    assert not Path("/tmp/should-never-exist").exists()


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps(5), pickle.dumps(([b"a"], [True]))])
def test_a_damaged_bin_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.bin").write_bytes(content)
    with pytest.raises(RecordError, match=r"bad\.bin"):
        read_bin(tmp_path / "bad.bin")


def test_a_choice_of_pairs_is_drawn_without_listing_all() -> None:
    photos = {f"p{i}": [f"p{i}/{j}" for j in range(700)] for i in range(20)}
    pairs = make_pairs(photos, at_most=400)
    assert len(pairs) == 400
    assert len(set(zip(pairs.left, pairs.right, strict=True))) == 400
    for left, right, same in zip(pairs.left, pairs.right, pairs.issame, strict=True):
        assert (left.split("/")[0] == right.split("/")[0]) == same
        assert left != right
    all_of_them = make_pairs(PHOTOS)
    assert make_pairs(PHOTOS, at_most=10**9).left == all_of_them.left


def test_images_in_a_tuple_and_truth_as_floats_are_read_and_pixels_are_called_pixels(tmp_path: Path) -> None:
    files = [noise(number) for number in range(4)]
    for name, content in (
        ("tuple.bin", (tuple(files), [True, False])),
        ("floats.bin", (files, np.array([1.0, 0.0], np.float32))),
        ("doubles.bin", (files, np.array([1.0, 0.0]))),
    ):
        (tmp_path / name).write_bytes(pickle.dumps(content))
        images, truth = read_bin(tmp_path / name)
        assert (images, truth.tolist()) == (files, [True, False])
    pixels = [np.full((8, 8, 3), value, np.uint8) for value in (60, 10, 200, 32)]  # 60 is `<`
    (tmp_path / "pixels.bin").write_bytes(pickle.dumps((pixels, [True, False])))
    with pytest.raises(RecordError, match=r"pixels.bin: an image in it is an array of 8x8x3 pixels") as caught:
        read_bin(tmp_path / "pixels.bin")
    assert "dataprep bins build" in caught.value.hint
    (tmp_path / "half.bin").write_bytes(pickle.dumps((files, np.array([0.5, 0.0]))))
    with pytest.raises(RecordError, match="not a list of truth values"):
        read_bin(tmp_path / "half.bin")
