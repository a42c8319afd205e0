"""Faces of photos without a workspace: the same as a workspace makes, resumable, and told file by file."""

import csv
import shutil
from pathlib import Path

import numpy as np
from helpers.command import Run

from dataprep.embeddings.embedder import embed_pairs, open_model


def table(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "faces.csv", encoding="utf-8", newline="") as stream:
        return {row["photo"]: row for row in csv.DictReader(stream)}


def test_faces_are_those_of_a_workspace_and_every_file_is_accounted_for(
    drawn: Path, dataprep: Run, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    person = sorted(path for path in drawn.iterdir() if path.is_dir())[0]
    shutil.copytree(person, photos / "a" / person.name)
    first = sorted((photos / "a" / person.name).iterdir())[0]
    shutil.copy(first, photos / "same.jpg")
    shutil.copy(first, photos / "same.jpeg")
    (photos / "notes.txt").write_text("not a photo")
    said = dataprep("align", photos, first, "--out", tmp_path / "faces").stdout
    assert f"{len(list((photos / 'a').rglob('*.jpg'))) + 2} faces of" in said
    assert "(not_an_image 1)" in said
    rows = table(tmp_path / "faces")
    assert rows[str(photos / "notes.txt")]["reason"] == "not_an_image"
    assert {rows[str(photos / name)]["face"] for name in ("same.jpg", "same.jpeg")} == {"same.jpg.jpg", "same.jpeg.jpg"}
    assert len(rows[str(first)]["landmarks"].split()) == 10
    dataprep("import", "folder", photos / "a")
    dataprep("align")
    dataprep("export", tmp_path / "exported")
    for face in (tmp_path / "exported").rglob("*.jpg"):
        assert (tmp_path / "faces/a" / face.relative_to(tmp_path / "exported")).read_bytes() == face.read_bytes()


def test_the_same_call_again_does_what_is_new_and_other_options_need_another_folder(
    drawn: Path, dataprep: Run, tmp_path: Path
) -> None:
    person = sorted(path for path in drawn.iterdir() if path.is_dir())[0]
    photos = sorted(person.iterdir())
    out = tmp_path / "faces"
    dataprep("align", photos[0], "--out", out)
    face = out / f"{photos[0].stem}.jpg"
    before = face.stat().st_mtime_ns
    dataprep("align", photos[0], photos[1], "--out", out, "-j", 0)
    assert face.stat().st_mtime_ns == before
    assert set(table(out)) == {str(photos[0]), str(photos[1])}
    face.unlink()
    dataprep("align", photos[0], "--out", out)
    assert face.exists()
    assert set(table(out)) == {str(photos[0]), str(photos[1])}
    assert "made with other options" in dataprep("align", photos[0], "--out", out, "--size", 224, code=2).stderr
    assert "no such file or folder" in dataprep("align", tmp_path / "none", "--out", out, code=1).stderr
    assert "takes both PHOTOS and --out" in dataprep("align", "--out", out, code=2).stderr
    assert "WIDTHxHEIGHT in pixels" in dataprep("align", photos[0], "--out", out, "--size", "abc", code=2).stderr


def test_similarity_is_the_cosine_of_embedded_faces(shared: Path, dataprep: Run, tmp_path: Path) -> None:
    model = shared / "weights/mobilefacenet_foamliu.onnx"
    photos = [shared / f"lfw/Aaron_Peirsol/Aaron_Peirsol_000{n}.jpg" for n in (1, 2)]
    photos.append(shared / "lfw/Abel_Pacheco/Abel_Pacheco_0001.jpg")
    lines = dataprep("similarity", *photos, "--model", model).stdout.splitlines()
    dataprep("align", *photos, "--out", tmp_path / "faces", "--format", "png")
    faces = [(tmp_path / "faces" / f"{photo.stem}.png").read_bytes() for photo in photos]
    units = embed_pairs(open_model(model), faces)
    expected = [np.dot(units[a], units[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose([float(line.split("\t")[0]) for line in lines], expected, atol=1e-4)
    assert expected[0] > 0.6 > max(expected[1:])
    aligned = [tmp_path / "faces" / f"{photo.stem}.png" for photo in photos]
    assert (
        dataprep("similarity", *aligned, "--aligned", "--model", model).stdout.splitlines()[0].split("\t")[0]
        == lines[0].split("\t")[0]
    )
    said = dataprep("similarity", photos[0], shared / "photos/no_face.jpg", "--model", model, code=1).stderr
    assert "no_face.jpg: no_face" in said
    assert "takes two photos or more" in dataprep("similarity", photos[0], "--model", model, code=2).stderr
