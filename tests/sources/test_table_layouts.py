"""Tables without a line of names, with other delimiters and encodings, and boxes that were measured on another copy."""

from pathlib import Path

import pytest

from dataprep.errors import DataprepError, SourceError
from dataprep.reasons import Reason
from dataprep.sources.catalog import open_source
from dataprep.sources.facescrub import FaceScrubSource
from dataprep.sources.tables import TableFile
from dataprep.sources.urls import ColumnMapping, UrlTableSource
from dataprep.types import Box, Sample

URL = "http://x/{},a.jpg"  # a URL may hold a comma


def listed(path: Path, **options: object) -> list[Sample]:
    return list(open_source("urls", {"table": str(path), **options}, "ws").samples())


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("t.csv", '"{url}",p{n}', "no column names; its columns are taken as url, identity"),
        ("t.csv", "p{n};{url}", "separated by ';'; no column names; its columns are taken as identity, url"),
        ("t.csv", "p{n}\t{url}", "separated by TABs; no column names; its columns are taken as identity, url"),
        ("t.tsv", "p{n}\t{url}", "no column names; its columns are taken as identity, url"),
        ("t.txt", "{url}\tp{n}", "no column names; its columns are taken as url, identity"),
    ],
)
def test_a_table_without_a_line_of_names_keeps_its_first_row(tmp_path: Path, name: str, row: str, said: str) -> None:
    path = tmp_path / name
    path.write_text("# made in May\n" + "".join(row.format(url=URL.format(n), n=n) + "\n" for n in range(3)))
    assert TableFile(path).decided == said
    assert [(s.identity, s.url) for s in listed(path)] == [(f"p{n}", URL.format(n)) for n in range(3)]


def test_columns_delimiter_and_encoding_overrule_what_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("".join(f"{n}~Иван;А~http://x/{n}.jpg\n" for n in range(2)).encode("cp1251"))
    given = {"columns": "number,identity,url", "delimiter": "~", "encoding": "cp1251"}
    assert [(s.identity, s.url) for s in listed(path, **given)] == [("Иван;А", f"http://x/{n}.jpg") for n in range(2)]
    source = open_source("urls", {"table": str(path), **given}, "ws")
    assert source.describe()["table_delimiter"] == "~"
    (tmp_path / "named.csv").write_text("a,b\nhttp://x/1.jpg,Ann\n")
    assert [s.identity for s in listed(tmp_path / "named.csv", columns="url,identity")] == ["Ann"]
    (tmp_path / "tabs.csv").write_text("who\turl\nAnn, B.\thttp://x/1.jpg\n")
    assert listed(tmp_path / "tabs.csv", delimiter="tab", identity_column="who")[0].identity == "Ann, B"


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"columns": "url,identity"}, "3 fields, not 2", "--columns"),
        ({"columns": "url,identity,number,more"}, "3 fields, not 4", "--columns"),
        ({"encoding": "utf-9"}, "'utf-9' is not known", "--encoding"),
        ({"delimiter": "::"}, "not one character", "--delimiter"),
        ({}, r"'identity' is missing; its columns are: column1, column2, url", "--identity-column"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_with_the_option(
    tmp_path: Path, options: dict[str, str], said: str, hint: str
) -> None:
    (tmp_path / "t.csv").write_text("1,Ann,http://x/1.jpg\n")
    with pytest.raises(DataprepError, match=said) as raised:
        listed(tmp_path / "t.csv", **options)
    assert hint in raised.value.hint


def test_facescrubs_lists_are_read_without_their_line_of_names(tmp_path: Path) -> None:
    row = "Anna A\t1\t2\thttp://x/1.jpg\t1,2,30,40\t" + "0" * 64
    (tmp_path / "facescrub_actors.txt").write_text(row + "\n" + row.replace("\t2\t", "\t3\t") + "\n")
    assert [s.key for s in FaceScrubSource([tmp_path]).samples()] == ["Anna_A/1_2", "Anna_A/1_3"]


BOXES = {
    "imdb-face": ("name,rect,height width,url", "A,150 110 460 420,500 1000,http://x/1", (1000, 500)),
    "laion-face": ("name,left,top,right,bottom,WIDTH,HEIGHT,url", "A,150,110,460,420,1000,500,http://x/1", (1000, 500)),
    "img2dataset": (
        "name,left,top,right,bottom,width,height,original_width,original_height,url",
        "A,150,110,460,420,256,128,1000,500,http://x/1", (1000, 500),
    ),
    "without": ("name,left,top,right,bottom,url", "A,150,110,460,420,http://x/1", None),
    "empty": ("name,left,top,right,bottom,width,height,url", "A,150,110,460,420,,,http://x/1", None),
    "named": ("name,left,top,right,bottom,size,url", "A,150,110,460,420,1000x500,http://x/1", (1000, 500)),
}  # fmt: skip


@pytest.mark.parametrize("name", BOXES)
def test_the_size_that_a_box_was_measured_on_is_read(tmp_path: Path, name: str) -> None:
    header, row, size = BOXES[name]
    (tmp_path / "t.csv").write_text(f"{header}\n{row}\n")
    options = {"box_column": "rect"} if "rect" in header else {"size_columns": "size"} if ",size" in header else {}
    (sample,) = listed(tmp_path / "t.csv", **options)
    assert (sample.box, sample.box_size) == (Box(150, 110, 460, 420), size)


def test_the_width_and_height_of_a_box_are_not_the_photos(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,x,y,width,height,url\nA,10,20,30,40,http://x/1\n")
    (sample,) = listed(tmp_path / "t.csv", box_column="x,y,width,height", box_format="ltwh")
    assert (sample.box, sample.box_size) == (Box(10, 20, 40, 60), None)


def test_a_box_in_shares_of_the_photo_is_told_from_pixels(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,x1,y1,x2,y2,width,height,url\nA,0.1,0.2,0.5,1.0,640,480,http://x/1\n")
    (sample,) = listed(tmp_path / "t.csv")
    assert (sample.box, sample.box_size) == (Box(0.1, 0.2, 0.5, 1), (1, 1))


def test_a_size_that_is_none_is_a_line_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,left,top,right,bottom,width,height,url\nA,1,2,30,40,wide,9,http://x/1\n")
    (sample,) = listed(tmp_path / "t.csv")
    assert sample.error is Reason.BAD_LINE
    assert "not a width and a height" in sample.detail
    with pytest.raises(SourceError, match="'no' is missing") as raised:
        listed(tmp_path / "t.csv", size_columns="no,height")
    assert "--size-columns" in raised.value.hint
    with pytest.raises(SourceError, match="two numbers, or two columns"):
        UrlTableSource(tmp_path / "t.csv", ColumnMapping(size=("a", "b", "c")))
