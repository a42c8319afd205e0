from pathlib import Path

import numpy as np
import pytest

from dataprep.errors import RecordError
from dataprep.imaging.codec import decode_image, encode_png
from dataprep.packs.base import read_identities
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.tools.from_list import pack_image_list, read_image_list


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """n000002 and n000009 with two photos each: one of 16x16, the others larger."""
    generator = np.random.default_rng(0)
    for name, size in (("n000002/a.png", (16, 16)), ("n000002/b.png", (64, 32)), ("n000009/a.png", (32, 64)),
                       ("n000009/b 2.png", (40, 40))):  # fmt: skip
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(generator.integers(0, 256, (*size, 3), dtype=np.uint8)))
    return tmp_path / "photos"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "list.txt"
    path.write_text(text)
    return path


def test_lists_have_labels_or_folders_that_tell_people_apart(tmp_path: Path) -> None:
    labelled = read_image_list(written(tmp_path, "b/1.jpg 1\n\na/x y 3.jpg 0\nb/2.jpg, 1\n"))
    assert [(one.path, one.label) for one in labelled] == [("a/x y 3.jpg", 0), ("b/1.jpg", 1), ("b/2.jpg", 1)]
    plain = read_image_list(written(tmp_path, "b/1.jpg\na/2.jpg\nb/3.jpg\n"))
    assert [(one.path, one.label, one.identity) for one in plain] == [
        ("a/2.jpg", 0, "a"), ("b/1.jpg", 1, "b"), ("b/3.jpg", 1, "b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no image"),
        ("a/1.jpg -1\n", "label -1"),
        ("a/1.jpg 0\nb/1.jpg\n", "line 2: some lines have a label"),
        ("a/1.jpg\n../b.jpg\n", "line 2: .* leads out of the root"),
        ("1.jpg\n", "has neither a folder nor a label"),
    ],
)
def test_lists_that_cannot_be_trained_on_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        read_image_list(written(tmp_path, text))


def test_a_list_becomes_a_pack_once(tmp_path: Path, photos: Path) -> None:
    file = written(tmp_path, "n000009/a.png\nn000002/a.png\nn000002/b.png\nn000009/b 2.png\n")
    told: list[tuple[int, int]] = []
    made = pack_image_list(
        file, photos, tmp_path / "pack", height=16, width=16, names={"n000009": "Ann"},
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    pack = RecordPack(made)
    assert pack.labels().tolist() == [0, 0, 1, 1]
    assert read_identities(made) == ["n000002", "Ann"]
    assert pack[0][0] == (photos / "n000002/a.png").read_bytes()  # of that size already: not encoded again
    assert all(decode_image(image)[0].shape == (16, 16, 3) for image, _ in pack)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    before = (made / "train.rec").stat().st_mtime_ns
    pack_image_list(file, photos, made, height=16, width=16, names={"n000009": "Ann"})
    assert (made / "train.rec").stat().st_mtime_ns == before
    with pytest.raises(RecordError, match="another list, root or size"):
        pack_image_list(file, photos, made, height=32, width=32, names={"n000009": "Ann"})


def test_the_centre_is_cut_out_as_vggface2_does(tmp_path: Path) -> None:
    """A bright square in the middle of a dark picture: 256/224 of 112 is 128, of which 8 are cut off on each side."""
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[16:240, 16:240] = 255
    (tmp_path / "p").mkdir()
    (tmp_path / "p/1.png").write_bytes(encode_png(picture))
    made = pack_image_list(written(tmp_path, "p/1.png"), tmp_path, tmp_path / "pack", height=112, width=112)
    pixels = decode_image(RecordPack(made)[0][0])[0]
    assert pixels.min() > 240


def test_an_image_that_is_missing_or_none_leaves_no_pack(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(RecordError, match=r"c\.png: No such file") as caught:
        pack_image_list(written(tmp_path, "n000002/c.png"), photos, tmp_path / "pack", height=16, width=16)
    assert "--root" in caught.value.hint
    (photos / "n000002/d.png").write_bytes(b"junk")
    with pytest.raises(RecordError, match=r"d\.png: ") as caught:
        pack_image_list(written(tmp_path, "n000002/d.png"), photos, tmp_path / "pack", height=16, width=16)
    assert "remove it from the list" in caught.value.hint
    assert not (tmp_path / "pack").exists()


def test_labels_of_any_number_are_numbered_and_absolute_paths_may_lie_under_the_root(tmp_path: Path) -> None:
    root = tmp_path / "img"
    (tmp_path / "x.txt").write_bytes(
        f"{root}/b.jpg 2937\n# a remark\na.jpg;2880\n{root}/c.jpg\t2937\n".encode("utf-8-sig")
    )
    listed = read_image_list(tmp_path / "x.txt", root)
    assert [(one.path, one.label, one.identity) for one in listed] == [
        ("a.jpg", 0, "002880"), ("b.jpg", 1, "002937"), ("c.jpg", 1, "002937"),
    ]  # fmt: skip
