import hashlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from dataprep.errors import RecordError
from dataprep.packs.base import FaceRecord
from dataprep.packs.rec_reader import RecordPack, find_image_positions
from dataprep.packs.rec_writer import write_flat, write_insightface
from dataprep.packs.record_index import format_index, read_index
from dataprep.packs.recordio import (
    MAGIC,
    RecordReader,
    RecordWriter,
    encode_image_header,
    encode_scalar_header,
    unpack_image,
)

FACES = [
    FaceRecord(name="a/1.jpg", label=0, identity="a", image=b"A"),
    FaceRecord(name="a/2.jpg", label=0, identity="a", image=b"BC"),
    FaceRecord(name="b/1.jpg", label=1, identity="b", image=b"DEF"),
]


def many(people: int, photos: int) -> list[FaceRecord]:
    return [
        FaceRecord(
            name=f"p{label:03}/{photo}.jpg", label=label, identity=f"p{label:03}", image=bytes([label]) * (99 + photo)
        )
        for label in range(people)
        for photo in range(photos)
    ]


def test_the_golden_file_of_face2rec2_to_the_byte(tmp_path: Path) -> None:
    written = write_insightface(tmp_path, FACES, height=112, width=112)
    rec = (tmp_path / "train.rec").read_bytes()
    golden = "bfe1dfd8576eec56f2328257325b246eeffb3ccaf42d91e0fa37fbdcf4242515"
    assert hashlib.sha256(rec).hexdigest() == golden
    assert (tmp_path / "train.idx").read_text() == "1\t0\n2\t44\n3\t88\n0\t132\n4\t172\n5\t212\n"
    assert (tmp_path / "train.lst").read_text() == "1\ta/1.jpg\t0\n1\ta/2.jpg\t0\n1\tb/1.jpg\t1\n"
    assert (tmp_path / "property").read_text() == "2,112,112\n"
    assert (tmp_path / "labels.tsv").read_text() == "0\ta\t2\n1\tb\t1\n"
    assert written.counts == {"images": 3, "identities": 2}
    assert written.files == {"train.rec": golden}


def test_the_golden_file_as_mxnet_wrote_it(shared: Path) -> None:
    records = [unpack_image(payload) for _, payload in RecordReader(shared / "rec/golden/golden.rec")]
    assert [(r.labels, r.id, r.image) for r in records] == [
        ((0.0, 1.0), 1, b"A"),
        ((0.0, 1.0), 2, b"BC"),
        ((1.0, 1.0), 3, b"DEF"),
        ((4.0, 6.0), 0, b""),
        ((1.0, 3.0), 4, b""),
        ((3.0, 4.0), 5, b""),
    ]


def test_a_pack_is_read_back(tmp_path: Path) -> None:
    write_insightface(tmp_path, FACES, height=112, width=96)
    pack = RecordPack(tmp_path)
    assert list(pack) == [(b"A", 0), (b"BC", 0), (b"DEF", 1)]
    assert (pack.num_classes, pack.height, pack.width, pack.layout) == (2, 112, 96, "insightface")
    assert pack.labels().tolist() == [0, 0, 1]
    assert pack.ranges() == [(1, 3), (3, 4)]
    assert [pack.face(i) for i in range(3)] == FACES


def test_the_flat_layout_is_im2recs(tmp_path: Path) -> None:
    write_flat(tmp_path, FACES, height=112, width=112)
    records = [unpack_image(payload) for _, payload in RecordReader(tmp_path / "train.rec")]
    assert [(r.flag, r.labels, r.id, r.image) for r in records] == [
        (0, (0.0,), 0, b"A"),
        (0, (0.0,), 1, b"BC"),
        (0, (1.0,), 2, b"DEF"),
    ]
    assert (tmp_path / "train.lst").read_text() == "0\t0.000000\ta/1.jpg\n1\t0.000000\ta/2.jpg\n2\t1.000000\tb/1.jpg\n"
    pack = RecordPack(tmp_path)
    assert (pack.layout, pack.ranges(), len(pack)) == ("flat", [], 3)
    assert [pack.face(i).name for i in range(3)] == [face.name for face in FACES]


@pytest.mark.parametrize("write", [write_insightface, write_flat])
def test_parts_are_packs_and_put_together_the_whole_one(tmp_path: Path, write: object) -> None:
    assert callable(write)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    faces = many(9, 5)
    write(whole, faces, height=1, width=1)
    written = write(parted, faces, height=1, width=1, max_part=1500)
    parts = sorted(parted.glob("train-*.rec"))
    assert len(parts) > 3
    assert max(path.stat().st_size for path in parts) <= 1500
    assert b"".join(path.read_bytes() for path in parts) == (whole / "train.rec").read_bytes()
    for name in ("train.idx", "train.lst", "property", "labels.tsv"):
        assert (parted / name).read_bytes() == (whole / name).read_bytes()
    assert written.files == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in parts}
    pack = RecordPack(parted)
    assert [pack.face(i) for i in range(len(pack))] == [RecordPack(whole).face(i) for i in range(45)]
    assert pack.labels().tolist() == [face.label for face in faces]
    for path in parts:
        index = read_index(path.with_suffix(".idx"), size=path.stat().st_size)
        assert [offset for offset, _ in RecordReader(path)] == index.offsets.tolist()
    parts[1].unlink()
    with pytest.raises(RecordError, match="a part of the pack is missing"):
        RecordPack(parted)


def test_labels_are_read_at_once_whatever_their_form(tmp_path: Path) -> None:
    magic = struct.pack("<I", MAGIC)
    as_float = struct.unpack("<f", magic)[0]
    records = [
        encode_image_header((3, 1), 0) + b"x",
        encode_scalar_header(4, 1) + magic,
        encode_scalar_header(5, 2),
        encode_image_header((6,) * 237, 3),
    ]
    with open(tmp_path / "train.rec", "wb") as stream:
        writer = RecordWriter(stream)
        for key, record in enumerate(records):
            writer.write(key, record)
        writer.write(4, encode_image_header((7, as_float), MAGIC << 32) + b"split within its header")
        index = writer.finish()
    (tmp_path / "train.idx").write_bytes(format_index(index))
    assert RecordPack(tmp_path).labels().tolist() == [3, 4, 5, 6, 7]


def test_a_label_that_is_not_whole_is_named(tmp_path: Path) -> None:
    with open(tmp_path / "train.rec", "wb") as stream:
        writer = RecordWriter(stream)
        writer.write(0, b"", encode_scalar_header(0.5, 0))
        (tmp_path / "train.idx").write_bytes(format_index(writer.finish()))
    with pytest.raises(RecordError, match=r"image 0 has the label 0\.5"):
        RecordPack(tmp_path).labels()


def test_a_pack_of_somebody_elses_im2rec_is_read(shared: Path) -> None:
    pack = RecordPack(shared / "rec/faceid25")
    assert len(pack) == 229
    assert sorted(set(pack.labels().tolist())) == list(range(25))
    assert all(image.startswith(b"\xff\xd8") for image, _ in pack)
    assert pack.face(0).name == "Asel_Sadvakasova/Asel_Sadvakasova_0488.jpg"
    assert pack.identity(24) == "Zhaniya_Djurinskaya"


def test_a_pack_without_property_says_what_it_can(shared: Path) -> None:
    pack = RecordPack(shared / "rec/webface8")
    assert (len(pack), pack.height, pack.num_classes) == (8, None, 2)
    for position in range(8):
        face = pack.face(position)
        assert face.image == (shared / "rec/webface8/images" / Path(face.name).name).read_bytes()


def test_a_pack_without_an_index_is_read_by_its_records_ids(tmp_path: Path) -> None:
    write_insightface(tmp_path, FACES, height=1, width=1)
    (tmp_path / "train.idx").unlink()
    assert list(RecordPack(tmp_path)) == [(b"A", 0), (b"BC", 0), (b"DEF", 1)]
    assert RecordPack(tmp_path / "train.rec").layout == "insightface"


def test_counts_beyond_the_floats_of_record_0_are_taken_from_the_index() -> None:
    images, identities = (1 << 24) + 2, 3
    keys = np.concatenate([np.arange(1, images + 1), [0], np.arange(images + 1, images + 1 + identities)])
    floats = [float(np.float32(number)) for number in (images + 1, images + 1 + identities)]
    assert floats[0] != images + 1
    positions = find_image_positions(keys, images, (floats[0], floats[1]))
    assert keys[positions].tolist() == list(range(1, images + 1))


@pytest.mark.parametrize(
    ("labels", "said"), [([0, 1, 0], "grouped"), ([1], "count up from 0"), ([0, 2], "count up"), ([-1], "count up")]
)
def test_labels_that_readers_would_misunderstand_are_refused(tmp_path: Path, labels: list[int], said: str) -> None:
    faces = [FaceRecord(name=f"{i}.jpg", label=label, identity="x", image=b"x") for i, label in enumerate(labels)]
    with pytest.raises(RecordError, match=said):
        write_insightface(tmp_path, faces, height=112, width=112)


def test_a_flat_pack_may_be_in_any_order_but_has_no_gaps(tmp_path: Path) -> None:
    faces = [FaceRecord(name=f"{i}.jpg", label=label, identity="x", image=b"x") for i, label in enumerate([2, 0, 2])]
    with pytest.raises(RecordError, match="label 1 has no face"):
        write_flat(tmp_path, faces, height=1, width=1)


def test_labels_beyond_float32_and_names_with_tabs_are_refused(tmp_path: Path) -> None:
    for face, said in (
        (FaceRecord(name="x", label=1 << 24, identity="x", image=b""), "float32"),
        (FaceRecord(name="a\tb", label=0, identity="x", image=b""), "TAB"),
        (FaceRecord(name="x", label=0, identity="a\tb", image=b""), "TAB"),
    ):
        with pytest.raises(RecordError, match=said):
            write_flat(tmp_path, [face], height=1, width=1)


def test_files_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no train\.rec"):
        RecordPack(tmp_path)
    write_insightface(tmp_path, FACES, height=112, width=112)
    (tmp_path / "property").write_text("2 112 112\n")
    with pytest.raises(RecordError, match="num_classes,height,width"):
        RecordPack(tmp_path)
    (tmp_path / "property").write_text("2,112,112\n8\nshuffled\n")  # rec2shufrec adds lines
    assert RecordPack(tmp_path).num_classes == 2
    lines = (tmp_path / "train.idx").read_text().splitlines(keepends=True)
    (tmp_path / "train.idx").write_text("".join([*lines[:4], lines[5]]))
    with pytest.raises(RecordError, match="counts 3 images and 2 identities"):
        RecordPack(tmp_path)
    for kept in (lines[:-1], lines[1:], lines[:2], []):
        (tmp_path / "train.idx").write_text("".join(kept))
        with pytest.raises(RecordError, match=r"train\.idx leaves out records of train\.rec"):
            RecordPack(tmp_path)
    (tmp_path / "train.idx").write_text("".join(lines).replace("2\t44\n", "78\t44\n"))
    with pytest.raises(RecordError, match=r"counts 3 images, the \.idx 2"):
        RecordPack(tmp_path)
    shutil.copy(tmp_path / "train.rec", tmp_path / "other.rec")
    (tmp_path / "train.rec").rename(tmp_path / "more.rec")
    with pytest.raises(RecordError, match=r"give the path of one \.rec"):
        RecordPack(tmp_path)


def test_lists_of_others_cannot_lead_out_of_a_folder(tmp_path: Path) -> None:
    write_flat(tmp_path, FACES, height=1, width=1)
    (tmp_path / "labels.tsv").unlink()
    (tmp_path / "train.lst").write_text("0\t0\t/data/../a/1.jpg\n1\t0\t../../a/nul\n2\t1\tC:\\b\\1.jpg\n")
    names = [RecordPack(tmp_path).face(i).name for i in range(3)]
    assert names[0] == "a/1.jpg"
    assert names[1].startswith("a/unsafe-")
    assert names[2] == "b/1.jpg"
