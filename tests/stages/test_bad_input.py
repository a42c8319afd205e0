"""What lies in scraped folders and tables, through the real stages: each sample gets its row, none ends the run."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataprep.pipeline.pipeline import Pipeline
from dataprep.pipeline.runner import run_pipeline
from dataprep.sources.base import Source
from dataprep.sources.folder import FolderSource
from dataprep.sources.image_list import LstSource
from dataprep.sources.vggface2 import VggFace2Source
from dataprep.synth.photos import draw_photo
from dataprep.workspace.workspace import Workspace

DRAWN = draw_photo(3, 0)
GRAY = np.asarray(Image.fromarray(DRAWN.pixels).convert("L"))


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def usable_kinds() -> dict[str, bytes]:
    """One drawn face in every kind of file that a decoder may meet."""
    rgb = Image.fromarray(DRAWN.pixels)
    alpha = np.dstack([DRAWN.pixels, np.full(GRAY.shape, 255, np.uint8)])
    return {
        "gray.jpg": saved(Image.fromarray(GRAY), "JPEG", quality=95),
        "gray-alpha.png": saved(Image.fromarray(np.dstack([GRAY, np.full_like(GRAY, 255)])), "PNG"),
        "sixteen.png": saved(Image.fromarray(GRAY.astype(np.uint16) * 257), "PNG"),
        "alpha.png": saved(Image.fromarray(alpha), "PNG"),
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG", quality=95),
        "palette.png": saved(rgb.quantize(256), "PNG"),
        "transparent.png": saved(rgb.quantize(255), "PNG", transparency=255),
    }


def outcome(folder: Path, source: Source, **recipe: dict[str, object]) -> dict[str, tuple[str, str, dict]]:
    """Name of the photo to (the stage that lost it, or "align"; reason, or "ok"; the row)."""
    workspace = Workspace(folder / "ws", create=True)
    workspace.plan().add(source.describe(), "d", source.samples())
    chain = Pipeline(workspace, recipe, until="align")
    run_pipeline(chain, jobs=0)
    found = {}
    for link in chain.nodes[1:]:
        for marker in link.store.markers().values():
            for row in link.store.rows(marker):
                found[row["key"].partition("/")[2]] = (link.name, row["reason"] or "ok", row)
    return found


def test_every_kind_of_file_that_shows_a_face_is_aligned_alike(tmp_path: Path) -> None:
    for name, data in usable_kinds().items():
        (tmp_path / "photos/p").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos/p" / name).write_bytes(data)
    found = outcome(tmp_path, FolderSource(tmp_path / "photos"))
    assert {name: found[name.rpartition(".")[0]][:2] for name in usable_kinds()} == dict.fromkeys(
        usable_kinds(), ("align", "ok")
    )
    matrices = np.array([row["matrix"] for _, _, row in found.values()]).reshape(-1, 2, 3)
    corners = matrices @ np.array([[0, 250, 0, 250], [0, 0, 250, 250], [1, 1, 1, 1]])
    assert np.abs(corners - corners.mean(axis=0)).max() < 6  # a gray photo moves the landmarks a little


@pytest.mark.parametrize("min_side", [32, 1])
def test_photos_of_one_to_eleven_pixels_are_rows(tmp_path: Path, min_side: int) -> None:
    photos = tmp_path / "photos/p"
    photos.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    shapes = [(side, side) for side in range(1, 12)] + [(1, 400), (400, 1), (11, 60)]
    for height, width in shapes:
        (photos / f"{width}x{height}.png").write_bytes(saved(Image.fromarray(noise[:height, :width]), "PNG"))
    found = outcome(tmp_path, FolderSource(photos.parent), validate={"min_side": min_side})
    assert len(found) == len(shapes)
    expected = ("validate", "too_small") if min_side == 32 else ("detect", "no_face")
    assert {seen[:2] for seen in found.values()} == {expected}


def test_a_photo_without_a_face_and_files_that_are_none(tmp_path: Path) -> None:
    photos = tmp_path / "photos/p"
    photos.mkdir(parents=True)
    sky = np.linspace(90, 220, 240).astype(np.uint8)
    (photos / "sky.jpg").write_bytes(saved(Image.fromarray(np.repeat(sky[:, None, None], 3, 2).repeat(300, 1)), "JPEG"))
    (photos / "face.jpg").write_bytes(saved(Image.fromarray(DRAWN.pixels), "JPEG"))
    (photos / "half.jpg").write_bytes((photos / "face.jpg").read_bytes()[:3000])
    (photos / "page.jpg").write_bytes(b"<!DOCTYPE html><html></html>")
    (photos / "empty.jpg").touch()
    (photos / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    listed = "".join(f"{i}\t0\tp/{path.name}\n" for i, path in enumerate(sorted(photos.iterdir())))
    (tmp_path / "photos/x.lst").write_text(listed)
    found = outcome(tmp_path, LstSource(tmp_path / "photos/x.lst"))
    assert {name: seen[:2] for name, seen in found.items()} == {
        "sky": ("detect", "no_face"),
        "face": ("align", "ok"),
        "half": ("validate", "truncated"),
        "page": ("validate", "html"),
        "empty": ("validate", "empty"),
        "gone": ("validate", "io_error"),
    }


def test_landmarks_and_boxes_of_a_csv_that_are_no_numbers(tmp_path: Path) -> None:
    root = tmp_path / "v"
    points = [f"{value:.2f}" for value in DRAWN.landmarks.ravel()]
    rows = {
        "0001_01": points,
        "0002_01": ["nan", *points[1:]],
        "0003_01": [*points[:9], ""],
        "0004_01": [*points[:9], "999"],
        "0005_01": [*points[:9], "inf"],
        "0006_01": [*points[:9], "what"],
        "0007_01": points[:1] * 10,
        "0008_01": points[:3],
    }
    (root / "train/n000001").mkdir(parents=True)
    for name in rows:
        (root / f"train/n000001/{name}.png").write_bytes(saved(Image.fromarray(DRAWN.pixels), "PNG"))
    table = "".join(f'"n000001/{name}",{",".join(row)}\n' for name, row in rows.items())
    (root / "loose_landmark_train.csv").write_text(table)
    (root / "loose_bb_train.csv").write_text('"n000001/0001_01",60,60,nan,90\n')
    source = VggFace2Source(root)
    found = outcome(tmp_path, source)
    assert {name: seen[:2] for name, seen in found.items()} == {
        "0001_01": ("crop", "bad_box"),
        **{f"000{i}_01": ("detect", "bad_landmarks") for i in range(2, 7)},
        "0007_01": ("align", "bad_landmarks"),  # they coincide
        "0008_01": ("align", "ok"),  # the row is useless, so the face is looked for
    }
    assert "2 malformed rows" in source.summary
    assert "nan" in found["0002_01"][2]["detail"]
    assert "not finite" in found["0001_01"][2]["detail"]


def test_boxes_beyond_all_photos_and_boxes_of_faces_that_were_aligned_before(tmp_path: Path) -> None:
    boxes = {"far": "0\tfar.png\t1\t0\t0\t1e300\t90", "cut": "1\tcut.png\t1\t300\t200\t420\t360"}
    boxes["none"] = "1\tnone.png\t1\t0\t0\t0\t0"
    for name in boxes:
        (tmp_path / f"{name}.png").write_bytes(saved(Image.fromarray(DRAWN.pixels).resize((112, 112)), "PNG"))
    (tmp_path / "x.lst").write_text("\n".join(boxes.values()) + "\n")
    found = outcome(tmp_path, LstSource(tmp_path / "x.lst"))
    assert {name: seen[:2] for name, seen in found.items()} == {
        "far": ("crop", "bad_box"),
        "cut": ("align", "ok"),
        "none": ("align", "ok"),
    }


def test_landmarks_of_a_list_that_are_no_numbers(tmp_path: Path) -> None:
    numbers = [f"{value:.2f}" for value in DRAWN.landmarks.T.ravel()]
    box = [f"{value:.0f}" for value in DRAWN.box]
    rows = {"good": [*box, *numbers], "bad": [*box, "nan", *numbers[1:]], "inverted": [*box[2:], *box[:2], *numbers]}
    for name in rows:
        (tmp_path / f"{name}.png").write_bytes(saved(Image.fromarray(DRAWN.pixels), "PNG"))
    (tmp_path / "x.lst").write_text("".join("\t".join(["0", f"{name}.png", "1", *rows[name]]) + "\n" for name in rows))
    found = outcome(tmp_path, LstSource(tmp_path / "x.lst"))
    assert {name: seen[:2] for name, seen in found.items()} == {
        "good": ("align", "ok"),
        "bad": ("detect", "bad_landmarks"),
        "inverted": ("crop", "bad_box"),
    }
    aligned = found["good"][2]
    assert aligned["score"] is None
    assert aligned["alignment_error"] < 4


def test_a_panorama_of_twenty_thousand_pixels_is_one_photo(tmp_path: Path) -> None:
    wide = np.full((250, 20_000, 3), 90, np.uint8)
    wide[:, 9_900:10_150] = DRAWN.pixels
    (tmp_path / "photos/p").mkdir(parents=True)
    (tmp_path / "photos/p/wide.jpg").write_bytes(saved(Image.fromarray(wide), "JPEG", quality=95))
    found = outcome(tmp_path, FolderSource(tmp_path / "photos"))
    assert found["wide"][:2] == ("align", "ok")
    landmarks = np.linalg.inv(np.vstack([np.reshape(found["wide"][2]["matrix"], (2, 3)), [0, 0, 1]])) @ [56, 72, 1]
    assert 9_900 < landmarks[0] < 10_150
    found = outcome(tmp_path / "two", FolderSource(tmp_path / "photos"), validate={"max_pixels": 4_000_000})
    assert found["wide"][:2] == ("validate", "too_many_pixels")
