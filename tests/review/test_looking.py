"""What was lost can be listed, shown in full and looked at."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.command import Run
from PIL import Image

from dataprep.imaging.codec import encode_jpeg
from dataprep.names import printable
from dataprep.review.samples import find_samples
from dataprep.review.sheet import write_sheet


@pytest.fixture
def workspace(drawn: Path, dataprep: Run, tmp_path: Path) -> Path:
    """Drawn people, beside one whose photos show nobody, are cut off, or are no photos."""
    root = tmp_path / "photos"
    root.mkdir()
    for person in sorted(path for path in drawn.iterdir() if path.is_dir())[:2]:
        shutil.copytree(person, root / person.name)
    grey = encode_jpeg(np.full((90, 120, 3), 128, np.uint8))
    (root / "zed").mkdir()
    (root / "zed/grey.jpg").write_bytes(grey)
    (root / "zed/page.jpg").write_bytes(b"<html>\x1b[31mno photo</html>")
    (root / "zed/cut.jpg").write_bytes(grey[: len(grey) // 2])
    dataprep("import", "folder", root)
    dataprep("pack", "-j", 0)
    return tmp_path / "ws"


def test_samples_of_a_reason_are_listed_with_their_details_and_shown_in_full(
    workspace: Path, dataprep: Run, tmp_path: Path
) -> None:
    lost = dataprep("samples", "--dropped").stdout.splitlines()
    assert [line.split("\t")[0] for line in lost] == ["zed/cut", "zed/grey", "zed/page"]
    (line,) = dataprep("samples", "--reason", "no_face,bad_box").stdout.splitlines()
    assert line == f"zed/grey\tdetect no_face\tnone found\t{tmp_path}/photos/zed/grey.jpg"
    rows = list(csv.DictReader(io.StringIO(dataprep("samples", "--person", "ZED", "--csv").stdout)))
    assert [(row["key"], row["reason"]) for row in rows] == [
        ("zed/cut", "truncated"), ("zed/grey", "no_face"), ("zed/page", "html"),
    ]  # fmt: skip
    assert rows[1]["validate.width"] == "120"
    assert rows[1]["detect.faces"] == "0"
    shown = json.loads(dataprep("show", "grey.jpg", "--json").stdout)
    assert shown["key"] == "zed/grey"
    assert shown["validate.bytes"] == (tmp_path / "photos/zed/grey.jpg").stat().st_size
    assert shown == json.loads(dataprep("show", tmp_path / "photos/zed/grey.jpg", "--json").stdout)
    assert "reason:                   html" in dataprep("show", "zed/page").stdout
    why = dataprep("status", "--why").stdout
    assert "no_face: zed/grey (none found)" in why


def test_what_is_not_there_is_answered_with_what_is(workspace: Path, dataprep: Run) -> None:
    assert "hint: similar: no_face" in dataprep("samples", "--reason", "no_fase", code=2).stderr
    said = dataprep("samples", "--reason", "http_404", code=2).stderr
    assert "hint: samples were lost for: html 1, no_face 1, truncated 1" in said
    assert "hint: similar: zed" in dataprep("look", "--person", "zeda", code=1).stderr
    assert "no sample of" in dataprep("show", "zed/9", code=1).stderr
    assert "a sheet is an .html or a .png" in dataprep("look", "--out", "x.gif", code=2).stderr


def test_a_sheet_shows_each_sample_once_with_its_reason_and_escapes_names(
    workspace: Path, dataprep: Run, tmp_path: Path
) -> None:
    assert "3 samples in" in dataprep("look", "--dropped").stdout
    page = (workspace / "look.html").read_text("utf-8")
    assert page.count("<figure>") == 3
    assert page.count("data:image/jpeg;base64,") == 1  # of the three only the grey photo is one
    assert "<h2>no_face</h2>" in page
    assert "http" not in page.replace("http-equiv", "")  # stands alone
    records = list(find_samples(str(workspace)))
    out = tmp_path / "all.png"
    assert write_sheet(str(workspace), out, records, title="\x1b[31m <b>", faces=True) == len(records)
    with Image.open(out) as image:
        assert image.size == (8 + 6 * 232, 32 + -(-len(records) // 6) * 280)
    write_sheet(str(workspace), tmp_path / "all.html", records, title="<script>", faces=True)
    assert "<script>" not in (tmp_path / "all.html").read_text("utf-8")


def test_printable_text_steers_no_terminal_and_stays_readable() -> None:
    assert printable("José 中 a/b.jpg") == "José 中 a/b.jpg"
    assert printable("a\x1b[2Jb\r\u202egpj\u200b") == r"a\x1b[2Jb\r\u202egpj\u200b"
