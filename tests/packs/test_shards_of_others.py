"""WebDataset shards as the webdataset package reads them, whoever wrote them."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from helpers.command import Run
from helpers.small_faces import noise

from dataprep.errors import RecordError
from dataprep.packs.io import open_pack

LABELS = (0, 1, 1)


def shard(
    path: Path, *, image: str = "jpg", cls: str = "{}", about: dict[str, object] | None = None, caption: str = ""
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for number, label in enumerate(LABELS):
            files = {image: noise(number)}
            if cls:
                files["cls"] = cls.format(label).encode()
            if caption:
                files["txt"] = caption.format("AB"[label]).encode()
            if about is not None:
                files["json"] = json.dumps({**about, "label": label}).encode()
            for suffix, data in files.items():
                info = tarfile.TarInfo(f"{number:04d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    data = stream.getvalue()
    path.write_bytes(gzip.compress(data) if path.suffix in (".gz", ".tgz") else data)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("0.tar", {}),
        ("0.tar", {"cls": "{}\n"}),
        ("0.tar.gz", {}),
        ("0.tgz", {}),
        ("0.tar", {"image": "face.jpg"}),
        ("0.tar", {"cls": "", "about": {"identity": "x"}}),
    ],
)
def test_each_way_to_write_a_shard_is_read(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    path = shard(tmp_path / "pack" / name, **options)  # type: ignore[arg-type]
    for pack in (open_pack(path.parent), open_pack(path)):
        assert pack.labels().tolist() == list(LABELS)
        assert [pack.face(position).image for position in range(3)] == [noise(number) for number in range(3)]


def test_a_tar_that_is_gzipped_whatever_its_name_is_read(tmp_path: Path) -> None:
    path = shard(tmp_path / "pack/0.tar")
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert open_pack(path.parent).labels().tolist() == list(LABELS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RecordError, match="not a readable tar"):
        open_pack(path.parent)


def test_photos_without_labels_and_labels_that_are_none_are_told(tmp_path: Path, dataprep: Run) -> None:
    shard(tmp_path / "pack/00000.tar", cls="")
    said = dataprep("info", tmp_path / "pack", code=1).stderr
    assert "sample '0000' needs an image and a label (.cls, or `label` in the .json); it has ['jpg']" in said
    assert "hint: photos of unknown people" in said
    shard(tmp_path / "bad/0.tar", cls="x{}")
    with pytest.raises(RecordError, match=r"0000\.cls holds b'x0'"):
        open_pack(tmp_path / "bad")


def test_img2datasets_captions_are_names_where_there_are_no_labels(tmp_path: Path, dataprep: Run) -> None:
    shard(tmp_path / "pack/00000.tar", cls="", caption="Person {}\n")
    pack = open_pack(tmp_path / "pack")
    assert pack.labels().tolist() == list(LABELS)
    assert [pack.face(position).identity for position in range(3)] == ["Person A", "Person B", "Person B"]
    assert "are taken as names of people, 2 of them" in dataprep("info", tmp_path / "pack").stderr
    shard(tmp_path / "blank/00000.tar", cls="", caption=" ")
    with pytest.raises(RecordError, match="or a caption"):
        open_pack(tmp_path / "blank")
