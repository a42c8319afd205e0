from pathlib import Path

import pytest

from dataprep.errors import SourceError
from dataprep.reasons import Reason
from dataprep.sources.casia import CasiaSource
from dataprep.sources.lfw import LfwSource

LFW = ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg", "Bo/Bo_0001.jpg", "Cy_[x]/Cy_[x]_0001.png")
CASIA = ("0000045/001.jpg", "0000045/002.jpg", "0000099/001.jpg", "0000100/001.jpg")


def photos(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize("inside", ["", "lfw", "lfw_funneled", "lfw-deepfunneled", "lfw2"])
def test_lfw_in_the_layouts_that_go_round(tmp_path: Path, inside: str) -> None:
    photos(tmp_path / inside, LFW)
    source = LfwSource(tmp_path)
    assert [s.key for s in source.samples()] == [name.rpartition(".")[0] for name in LFW]
    assert source.summary == "3 of LFW's 5749 people, 4 of its 13233 photos"
    assert source.describe()["kind"] == "lfw"


def test_a_photo_in_anothers_folder_is_accounted_for(tmp_path: Path) -> None:
    photos(tmp_path, (*LFW, "Bo/Ann_Lee_0003.jpg", "Bo/notes.txt"))
    lost = [s for s in LfwSource(tmp_path).samples() if s.error]
    assert [s.error for s in lost] == [Reason.BAD_NAME] * 2
    assert "is not named like Bo_0001" in lost[0].detail


def test_pairs_must_find_their_photos(tmp_path: Path) -> None:
    photos(tmp_path / "lfw", LFW)
    (tmp_path / "pairs.txt").write_text("1\t1\nAnn_Lee\t1\t2\nAnn_Lee\t1\tBo\t1\n")
    assert len(list(LfwSource(tmp_path).samples())) == 4
    digest = LfwSource(tmp_path).digest()
    (tmp_path / "pairs.txt").write_text("1\t1\nAnn_Lee\t1\t3\nAnn_Lee\t1\tBo\t2\n")
    assert LfwSource(tmp_path).digest() != digest
    with pytest.raises(SourceError, match=r"lists 2 photos that are not in .*; the first is Ann_Lee/Ann_Lee_0003"):
        list(LfwSource(tmp_path).samples())
    (tmp_path / "pairs.txt").write_text("junk\n")
    with pytest.raises(SourceError, match=r"pairs\.txt"):
        list(LfwSource(tmp_path).samples())


def test_what_is_not_lfw_or_casia_is_named(tmp_path: Path) -> None:
    for kind, said in ((LfwSource, "so it is not LFW"), (CasiaSource, "so it is not CASIA-WebFace")):
        with pytest.raises(SourceError, match=said):
            kind(photos(tmp_path, ("Ann/1.jpg",)))
        with pytest.raises(SourceError, match="no such directory"):
            kind(tmp_path / "none")


def test_casia_by_digits_and_by_name(tmp_path: Path) -> None:
    photos(tmp_path / "CASIA-WebFace", (*CASIA, "extra/1.jpg"))
    source = CasiaSource(tmp_path)
    assert [s.key for s in source.samples()] == [name.rpartition(".")[0] for name in CASIA]
    assert source.summary == "1 folders without a numeric name skipped (extra, ...)"
    (tmp_path / "names.txt").write_text("0000045 Rachel True\r\n0000099,Bo\n0000100 bO\njunk\n\n")
    source = CasiaSource(tmp_path, names=tmp_path / "names.txt")
    assert [s.key for s in source.samples()] == [
        "Rachel_True/001", "Rachel_True/002", "Bo_0000099/001", "bO_0000100/001",
    ]  # fmt: skip
    assert source.summary.startswith("1 malformed lines of names; 1 folders")
    (tmp_path / "names.txt").write_text("0000099 Bo\n0000100 ../x\n")
    assert [s.identity for s in CasiaSource(tmp_path, names=tmp_path / "names.txt").samples()] == [
        "0000045", "0000045", "Bo", "0000100",
    ]  # fmt: skip
    (tmp_path / "names.txt").write_text("nothing\n")
    with pytest.raises(SourceError, match="no line like `0000045 Rachel_True`"):
        list(CasiaSource(tmp_path, names=tmp_path / "names.txt").samples())


def test_the_real_lfw(shared: Path) -> None:
    source = LfwSource(shared / "lfw")
    assert not [s for s in source.samples() if s.error]
    assert source.summary == "153 of LFW's 5749 people, 892 of its 13233 photos"
