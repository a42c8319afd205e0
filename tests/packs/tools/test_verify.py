import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.command import Run
from helpers.small_faces import noise, people

from dataprep.packs.base import PackFormat
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.record_index import format_index
from dataprep.packs.recordio import RecordWriter, encode_image_header
from dataprep.packs.tools.convert import convert_pack
from dataprep.packs.tools.verify import verify_pack


def codes(path: Path) -> dict[str, int]:
    return {finding.code: finding.count for finding in verify_pack(path)[1]}


@pytest.mark.parametrize(
    "form",
    [
        PackFormat(),
        PackFormat(max_part=2000),
        PackFormat(record_layout="flat"),
        PackFormat(container="webdataset"),
        PackFormat(container="folder"),
    ],
)
def test_what_we_write_is_whole(packed: Callable[..., Path], form: PackFormat) -> None:
    assert codes(packed(people(4, 3), form=form)) == {}


def test_other_peoples_packs_are_whole(shared: Path) -> None:
    assert codes(shared / "rec/webface8") == {}
    assert codes(shared / "rec/faceid25") == {}


def test_every_image_is_looked_at_by_threads_too(packed: Callable[..., Path]) -> None:
    faces = people(4, 3)
    faces[5] = replace(faces[5], image=b"\xff\xd8\xff but no photo")
    faces[7] = replace(faces[7], image=noise(3, side=20))
    pack = packed(faces)
    for jobs in (1, 3):
        found = {finding.code: finding for finding in verify_pack(pack, jobs=jobs)[1]}
        assert set(found) == {"unreadable", "size"}
        assert found["unreadable"].examples[0].startswith("image 5: ")
        assert found["size"].examples == ["image 7: 20x20"]


def test_duplicates_are_notes(packed: Callable[..., Path]) -> None:
    faces = people(4, 3)
    faces[4] = replace(faces[4], image=faces[3].image)
    faces[11] = replace(faces[11], image=faces[0].image)
    found = {finding.code: finding for finding in verify_pack(packed(faces))[1]}
    assert {code: finding.count for code, finding in found.items()} == {"duplicate": 1, "two_names": 1}
    assert all(finding.warning for finding in found.values())
    assert found["two_names"].examples == ["images 0 (label 0) and 11 (label 3)"]


def test_a_changed_byte_is_found_by_the_hash(packed: Callable[..., Path]) -> None:
    pack = packed(people(2, 2))
    data = bytearray((pack / "train.rec").read_bytes())
    data[60] ^= 1  # within the JPEG's header tables
    (pack / "train.rec").write_bytes(data)
    (pack / "train.lst").unlink()
    assert codes(pack)["sha256"] == 2


def test_damage_and_a_lying_index_are_found(packed: Callable[..., Path]) -> None:
    pack = packed(people(3, 3))
    lines = (pack / "train.idx").read_text().splitlines()
    (pack / "train.idx").write_text("\n".join([*lines[:4], lines[4].split("\t")[0] + "\t12", *lines[5:]]) + "\n")
    assert codes(pack)["unopenable"] == 1  # no record begins at byte 12
    offsets = [line.split("\t")[1] for line in lines]
    keys = [line.split("\t")[0] for line in lines]
    offsets[3], offsets[4] = offsets[4], offsets[3]
    (pack / "train.idx").write_text("".join(f"{k}\t{o}\n" for k, o in zip(keys, offsets, strict=True)))
    assert codes(pack)["id"] == 2
    (pack / "train.idx").write_text("\n".join(lines) + "\n")
    data = bytearray((pack / "train.rec").read_bytes())
    data[int(lines[1].split("\t")[1])] ^= 0xFF
    (pack / "train.rec").write_bytes(data)
    found = codes(pack)
    assert found["unopenable"] == 1 or found["damaged"] == 1


def write_records(folder: Path, labels: list[tuple[float, float]], ranges: list[tuple[int, int]]) -> Path:
    """A pack of insightface's layout with labels and ranges as given, be they wrong."""
    folder.mkdir()
    with open(folder / "train.rec", "wb") as stream:
        writer = RecordWriter(stream)
        for key, label in enumerate(labels, 1):
            writer.write(key, noise(key), encode_image_header(label, key))
        count = len(labels) + 1
        writer.write(0, b"", encode_image_header((count, count + len(ranges)), 0))
        for number, ends in enumerate(ranges, count):
            writer.write(number, b"", encode_image_header(ends, number))
        (folder / "train.idx").write_bytes(format_index(writer.finish()))
    return folder


def test_labels_and_ranges_are_compared(tmp_path: Path) -> None:
    good = write_records(tmp_path / "good", [(0, 1), (0, 1), (1, 1)], [(1, 3), (3, 4)])
    assert codes(good) == {}
    scattered = write_records(tmp_path / "scattered", [(0, 1), (1, 1), (0, 1)], [(1, 2), (2, 3), (3, 4)])
    assert codes(scattered) == {"order": 1}
    wrong = write_records(tmp_path / "wrong", [(0, 1), (0, 1), (1, 1)], [(1, 2), (2, 4)])
    assert codes(wrong) == {"range": 2}
    gap = write_records(tmp_path / "gap", [(0, 1), (2, 1)], [(1, 2), (2, 3)])
    assert codes(gap) == {"label": 1}
    (good / "property").write_text("1,16,16\n")
    assert codes(good) == {"label": 1}


def test_lists_that_do_not_fit_are_found(packed: Callable[..., Path]) -> None:
    pack = packed(people(2, 2))
    (pack / "pack.json").unlink()
    (pack / "train.lst").write_text("1\tx/1.jpg\t0\n")
    (pack / "labels.tsv").write_text("0\tx\t4\n")
    assert codes(pack) == {"list": 3}


def test_the_command_exits_with_1_and_says_what_to_do(
    packed: Callable[..., Path], tmp_path: Path, dataprep: Run
) -> None:
    faces = people(3, 3)
    faces[2] = replace(faces[2], image=b"<html>")
    pack = packed(faces)
    said = dataprep("verify", pack, code=1)
    assert "WRONG: 1 x images that cannot be decoded" in said.stdout
    assert f"next: dataprep repair {pack} --out {pack}-repaired" in said.stderr
    found = json.loads(dataprep("verify", pack, "--json", code=1).stdout)
    assert (found["whole"], found["findings"][0]["code"]) == (False, "unreadable")
    assert "no such pack" in dataprep("verify", tmp_path / "nothing", code=1).stdout


def test_mxnet_as_a_reader_needs_mxnet(packed: Callable[..., Path], dataprep: Run) -> None:
    pytest.importorskip("numpy")
    done = dataprep("verify", packed(people(2, 2)), "--reader", "mxnet", code=1)
    assert "face-dataprep[mxnet]" in done.stderr


def test_exact_duplicates_of_many_are_found_by_brute_force_too(packed: Callable[..., Path], tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    faces = [replace(face, image=noise(int(generator.integers(12)))) for face in people(6, 4)]
    pack = packed(faces)
    convert_pack(pack, tmp_path / "flat", pack_format=PackFormat(record_layout="flat"), shuffle=3)
    for path in (pack, tmp_path / "flat"):
        images = list(RecordPack(path))
        pairs = len(images) - len({image for image, _ in images})
        found = codes(path)
        assert found.get("duplicate", 0) + found.get("two_names", 0) == pairs
