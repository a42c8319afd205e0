from pathlib import Path

import pytest

from dataprep.errors import RecordError
from dataprep.packs.pair_lists import format_pair_list, read_pairs


def written(tmp_path: Path, text: str, name: str = "pairs.txt") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_lfws_pairs_txt_is_read_with_its_folds(tmp_path: Path) -> None:
    text = "2\t2\nAnn\t1\t4\nBob\t2\t13\nAnn\t1\tBob\t2\nBob\t1\tCem\t10\n" + (
        "Cem\t1\t2\nDee\t1\t2\nCem\t1\tDee\t1\nDee\t2\tCem\t2\n"
    )
    pairs = read_pairs(written(tmp_path, text))
    assert pairs.left[:3] == ("Ann/Ann_0001", "Bob/Bob_0002", "Ann/Ann_0001")
    assert pairs.right[:4] == ("Ann/Ann_0004", "Bob/Bob_0013", "Bob/Bob_0002", "Cem/Cem_0010")
    assert pairs.issame.tolist() == [True, True, False, False] * 2
    assert pairs.fold.tolist() == [0] * 4 + [1] * 4


def test_face_pytorchs_and_insightfaces_lists_are_read(tmp_path: Path) -> None:
    for no in ("-1", "0"):
        lines = [f"{2 * i + 1:05d}.jpg {2 * i + 2:05d}.jpg {1 if i % 2 == 0 else no}\n" for i in range(23)]
        pairs = read_pairs(written(tmp_path, "".join(lines)))
        assert pairs.left[1] == "00003.jpg"
        assert pairs.issame.tolist() == [i % 2 == 0 for i in range(23)]
        assert [pairs.fold.tolist().count(fold) for fold in range(10)] == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    assert format_pair_list(pairs).splitlines()[:2] == ["00001.jpg 00002.jpg 1", "00003.jpg 00004.jpg -1"]


def test_csv_is_read_by_position_and_by_header(tmp_path: Path) -> None:
    plain = read_pairs(written(tmp_path, "a b/1.jpg,c.jpg,true\nd.jpg,e.jpg,false\n", "p.csv"))
    assert plain.left == ("a b/1.jpg", "d.jpg")
    assert plain.issame.tolist() == [True, False]
    named = read_pairs(written(tmp_path, "fold,same,right,left\n10,1,b,a\n9,0,d,c\n9,1,f,e\n", "p.csv"))
    assert (named.left, named.right) == (("a", "c", "e"), ("b", "d", "f"))
    assert named.issame.tolist() == [True, False, True]
    assert named.fold.tolist() == [1, 0, 0]
    assert read_pairs(written(tmp_path, "left,right,same\na,b,1\n", "q.csv")).left == ("a",)


def test_a_name_may_hold_what_unicode_calls_a_line_end(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes("a\u2028b.jpg,c.jpg,1\r\nd.jpg,e.jpg,0\r\n".encode())
    pairs = read_pairs(tmp_path / "p.csv")
    assert pairs.left == ("a\u2028b.jpg", "d.jpg")
    assert pairs.issame.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no pairs"),
        ("1000\nAnn\t1\t2\n", "promises 1 folds of 2 x 1000 pairs"),
        ("10\t300\nAnn\t1\t2\n", "promises 10 folds of 2 x 300 pairs, 6000 in all; found 1"),
        ("1\t1\nAnn\t1\tBob\t2\nAnn\t1\t2\n", "line 2: expected `name i j`"),
        ("1\t1\nAnn\t1\t2\nAnn\t1\t2\n", "line 3: expected `name i name j`"),
        ("1\t1\nAnn\t1\tx\nAnn\t1\tBob\t2\n", "line 2: 'x' is not the number"),
        ("a b 1\n\nc d 2\n", "line 3: '2' is not a label"),
        ("a b c d 1\n", "line 1: expected `left right label`"),
        ("a,b,c,d\n", "line 1: expected the columns left,right,same"),
        ("left,right,same,fold\na,b,1,1\nc,d,0,\n", "1 of 2 lines name a fold"),
        ("left,right,same\na,b\n", "line 2: too few columns"),
        ("left,right,same\n" + "a" * 200_000 + ",b,1\n", "line 2: not valid CSV"),
        ("9" * 5000 + "\n", "line 1: expected `left right label`"),
        (f"1\t1\nAnn\t1\t{'9' * 5000}\nAnn\t1\tBob\t2\n", "line 2: '9999.* is not the number"),
    ],
)
def test_bad_lists_are_answered_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecordError, match=said) as found:
        read_pairs(written(tmp_path, text))
    assert "pairs.txt" in str(found.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="utf-16"):
        read_pairs(tmp_path / "x")


PAIRS = [("anna", 1, "anna", 2, 1), ("anna", 1, "bert", 1, 0), ("bert", 1, "bert", 2, 1), ("bert", 3, "anna", 3, 0)]


def file(name: str, number: int) -> str:
    return f"{name}/{name}_{number:04d}.jpg"


def plain(form: str) -> str:
    return "".join(form.format(file(a, i), file(b, j), s) for a, i, b, j, s in PAIRS)


def lfw(positive: str, negative: str, pairs: list[tuple[str, int, str, int, int]]) -> str:
    return "".join((positive if s else negative).format(a, i, b, j) for a, i, b, j, s in pairs)


YES = {"1": "Yes", "0": "No"}
SORTED = sorted(PAIRS, key=lambda pair: -pair[4])
FORMS = {
    "rfw.txt": lfw("{0}\t{1}\t{3}\n", "{0}\t{1}\t{2}\t{3}\n", PAIRS),
    "blanks.txt": lfw("{0} {1} {3}\n", "{0} {1} {2} {3}\n", PAIRS),
    "view1.txt": "2\n" + lfw("{0}\t{1}\t{3}\n", "{0}\t{1}\t{2}\t{3}\n", SORTED),
    "kaggle.csv": "name,imagenum1,imagenum2,\n" + lfw("{0},{1},{3},\n", "{0},{1},{2},{3}\n", PAIRS),
    "cplfw.txt": "".join(f"{n}_{k:04d}.jpg {s}\n" for a, i, b, j, s in PAIRS for n, k in ((a, i), (b, j))),
    "calfw.txt": "".join(f"{n}_{k:04d}.jpg {3 * s}\n" for a, i, b, j, s in PAIRS for n, k in ((a, i), (b, j))),
    "yesno.csv": "file_x,file_y,Decision\n" + "".join(
        f"{file(a, i)},{file(b, j)},{YES[str(s)]}\n" for a, i, b, j, s in PAIRS
    ),
    "names.csv": "path1,path2,label\n" + plain("{},{},{}\n"),
    "float.csv": "left,right,same\n" + plain("{},{},{}.0\n"),
    "semi.csv": "left;right;same\n" + plain("{};{};{}\n"),
    "semi.txt": "left;right;same\n" + plain("{};{};{}\n"),
    "first.txt": plain("{2} {0} {1}\n"),
    "tabs.txt": plain("{}\t{}\t{}\n"),
    "crlf.txt": plain("{} {} {}\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", FORMS)
def test_lists_of_others_name_the_same_pairs(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(FORMS[name].encode(encoding))
    pairs = read_pairs(tmp_path / name)
    wanted = SORTED if name == "view1.txt" else PAIRS
    assert pairs.issame.tolist() == [bool(s) for *_, s in wanted]

    def stem(text: str) -> str:
        return Path(text).stem

    assert [stem(text) for text in pairs.left] == [f"{a}_{i:04d}" for a, i, *_ in wanted]
    assert [stem(text) for text in pairs.right] == [f"{b}_{j:04d}" for *_, b, j, _ in wanted]


def test_names_with_blanks_are_kept_whole(tmp_path: Path) -> None:
    pairs = read_pairs(written(tmp_path, "George W Bush 1 12\nGeorge W Bush 1 Bob Dole 3\n"))
    assert pairs.left == ("George W Bush/George W Bush_0001",) * 2
    assert pairs.right == ("George W Bush/George W Bush_0012", "Bob Dole/Bob Dole_0003")
