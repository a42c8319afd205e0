from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.errors import RecordError
from dataprep.packs.lst_files import format_insightface_line, format_mxnet_line, read_lst

BOX = "10\t20\t110\t140"
POINTS = "\t".join(map(str, [30, 70, 50, 35, 65, 52, 51, 72, 92, 93]))


def listed(folder: Path, text: str) -> Path:
    path = folder / "x.lst"
    path.write_bytes(text.encode())
    return path


def test_insightfaces_three_forms(tmp_path: Path) -> None:
    text = f"1\ta/1.jpg\t0\n0\t/data/b c/2.jpg\t1\t{BOX}\n0\tb/3.jpg\t1\t{BOX}\t{POINTS}\n"
    dialect, entries = read_lst(listed(tmp_path, text))
    assert dialect == "insightface"
    assert [(e.key, e.path, e.labels, e.aligned) for e in entries] == [
        (1, "a/1.jpg", (0.0,), True),
        (2, "/data/b c/2.jpg", (1.0,), False),
        (3, "b/3.jpg", (1.0,), False),
    ]
    assert entries[1].box == (10, 20, 110, 140)
    assert entries[1].landmarks is None
    assert entries[2].landmarks == ((30, 52), (70, 51), (50, 72), (35, 92), (65, 93))  # x's first, then y's


def test_mxnets_form(tmp_path: Path) -> None:
    dialect, entries = read_lst(listed(tmp_path, "68\t7.000000\ta/1.jpg\r\n3\t0.5\t2\tb.jpg\r\n"))
    assert dialect == "mxnet"
    assert [(e.key, e.labels, e.path) for e in entries] == [(68, (7.0,), "a/1.jpg"), (3, (0.5, 2.0), "b.jpg")]


def test_the_real_lists_are_recognised(shared: Path) -> None:
    assert read_lst(shared / "rec/webface8/train.lst")[0] == "mxnet"
    dialect, entries = read_lst(shared / "rec/faceid25/validation.lst")
    assert (dialect, len(entries)) == ("mxnet", 229)


@pytest.mark.parametrize(
    ("text", "asked", "said"),
    [
        ("1\ta.jpg\t0\n", "mxnet", "in insightface's dialect .* not in mxnet's"),
        ("1\t0\ta.jpg\n", "insightface", "in mxnet's dialect .* not in insightface's"),
        ("1\ta.jpg\t0\n1\t0\ta.jpg\n", None, "line 2: .*the lines before it are"),
        ("1\ta\tb.jpg\t0\n", None, "line 1: .* names cannot contain TABs"),
        ("1\ta.jpg\t0\t1\t2\n", None, "line 1: .*3, 7 or 17 columns"),
        ("1\t7\t3\n", None, "fits the dialects insightface and mxnet"),
        ("", None, "empty"),
        ("1 a.jpg 0\n", None, "line 1"),
        (f"0\ta.jpg\t0\t{BOX.replace('20', 'nan')}\n", None, "line 1: a coordinate is not finite"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(tmp_path: Path, text: str, asked: str | None, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        read_lst(listed(tmp_path, text), asked)  # type: ignore[arg-type]


def test_a_list_that_reads_as_either_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    path = listed(tmp_path, "1\t7\t3\n")
    assert read_lst(path, "insightface")[1][0].path == "7"
    assert read_lst(path, "mxnet")[1][0].path == "3"


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.lst"
    path.write_bytes(b"1\t\xff\x00\t0\n" + bytes(range(256)))
    with pytest.raises(RecordError, match="not a text file"):
        read_lst(path)
    path.write_bytes("1\tRené/1.jpg\t0\n".encode("latin-1"))
    assert read_lst(path)[1][0].path == "René/1.jpg"
    with pytest.raises(RecordError, match="No such file"):
        read_lst(tmp_path / "none.lst")


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\rb"])
def test_names_that_would_break_a_list_are_refused(name: str) -> None:
    with pytest.raises(RecordError, match="TAB-separated"):
        format_insightface_line(name, 0)
    with pytest.raises(RecordError, match="TAB-separated"):
        format_mxnet_line(0, 0, name)


@given(st.text(alphabet="01-.5e\t\r\n/anifq_ ", max_size=60))
def test_any_text_is_a_list_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = listed(tmp_path_factory.getbasetemp(), text)
    try:
        dialect, entries = read_lst(path)
    except RecordError:
        return
    assert len(entries) == sum(bool(line.strip()) for line in text.split("\n"))
    assert read_lst(path, dialect)[1] == entries


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("0 \t 0.0 \t ann\\1.jpg\n1 \t 1.0 \t bob\\1.jpg\t\n", "mxnet"),
        ("ann/1.jpg 2880\nbob/1.jpg 2937\n", "path-label"),
        ("ann/1.jpg\t2880\r\nbob/1.jpg\t2937\r\n", "path-label"),
        ("ann/1.jpg,2880\nbob/1.jpg,2937\n", "path-label"),
        ("ann/1.jpg; 2880\nbob/1.jpg; 2937\n", "path-label"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_other_hands_are_read(tmp_path: Path, text: str, dialect: str, encoding: str) -> None:
    (tmp_path / "x.lst").write_bytes(text.encode(encoding))
    found, entries = read_lst(tmp_path / "x.lst")
    assert found == dialect
    assert [entry.path for entry in entries] == ["ann/1.jpg", "bob/1.jpg"]
    assert [entry.labels for entry in entries] == ([(0.0,), (1.0,)] if dialect == "mxnet" else [(2880.0,), (2937.0,)])
