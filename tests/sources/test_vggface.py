import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.errors import SourceError
from dataprep.reasons import Reason
from dataprep.sources.base import iterate_samples
from dataprep.sources.selection import IdentityFilter
from dataprep.sources.vggface import VggFaceSource, parse_vggface_list, parse_vggface_table
from dataprep.storage import Folder
from dataprep.types import Box
from dataprep.workspace.plan import Plan
from dataprep.workspace.plan_table import iterate_tables, table_to_samples

LINE = "00000001 http://x.net/a.jpg 119.19 99.49 295.47 275.78 3.00 2.31 1\n"


def lists(tmp_path: Path, **people: str) -> Path:
    (tmp_path / "files").mkdir(parents=True)
    for name, text in people.items():
        (tmp_path / "files" / f"{name}.txt").write_text(text, "utf-8")
    return tmp_path


def test_a_line_of_the_release() -> None:
    (sample,) = parse_vggface_list("Aamir_Khan", LINE.encode())
    assert sample.key == "Aamir_Khan/00000001"
    assert sample.url == "http://x.net/a.jpg"
    assert sample.box == Box(119.19, 99.49, 295.47, 275.78)
    assert sample.box_frame == "stored"


def test_ten_columns_negative_coordinates_and_repeated_ids() -> None:
    text = "1 uid7 http://x/a.jpg -3.5 -2 10 20 3 2 1\n\n1 https://x/b.jpg 0 0 1 1 3 2 0\r\n"
    one, two = parse_vggface_list("P", text.encode())
    assert (one.url, one.box) == ("http://x/a.jpg", Box(-3.5, -2, 10, 20))
    assert (two.key, two.url) == ("P/1", "https://x/b.jpg")  # the plan numbers them


@pytest.mark.parametrize(
    "line", ["", "1", "1 http://x/a.jpg 1 2 3", "1 http://x/a.jpg 1 2 x 4 3 2 1", "1 2 3 4 5 6 7 8 9"]
)
def test_lines_that_make_no_sense_are_accounted_for(line: str) -> None:
    samples = list(parse_vggface_list("P", line.encode()))
    assert len(samples) == (1 if line else 0)
    assert all(s.error is Reason.BAD_LINE and "P.txt line 1" in s.detail for s in samples)


def test_names_that_would_leave_the_workspace_are_accounted_for(tmp_path: Path) -> None:
    samples = [
        *parse_vggface_list("..", LINE.encode()),
        *parse_vggface_list("P", b"../../etc http://x/a 0 0 1 1 3 2 1\n"),
    ]
    assert [s.error for s in samples] == [Reason.BAD_NAME] * 2
    assert all(s.identity == "_unusable" and ".." not in s.key for s in samples)


def test_dots_and_other_alphabets_in_names(tmp_path: Path) -> None:
    root = lists(tmp_path, **{"A.J._Buckley": LINE, "Zoë_Ñandú": LINE * 2})
    found = [s.key for s in VggFaceSource(root).samples()]
    assert found == ["A.J._Buckley/00000001", "Zoë_Ñandú/00000001", "Zoë_Ñandú/00000001"]


def test_the_archive_is_the_folder(tmp_path: Path) -> None:
    root = lists(tmp_path / "l", B=LINE, A=LINE * 3)
    archive = tmp_path / "vgg.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / "files", "vgg_face_dataset/files")
        link = tarfile.TarInfo("vgg_face_dataset/files/C.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert list(VggFaceSource(archive).samples()) == list(VggFaceSource(root).samples())
    assert VggFaceSource(archive).digest() == VggFaceSource(root).digest()


def test_what_is_no_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or directory"):
        VggFaceSource(tmp_path / "none")
    with pytest.raises(SourceError, match="no lists"):
        list(VggFaceSource(tmp_path).samples())
    (tmp_path / "x.tar.gz").write_bytes(b"<html>")
    with pytest.raises(SourceError, match="not a readable archive"):
        list(VggFaceSource(tmp_path / "x.tar.gz").samples())
    with tarfile.open(tmp_path / "y.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(SourceError, match="has no files"):
        list(VggFaceSource(tmp_path / "y.tar.gz").samples())


def test_the_real_lists(shared: Path) -> None:
    samples = list(VggFaceSource(shared / "vggface").samples())
    assert len(samples) == 11_000
    assert len({s.identity for s in samples}) == 11
    assert not [s for s in samples if s.error]
    assert any(min(s.box) < 0 for s in samples if s.box)


def test_curated_and_frontal_lines_only() -> None:
    text = b"1 http://x/1 0 0 9 9 3 2 1\n2 http://x/2 0 0 9 9 2 2 1\n3 uid http://x/3 0 0 9 9 4.0 2 0\n"
    text += b"4 http://x/4 0 0 9 9\n"

    def names(**options: bool) -> list[str]:
        return [s.detail or s.key for s in parse_vggface_list("P", text, **options)]

    assert names() == ["P/1", "P/2", "P/3", "P/4"]
    missing = "P.txt line 4: no pose, score and curation after the box"
    assert names(curated_only=True) == ["P/1", "P/2", missing]
    assert names(frontal_only=True) == ["P/1", "P/3", missing]
    assert names(curated_only=True, frontal_only=True) == ["P/1", missing]


def test_digits_that_are_names() -> None:
    assert IdentityFilter.parse("45").count == 45
    for name in ("0000045", "6573600", "0000045,0000099"):
        assert IdentityFilter.parse(name).names == frozenset(name.split(","))


def test_some_people_and_one_persons_list(tmp_path: Path) -> None:
    root = lists(tmp_path, **{"A": LINE, "B": "bad\n", "Carlos_Sainz_Jr.": LINE})
    assert [s.identity for s in VggFaceSource(root, identities=IdentityFilter.parse("2")).samples()] == [
        "A",
        "_unusable",
    ]
    source = VggFaceSource(root, identities=IdentityFilter.parse("Carlos_Sainz_Jr.,D"))
    assert [s.identity for s in source.samples()] == ["Carlos_Sainz_Jr"]
    assert source.summary == "1 of 2 identities are not in the source: D"
    assert [s.identity for s in VggFaceSource(root / "files/A.txt").samples()] == ["A"]
    assert len(list(VggFaceSource(f"file://{root}").samples())) == 3


def test_the_real_lists_less_what_is_not_curated_or_frontal(shared: Path) -> None:
    lines = [
        line.split() for path in (shared / "vggface/files").glob("*.txt") for line in path.read_text().splitlines()
    ]
    assert len(list(VggFaceSource(shared / "vggface", curated_only=True).samples())) == sum(f[8] == "1" for f in lines)
    assert len(list(VggFaceSource(shared / "vggface", frontal_only=True).samples())) == sum(
        float(f[6]) > 2 for f in lines
    )


FIELDS = [
    "1",
    "00000002",
    "x1",
    "nan",
    "nan(1)",
    "inf",
    "1_0",
    "+1",
    "-.5",
    "1e3",
    "0x1",
    '"',
    "http://x/a b",
    "a://b",
    "",
]
PARTS = st.lists(st.sampled_from(FIELDS), min_size=7, max_size=10).map(" ".join)
LINES = st.one_of(
    st.builds("{} http://x/{}.jpg 1.5 -2 3.25 4e1 {} 2 {}".format, *[st.integers(0, 5)] * 4),
    PARTS,
    st.sampled_from(
        ["", " ", "1  http://x/a 1 2 3 4 5 6 1", "1 http://x/\u00e9 1 2 3 4 5 6 1", "1 http://x/a 1 2 3 4 5"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    person=st.sampled_from(["P", "Q.", "..", "Zo\u00eb", "_unusable"]),
    lines=st.lists(LINES, max_size=6),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\x0b", "\x1c", "\t\n", " \n"]),
    curated_only=st.booleans(),
    frontal_only=st.booleans(),
)
def test_a_table_has_what_is_read_line_by_line(person: str, lines: list[str], end: str, **options: bool) -> None:
    data = "".join(line + end for line in lines).encode()
    table = parse_vggface_table(person, data, **options)
    if table is not None:
        assert table_to_samples(table) == list(parse_vggface_list(person, data, **options))


def test_people_of_whom_nothing_is_left(tmp_path: Path) -> None:
    root = lists(tmp_path, A=LINE.replace(" 1\n", " 0\n"), B=LINE, C=LINE.replace(" 1\n", " 0\n"), D=LINE)
    plan = Plan(Folder(tmp_path / "plan"))
    added = plan.add({}, "d", VggFaceSource(root, curated_only=True).tables())
    assert added is not None
    assert [sample.key for sample in plan.samples(plan.shards[0])] == ["B/00000001", "D/00000001"]


def test_lists_as_the_release_has_them_become_tables(tmp_path: Path) -> None:
    for text in (LINE, LINE * 3, LINE.replace("\n", "\r\n"), LINE.strip(), "\n" + LINE):
        assert parse_vggface_table("Zo\u00eb.", text.encode()) is not None
    for text in (
        "",
        LINE.replace(" ", "  "),
        LINE + "bad\n",
        LINE.replace("3.00", "nan(1)"),
        LINE.replace("a.jpg", "\u00e9"),
    ):
        assert parse_vggface_table("P", text.encode()) is None
    root = lists(tmp_path, A=LINE, B="bad\n" + LINE, C=LINE)
    found = [table_to_samples(table) for table in iterate_tables(iterate_samples(VggFaceSource(root)))]
    assert list(map(len, found)) == [1, 2, 1]
    assert [sample for part in found for sample in part] == list(VggFaceSource(root).samples())


def test_the_real_lists_are_tables(shared: Path) -> None:
    source = VggFaceSource(shared / "vggface", curated_only=True)
    found = list(source.tables())
    assert len(found) == 11
    assert [sample for table in iterate_tables(found) for sample in table_to_samples(table)] == list(source.samples())
