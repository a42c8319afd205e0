from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command import Run
from helpers.small_faces import people

from dataprep.errors import RecordError
from dataprep.packs.base import PackFormat
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.tools.merge import merge_packs
from dataprep.packs.tools.verify import verify_pack


def identities(path: Path) -> list[list[str]]:
    return [line.split("\t")[1:] for line in (path / "labels.tsv").read_text().splitlines()]


def test_equal_names_stay_two_people_unless_joined(packed: Callable[..., Path], tmp_path: Path) -> None:
    one, other = packed(people(2, 2), "one"), packed(people(3, 2, seed=1), "other", PackFormat(record_layout="flat"))
    merge_packs([one, other], tmp_path / "apart", pack_format=PackFormat())
    assert identities(tmp_path / "apart") == [
        ["person0", "2"],
        ["person1", "2"],
        ["person0~2", "2"],
        ["person1~2", "2"],
        ["person2", "2"],
    ]
    merge_packs([one, other], tmp_path / "joined", pack_format=PackFormat(), merge_labels=True)
    assert identities(tmp_path / "joined") == [["person0", "4"], ["person1", "4"], ["person2", "2"]]
    for name in ("apart", "joined"):
        assert [f.code for f in verify_pack(tmp_path / name)[1]] == []
        assert sorted(image for image, _ in RecordPack(tmp_path / name)) == sorted(
            face.image for face in people(2, 2) + people(3, 2, seed=1)
        )
    names = [RecordPack(tmp_path / "apart").face(i).name for i in range(10)]
    assert names[4] == "person0~2/0.v1.jpg"


def test_duplicates_are_dropped_and_people_left_without_a_face_too(packed: Callable[..., Path], tmp_path: Path) -> None:
    first, second = people(2, 3), people(3, 3, seed=1, name="other")
    second[3:6] = [replace(face, image=first[i].image) for i, face in enumerate(second[3:6])]  # all of other1
    second[8] = replace(second[8], image=first[4].image)
    manifest = merge_packs(
        [packed(first, "a"), packed(second, "b")], tmp_path / "m", pack_format=PackFormat(), drop_duplicates=True
    )  # fmt: skip
    assert manifest["duplicates_dropped"] == 4
    assert identities(tmp_path / "m") == [["person0", "3"], ["person1", "3"], ["other0", "3"], ["other2", "2"]]
    assert [f.code for f in verify_pack(tmp_path / "m")[1]] == []


def test_packs_of_different_sizes_do_not_mix(packed: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="sizes must match"):
        merge_packs(
            [packed(people(1, 1), "a"), packed(people(1, 1), "b", side=20)], tmp_path / "m", pack_format=PackFormat()
        )
    assert not (tmp_path / "m").exists()


def test_the_command(packed: Callable[..., Path], tmp_path: Path, dataprep: Run) -> None:
    one, other = packed(people(2, 2), "one"), packed(people(2, 2), "other")
    out = dataprep("merge", one, other, "--out", tmp_path / "m", "--drop-duplicates").stdout
    assert "4 images of 2 identities" in out
    assert "4 duplicates dropped" in out


def test_two_people_of_one_name_in_one_pack_stay_two(packed: Callable[..., Path], tmp_path: Path) -> None:
    namesakes = packed([replace(face, identity="Kim", name=f"Kim/{face.label}.jpg") for face in people(2, 1)], "one")
    other = packed(people(1, 1, seed=1, name="Kim"), "other")
    (other / "labels.tsv").write_text("0\tKim\t1\n")
    merge_packs([namesakes, other], tmp_path / "m", pack_format=PackFormat(), merge_labels=True)
    assert identities(tmp_path / "m") == [["Kim", "2"], ["Kim~2", "1"]]
