import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.errors import SourceError
from dataprep.names import is_safe
from dataprep.reasons import Reason
from dataprep.sources.folder import FolderSource
from dataprep.sources.tables import TableFile
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


URL = "http://x/"
LISTED = [(f"{URL}{n}.jpg", f"p{n % 2}") for n in range(4)]
TABLES = {
    "semi.csv": "url;name\n" + "".join(f"{url};{name}\n" for url, name in LISTED),
    "tab.csv": "url\tname\n" + "".join(f"{url}\t{name}\n" for url, name in LISTED),
    "bar.csv": "url|name\n" + "".join(f"{url}|{name}\n" for url, name in LISTED),
    "excel.csv": "sep=;\r\nurl;name\r\n" + "".join(f"{url};{name}\r\n" for url, name in LISTED),
    "comment.csv": "# made in May\n#\nurl,name\n" + "".join(f"{url},{name}\n" for url, name in LISTED),
    "short.csv": "url,name,note\n" + "".join(f"{url},{name}\n" for url, name in LISTED),
    "pubfig.tsv": "# a set, v1.2 - dev_urls.txt\n#\tname\tnumber\turl\trect\n" + "".join(
        f"{name}\t{n}\t{url}\t1,2,3,4\n" for n, (url, name) in enumerate(LISTED)
    ),
    "hash.csv": "#url,name\n" + "".join(f"{url},{name}\n" for url, name in LISTED),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_of_spreadsheets_and_old_sets_are_read(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(TABLES[name].encode(encoding))
    table = TableFile(tmp_path / name)
    rows = [tuple(row.values) for row in table.rows(["url", "name"])]
    assert rows == LISTED
    numbers = [row.number for row in table.rows(["url"])]
    first = TABLES[name].splitlines().index(next(line for line in TABLES[name].splitlines() if URL in line)) + 1
    assert numbers == list(range(first, first + 4))


def test_latin_1_is_read_and_told_and_a_damaged_line_of_utf_8_is_one_bad_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "l.csv").write_bytes("url,name\nhttp://x/1,René\n".encode("latin-1"))
    assert [row.values[1] for row in TableFile(tmp_path / "l.csv").rows(["url", "name"])] == ["René"]
    assert "read as Latin-1" in caplog.text
    (tmp_path / "d.csv").write_bytes("url,name\nhttp://x/1,René\n".encode() + b"http://x/2,Ren\xe9\n")
    rows = list(TableFile(tmp_path / "d.csv").rows(["url", "name"]))
    assert (rows[0].values[1], rows[1].error) == ("René", "not UTF-8")
