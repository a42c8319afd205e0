from pathlib import Path

import numpy as np
import pytest

from dataprep.errors import SourceError
from dataprep.names import is_safe
from dataprep.sources.folder import make_usable_names
from dataprep.sources.vggface2 import VggFace2Source
from dataprep.sources.vggface2_tables import CoordinateTable, read_class_names
from dataprep.types import Box

HEAD = "NAME_ID," + ",".join(f"P{i}{axis}" for i in range(1, 6) for axis in "XY")
POINTS = "75.81,110.2,103.1,104.9,90,128,82.5,143,105,139"
PHOTOS = ("train/n000002/0001_01", "train/n000002/0002_01", "train/n000003/0001_02", "test/n000001/0001_01")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As released: photos by split, tables in meta/, one of them with a row too many, and one with a row too few."""
    for photo in PHOTOS:
        path = tmp_path / f"{photo}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    meta = tmp_path / "meta"
    meta.mkdir()
    (meta / "loose_bb_train.csv").write_text(
        'NAME_ID,X,Y,W,H\n"n000002/0001_01",60,61,79,109\n"n000002/0002_01",1,2,nan,4\n"n000009/0001_01",0,0,9,9\n'
    )
    (meta / "loose_landmark_train.csv").write_text(f'{HEAD}\n"n000002/0001_01",{POINTS}\n"n000003/0001_02",1,2\n')
    (meta / "loose_bb_test.csv").write_text('NAME_ID,X,Y,W,H\n"n000001/0001_01",5,6,7,8\n')
    return tmp_path


def test_photos_get_their_rows_and_both_leftovers_are_told(root: Path) -> None:
    source = VggFace2Source(root)
    one, two, three = source.samples()
    assert (one.key, one.identity) == ("n000002/0001_01", "n000002")
    assert one.box == Box(60, 61, 139, 170)
    assert one.landmarks == ((75.81, 110.2), (103.1, 104.9), (90, 128), (82.5, 143), (105, 139))
    assert two.box is not None
    assert np.isnan(two.box.right)
    assert (three.box, three.landmarks) == (None, None)
    assert source.summary == (
        "the tables have boxes for 2 of 3 photos, and 1 rows without a photo; "
        "the tables have landmarks for 1 of 3 photos, and 0 rows without a photo, 1 malformed rows"
    )


def test_splits_tables_of_ones_own_and_a_flat_folder(root: Path) -> None:
    assert [(s.key, s.box) for s in VggFace2Source(root, split="test").samples()] == [
        ("n000001/0001_01", Box(5, 6, 12, 14))
    ]
    assert len(list(VggFace2Source(root, split="all").samples())) == 4
    (root / "train/meta").mkdir()
    (root / "train/meta/loose_bb_test.csv").write_text('"n000003/0001_02",5,6,7,8\n')
    assert [s.box for s in VggFace2Source(root / "train").samples()] == [None, None, Box(5, 6, 12, 14)]
    given = VggFace2Source(root / "train", boxes=[root / "meta/loose_bb_train.csv"])
    assert [s.box is None for s in given.samples()] == [False, False, True]


@pytest.mark.parametrize("place", ["photos/meta/bb_landmark", "meta", "bb_landmark", "meta/bb_landmark"])
def test_tables_are_found_where_the_release_and_its_mirrors_have_them(tmp_path: Path, place: str) -> None:
    (tmp_path / "photos/train/n000002").mkdir(parents=True)
    (tmp_path / "photos/train/n000002/0001_01.jpg").write_bytes(b"x")
    source = VggFace2Source(tmp_path / "photos")
    assert [s.box for s in source.samples()] == [None]
    assert "no loose_bb*.csv and no loose_landmark*.csv" in source.summary
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "loose_bb_train.csv").write_text('"n000002/0001_01",5,6,7,8\n')
    assert [s.box for s in VggFace2Source(tmp_path / "photos").samples()] == [Box(5, 6, 12, 14)]


def test_the_digest_changes_with_photos_and_tables(root: Path) -> None:
    before = VggFace2Source(root).digest()
    (root / "meta/loose_bb_train.csv").write_text('"n000002/0001_01",0,0,9,9\n')
    changed = VggFace2Source(root).digest()
    (root / "train/n000003/0002_01.jpg").write_bytes(b"y")
    assert len({before, changed, VggFace2Source(root).digest()}) == 3


@pytest.mark.parametrize(
    "row",
    [
        '"n000002/0001_01",60,61,79,109',
        "n000002/0001_01,60,61,79,109",
        ' "n000002/0001_01", 60, 61, 79, 109',
        '" ""n000002/0001_01""",60,61,79,109',
        '"n000002/0001_01","60","61"," 79","109.0"',
        '"n000002/0001_01.jpg",60,61,79,109\r',
        '"train/n000002/0001_01.jpg",6e1,61,79,109',
    ],
)
@pytest.mark.parametrize(
    "head", ["", "NAME_ID,X,Y,W,H\n", '"NAME_ID", "X", "Y", "W", "H"\r\n', "\ufeffName_ID,X,Y,W,H\n"]
)
def test_every_quoting_gives_the_same_row(tmp_path: Path, row: str, head: str) -> None:
    (tmp_path / "t.csv").write_text(f"{head}{row}\n", newline="")
    table = CoordinateTable([tmp_path / "t.csv"], 4)
    found = table.lookup("n000002/0001_01")
    assert found is not None
    assert found.tolist() == [60, 61, 79, 109]
    assert (table.malformed, table.count_unused) == (0, 0)
    assert table.lookup("n000002/0001_0") is None
    assert table.lookup("n999999/0001_01") is None


def test_words_for_nothing_are_nan_and_other_words_are_malformed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a/1,1,,NaN,4\na/2,1,2,three,4\na/3,1,2\na/4,1,2,3,inf\na/1,9,9,9,9\n")
    table = CoordinateTable([tmp_path / "t.csv"], 4)
    assert np.array_equal(table.lookup("a/1"), [1, np.nan, np.nan, 4], equal_nan=True)  # the first row counts
    assert np.array_equal(table.lookup("a/2"), [1, 2, np.nan, 4], equal_nan=True)
    assert np.array_equal(table.lookup("a/4"), [1, 2, 3, np.inf])
    assert (len(table), table.malformed, table.count_unused) == (4, 2, 1)


def test_many_rows_are_found_again(tmp_path: Path) -> None:
    names = [f"n{i // 40:06d}/{i % 40:04d}_01" for i in np.random.default_rng(0).permutation(20_000)]
    (tmp_path / "t.csv").write_text("NAME_ID,X,Y,W,H\n" + "".join(f'"{n}",{i},0,1,1\n' for i, n in enumerate(names)))
    table = CoordinateTable([tmp_path / "t.csv"], 4)
    assert [table.lookup(name)[0] for name in names] == list(range(20_000))  # type: ignore[index]
    assert table.count_unused == 0


def test_names_in_both_quotings(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "Class_ID, Name, Sample_Num, Flag, Gender\n"
        'n000001, "14th_Dalai_Lama",424,0, m,\n'
        'n000002," ""A_Fine_Frenzy""",315,1, f\n'
        'n000003, "Sammy_Davis,_Jr.",1, m\n'
        'n000004, "A_Fine_Frenzy",387,1, m,\n'
    )
    assert read_class_names(tmp_path / "m.csv").by_class == {
        "n000001": "14th_Dalai_Lama",
        "n000002": "A_Fine_Frenzy",
        "n000003": "Sammy_Davis,_Jr.",
        "n000004": "A_Fine_Frenzy",
    }
    assert make_usable_names(read_class_names(tmp_path / "m.csv").by_class | {"n000005": "DJ_Clue?"}) == {
        "n000001": "14th_Dalai_Lama",
        "n000002": "A_Fine_Frenzy_n000002",
        "n000003": "Sammy_Davis,_Jr",
        "n000004": "A_Fine_Frenzy_n000004",
    }


@pytest.mark.parametrize(
    "row",
    [
        'n000001, "Zoë_Šaš",424,0, m,',
        'n000001," ""Zoë_Šaš""",424,0, m',
        'n000001," ""Zoë_Šaš""",0, m,',
        "n000001,Zoë_Šaš,424,0,m",
        '"n000001","Zoë_Šaš","424","0","M"\r',
        "n000001;Zoë_Šaš;424;0;m",
        'n000001\t"Zoë_Šaš"\t424\t0\tm',
        "\ufeffn000001, 'Zoë_Šaš', 424, 0, m",
        ' "n000001, ""Zoë_Šaš"",424,0, m,"',
    ],
)
def test_every_quoting_of_a_name(tmp_path: Path, row: str) -> None:
    (tmp_path / "m.csv").write_text(f"{row}\nn000002,nobody\nn000003,,,,\n", "utf-8", newline="")
    assert read_class_names(tmp_path / "m.csv") == ({"n000001": "Zoë_Šaš"}, 2)


def test_people_by_name(root: Path) -> None:
    (root / "m.csv").write_text('n000002, "Ann",2,1, f,\nn000003, "../x",1,1, m,\n')
    source = VggFace2Source(root, names=root / "m.csv")
    samples = list(source.samples())
    assert [s.identity for s in samples] == ["Ann", "Ann", "n000003"]
    assert "no name for the people in 1 photos" in source.summary
    assert samples[0].key == "Ann/0001_01"
    assert samples[0].box == Box(60, 61, 139, 170)


def test_the_real_names(shared: Path) -> None:
    names, malformed = read_class_names(shared / "vggface2/identity_meta.csv")
    assert malformed == 0
    usable = make_usable_names(names)
    assert names.keys() - usable.keys() == {"n001859"}  # DJ_Clue?
    assert all(map(is_safe, usable.values()))
    assert usable["n007413"] == "Robert_Downey_Jr"
    assert len(names) == 9131 == len(set(names.values()))
    assert names["n000106"] == "Agata_Passent"
    assert not any('"' in name or name != name.strip() for name in names.values())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: VggFace2Source(root / "none"), "no such directory"),
        (lambda root: VggFace2Source(root / "meta"), "no train/ and no n000002/"),
        (lambda root: VggFace2Source(root, boxes=[root / "none.csv"]), "none.csv: no such file"),
        (lambda root: CoordinateTable([root / "meta/loose_bb_train.csv"], 10), "5 columns, .* expected 11"),
        (lambda root: read_class_names(root / "meta/loose_bb_train.csv"), "is it identity_meta.csv"),
    ],
)
def test_what_cannot_be_read_is_named(root: Path, make: object, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        make(root)  # type: ignore[operator]
