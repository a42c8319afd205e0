"""bins make: a verification set of one's own people, from a folder or a pack."""

from pathlib import Path

import pytest
from helpers.command import Run
from helpers.small_faces import noise

from dataprep.errors import RecordError
from dataprep.evaluate.verification.bin_tools import make_bin
from dataprep.evaluate.verification.pair_set import open_verification_set


def faces(root: Path, people: int, photos: int = 4) -> Path:
    for person in range(people):
        (root / f"p{person:02d}").mkdir(parents=True)
        for photo in range(photos):
            (root / f"p{person:02d}/{photo}.jpg").write_bytes(noise(100 * person + photo, 24))
    return root


def test_pairs_of_a_folder_are_true_balanced_and_share_nobody_between_folds(tmp_path: Path, dataprep: Run) -> None:
    root = faces(tmp_path / "faces", 12)
    said = dataprep("bins", "make", root, "--out", tmp_path / "own.bin", "--seed", 1).stdout
    assert "6 folds instead of 10: there are few people" in said
    owner = {noise(100 * person + photo, 24): person for person in range(12) for photo in range(4)}
    chosen = open_verification_set(tmp_path / "own.bin")
    assert chosen.folds == 6
    people: dict[int, set[int]] = {}
    for left, right, same, fold in zip(chosen.left, chosen.right, chosen.issame, chosen.fold, strict=True):
        two = owner[chosen.images[left]], owner[chosen.images[right]]
        assert (two[0] == two[1]) == same
        assert left != right
        people.setdefault(int(fold), set()).update(two)
    assert sum(map(len, people.values())) == 12
    assert chosen.issame.mean() == 0.5
    for fold in range(6):
        assert 0 < chosen.issame[chosen.fold == fold].mean() < 1


def test_the_choice_follows_the_seed_and_the_limits_and_needs_people(tmp_path: Path) -> None:
    root = faces(tmp_path / "faces", 20)
    reports = [make_bin(root, tmp_path / f"{n}.bin", pairs=40, folds=10, seed=seed) for n, seed in enumerate((1, 1, 2))]
    assert reports[0].sha256 == reports[1].sha256 != reports[2].sha256
    assert (reports[0].pairs, reports[0].positives, reports[0].folds) == (40, 20, 10)
    with pytest.raises(RecordError, match="pairs need two identities with two photos each"):
        make_bin(faces(tmp_path / "one", 1), tmp_path / "x.bin", pairs=40, folds=10, seed=0)
    (root / "p00/0.jpg").write_bytes(b"no image")
    with pytest.raises(RecordError, match=r"p00/0\.jpg is not an image"):
        make_bin(root, tmp_path / "x.bin", pairs=6000, folds=10, seed=0)
    (tmp_path / "0.bin").write_bytes((tmp_path / "2.bin").read_bytes())  # its .json is of another file
    assert open_verification_set(tmp_path / "0.bin").folds == 10
