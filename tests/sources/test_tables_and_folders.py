import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.errors import SourceError
from dataprep.names import is_safe
from dataprep.reasons import Reason
from dataprep.sources.folder import FolderSource
from dataprep.sources.urls import UrlTableSource
from dataprep.types import Box

ROWS = [
    {"url": "http://x/1.jpg", "identity": "Ann", "left": 1.0, "top": 2.0, "right": 3.0, "bottom": 4.5, "key": "first"},
    {"url": "http://x/2.jpg", "identity": "Ben", "left": None, "top": None, "right": None, "bottom": None, "key": None},
]


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    mark = "\t" if path.suffix == ".tsv" else ","
    lines = [mark.join(ROWS[0]), *(mark.join("" if v is None else str(v) for v in row.values()) for row in ROWS)]
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", "utf-8")
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_table_in_each_form(tmp_path: Path, suffix: str) -> None:
    one, two = UrlTableSource(write(tmp_path / f"t.{suffix}")).samples()
    assert (one.key, one.identity, one.url, one.box) == ("Ann/first", "Ann", "http://x/1.jpg", Box(1, 2, 3, 4.5))
    assert two.box is None
    assert two.key.startswith("Ben/")


def test_a_key_made_from_the_url_does_not_depend_on_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("url,identity\nhttp://x/1,A\nhttp://x/2,A\n")
    (tmp_path / "b.csv").write_text("identity,url\nA,http://x/2\n")
    assert (
        next(s.key for s in UrlTableSource(tmp_path / "b.csv").samples())
        == [s.key for s in UrlTableSource(tmp_path / "a.csv").samples()][1]
    )


def test_bad_rows_are_accounted_for(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "url,identity,left,top,right,bottom\n,A,,,,\nhttp://x,,,,,\nhttp://x,../up,,,,\nhttp://x,A,1,2,x,4\nhttp://x,A,1,2,nan,4\n"
    )
    samples = list(UrlTableSource(tmp_path / "t.csv").samples())
    assert [s.error for s in samples] == [
        Reason.BAD_LINE,
        Reason.BAD_LINE,
        Reason.BAD_NAME,
        Reason.BAD_LINE,
        Reason.BAD_LINE,
    ]
    assert "line 5" in samples[3].detail


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", "link,identity\n", "column 'url' is missing"),
        ("t.csv", "url,identity,left\n", "has only left"),
        ("t.csv", "\xff\xfeu\0r\0l\0\n\0", "UTF-16"),
        ("t.parquet", "junk", "not a readable Parquet"),
        ("t.xlsx", "", r"the suffixes are \.csv, \.tsv, \.txt"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=said):
        list(UrlTableSource(tmp_path / name).samples())


def test_a_folder_in_sorted_order_without_litter(tmp_path: Path) -> None:
    for name in (
        "b/2.JPG",
        "b/1.jpeg",
        "a/x/3.png",
        "a/Thumbs.db",
        "a/.hidden",
        "a/desktop.ini",
        ".git/config",
        "a/notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    samples = list(FolderSource(tmp_path).samples())
    assert [(s.key, s.identity) for s in samples] == [("a/notes", "a"), ("a/x/3", "a"), ("b/1", "b"), ("b/2", "b")]
    assert samples[1].path == str(tmp_path / "a/x/3.png")


def test_file_names_that_are_no_text_are_accounted_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.makedirs(os.path.join(os.fsencode(tmp_path), b"a"), exist_ok=True)
    with open(os.path.join(os.fsencode(tmp_path), b"a", b"\xff.jpg"), "wb"):
        pass
    (sample,) = FolderSource(tmp_path).samples()
    assert sample.error is Reason.BAD_NAME


def test_an_empty_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="IDENTITY/PHOTO"):
        list(FolderSource(tmp_path).samples())


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a\0b",
        "a\tb",
        "con",
        "LPT1.txt",
        "x" * 300,
        "-rf",
        " a",
        "a ",
        "a.",
        "~",
        "\ud800",
        "..a",
    ],
)
def test_unsafe_names(name: str) -> None:
    assert not is_safe(name)


@pytest.mark.parametrize("name", ["a", "A.J._Buckley", "Zoë", "北京", "O'Neil", "a b", "00000001", "0001_01"])
def test_safe_names(name: str) -> None:
    assert is_safe(name)
