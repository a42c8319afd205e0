"""lst --map: people get new names, and those who get one name become one person."""

from pathlib import Path

import pytest
from helpers.command import Run

from dataprep.errors import SourceError
from dataprep.packs.rec_reader import RecordPack
from dataprep.workspace.renames import Renames


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("anna\n", "line 1: expected `name TAB new name`, found 'anna'"),
        ("anna\tAnn\tx\n", "line 1: expected"),
        ("# names\nanna\tAnn\nanna\tAnne\n", "line 3: 'anna' becomes 'Ann' in an earlier line"),
        ("anna\t../up\n", "line 1: '../up' cannot be a person's name"),
        ("\n# nothing\n", "no names in it"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "names.tsv").write_text(text)
    with pytest.raises(SourceError) as raised:
        Renames.read(tmp_path / "names.tsv")
    assert said in str(raised.value)


def test_names_are_read_from_any_table(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_bytes('"Smith J.",Smith John\r\nanna;Änn\r\n'.encode("utf-16"))
    assert Renames.read(tmp_path / "names.csv").names == {"Smith J": "Smith John", "anna": "Änn"}


def packed(folder: Path) -> dict[str, list[str]]:
    """The names of the images by identity."""
    pack = RecordPack(folder)
    found: dict[str, list[str]] = {}
    for position, label in enumerate(pack.labels().tolist()):
        face = pack.face(position)
        assert face.identity == pack.identity(label)
        found.setdefault(face.identity, []).append(face.name)
    return found


def test_people_are_renamed_merged_and_excluded_under_either_name(tmp_path: Path, dataprep: Run) -> None:
    ws = ("-w", tmp_path / "ws")
    dataprep(*ws, "import", "synth", "--identities", 4, "--photos", 2)
    plain = dataprep(*ws, "status").stdout
    assert "4 people" in plain or "8 samples" in plain
    dataprep(*ws, "pack")
    before = packed(tmp_path / "ws/packs/train")
    first, second, third, fourth = sorted(before)
    (tmp_path / "names.tsv").write_text(
        f"{first}\tAda\n{second}\tAda\n{third}\t{fourth}\n{fourth}\t{third}\nnobody\tX\n"
    )
    told = dataprep(*ws, "pack", "--map", tmp_path / "names.tsv", "--overwrite")
    assert "nobody is nobody's name here" in told.stderr
    after = packed(tmp_path / "ws/packs/train")
    assert {name: len(images) for name, images in after.items()} == {"Ada": 4, third: 2, fourth: 2}
    assert len({name for images in after.values() for name in images}) == 8, "no two images under one name"
    assert after[fourth][0].startswith(f"{fourth}/{third}_")
    # the content counts, not the file: another file of the same names changes nothing, a changed one does
    again = dataprep(*ws, "lst", "--map", tmp_path / "names.tsv").stdout
    assert "nothing to do" in again or "up to date" in again
    (tmp_path / "names.tsv").write_text(f"{first}\tAda\n")
    dataprep(*ws, "pack", "--overwrite")
    assert sorted(packed(tmp_path / "ws/packs/train")) == sorted(["Ada", second, third, fourth])
    dataprep(*ws, "exclude", "Ada")
    dataprep(*ws, "pack", "--overwrite")
    assert sorted(packed(tmp_path / "ws/packs/train")) == sorted([second, third, fourth])
    (tmp_path / "names.tsv").unlink()
    dataprep(*ws, "status")
    dataprep(*ws, "import", "synth", "--identities", 4, "--photos", 2)
    gone = dataprep(*ws, "pack", "--overwrite", code=1).stderr
    assert "no such file" in gone
    assert "without --map" in gone
