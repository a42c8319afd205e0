from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.errors import RecordError
from dataprep.packs.record_index import RecordIndex, format_index, read_index


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_an_index_is_read_in_the_order_it_was_written(tmp_path: Path) -> None:
    index = RecordIndex(np.array([1, 2, 0]), np.array([0, 44, 132]))
    path = tmp_path / "x.idx"
    path.write_bytes(format_index(index))
    assert path.read_text() == "1\t0\n2\t44\n0\t132\n"
    found = read_index(path, size=200)
    assert found.keys.tolist() == [1, 2, 0]
    assert found.offsets.tolist() == [0, 44, 132]
    assert found.find(2) == 1
    assert found.find(7) is None


def test_a_missing_last_line_break_and_windows_line_ends_are_forgiven(tmp_path: Path) -> None:
    assert read_index(written(tmp_path / "x", "1\t0\n2\t44"), size=50).offsets.tolist() == [0, 44]
    assert read_index(written(tmp_path / "x", "1\t0\r\n2\t44\r\n"), size=50).offsets.tolist() == [0, 44]
    assert len(read_index(written(tmp_path / "x", ""), size=0).keys) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\t0\n2 44\n", "line 2: expected `key TAB offset`"),
        ("1\t0\n1\t44\n", "line 2: key 1 occurs twice"),
        ("1\t0\n2\t18446744073709551615\n", "line 2: offset 18446744073709551615"),
        ("1\t0\n2\t99999999999999999999999\n", "line 2: expected|line 2: offset"),
        ("99999999999999999999\t0\n", "line 1"),
        ("1\t200\n", "line 1: offset 200, but the .rec has 200 bytes"),
        ("1\t-4\n", "line 1"),
        ("1\t\n", "line 1"),
        ("\t1\n", "line 1"),
        ("1\t2\t3\n", "line 1"),
        ("1\n2\t3\t4\n", "line 1"),
        ("1\t2\n\n3\t4\n", "line 2"),
    ],
)
def test_what_is_wrong_with_an_index_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        read_index(written(tmp_path / "x.idx", text), size=200)


def test_a_missing_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="No such file") as caught:
        read_index(tmp_path / "x.idx", size=1)
    assert "dataprep repair" in caught.value.hint


@given(st.text(alphabet="0123456789\t\n -x", max_size=40))
def test_any_text_is_an_index_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = written(tmp_path_factory.getbasetemp() / "fuzz.idx", text)
    try:
        index = read_index(path, size=1 << 40)
    except RecordError:
        return
    lines = text.splitlines()
    assert [f"{k}\t{o}" for k, o in zip(index.keys, index.offsets, strict=True)] == [
        "\t".join(str(int(field)) for field in line.split("\t")) for line in lines
    ]
