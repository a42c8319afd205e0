"""Face sets as the Hugging Face hub keeps them, and shards and Parquet taken into a workspace."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.command import Run
from helpers.small_faces import noise, pack_writer, people

from dataprep.errors import RecordError
from dataprep.packs.base import PackFormat
from dataprep.packs.io import open_pack, pack_digest, read_image_at
from dataprep.packs.rec_reader import RecordPack

LABELS = [0, 0, 1, 1, 1, 2]


def written(folder: Path, columns: dict[str, object], *, names: list[str] | None = None, group: int = 2) -> Path:
    table = pa.table(columns)
    if names:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=group)
    return folder


def images(count: int = 6) -> list[dict[str, object]]:
    return [{"bytes": noise(number), "path": f"face.{number}.jpg"} for number in range(count)]


@pytest.mark.parametrize("where", ["hf", "hf/data", "hf/data/train-00000-of-00001.parquet"])
def test_a_set_of_the_hub_is_a_pack(tmp_path: Path, where: str) -> None:
    written(tmp_path / "hf/data", {"image": images(), "label": LABELS}, names=["Ann", "Bob/B", "Zoë"])
    pack = open_pack(tmp_path / where)
    assert (pack.layout, len(pack), pack.labels().tolist()) == ("parquet", 6, LABELS)
    faces = [pack.face(position) for position in (5, 0, 3)]  # row groups in any order
    assert [face.image for face in faces] == [noise(5), noise(0), noise(3)]
    assert [face.name for face in faces] == ["Zoë/face.5.jpg", "Ann/face.0.jpg", "Bob/B/face.3.jpg"]


def test_labels_may_be_names_and_images_bytes_alone(tmp_path: Path) -> None:
    written(tmp_path, {"img": [noise(n) for n in range(3)], "name": ["b", "a", "b"]})
    pack = open_pack(tmp_path)
    assert pack.labels().tolist() == [1, 0, 1]
    assert [pack.face(n).identity for n in range(3)] == ["b", "a", "b"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"image": images(), "text": ["x"] * 6}, "a column of labels is missing; its columns are: image (struct"),
        ({"url": ["http://x"], "label": [1]}, "a column of images is missing"),
        ({"image": images(), "label": [0, 1, -1, 0, 0, 0]}, "the label of image 3 is -1"),
        ({"image": images(), "label": ["a", None, "b", "b", "b", "b"]}, "the label of image 1 is 'a'"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, columns: dict[str, object], said: str) -> None:
    written(tmp_path, columns)
    with pytest.raises(RecordError) as raised:
        open_pack(tmp_path)
    assert said in str(raised.value)


def test_a_row_that_holds_only_a_path_is_told(tmp_path: Path) -> None:
    written(tmp_path, {"image": [{"bytes": None, "path": "a.jpg"}, {"bytes": b"x", "path": ""}], "label": [0, 0]})
    with pytest.raises(RecordError, match=r"row 1: it holds no image, only 'a.jpg'"):
        open_pack(tmp_path).face(0)


@pytest.mark.parametrize("container", ["rec", "webdataset", "parquet"])
def test_every_pack_is_imported_and_packed_again_with_the_same_bytes(
    tmp_path: Path, dataprep: Run, container: str
) -> None:
    faces = people(3, 3)
    if container == "parquet":
        rows = [{"bytes": face.image, "path": face.name} for face in faces]
        source = written(
            tmp_path / "hf", {"image": rows, "label": [face.label for face in faces]}, names=["a", "b", "c"]
        )
    else:
        source = pack_writer(tmp_path)(faces, form=PackFormat(container=container))
    opened = open_pack(source)
    places = [opened.place(position) for position in range(9)]  # type: ignore[attr-defined]
    assert [read_image_at(*place) for place in places] == [face.image for face in faces]
    ws = ("-w", tmp_path / "ws")
    assert "9 samples of 3 people" in dataprep(*ws, "import", "rec", source).stdout
    dataprep(*ws, "validate", "--min-side", 1)
    dataprep(*ws, "align", "--size", "keep")
    dataprep(*ws, "pack")
    pack = RecordPack(tmp_path / "ws/packs/train")
    assert sorted(pack[n][0] for n in range(9)) == sorted(face.image for face in faces)
    assert (pack.width, pack.height, pack.num_classes) == (16, 16, 3)


def test_faces_of_several_sizes_do_not_make_a_pack_and_photos_are_not_kept(tmp_path: Path, dataprep: Run) -> None:
    for name, side in (("a/1", 16), ("a/2", 16), ("b/1", 20), ("b/2", 16)):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / f"{name}.jpg").write_bytes(noise(len(name), side))
    ws = ("-w", tmp_path / "ws")
    dataprep(*ws, "import", "folder", tmp_path / "faces", "--aligned")
    dataprep(*ws, "validate", "--min-side", 1)
    dataprep(*ws, "align", "--size", "keep")
    told = dataprep(*ws, "pack", code=1).stderr
    assert "3 of 16x16 (a/1), 1 of 20x20 (b/1)" in told
    assert "--size 16x16 --margin 0" in told


def test_photos_are_not_kept_as_they_are(tmp_path: Path, dataprep: Run) -> None:
    dataprep("import", "synth", "--identities", 2, "--photos", 1)
    assert "a photo, not an aligned face" in dataprep("align", "--size", "keep", code=1).stderr


def test_two_single_shards_are_two_packs(tmp_path: Path) -> None:
    digests = set()
    for seed in (0, 1):
        folder = pack_writer(tmp_path)(
            people(2, 2, seed=seed), name=f"p{seed}", form=PackFormat(container="webdataset")
        )
        digests.add(pack_digest(open_pack(folder / "train-000000.tar")))
    assert len(digests) == 2
    assert open_pack(tmp_path / "p0/train-000000.tar").labels().tolist() == [0, 0, 1, 1]
