import hashlib
from pathlib import Path

import pytest

from dataprep.errors import RecordError
from dataprep.records.insightface import Face, Pack, write_pack
from dataprep.records.recordio import RecordReader, unpack_image

FACES = [
    Face(name="a/1.jpg", label=0, image=b"A"),
    Face(name="a/2.jpg", label=0, image=b"BC"),
    Face(name="b/1.jpg", label=1, image=b"DEF"),
]


def test_the_golden_file_of_face2rec2_to_the_byte(tmp_path: Path) -> None:
    counts = write_pack(tmp_path, FACES, height=112, width=112)
    rec = (tmp_path / "train.rec").read_bytes()
    assert hashlib.sha256(rec).hexdigest() == "bfe1dfd8576eec56f2328257325b246eeffb3ccaf42d91e0fa37fbdcf4242515"
    assert (tmp_path / "train.idx").read_text() == "1\t0\n2\t44\n3\t88\n0\t132\n4\t172\n5\t212\n"
    assert (tmp_path / "train.lst").read_text() == "1\ta/1.jpg\t0\n1\ta/2.jpg\t0\n1\tb/1.jpg\t1\n"
    assert (tmp_path / "property").read_text() == "2,112,112\n"
    assert counts == {"images": 3, "identities": 2}


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
    write_pack(tmp_path, FACES, height=112, width=96)
    pack = Pack(tmp_path)
    assert list(pack) == [(b"A", 0), (b"BC", 0), (b"DEF", 1)]
    assert (pack.num_classes, pack.height, pack.width) == (2, 112, 96)
    assert pack.labels().tolist() == [0, 0, 1]


def test_a_pack_of_somebody_elses_im2rec_is_read(shared: Path) -> None:
    pack = Pack(shared / "rec/faceid25", prefix="validation")
    assert len(pack) == 229
    assert sorted(set(pack.labels().tolist())) == list(range(25))
    assert all(image.startswith(b"\xff\xd8") for image, _ in pack)


@pytest.mark.parametrize(
    ("labels", "said"), [([0, 1, 0], "grouped"), ([1], "count up from 0"), ([0, 2], "count up"), ([-1], "count up")]
)
def test_labels_that_readers_would_misunderstand_are_refused(tmp_path: Path, labels: list[int], said: str) -> None:
    faces = [Face(name=f"{i}.jpg", label=label, image=b"x") for i, label in enumerate(labels)]
    with pytest.raises(RecordError, match=said):
        write_pack(tmp_path, faces, height=112, width=112)


def test_labels_beyond_float32_and_names_with_tabs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="float32"):
        write_pack(tmp_path, [Face(name="x", label=1 << 24, image=b"")], height=1, width=1)
    with pytest.raises(RecordError, match="TAB"):
        write_pack(tmp_path, [Face(name="a\tb", label=0, image=b"")], height=1, width=1)


def test_files_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no train\.rec"):
        Pack(tmp_path)
    write_pack(tmp_path, FACES, height=112, width=112)
    (tmp_path / "property").unlink()
    with pytest.raises(RecordError, match="property is missing"):
        Pack(tmp_path)
    (tmp_path / "property").write_text("2 112 112\n")
    with pytest.raises(RecordError, match="num_classes,height,width"):
        Pack(tmp_path)
    lines = (tmp_path / "train.idx").read_text().splitlines(keepends=True)
    (tmp_path / "train.idx").write_text("".join(lines[:-1]))
    with pytest.raises(RecordError, match="speaks of 3 images and 2 identities"):
        Pack(tmp_path)
