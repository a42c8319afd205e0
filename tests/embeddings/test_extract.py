import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.command import Run, command, environment

from dataprep.embeddings.extract import extract_features
from dataprep.embeddings.files import read_features
from dataprep.embeddings.images import open_image_source
from dataprep.errors import DataprepError, ModelError, RecordError, UsageError
from dataprep.imaging.codec import decode_image, encode_png
from dataprep.models.model_files import save_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.registry import create_model
from dataprep.packs.base import FaceRecord
from dataprep.packs.rec_writer import write_insightface
from dataprep.packs.verification_bin import write_bin


class Corner:
    """An embedder that shows what it was given: the mean of the left and of the right half."""

    height = width = 16

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        return np.stack([images[:, :, :8].mean((1, 2, 3)), images[:, :, 8:].mean((1, 2, 3))], axis=1).astype(np.float32)


def face(number: int, side: int = 16) -> bytes:
    pixels = np.full((side, side, 3), 1 + number % 200, np.uint8)
    pixels[:, side // 2 :] = 1 + number // 200
    return encode_png(pixels)


def truth(data: bytes) -> list[float]:
    pixels = decode_image(data)[0]
    return [float(pixels[:, :8].mean()), float(pixels[:, 8:].mean())]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    for number in range(23):
        path = root / f"p{number % 3}/{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(face(number * 7))
    return root


def names_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))


@pytest.mark.parametrize("form", ["parquet", "npy"])
def test_a_folder_becomes_one_file_in_order(folder: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / f"x.{form}"
    result = extract_features(open_image_source(folder), Corner(), out, about={}, form=form, batch=4, chunk=5)
    assert (result.images, result.failed, result.width, result.newly_embedded) == (23, 0, 2, 23)
    dump = read_features(out)
    assert dump.names == list(names_of(folder))
    for name, feature in zip(dump.names, dump.matrix, strict=True):
        assert feature.tolist() == truth((folder / name).read_bytes())
    assert not (tmp_path / f".x.{form}.parts").exists()
    assert not (tmp_path / f"x.{form}.failed.tsv").exists()


def test_lists_bins_and_packs_keep_their_order(folder: Path, tmp_path: Path) -> None:
    listed = names_of(folder)[::-1]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    extract_features(open_image_source(tmp_path / "list.txt", root=folder), Corner(), tmp_path / "l.parquet", about={})
    assert read_features(tmp_path / "l.parquet").names == listed
    images = [face(i) for i in (5, 3, 5, 9)]
    write_bin(tmp_path / "x.bin", images, [True, False])
    extract_features(open_image_source(tmp_path / "x.bin"), Corner(), tmp_path / "b.npy", about={}, form="npy")
    dump = read_features(tmp_path / "b.npy")
    assert dump.names == ["00001", "00002", "00003", "00004"]
    assert dump.matrix.tolist() == [truth(image) for image in images]
    (tmp_path / "pack").mkdir()
    faces = [FaceRecord(name=f"{i // 2}/{i}.jpg", label=i // 2, identity=f"{i // 2}", image=face(i)) for i in range(6)]
    write_insightface(tmp_path / "pack", faces, height=16, width=16)
    extract_features(open_image_source(tmp_path / "pack"), Corner(), tmp_path / "p.parquet", about={})
    dump = read_features(tmp_path / "p.parquet")
    assert dump.matrix.tolist() == [truth(one.image) for one in faces]
    assert dump.names is not None
    assert dump.names[5] == "2/5.jpg"


def test_a_list_beside_the_output_of_its_name_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    listed = "\n".join(names_of(folder)[::-1]) + "\n\n"
    (tmp_path / "x.txt").write_text(listed)
    extract_features(
        open_image_source(tmp_path / "x.txt", root=folder), Corner(), tmp_path / "x.npy", about={}, form="npy"
    )
    assert (tmp_path / "x.txt").read_text() == listed
    assert read_features(tmp_path / "x.npy").names == names_of(folder)[::-1]


def test_flips_are_fused_as_asked(folder: Path, tmp_path: Path) -> None:
    source = open_image_source(folder)
    plain, added, joined = (
        read_features(_extracted(source, tmp_path / f"{flip}.parquet", flip)).matrix
        for flip in ("none", "sum", "concat")
    )
    assert np.array_equal(added, plain + plain[:, ::-1])
    assert np.array_equal(joined, np.concatenate([plain, plain[:, ::-1]], axis=1))


def _extracted(source: object, out: Path, flip: str) -> Path:
    extract_features(source, Corner(), out, about={}, flip=flip)  # type: ignore[arg-type]
    return out


def test_a_file_for_each_image_as_vggface2_and_megaface_want_them(folder: Path, tmp_path: Path) -> None:
    source = open_image_source(folder)
    extract_features(source, Corner(), tmp_path / "npy", about={}, form="npy-per-image", chunk=4)
    extract_features(source, Corner(), tmp_path / "mega", about={}, form="megaface", algorithm="r100")
    name = names_of(folder)[7]
    expected = truth((folder / name).read_bytes())
    assert np.load((tmp_path / "npy" / name).with_suffix(".npy")).tolist() == expected
    data = (tmp_path / "mega" / f"{name}_r100.bin").read_bytes()
    assert struct.unpack("<4i2f", data) == (2, 1, 4, 5, *expected)
    assert len(list((tmp_path / "mega").rglob("*.bin"))) == 23


def test_names_that_cannot_be_placed_are_refused_before_anything_is_embedded(folder: Path, tmp_path: Path) -> None:
    (folder / "p0/00.jpg").write_bytes(face(1))
    idle = Corner()
    with pytest.raises(RecordError, match=r"p0/00\.jpg and p0/00\.png would both become p0/00\.npy"):
        extract_features(open_image_source(folder), idle, tmp_path / "npy", about={}, form="npy-per-image")
    (tmp_path / "list.txt").write_text("../in/p0/00.png\n")
    with pytest.raises(RecordError, match=r"\.\./in/p0/00\.png: a name outside"):
        extract_features(
            open_image_source(tmp_path / "list.txt", root=folder), idle, tmp_path / "x", about={}, form="megaface"
        )
    assert idle.seen == 0
    assert extract_features(open_image_source(folder), idle, tmp_path / "mega", about={}, form="megaface").images == 24


def test_a_fresh_extraction_leaves_no_files_of_the_old_one_and_a_lost_file_is_noticed(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "npy"
    extract_features(open_image_source(folder), Corner(), out, about={"model": 1}, form="npy-per-image")
    (out / "mine.npy").write_bytes(b"mine")
    (folder / "p0/00.png").unlink()
    extract_features(open_image_source(folder), Corner(), out, about={"model": 2}, form="npy-per-image", overwrite=True)
    made = {str(Path(name).with_suffix(".npy")) for name in names_of(folder)}
    assert {str(path.relative_to(out)) for path in out.rglob("*.npy")} == {*made, "mine.npy"}
    (out / "p1/01.npy").unlink()
    with pytest.raises(ModelError, match=r"p1/01\.npy is missing, one of 1 ") as caught:
        extract_features(open_image_source(folder), Corner(), out, about={"model": 2}, form="npy-per-image")
    assert "--overwrite" in caught.value.hint


def test_a_fresh_extraction_that_is_interrupted_is_gone_on_with(folder: Path, tmp_path: Path) -> None:
    class Dies(Corner):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            if self.seen >= 12:
                raise KeyboardInterrupt
            return super().__call__(images)

    out, source = tmp_path / "x.parquet", open_image_source(folder)
    extract_features(source, Corner(), out, about={"model": 1}, batch=4, chunk=4)
    with pytest.raises(KeyboardInterrupt):
        extract_features(source, Dies(), out, about={"model": 2}, batch=4, chunk=4, overwrite=True)
    assert extract_features(source, Corner(), out, about={"model": 2}, batch=4, chunk=4).newly_embedded == 11


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(face(1) + b" "), lambda path: os.utime(path, (1, 1))])
def test_a_source_that_changed_is_another_one(folder: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    out = tmp_path / "x.parquet"
    extract_features(open_image_source(folder), Corner(), out, about={})
    change(folder / "p0/00.png")
    with pytest.raises(ModelError, match="another source"):
        extract_features(open_image_source(folder), Corner(), out, about={})
    extract_features(open_image_source(folder), Corner(), out, about={}, overwrite=True)
    with pytest.raises(ModelError, match="another chunk"):
        extract_features(open_image_source(folder), Corner(), out, about={}, chunk=5)
    (folder / "p0/00.png").unlink()
    with pytest.raises(ModelError, match="another images and source"):
        extract_features(open_image_source(folder), Corner(), out, about={})


@pytest.mark.parametrize("name", [b"\xe9.png", b"a\nb.png"])
def test_a_file_whose_name_no_list_can_hold_is_named(folder: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(folder / "p0") + b"/" + name)).write_bytes(face(1))
    with pytest.raises(RecordError, match="rename the file") as error:
        open_image_source(folder)
    str(error.value).encode()


def test_a_form_under_the_suffix_of_another_is_refused(folder: Path, tmp_path: Path) -> None:
    source = open_image_source(folder)
    for name, form in (("x.parquet", "npy"), ("x.npy", "parquet"), ("x", "npy"), ("x.npy", "megaface")):
        with pytest.raises(UsageError, match="readers go by the suffix"):
            extract_features(source, Corner(), tmp_path / name, about={}, form=form)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="already exists and is a file"):
        extract_features(source, Corner(), tmp_path / "file", about={}, form="megaface")


def test_two_extractions_into_one_output_exclude_each_other(folder: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "x.parquet", open_image_source(folder)

    class Nested(Corner):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            with pytest.raises(DataprepError, match="the output"):
                extract_features(source, Corner(), out, about={})
            return super().__call__(images)

    assert extract_features(source, Nested(), out, about={}).images == 23


def test_images_that_cannot_be_embedded_are_left_out_counted_and_listed(folder: Path, tmp_path: Path) -> None:
    class Void(Corner):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            out = super().__call__(images)
            out[out[:, 0] == 1 + 7 * 4] = np.nan
            return out

    (folder / "p0/00.png").write_bytes(b"<html>")
    (folder / "p1/01.png").write_bytes(face(1, side=20))
    result = extract_features(open_image_source(folder), Void(), tmp_path / "x.parquet", about={}, chunk=4)
    assert (result.images, result.failed) == (20, 3)
    lines = dict(line.split("\t") for line in (tmp_path / "x.parquet.failed.tsv").read_text().splitlines())
    assert lines.keys() == {"p0/00.png", "p1/01.png", "p1/04.png"}
    assert "html" in lines["p0/00.png"]
    assert "20x20, but the model takes 16x16" in lines["p1/01.png"]
    assert "not finite" in lines["p1/04.png"]
    dump = read_features(tmp_path / "x.parquet")
    assert dump.names == [name for name in names_of(folder) if name not in lines]
    assert np.isfinite(dump.matrix).all()
    for name, feature in zip(dump.names, dump.matrix, strict=True):
        assert feature.tolist() == truth((folder / name).read_bytes())
    for path in folder.glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(RecordError, match="none of the 23 images"):
        extract_features(open_image_source(folder), Void(), tmp_path / "y.parquet", about={})


def test_an_interrupted_extraction_goes_on_and_another_one_is_told_apart(folder: Path, tmp_path: Path) -> None:
    class Dies(Corner):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            if self.seen >= 12:
                raise KeyboardInterrupt
            return super().__call__(images)

    out, source = tmp_path / "x.parquet", open_image_source(folder)
    with pytest.raises(KeyboardInterrupt):
        extract_features(source, Dies(), out, about={"model": 1}, batch=4, chunk=4)
    assert not out.exists()
    with pytest.raises(ModelError, match="another flip and model"):
        extract_features(source, Corner(), out, about={"model": 2}, flip="sum", batch=4, chunk=4)
    rest = Corner()
    assert extract_features(source, rest, out, about={"model": 1}, batch=4, chunk=4).newly_embedded == rest.seen == 11
    whole = tmp_path / "whole.parquet"
    extract_features(source, Corner(), whole, about={"model": 1}, batch=4, chunk=4)
    assert out.read_bytes() == whole.read_bytes()
    assert extract_features(source, rest, out, about={"model": 1}, batch=4, chunk=4).newly_embedded == 0
    with pytest.raises(ModelError, match="another model"):
        extract_features(source, rest, out, about={"model": 2}, batch=4, chunk=4)
    assert (
        extract_features(source, rest, out, about={"model": 2}, batch=4, chunk=4, overwrite=True).newly_embedded == 23
    )
    (tmp_path / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(ModelError, match="not from this extraction") as caught:
        extract_features(source, rest, tmp_path / "mine.parquet", about={})
    assert "--overwrite overwrites" in caught.value.hint


def test_a_kill_in_the_middle_loses_only_what_was_not_committed(dataprep: Run, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    network = create_model("mobilefacenet", 32)
    save_model(
        tmp_path / "m.pt", network, network="mobilefacenet", embedding=32, preprocessing=Preprocessing(), about={}
    )
    (tmp_path / "in").mkdir()
    for number in range(96):
        (tmp_path / f"in/{number:03d}.png").write_bytes(face(number, side=112))
    typed = ("extract", tmp_path / "in", "--model", tmp_path / "m.pt", "--chunk", 8, "--batch-size", 8)
    parts = tmp_path / ".x.npy.parts"
    run = subprocess.Popen(
        command("-w", tmp_path / "ws", *typed, "--out", tmp_path / "x.npy"),
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not len(list(parts.glob("0*.npz"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.npz")}
    assert 0 < len(kept) < 12, "killed too late to tell anything"
    assert not (tmp_path / "x.npy").exists()
    assert "96 features of 32 values" in dataprep(*typed, "--out", tmp_path / "x.npy").stdout
    dataprep(*typed, "--out", tmp_path / "y.npy")
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()
    assert json.loads((tmp_path / "x.npy.json").read_text())["images"] == 96
    assert not list(tmp_path.glob(".x.npy.parts"))
