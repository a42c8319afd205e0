"""Packs of every format as one source, and the packs and images that cannot be trained on."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.small_packs import INPUT, SIDE, equal, face, grid, load, write
from PIL import Image

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import decode_face, decode_image, encode_jpeg, encode_png
from dataprep.packs.base import FaceRecord, PackFormat
from dataprep.packs.record_index import format_index
from dataprep.packs.recordio import RecordWriter, encode_image_header, encode_scalar_header
from dataprep.packs.tools.merge import merge_packs
from dataprep.train.data.dataset import open_dataset
from dataprep.train.data.loader import close_workers

FORMS = {
    "insightface": PackFormat(),
    "flat": PackFormat(record_layout="flat"),
    "parts": PackFormat(max_part=6000),
    "webdataset": PackFormat(container="webdataset", max_part=20480),
    "folder": PackFormat(container="folder"),
}


def stranger(folder: Path, labels: list[float], images: list[bytes] | None = None, *, property: str = "") -> Path:
    """A flat .rec of somebody else: no property, no lists."""
    folder.mkdir()
    with open(folder / "train.rec", "wb") as stream:
        writer = RecordWriter(stream)
        for key, label in enumerate(labels):
            writer.write(key, images[key] if images else face(0, key).image, encode_scalar_header(label, key))
        (folder / "train.idx").write_bytes(format_index(writer.finish()))
    if property:
        (folder / "property").write_text(property)
    return folder


def named(*names: str) -> list[FaceRecord]:
    return [replace(face(label, 100), identity=name, name=f"{name}/1.jpg") for label, name in enumerate(names)]


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_batches(tmp_path: Path, form: str) -> None:
    reference = open_dataset([write(tmp_path / "reference", grid(3, 8))])
    source = open_dataset([write(tmp_path / "pack", grid(3, 8), FORMS[form])])
    assert (len(source), source.num_classes, source.height, source.width) == (24, 3, SIDE, SIDE)
    assert [source[i] for i in range(24)] == [reference[i] for i in range(24)]
    assert equal(load(reference), load(source, workers=1))  # pickled, opened anew
    close_workers(source)


def test_both_label_dialects_and_a_folder_of_anybodys_are_read(tmp_path: Path) -> None:
    flat = open_dataset([stranger(tmp_path / "flat", [0, 1, 1, 2])])
    assert flat.labels.tolist() == [0, 1, 1, 2]
    assert (flat.height, flat.width) == (SIDE, SIDE)  # of the first face
    folder = tmp_path / "folder"
    for name in ("b/1.jpg", "a/1.jpg", "a/2.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(face(0, 0).image)
    assert open_dataset([folder]).labels.tolist() == [0, 0, 1]


def test_the_packs_of_others_are_read(shared: Path) -> None:
    faces = open_dataset([shared / "rec/faceid25"])
    assert (len(faces), faces.num_classes, faces.height, faces.width) == (229, 25, 112, 112)


def test_several_packs_are_one_by_offset_or_by_name(tmp_path: Path) -> None:
    one = write(tmp_path / "one", grid(3, 2))
    two = write(tmp_path / "two", named("p2", "p9", "p0"))
    apart = open_dataset([one, two])
    assert apart.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 4, 5]
    assert apart.num_classes == 6
    together = open_dataset([one, two], merge_labels="name")
    assert together.labels.tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 0]
    assert together.num_classes == 4
    assert together[7] == (face(1, 100).image, 3)
    (two / "labels.tsv").unlink()
    with pytest.raises(RecordError, match=r"two: no labels\.tsv"):
        open_dataset([one, two], merge_labels="name")
    with pytest.raises(RecordError, match="unknown way to join"):
        open_dataset([one, two], merge_labels="both")


def test_the_digest_is_that_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    digests = {form: open_dataset([write(tmp_path / form, grid(2, 3), FORMS[form])]).digest() for form in FORMS}
    (tmp_path / "again").mkdir()
    for form, digest in digests.items():
        again = write(tmp_path / "again" / form, grid(2, 3), FORMS[form])
        assert open_dataset([again]).digest() == digest
    assert open_dataset([write(tmp_path / "other", grid(2, 4))]).digest() != digests["insightface"]
    relabelled = [stranger(tmp_path / name, labels).parent / name for name, labels in (("x", [0, 1]), ("y", [1, 0]))]
    assert len({open_dataset([pack]).digest() for pack in relabelled}) == 2


def test_labels_that_cannot_be_trained_on_are_named_with_a_remedy(tmp_path: Path) -> None:
    gaps = stranger(tmp_path / "gaps", [0, 3])
    with pytest.raises(RecordError, match=r"gaps: 2 labels have no image, for example 1;") as caught:
        open_dataset([gaps])
    assert "`dataprep merge`" in caught.value.hint
    merge_packs([gaps], tmp_path / "mended", pack_format=PackFormat())
    assert open_dataset([tmp_path / "mended"]).labels.tolist() == [0, 1]
    with pytest.raises(RecordError, match=r"image 1: label 3 is not among 0\.\.1"):
        open_dataset([stranger(tmp_path / "beyond", [0, 3], property=f"2,{SIDE},{SIDE}")])
    with pytest.raises(RecordError, match=r"image 0: label -1"):
        open_dataset([stranger(tmp_path / "negative", [-1, 0])])
    with pytest.raises(RecordError, match=r"0\.5"):
        open_dataset([stranger(tmp_path / "half", [0, 0.5])])
    with pytest.raises(RecordError, match="no images"):
        open_dataset([stranger(tmp_path / "empty", [], property="0,24,24")])
    with pytest.raises(RecordError, match="no pack was given"):
        open_dataset([])
    with pytest.raises(RecordError, match="nowhere: no such pack"):
        open_dataset([tmp_path / "nowhere"])


def test_packs_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", grid(1, 2)), write(tmp_path / "two", grid(1, 2))
    (two / "property").write_text("1,112,96\n")
    with pytest.raises(RecordError, match=r"two holds faces of 96x112, .*one of 24x24"):
        open_dataset([one, two])
    (two / "property").write_text(f"1,{SIDE},{SIDE}\n")
    for pack, template in ((one, "arcface"), (two, "vgg")):
        about = json.loads((pack / "pack.json").read_bytes())
        (pack / "pack.json").write_text(json.dumps({**about, "template": template}))
    with pytest.raises(RecordError, match="different templates"):
        open_dataset([one, two])
    (one / "pack.json").write_text('{"colour_order": "BGR"}')
    with pytest.raises(RecordError, match=r"'BGR'.*pack them again"):
        open_dataset([one])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<html>not found</html>", "html"),
        (b"", "empty|corrupt|not_an_image"),
        (encode_jpeg(np.zeros((SIDE, SIDE, 3), np.uint8))[:-30], "truncated|Truncated"),
        (encode_jpeg(np.zeros((9, 5, 3), np.uint8)), "is 5x9, but the network takes 24x24"),
    ],
)
def test_an_image_that_cannot_be_taken_is_named(tmp_path: Path, workers: int, data: bytes, said: str) -> None:
    images = [face(0, 0).image, face(0, 1).image, data, face(0, 2).image]
    source = open_dataset([stranger(tmp_path / "pack", [0, 0, 0, 0], images)])
    with pytest.raises(RecordError, match=rf"pack: image 2\b.*({said})") as caught:
        load(source, batch_size=2, workers=workers)
    assert "`dataprep repair`" in caught.value.hint


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_and_a_truncated_file_are_named(tmp_path: Path, workers: int) -> None:
    pack = write(tmp_path / "pack", grid(1, 4))
    whole = (pack / "train.rec").read_bytes()
    (pack / "train.rec").write_bytes(whole[:-60])
    with pytest.raises(RecordError, match=r"pack/train\.idx, line 6: offset") as caught:
        open_dataset([pack])
    assert "`dataprep repair`" in caught.value.hint
    (pack / "train.rec").write_bytes(whole)
    source = open_dataset([pack])
    with open(pack / "train.rec", "r+b") as stream:
        stream.seek(int((pack / "train.idx").read_text().split()[3]))
        before = os.fstat(stream.fileno())
        stream.write(b"no magic")
    os.utime(pack / "train.rec", ns=(before.st_atime_ns, before.st_mtime_ns))  # a bad disk changes no times
    with pytest.raises(RecordError, match=r"pack: image 1: ") as caught:
        load(source, batch_size=2, workers=workers)
    assert "`dataprep repair`" in caught.value.hint


def _photo(seed: int = 0, side: int = 40) -> Image.Image:
    """Soft shapes: noise alone would say little of how chroma is interpolated."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((side, side + 3), Image.Resampling.BICUBIC)


def _saved(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(_photo(), quality=95, exif=exif)


FILES = {
    **{f"quality {q}": _saved(_photo(q), quality=q) for q in (5, 50, 75, 95, 100)},
    **{f"subsampling {s}": _saved(_photo(), quality=90, subsampling=s) for s in (0, 1, 2)},
    **{f"turned {n}": _turned(n) for n in range(1, 9)},
    "progressive": _saved(_photo(), quality=90, progressive=True),
    "grey": _saved(_photo().convert("L")),
    "CMYK": _saved(_photo().convert("CMYK")),
    "RGB inside": _saved(_photo(), keep_rgb=True),
    "behind it a thumbnail": _saved(_photo()) + b"\xff\xd9",
    "PNG": encode_png(np.asarray(_photo())),
    "PNG with alpha": _saved(_photo().convert("RGBA").rotate(30), "PNG"),
    "palette": _saved(_photo().quantize(16), "PNG"),
    "WebP": _saved(_photo(), "WEBP"),
}


@pytest.mark.parametrize("name", FILES)
def test_faces_are_decoded_to_the_pixels_that_evaluation_sees(name: str) -> None:
    pixels, _ = decode_image(FILES[name])
    assert np.array_equal(decode_face(FILES[name]), pixels)
    assert np.array_equal(decode_face(FILES[name], order="BGR"), pixels[:, :, ::-1])


@pytest.mark.parametrize("end", range(3, 700, 41))
def test_no_cut_jpeg_is_taken_for_a_whole_one(end: int) -> None:
    data = FILES["quality 95"]
    assert end < len(data)
    with pytest.raises(ImagingError):
        decode_face(data[:end])


def test_labels_behind_the_header_and_in_it(tmp_path: Path) -> None:
    folder = stranger(tmp_path / "pack", [0, 1])
    with open(folder / "train.rec", "wb") as stream:
        writer = RecordWriter(stream)
        for key, label in enumerate((1, 0, 1), 1):
            writer.write(key, face(label, key).image, encode_image_header((label, 1), key))
        (folder / "train.idx").write_bytes(format_index(writer.finish()))
    assert open_dataset([folder]).labels.tolist() == [1, 0, 1]
    assert len(load(open_dataset([folder]), INPUT, batch_size=3)) == 1
