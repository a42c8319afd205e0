import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command import Run
from helpers.small_faces import noise, people

from dataprep.errors import RecordError
from dataprep.packs.base import PackFormat
from dataprep.packs.io import open_pack
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.tools.repair import repair_pack
from dataprep.packs.tools.verify import verify_pack


def images(path: Path) -> Counter[bytes]:
    pack = open_pack(path)
    return Counter(pack.face(position).image for position in range(len(pack)))


def losses(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in (path / "lost.tsv").read_text().splitlines()]


@pytest.mark.parametrize("form", [PackFormat(), PackFormat(record_layout="flat"), PackFormat(max_part=3000)])
def test_a_whole_pack_comes_out_as_it_was(packed: Callable[..., Path], tmp_path: Path, form: PackFormat) -> None:
    pack = packed(people(4, 3), form=form)
    (pack / "train.idx").write_text("a lie\n")
    manifest = repair_pack(pack, tmp_path / "new")
    assert manifest["repaired_from"]["lost"] == {}
    assert (tmp_path / "new" / "train.rec").read_bytes() == b"".join(p.read_bytes() for p in sorted(pack.glob("*.rec")))
    assert (tmp_path / "new" / "train.lst").read_bytes() == (pack / "train.lst").read_bytes()
    assert [f.code for f in verify_pack(tmp_path / "new")[1]] == []


@pytest.mark.parametrize("kind", ["flip", "zero", "cut out", "insert", "truncate"])
def test_all_but_the_damaged_records_are_saved(packed: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    """Damage of every kind at 12 places: what repair loses lies where the damage is, and the input stays as it is."""
    pack = packed(people(6, 4))
    whole = (pack / "train.rec").read_bytes()
    offsets = [int(line.split("\t")[1]) for line in (pack / "train.idx").read_text().splitlines()]
    before = images(pack)
    for number, place in enumerate(random.Random(1).sample(range(8, offsets[24] - 40), 12)):
        damaged, end = {
            "flip": (whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :], place + 1),
            "zero": (whole[:place] + b"\0" * 40 + whole[place + 40 :], place + 40),
            "cut out": (whole[:place] + whole[place + 13 :], place + 13),
            "insert": (whole[:place] + b"noise" + whole[place:], place + 1),
            "truncate": (whole[:place], len(whole)),
        }[kind]
        (pack / "train.rec").write_bytes(damaged)
        target = tmp_path / f"new{number}"
        untouched = sum(after <= place or offset >= end for offset, after in itertools.pairwise(offsets[:25]))
        repair_pack(pack, target)
        saved = images(target)
        assert (saved & before).total() >= untouched
        assert saved.total() <= 24  # a record whose image still decodes after the damage is kept
        assert (pack / "train.rec").read_bytes() == damaged
        assert [f.code for f in verify_pack(target)[1] if not f.warning] == []


def test_the_account_names_what_is_lost(packed: Callable[..., Path], tmp_path: Path) -> None:
    faces = people(4, 3)
    faces[1] = replace(faces[1], image=b"<html>gone</html>")
    faces[4] = replace(faces[4], image=noise(1, side=20))
    for position in (9, 10, 11):
        faces[position] = replace(faces[position], image=b"")
    faces[9] = replace(faces[9], image=b"\xff\xd8\xff")
    pack = packed(faces)
    data = bytearray((pack / "train.rec").read_bytes())
    first = int((pack / "train.idx").read_text().splitlines()[6].split("\t")[1])
    data[first + 4] ^= 0x40  # the length of record 7
    (pack / "train.rec").write_bytes(data)
    manifest = repair_pack(pack, tmp_path / "new")
    lost = losses(tmp_path / "new")
    assert [(row[0], int(row[1])) for row in lost if row[3] == "damaged"] == [("train.rec", first)]
    assert {row[3] for row in lost} >= {"damaged", "size"}
    assert manifest["repaired_from"]["images"] == RecordPack(tmp_path / "new").labels().size == 6
    assert (tmp_path / "new" / "labels.tsv").read_text() == "0\tperson0\t2\n1\tperson1\t2\n2\tperson2\t2\n"
    assert [f.code for f in verify_pack(tmp_path / "new")[1]] == []


def test_nothing_to_save_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.rec").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(RecordError, match="none of its images can be read"):
        repair_pack(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("layout", ["insightface", "flat"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_file_that_was_cut_off_keeps_its_layout_and_accounts_for_what_its_index_names(
    packed: Callable[..., Path], tmp_path: Path, dataprep: Run, layout: str, listed: bool
) -> None:
    pack = packed(people(4, 4), form=PackFormat(record_layout=layout))
    data = (pack / "train.rec").read_bytes()
    offsets = {key: int(offset) for key, offset in map(str.split, (pack / "train.idx").read_text().splitlines())}
    (pack / "train.rec").write_bytes(data[: len(data) // 3])
    if not listed:
        (pack / "train.lst").unlink()
        (pack / "labels.tsv").unlink()
    out = dataprep("repair", pack, "--out", tmp_path / "new").stdout
    assert RecordPack(tmp_path / "new").layout == layout
    saved = images(tmp_path / "new").total()
    about = json.loads((tmp_path / "new" / "pack.json").read_text())["repaired_from"]
    assert saved + about["lost"]["missing"] + 1 == 16
    assert (about["lost"]["damaged"], about["people_lost"]) == (1, 2)
    assert f"lost: 1 damaged, {15 - saved} missing; see" in out
    assert "2 people without any image left" in out
    rows = [row for row in losses(tmp_path / "new") if row[3] == "missing"]
    assert next(row[4] for row in losses(tmp_path / "new") if row[3] == "damaged").startswith("record ")
    assert all(offsets[row[4].split()[1].rstrip(",")] == int(row[1]) >= len(data) // 3 - 2000 for row in rows)
    assert (", person3/3.v1.jpg" in rows[-1][4]) == listed
    people_left = [line.split("\t")[0] for line in (tmp_path / "new" / "people.tsv").read_text().splitlines()]
    assert people_left == ["2", "3"]
    assert "already exists" in dataprep("repair", pack, "--out", tmp_path / "new", code=1).stderr


def test_an_index_of_another_pack_accounts_for_nothing(packed: Callable[..., Path], tmp_path: Path) -> None:
    pack = packed(people(4, 4))
    (pack / "train.idx").write_text("".join(f"{key}\t{8 * key}\n" for key in range(500, 900)))
    assert repair_pack(pack, tmp_path / "new")["repaired_from"]["lost"] == {}
