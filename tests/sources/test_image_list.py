from pathlib import Path

import numpy as np
import pytest

from dataprep.errors import DataprepError, SourceError
from dataprep.reasons import Reason
from dataprep.sources.image_list import LstSource
from dataprep.types import Box

POINTS = "\t".join(map(str, [30, 70, 50, 35, 65, 52, 51, 72, 92, 93]))


def listed(folder: Path, text: str) -> Path:
    path = folder / "x.lst"
    path.write_text(text)
    return path


def test_insightfaces_list_with_boxes_and_landmarks(tmp_path: Path) -> None:
    text = (
        f"1\tAnn/1.png\t0\n0\t{tmp_path}/Ben/2.jpg\t1\t10\t20\t110\t140\n0\tBen/3.jpg\t1\t10\t20\t110\t140\t{POINTS}\n"
    )
    source = LstSource(listed(tmp_path, text), root=tmp_path)
    one, two, three = source.samples()
    assert (one.key, one.identity, one.aligned, one.path) == ("Ann/1", "Ann", True, str(tmp_path / "Ann/1.png"))
    assert (two.key, two.aligned, two.path, two.box) == (
        "Ben/2",
        False,
        str(tmp_path / "Ben/2.jpg"),
        Box(10, 20, 110, 140),
    )
    assert two.landmarks is None
    assert three.landmarks == ((30, 52), (70, 51), (50, 72), (35, 92), (65, 93))
    assert source.describe()["aligned"] is True  # so that no pack says it knows their template


def test_im2recs_list_is_of_photos_unless_they_are_said_to_be_aligned(tmp_path: Path) -> None:
    path = listed(tmp_path, "0\t7.000000\tman/1.jpg\n5\t8.000000\twoman/2.jpg\n")
    assert [(s.key, s.aligned) for s in LstSource(path).samples()] == [("man/1", False), ("woman/2", False)]
    assert [s.aligned for s in LstSource(path, aligned=True).samples()] == [True, True]


@pytest.mark.parametrize("folder", ["", "img_celeba/"])
def test_labels_name_people_whose_images_share_a_folder_or_have_none(tmp_path: Path, folder: str) -> None:
    path = listed(tmp_path, f"0\t2880.0\t{folder}000001.jpg\n1\t2937.0\t{folder}000002.jpg\n2\t5.0\tother/3.jpg\n")
    assert [s.key for s in LstSource(path).samples()] == ["2880/000001", "2937/000002", "5/3"]


def test_lines_that_name_nobody_are_accounted_for(tmp_path: Path) -> None:
    path = listed(tmp_path, "0\tnan\t1.jpg\n1\t-1\t2.jpg\n2\t3\t..jpg\n")
    assert [s.error for s in LstSource(path).samples()] == [Reason.BAD_LINE, Reason.BAD_LINE, Reason.BAD_NAME]


def test_a_landmark_that_is_no_number_is_the_samples_own_trouble(tmp_path: Path) -> None:
    path = listed(tmp_path, f"0\tBen/3.jpg\t1\t10\t20\tinf\t140\t{POINTS.replace('72', 'nan')}\n")
    (sample,) = LstSource(path).samples()
    assert sample.box is not None
    assert np.isinf(sample.box.right)
    assert sample.landmarks is not None
    assert np.isnan(sample.landmarks[2][1])


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        LstSource(tmp_path / "none.lst")
    path = listed(tmp_path, "1\ta/1.jpg\t0\n")
    with pytest.raises(SourceError, match="none: no such directory"):
        LstSource(path, root=tmp_path / "none")
    with pytest.raises(SourceError, match="marks each image as aligned"):
        LstSource(path, aligned=True)
    with pytest.raises(DataprepError, match="not in mxnet's"):
        LstSource(path, dialect="mxnet")


def test_the_real_lists(shared: Path) -> None:
    source = LstSource(shared / "rec/webface8/train.lst", root=shared / "rec/webface8/images")
    assert {s.identity for s in source.samples()} == {"man", "woman"}
    assert len(list(LstSource(shared / "rec/faceid25/validation.lst").samples())) == 229


def test_paths_and_links_that_lead_out_of_the_root_are_left_out_unless_it_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/me.jpg").write_bytes(b"x")
    (tmp_path / "set/a").mkdir(parents=True)
    (tmp_path / "set/a/1.jpg").write_bytes(b"x")
    (tmp_path / "set/a/2.jpg").symlink_to(tmp_path / "private/me.jpg")
    (tmp_path / "set/a/3.jpg").symlink_to("1.jpg")
    paths = [
        "a/1.jpg",
        "a/2.jpg",
        "a/3.jpg",
        "../private/me.jpg",
        f"{tmp_path}/private/me.jpg",
        f"{tmp_path}/set/a/1.jpg",
    ]
    path = listed(tmp_path / "set", "".join(f"1\t{name}\t0\n" for name in paths))
    errors = [s.error for s in LstSource(path).samples()]
    out = Reason.BAD_LINE
    assert errors == [None, out, None, out, out, None]
    assert [s.error for s in LstSource(path, root=tmp_path).samples()] == [None] * 3 + [out, None, None]
