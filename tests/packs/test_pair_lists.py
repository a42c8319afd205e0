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
        ("1000\nAnn\t1\t2\n", "view 2"),
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
    with pytest.raises(RecordError, match=r"neither a \.bin nor UTF-8 text"):
        read_pairs(tmp_path / "x")
