"""People who asked to be left out stay out, and a workspace follows its photos on disk."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.command import Run, pack_bytes
from helpers.small_faces import noise

from dataprep.packs.io import open_pack


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    root = tmp_path / "faces"
    for number, person in enumerate(("anna", "Bert_Smith", "carl")):
        (root / person).mkdir(parents=True)
        for photo in range(3):
            (root / person / f"{photo}.jpg").write_bytes(noise(10 * number + photo, 112))
    return root


def packed(workspace: Path) -> dict[str, int]:
    lines = (workspace / "packs/train/labels.tsv").read_text("utf-8").splitlines()
    return {name: int(count) for _, name, count in (line.split("\t") for line in lines)}


@pytest.mark.parametrize("spelling", ["Bert_Smith", "bert smith", "BERT-SMITH", "Bert_Smith.", "Bert_Smith~2"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_excluded_person_stays_out_in_any_spelling_and_encoding(
    faces: Path, dataprep: Run, tmp_path: Path, spelling: str, encoding: str
) -> None:
    (tmp_path / "out.txt").write_bytes(f"{spelling}\r\n# a remark\r\n\r\n".encode(encoding))
    dataprep("import", "folder", faces, "--aligned")
    said = dataprep("pack", "--exclude", tmp_path / "out.txt").stdout
    assert f"{spelling}: 3 photos" in said
    assert packed(tmp_path / "ws") == {"anna": 3, "carl": 3}


def test_an_exclusion_outlasts_later_options_and_reaches_every_way_out(
    faces: Path, dataprep: Run, tmp_path: Path
) -> None:
    dataprep("import", "folder", faces, "--aligned")
    said = dataprep("exclude", "Bert Smith", faces / "carl/0.jpg", "anna/1.jpg")
    assert "Bert Smith: 3 photos of Bert_Smith excluded" in said.stdout
    assert said.stderr.endswith("pack\n")
    for options in ([], ["--min-images", 1], ["--holdout", 0], ["--seed", 3]):
        dataprep("pack", *options)
        assert packed(tmp_path / "ws") == {"anna": 2, "carl": 2}, options
    dataprep("export", tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.jpg")) == [
        "anna/0.jpg", "anna/2.jpg", "carl/1.jpg", "carl/2.jpg",
    ]  # fmt: skip
    shutil.copytree(tmp_path / "ws/packs/train", tmp_path / "kept")
    dataprep("exclude", "carl")
    said = dataprep("unpack", tmp_path / "ws/packs/train", "--format", "folder", "--out", tmp_path / "unpacked").stdout
    assert "2 images of 1 identities" in said
    assert "2 faces are excluded and were left out" in said
    assert [path.name for path in (tmp_path / "unpacked").iterdir() if path.is_dir()] == ["anna"]
    dataprep("unpack", tmp_path / "kept", "--out", tmp_path / "elsewhere")  # nobody's workspace
    dataprep("exclude", "--undo", "carl")
    shutil.copytree(faces / "Bert_Smith", tmp_path / "more/bert smith")
    shutil.copytree(faces / "anna", tmp_path / "more/dora")
    said = dataprep("import", "folder", tmp_path / "more", "--aligned")
    assert "3 photos of 1 person excluded and left out" in said.stdout
    dataprep("pack")
    assert packed(tmp_path / "ws") == {"anna": 2, "carl": 2, "dora": 3}
    dataprep("exclude", "--undo", "bert-smith", "carl/0")
    dataprep("pack")
    assert packed(tmp_path / "ws") == {"Bert_Smith": 3, "anna": 2, "carl": 3, "dora": 3}
    assert dataprep("exclude", "--list").stdout == "anna/1.jpg\t1 photo of anna\n"


def test_names_that_match_nobody_are_told_with_similar_ones_and_kept(
    faces: Path, dataprep: Run, tmp_path: Path
) -> None:
    dataprep("import", "folder", faces, "--aligned", "--identities", "anna,Bert_Smith")
    assert "karl: nobody of that name here" in dataprep("exclude", "karl").stderr
    assert "Ana: nobody of that name here (similar: anna)" in dataprep("exclude", "Ana").stderr
    assert "no such photo here (similar: anna)" in dataprep("exclude", "anna/9").stderr
    dataprep("exclude", "Carl")
    dataprep("import", "folder", faces, "--aligned")
    dataprep("pack")
    assert packed(tmp_path / "ws") == {"Bert_Smith": 3, "anna": 3}
    assert "'dora' is not excluded" in dataprep("exclude", "--undo", "dora", code=2).stderr
    assert "nothing to exclude" in dataprep("exclude", code=2).stderr
    (tmp_path / "ws/exclusions.json").write_text('{"people": "anna"}')
    assert "is not a list of exclusions" in dataprep("pack", code=1).stderr


def test_photos_that_are_gone_changed_or_moved_are_told_by_the_first_verb_and_taken_over_by_update(
    faces: Path, dataprep: Run, tmp_path: Path
) -> None:
    dataprep("import", "folder", faces, "--aligned")
    dataprep("pack")
    shutil.rmtree(faces / "Bert_Smith")
    (faces / "carl/0.jpg").write_bytes(noise(99, 112))
    os.utime(faces / "anna/0.jpg")  # touched, the same content
    said = dataprep("pack").stderr
    assert "3 photos are gone (Bert_Smith/0, Bert_Smith/1, Bert_Smith/2), 1 photo has changed (carl/0)" in said
    assert "hint: --update takes this over" in said
    assert packed(tmp_path / "ws") == {"Bert_Smith": 3, "anna": 3, "carl": 3}
    assert "3 photos are gone" in dataprep("status").stdout
    dataprep("pack", "--update")
    assert packed(tmp_path / "ws") == {"anna": 3, "carl": 3}
    assert "since the workspace" not in dataprep("pack").stderr

    moved = faces.rename(tmp_path / "moved")
    (moved / "dora").mkdir()
    (moved / "dora/1.jpg").write_bytes(noise(50, 112))
    (moved / "dora/2.jpg").write_bytes(noise(51, 112))
    said = dataprep("pack", "--update").stderr
    assert f"6 photos are in {faces}, which is not there" in said  # perhaps a disk that is not mounted
    assert packed(tmp_path / "ws") == {"anna": 3, "carl": 3}
    said = dataprep("import", "folder", moved, "--aligned").stdout
    assert "6 photos have moved" in said
    assert "2 samples planned, 8 samples of 3 people in total" in said
    dataprep("pack")
    dataprep("import", "folder", moved, "--aligned", workspace=tmp_path / "fresh")
    dataprep("pack", workspace=tmp_path / "fresh")
    assert pack_bytes(tmp_path / "ws/packs/train") == pack_bytes(tmp_path / "fresh/packs/train")
    accounts = [
        [stage["account"] for stage in json.loads(dataprep("status", "--json", workspace=ws).stdout)["stages"]]
        for ws in (tmp_path / "ws", tmp_path / "fresh")
    ]
    assert accounts[0] == accounts[1]


def test_a_photo_that_comes_back_is_taken_in_again(faces: Path, dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "folder", faces, "--aligned")
    dataprep("pack")
    before = pack_bytes(tmp_path / "ws/packs/train")
    aside = (faces / "anna").rename(tmp_path / "aside")
    dataprep("pack", "--update")
    assert packed(tmp_path / "ws") == {"Bert_Smith": 3, "carl": 3}
    aside.rename(faces / "anna")
    dataprep("import", "folder", faces, "--aligned")
    dataprep("pack")
    assert pack_bytes(tmp_path / "ws/packs/train") == before
    assert len(open_pack(tmp_path / "ws/packs/train")) == 9
    dataprep("import", "folder", faces, "--aligned", "--no-update")


@pytest.mark.parametrize("content", [b"not an image", b"", noise(5, 112)[:2000]])
def test_a_photo_that_could_not_be_used_is_read_again_once_it_is_mended(
    faces: Path, dataprep: Run, tmp_path: Path, content: bytes
) -> None:
    (faces / "anna/0.jpg").write_bytes(content)
    dataprep("import", "folder", faces, "--aligned")
    dataprep("pack")
    assert packed(tmp_path / "ws")["anna"] == 2
    (faces / "anna/0.jpg").write_bytes(noise(77, 112))
    assert "1 photo has changed (anna/0)" in dataprep("status").stdout
    dataprep("import", "folder", faces, "--aligned")
    dataprep("pack")
    assert packed(tmp_path / "ws")["anna"] == 3


def test_whoever_is_excluded_under_a_new_name_is_not_exported_either(
    faces: Path, dataprep: Run, tmp_path: Path
) -> None:
    (tmp_path / "names.tsv").write_text("anna\tAnna Smith\n")
    dataprep("import", "folder", faces, "--aligned")
    dataprep("pack", "--map", tmp_path / "names.tsv")
    assert "anna smith: the new name of anna, excluded" in dataprep("exclude", "anna smith").stdout
    dataprep("export", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["Bert_Smith", "carl"]
    (tmp_path / "names.tsv").unlink()
    assert "no such file" in dataprep("export", tmp_path / "out2", code=1).stderr
