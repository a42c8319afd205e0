import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from helpers.command import Run
from helpers.small_faces import people

from dataprep.errors import RecordError
from dataprep.packs.base import FaceRecord, PackFormat
from dataprep.packs.io import open_pack
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.tools.convert import convert_pack

FORMS = {
    "insightface": PackFormat(),
    "insightface in parts": PackFormat(max_part=3000),
    "flat": PackFormat(record_layout="flat"),
    "webdataset": PackFormat(container="webdataset"),
    "webdataset in parts": PackFormat(container="webdataset", max_part=9000),
    "folder": PackFormat(container="folder"),
}


def faces_of(path: Path) -> list[FaceRecord]:
    pack = open_pack(path)
    return [pack.face(position) for position in range(len(pack))]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_there_and_back_every_byte_name_and_label_is_the_same(
    packed: Callable[..., Path], tmp_path: Path, form: PackFormat
) -> None:
    pack = packed(people(5, 4))
    convert_pack(pack, tmp_path / "there", pack_format=form)
    convert_pack(tmp_path / "there", tmp_path / "back", pack_format=PackFormat())
    for name in ("train.rec", "train.idx", "train.lst", "property", "labels.tsv"):
        assert (tmp_path / "back" / name).read_bytes() == (pack / name).read_bytes()
    manifest = json.loads((tmp_path / "back" / "pack.json").read_text())
    assert manifest["licence"] == "none"
    assert manifest["counts"] == {"images": 20, "identities": 5}


def test_other_peoples_flat_packs_are_written_again_to_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    for name, stem in (("webface8", "train"), ("faceid25", "validation")):
        source = shared / "rec" / name
        convert_pack(source, tmp_path / name, pack_format=PackFormat(record_layout="flat"))
        assert (tmp_path / name / "train.rec").read_bytes() == (source / f"{stem}.rec").read_bytes()
        assert (tmp_path / name / "train.idx").read_bytes() == (source / f"{stem}.idx").read_bytes()


def test_the_golden_file_is_written_again_to_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    source = tmp_path / "golden"
    source.mkdir()
    for name in ("golden.rec", "golden.idx"):
        (source / name).write_bytes((shared / "rec/golden" / name).read_bytes())
    (source / "property").write_text("2,112,112\n")
    convert_pack(source, tmp_path / "again", pack_format=PackFormat())
    assert (tmp_path / "again" / "train.rec").read_bytes() == (source / "golden.rec").read_bytes()
    assert (tmp_path / "again" / "train.idx").read_bytes() == (source / "golden.idx").read_bytes()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_webdataset_itself_reads_what_we_write(packed: Callable[..., Path], tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    faces = people(4, 3)
    convert_pack(packed(faces), tmp_path / "wds", pack_format=PackFormat(container="webdataset", max_part=9000))
    shards = sorted(map(str, (tmp_path / "wds").glob("*.tar")))
    assert len(shards) > 1
    found = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    assert [(s["jpg"], int(s["cls"]), json.loads(s["json"])["name"]) for s in found] == [
        (face.image, face.label, face.name) for face in faces
    ]


def test_a_seed_shuffles_and_the_same_seed_does_so_again(packed: Callable[..., Path], tmp_path: Path) -> None:
    pack = packed(people(6, 6))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        convert_pack(pack, tmp_path / name, pack_format=PackFormat(record_layout="flat"), shuffle=seed)
    first, again, other = (faces_of(tmp_path / name) for name in "abc")
    assert first == again
    assert [f.name for f in first] != [f.name for f in other]
    assert Counter(f.image for f in first) == Counter(f.image for f in faces_of(pack))


def test_labels_with_gaps_are_closed_up_under_their_old_numbers(packed: Callable[..., Path], tmp_path: Path) -> None:
    flat = packed(people(5, 2), form=PackFormat(record_layout="flat"))
    for name in ("labels.tsv", "pack.json"):
        (flat / name).unlink()
    (flat / "train.lst").unlink()
    lines = (flat / "train.idx").read_text().splitlines(keepends=True)
    (flat / "train.idx").write_text("".join(lines[:2] + lines[4:]))
    convert_pack(flat, tmp_path / "closed", pack_format=PackFormat())
    assert (
        tmp_path / "closed" / "labels.tsv"
    ).read_text() == "0\t000000\t2\n1\t000002\t2\n2\t000003\t2\n3\t000004\t2\n"
    assert RecordPack(tmp_path / "closed").labels().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_what_is_there_is_not_overwritten_and_nothing_is_left_half_done(
    packed: Callable[..., Path], tmp_path: Path
) -> None:
    pack = packed(people(2, 2))
    target = tmp_path / "there"
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(RecordError, match="already exists"):
        convert_pack(pack, target, pack_format=PackFormat())
    (pack / "train.rec").write_bytes((pack / "train.rec").read_bytes()[:-90] + b"\0" * 90)
    with pytest.raises(RecordError):
        convert_pack(pack, tmp_path / "half", pack_format=PackFormat(container="folder"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack", "there"]


def test_a_folder_of_anyones_faces_is_a_pack(packed: Callable[..., Path], tmp_path: Path) -> None:
    faces = people(3, 2)
    for face in faces:
        (tmp_path / "mine" / face.name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / face.name).write_bytes(face.image)
    (tmp_path / "mine" / "person1" / "Thumbs.db").write_bytes(b"litter")
    convert_pack(tmp_path / "mine", tmp_path / "pack2", pack_format=PackFormat())
    assert faces_of(tmp_path / "pack2") == faces
    assert (tmp_path / "pack2" / "property").read_text() == "3,16,16\n"


def test_a_pack_behind_a_url_is_read(packed: Callable[..., Path], tmp_path: Path) -> None:
    pack = packed(people(2, 2))
    fsspec.filesystem("memory").put(str(pack), "/far/", recursive=True)
    for url in ("memory://far/pack", "memory://far/pack/train.rec"):
        assert [open_pack(url).face(i).image for i in range(4)] == [face.image for face in people(2, 2)]


def test_changed_image_files_are_noticed(packed: Callable[..., Path], tmp_path: Path) -> None:
    convert_pack(packed(people(2, 2)), tmp_path / "images", pack_format=PackFormat(container="folder"))
    (tmp_path / "images" / "person1" / "0.v1.jpg").write_bytes(b"other")
    with pytest.raises(RecordError, match=r"person1/0\.v1\.jpg: its sha256 differs from the one in faces\.tsv"):
        convert_pack(tmp_path / "images", tmp_path / "x", pack_format=PackFormat())


def test_the_commands(packed: Callable[..., Path], tmp_path: Path, dataprep: Run) -> None:
    pack = packed(people(3, 3))
    out = dataprep("unpack", pack, "--format", "folder", "--out", tmp_path / "images").stdout
    assert "9 images of 3 identities, folder layout" in out
    assert "shuffle" in dataprep("unpack", pack, "--shuffle", 1, "--out", tmp_path / "x", code=2).stderr
    assert "no such pack" in dataprep("unpack", tmp_path / "none", "--out", tmp_path / "x", code=1).stderr
    facts = json.loads(dataprep("info", pack, "--json").stdout)
    assert (facts["images"], facts["identities"], facts["records"]) == (9, 3, 13)
    assert "images per identity: min 3, median 3.0, max 3" in dataprep("info", pack).stdout
    assert "whole" in dataprep("verify", pack).stdout


def test_a_shuffled_pack_is_grouped_for_insightface(packed: Callable[..., Path], tmp_path: Path) -> None:
    pack = packed(people(5, 4))
    convert_pack(pack, tmp_path / "mixed", pack_format=PackFormat(record_layout="flat"), shuffle=1)
    convert_pack(tmp_path / "mixed", tmp_path / "grouped", pack_format=PackFormat())
    assert RecordPack(tmp_path / "grouped").labels().tolist() == sorted(
        RecordPack(tmp_path / "mixed").labels().tolist()
    )
    assert sorted(faces_of(tmp_path / "grouped"), key=lambda face: face.name) == people(5, 4)
