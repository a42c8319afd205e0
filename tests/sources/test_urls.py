"""Tables of URLs: every form, named columns, bad rows, and what img2dataset reads and writes."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataprep.errors import DataprepError, SourceError
from dataprep.reasons import Reason
from dataprep.sources.catalog import open_source
from dataprep.sources.facescrub import FaceScrubSource
from dataprep.sources.urls import ColumnMapping, UrlTableSource
from dataprep.sources.vggface import VggFaceSource
from dataprep.storage import Folder
from dataprep.types import Box, Sample
from dataprep.workspace.plan import Plan

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
ROWS = [
    {"link": "http://x/1.jpg", "who": "Ann, B.", "id": "p1", "bb": "1,2,3,4.5", "sum": SHA.upper()},
    {"link": "http://x/2,a.jpg", "who": "Zoë", "id": "p2", "bb": "", "sum": ""},
]
NAMED = ColumnMapping(url="link", identity="who", key="id", box=("bb",), hash="sum")


def write(path: Path) -> Path:
    kind = path.name.split(".", 1)[1].removesuffix(".gz")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    if kind in ("csv", "tsv"):
        mark = "\t" if kind == "tsv" else ","
        quoted = [[f'"{value}"' for value in row] for row in (ROWS[0], *(row.values() for row in ROWS))]
        text = "".join(mark.join(row) + "\r\n" for row in quoted)
    else:
        text = json.dumps(ROWS) if kind == "json" else "".join(json.dumps(row) + "\n" for row in ROWS)
    data = ("\ufeff" * (kind != "jsonl") + text).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv.gz", "json", "json.gz", "jsonl", "jsonl.gz", "csv.gz", "parquet"])
def test_every_form_says_the_same(tmp_path: Path, suffix: str) -> None:
    one, two = UrlTableSource(write(tmp_path / f"t.{suffix}"), NAMED).samples()
    assert (one.key, one.url, one.box, one.hash) == ("Ann, B/p1", "http://x/1.jpg", Box(1, 2, 3, 4.5), f"sha256:{SHA}")
    assert (two.key, two.url, two.box, two.hash) == ("Zoë/p2", "http://x/2,a.jpg", None, "")
    assert [s.key for s in UrlTableSource(f"file://{tmp_path}/t.{suffix}", NAMED).samples()] == [one.key, two.key]


def test_a_url_per_line_needs_an_identity(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(
        "http://x/a,b.jpg\n\n  http://x/c  \r\n\udcff\nhttp://x/é", "utf-8", "surrogateescape"
    )
    with pytest.raises(SourceError, match=r"column .identity. is missing") as raised:
        UrlTableSource(tmp_path / "t.txt")
    assert "--identity-column COLUMN" in raised.value.hint
    assert "--identity NAME" in raised.value.hint
    samples = list(UrlTableSource(tmp_path / "t.txt", ColumnMapping(constant="Ann")).samples())
    assert [(s.identity, s.url) for s in samples[:2]] == [("Ann", "http://x/a,b.jpg"), ("Ann", "http://x/c")]
    assert (samples[2].error, samples[2].detail) == (Reason.BAD_LINE, "t.txt line 4: not UTF-8")


@pytest.mark.parametrize(
    ("columns", "said", "hint"),
    [
        (ColumnMapping(), r"'url' is missing; its columns are: link, who, id, bb, sum", "--url-column"),
        (ColumnMapping(url="link"), r"'identity' is missing", "--identity-column"),
        (ColumnMapping(url="lin"), r"'lin' is missing", "--url-column"),
        (ColumnMapping(url="link", identity="who", key="no"), "'no' is missing", "--key-column"),
        (ColumnMapping(url="link", identity="who", hash="no"), "'no' is missing", "--hash-column"),
        (ColumnMapping(url="link", identity="who", box=("bb", "no", "a", "b")), "'no' is missing", "--box-column"),
        (
            ColumnMapping(url="link", identity="who", box=("bb", "id")),
            "one column with four numbers, or four",
            "--box-column",
        ),
    ],
)
def test_a_missing_column_is_named_with_those_there_are_and_the_option(
    tmp_path: Path, columns: ColumnMapping, said: str, hint: str
) -> None:
    with pytest.raises(SourceError, match=said) as raised:
        UrlTableSource(write(tmp_path / "t.csv"), columns)
    assert hint in raised.value.hint


def test_bad_rows_have_their_line_and_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(
        b'url,identity,bbox,md5\nhttp://x/1,A,"[1, 2, 30, 40]",\n\nhttp://x/2,A\nhttp://x/3,A,,,more\n'
        b"http://x/4,A,1 2 3,\nhttp://x/5,A,,123\nhttp://x/6,\xff,,\n,A,,\nhttp://x/7,A,1e999 1 1 1,\n"
        b'http://x/8,A,"'
        + "é".encode()
        + b"x" * 200_000
        + b'",\nhttp://x/9,A,"2\n3 4 5",d41d8cd98f00b204e9800998ecf8427e,\nhttp://x/10,A,,\n'
    )
    found = list(
        UrlTableSource(tmp_path / "t.csv", ColumnMapping(box=("bbox",), box_format="ltwh", hash="md5")).samples()
    )
    said = [s.detail.removeprefix("t.csv ") or s.url[9:] for s in found]
    assert said[0] == "1"
    assert found[0].box == Box(1, 2, 31, 42)
    assert [text.split(":")[0] for text in said[1:9]] == [f"line {n}" for n in (4, 5, 6, 7, 8, 9, 10, 11)]
    assert said[1].endswith("2 fields; the header has 4")
    assert said[5].endswith("not UTF-8")
    assert said[8].endswith("field larger than field limit (131072)")
    assert (said[9], found[9].box, found[9].hash) == ("9", Box(2, 3, 6, 8), "md5:d41d8cd98f00b204e9800998ecf8427e")
    assert said[10] == "10"
    assert {s.error for s in found if s.detail} == {Reason.BAD_LINE}


@pytest.mark.parametrize("quotes", [[10], [10, 900], [10, 11], [999], [500, 501, 502]])
def test_a_stray_quote_costs_no_other_line(tmp_path: Path, quotes: list[int]) -> None:
    lines = [f'http://x/{n}.jpg,"Ann, the {n}th"' for n in range(5_000)]
    for n in quotes:
        lines[n] = f'"http://x/{n}.jpg,Ann'
    (tmp_path / "t.csv").write_text("url,name\n" + "\n".join(lines) + "\n")
    found = list(UrlTableSource(str(tmp_path / "t.csv"), ColumnMapping()).samples())
    assert len(found) == 5_000
    usual = {f"http://x/{n}.jpg": f"Ann, the {n}th" for n in range(5_000) if n not in quotes}
    assert {sample.url: sample.identity for sample in found if sample.url in usual} == usual
    others = [sample for sample in found if sample.url not in usual]
    assert [sample.url.strip('"') for sample in others] == [f"http://x/{n}.jpg" for n in quotes]


def test_stray_quotes_in_a_column_nobody_asked_for_cost_no_line(tmp_path: Path) -> None:
    lines = [f"http://x/{n}.jpg,A,none" for n in range(100)]
    lines[10] = lines[10].replace("none", '"none')
    lines[90] = lines[90].replace("none", '"none')
    (tmp_path / "t.csv").write_text("url,name,caption\n" + "\n".join(lines) + "\n")
    found = list(UrlTableSource(str(tmp_path / "t.csv"), ColumnMapping()).samples())
    assert [sample.url for sample in found] == [f"http://x/{n}.jpg" for n in range(100)]


def test_lines_within_quotes_are_one_field(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('url,name,caption\nhttp://x/1,A,"two\nlines"\n"http://x/2\n",B,"and\n\n""four"""\n')
    assert [(s.url, s.identity) for s in UrlTableSource(str(tmp_path / "t.csv"), ColumnMapping()).samples()] == [
        ("http://x/1", "A"), ("http://x/2", "B"),
    ]  # fmt: skip


def test_objects_that_are_none_and_values_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"url": "http://x", "identity": 5}\n[1]\n{"url": {}, "identity": "A"}\n{"url"\n{"identity": "A"}\n'
        '{"url": "http://\\ud800", "identity": "A"}\n' + "[" * 100_000 + '\n{"url": "http://y", "identity": 6.0}\n'
    )
    found = list(UrlTableSource(tmp_path / "t.jsonl").samples())
    assert [(s.identity, s.error) for s in found] == [("5", None), *[("_unusable", Reason.BAD_LINE)] * 6, ("6", None)]
    (tmp_path / "t.json").write_text('{"url": {"0": "http://x"}, "identity": {"0": "A"}}')  # as pandas writes it
    assert [s.identity for s in UrlTableSource(tmp_path / "t.json").samples()] == ["A"]


def test_what_img2dataset_writes(tmp_path: Path) -> None:
    """Its folder: a .parquet and a _stats.json for each shard; hashes are of the bytes that came, None where none did."""
    for shard in range(2):
        columns = {"url": [f"http://x/{shard}", f"http://y/{shard}"], "caption": ["Ann", "Ben"], "sha256": [SHA, None]}
        table = pa.table({**columns, "key": [f"{shard:05d}0000", f"{shard:05d}0001"], "status": ["success", "failed"]})
        pq.write_table(table, tmp_path / f"0000{shard}.parquet")
        (tmp_path / f"0000{shard}_stats.json").write_text("{}")
    found = list(UrlTableSource(tmp_path, ColumnMapping(identity="caption", hash="sha256")).samples())
    assert [s.key for s in found] == ["Ann/000000000", "Ben/000000001", "Ann/000010000", "Ben/000010001"]
    assert [bool(s.hash) for s in found] == [True, False] * 2


HEAD = "name\timage_id\tface_id\turl\tbbox\tsha256\n"
FACE = f"Aaron Eckhart\t1\t1\thttp://x/a.jpg\t53,177,418,542\t{SHA}\n"


def test_facescrub(tmp_path: Path) -> None:
    (tmp_path / "facescrub_actors.txt").write_text(
        HEAD + FACE + FACE.replace("1\t1", "1\t2").replace("53,", "60,") + "x\ty\n"
    )
    (tmp_path / "facescrub_actresses.txt").write_text(HEAD + FACE.replace("Aaron", "Ann").replace(SHA, "12"))
    found = list(FaceScrubSource([tmp_path]).samples())
    assert [s.key for s in found[:2]] == ["Aaron_Eckhart/1_1", "Aaron_Eckhart/1_2"]
    assert [s.box for s in found[:2]] == [Box(53, 177, 418, 542), Box(60, 177, 418, 542)]
    assert {s.hash for s in found[:2]} == {f"sha256:{SHA}"}
    assert [s.detail for s in found[2:]] == [
        "facescrub_actors.txt line 4: 2 fields; the header has 6",
        "facescrub_actresses.txt line 2: the hash '12' is not a hexadecimal sha256",
    ]
    relaxed = list(FaceScrubSource([tmp_path / "facescrub_actresses.txt"], ignore_hashes=True).samples())
    assert [(s.key, s.hash) for s in relaxed] == [("Ann_Eckhart/1_1", "")]
    with pytest.raises(SourceError, match="on request"):
        FaceScrubSource([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no facescrub_actors\.txt"):
        FaceScrubSource([tmp_path / "empty"])
    (tmp_path / "o.txt").write_text("name\turl\n")
    with pytest.raises(SourceError, match="column 'image_id' is missing"):
        FaceScrubSource([tmp_path / "o.txt"])


def keys(plan: Plan) -> list[str]:
    return [s.key for shard in plan.shards for s in plan.samples(shard)]


def planned(
    tmp_path: Path, samples: Callable[[str], list[Sample]], before: str, after: str
) -> tuple[list[str], list[str]]:
    """The keys after the first list, and those that the second one added; the first ones must stand as they were."""
    plan = Plan(Folder(tmp_path / "plan"))
    plan.add({}, "1", samples(before))
    first, frozen = keys(plan), list(plan.shards)
    plan.add({}, "2", samples(after))
    assert plan.shards[: len(frozen)] == frozen
    assert keys(plan)[: len(first)] == first
    return first, keys(plan)[len(first) :]


ROW = "http://x/{0},P{0},1,2,3,4\n"


@pytest.mark.parametrize(
    ("rows", "added"),
    [
        ([0, 1, 2, 3, 4], 1),
        ([0, 9, 1, 8, 2, 3], 2),
        ([3, 2, 1, 0], 0),
        ([0, "bad", 1, 2, "bad", 3], 0),
        (["bad", "worse", 0, 0, 1, 2, 3], 2),
    ],
)
def test_of_a_table_that_grew_only_what_is_new_is_planned(tmp_path: Path, rows: list[object], added: int) -> None:
    def samples(text: str) -> list[Sample]:
        (tmp_path / "t.csv").write_text("url,identity,left,top,right,bottom\n" + text)
        return list(UrlTableSource(tmp_path / "t.csv").samples())

    def lines(rows: list[object]) -> str:
        return "".join(ROW.format(row) if isinstance(row, int) else f"{row}\n" for row in rows)

    first, new = planned(tmp_path, samples, lines(["bad", 0, 1, "bad", 2, 3]), lines(rows))
    assert (len(first), len(new)) == (6, added)
    assert samples(lines([0]).replace("1,2,3,4", "5,6,7,8"))[0].key in first  # another box is no other photo


def test_of_a_persons_list_that_grew_only_what_is_new_is_planned(tmp_path: Path) -> None:
    def samples(text: str) -> list[Sample]:
        (tmp_path / "l/files").mkdir(parents=True, exist_ok=True)
        for person in "AB":
            lines = [f"{line.rstrip('!')} http://x/{person}{line} 0 0 1 1 3 2 1\n" for line in text.split()]
            (tmp_path / f"l/files/{person}.txt").write_text("".join(lines))
        return list(VggFaceSource(tmp_path / "l").samples())

    first, new = planned(tmp_path, samples, "1 2 2! 3", "0 2! 1 2!! 2 3 4")
    assert first == ["A/1", "A/2", "A/2~2", "A/3", "B/1", "B/2", "B/2~2", "B/3"]
    assert new == ["A/0", "A/2~3", "A/4", "B/0", "B/2~3", "B/4"]


def test_selections_of_any_source(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("url,identity\n" + "".join(f"http://x/{i},P{i % 3}\n" for i in range(9)) + "bad\n")
    (tmp_path / "who").write_text("# mine\nP2\n\nP0\nP7\n")

    def chosen(**options: object) -> tuple[list[str], str]:
        source = open_source("urls", {"table": str(tmp_path / "t.csv"), **options}, "ws")
        return [s.identity for s in source.samples()], source.summary

    assert chosen(limit=4)[0] == ["P0", "P1", "P2", "P0"]
    assert chosen(per_identity=1)[0] == ["P0", "P1", "P2", "_unusable"]
    assert chosen(identities="2", per_identity=2)[0] == ["P0", "P1", "P0", "P1"]
    assert chosen(identities="P1,P0", limit=3) == (["P0", "P1", "P0"], "")
    assert chosen(identities=["P1"]) == (["P1"] * 3, "")
    names, account = chosen(identities=str(tmp_path / "who"))
    assert names == ["P0", "P2"] * 3
    assert account == "1 of 3 identities are not in the source: P7"
    with pytest.raises(SourceError, match=r"has none of the identities \(Ann\)"):
        chosen(identities="Ann")
    with pytest.raises(SourceError, match="at least one"):
        chosen(identities="0")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=300), st.integers(0, 2**32)))
def test_hostile_bytes_as_any_list_raise_nothing_but_our_errors(tmp_path: Path, data: bytes | int) -> None:
    if isinstance(data, int):  # a good table with a few bytes changed
        chance = random.Random(data)
        kind = chance.choice(["csv", "tsv.gz", "json", "jsonl", "parquet"])
        mangled = bytearray(write(tmp_path / f"t.{kind}").read_bytes())
        for _ in range(chance.randint(1, 6)):
            mangled[chance.randrange(len(mangled))] = chance.randrange(256)
        data = bytes(mangled)
    for kind in ("csv", "tsv", "txt", "json", "jsonl", "parquet", "csv.gz"):
        (tmp_path / f"hostile.{kind}").write_bytes(data)
    (tmp_path / "P.txt").write_bytes(data)
    options = [
        {"table": str(tmp_path / f"hostile.{kind}")} for kind in ("csv", "tsv", "json", "jsonl", "parquet", "csv.gz")
    ]
    tries: list[tuple[str, dict[str, object]]] = [("urls", {**o, "identity": "A"}) for o in options]
    tries += [("urls", {**o, "url_column": "link", "identity_column": "who"}) for o in options]
    tries += [("urls", {"table": str(tmp_path / "hostile.txt"), "identity": "A"})]
    tries += [("vggface", {"lists": str(tmp_path / name)}) for name in ("P.txt", "hostile.csv.gz")]
    tries += [("facescrub", {"lists": str(tmp_path / "P.txt")})]
    for kind, given_options in tries:
        try:
            source = open_source(kind, given_options, "ws")
            for sample in source.samples():
                assert ".." not in sample.key.split("/")
                f"{sample.key}{sample.url}{sample.detail}".encode()
            source.digest()
        except DataprepError as error:
            str(error).encode()
