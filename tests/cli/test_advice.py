"""Whoever removes what a message says may be removed, and types the same again, gets what was asked for and loses nought."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.command import Run, pack_bytes
from helpers.downloads import PHOTO
from helpers.small_faces import noise

from dataprep.models.model_files import save_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.registry import create_model
from dataprep.packs.verification_bin import write_bin

DAMAGE = [b"{", b"[]", b'{"a": {"b": []}}']


@pytest.fixture
def built(tmp_path: Path, dataprep: Run) -> Path:
    """A workspace with a pack of eight faces, a model, a set of pairs, and its folder of faces."""
    for person in range(4):
        (tmp_path / f"faces/p{person}").mkdir(parents=True)
        for photo in range(3):
            (tmp_path / f"faces/p{person}/{photo}.jpg").write_bytes(noise(10 * person + photo, 112))
    dataprep("import", "folder", tmp_path / "faces", "--aligned")
    dataprep("pack", "--licence", "mine")
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    torch.manual_seed(0)
    save_model(
        tmp_path / "m.pt", create_model("mobilefacenet", 64), network="mobilefacenet", embedding=64,
        preprocessing=Preprocessing(), about={},
    )  # fmt: skip
    write_bin(tmp_path / "set.bin", [noise(n % 12, 112) for n in range(40)], [True, False] * 10)
    return tmp_path


def follow(dataprep: Run, file: Path, damage: bytes, *verb: object) -> None:
    """Damage a file, type a verb, remove what its hint says, and type it again."""
    file.write_bytes(damage)
    told = dataprep(*verb, code=None)
    if told.returncode == 0:  # noticed and mended by itself, or of no consequence
        return
    assert told.stderr.startswith("dataprep: ") or "\ndataprep: " in told.stderr, told.stderr
    hint = told.stderr.partition("hint: ")[2]
    if "--overwrite" in hint:
        dataprep(*verb, "--overwrite")
        return
    named = re.search(r"remove (/[^\s,;]+)", hint)
    assert named or "choose another --out" in hint, told.stderr
    (Path(named[1]) if named else file).unlink()
    dataprep(*verb)


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_recipe(built: Path, dataprep: Run, damage: bytes) -> None:
    before = pack_bytes(built / "ws/packs/train")
    follow(dataprep, built / "ws/recipe.json", damage, "pack", "--licence", "mine")
    assert pack_bytes(built / "ws/packs/train") == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_amendment_of_the_plan(built: Path, dataprep: Run, damage: bytes) -> None:
    (built / "faces/p1/0.jpg").unlink()
    (built / "faces/p2/0.jpg").write_bytes(noise(99, 112))
    dataprep("import", "folder", built / "faces", "--aligned")
    dataprep("pack")
    before = pack_bytes(built / "ws/packs/train")
    (amended,) = (built / "ws/plan/amended").glob("*.json")
    follow(dataprep, amended, damage, "import", "folder", built / "faces", "--aligned")
    dataprep("pack")
    assert pack_bytes(built / "ws/packs/train") == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_request_for_a_retry(built: Path, dataprep: Run, damage: bytes) -> None:
    (built / "faces/p1/0.jpg").chmod(0)
    before = pack_bytes(built / "ws/packs/train")
    (store,) = (built / "ws/stages").glob("validate@*")
    (store / "retry").mkdir()
    (built / "faces/p1/0.jpg").chmod(0o644)
    follow(dataprep, store / "retry/g0-000000.json", damage, "pack", "--licence", "mine")
    assert pack_bytes(built / "ws/packs/train") == before


@pytest.mark.parametrize("name", ["pack.json", "property", "labels.tsv"])
@pytest.mark.parametrize("damage", DAMAGE[:2])
def test_what_lies_beside_the_records_of_a_pack(built: Path, dataprep: Run, name: str, damage: bytes) -> None:
    pack = built / "ws/packs/train"
    images = sorted(path.read_bytes() for path in (built / "faces").rglob("*.jpg"))
    (pack / name).write_bytes(damage)
    told = dataprep("unpack", pack, "--format", "folder", "--out", built / "out", code=None)
    if told.returncode:
        assert "hint: remove the file to continue without it" in told.stderr or name == "property", told.stderr
        (pack / name).unlink()
        dataprep("unpack", pack, "--format", "folder", "--out", built / "out")
    assert sorted(path.read_bytes() for path in (built / "out").rglob("*.jpg")) == images


Typed = Callable[[Path], tuple[object, ...]]
RESULTS: dict[str, tuple[str, Typed]] = {
    "a result": (
        "result/result.json",
        lambda at: ("test", "--model", at / "m.pt", "--benchmark", at / "set.bin", "--out", at / "result"),
    ),
    "features": (
        "f.npz.json", lambda at: ("extract", at / "faces", "--model", at / "m.pt", "--out", at / "f.npz"),
    ),
    "the settings of plain faces": (
        "plain/faces.json", lambda at: ("align", at / "photo.jpg", "--out", at / "plain", "-j", 0),
    ),
    "the settings of a run": (
        "ws/models/default/config.json",
        lambda at: ("train", "--epochs", 1, "--batch-size", 4, "--num-workers", 0, "--device", "cpu"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", RESULTS)
@pytest.mark.parametrize("damage", DAMAGE[:2])
def test_what_says_how_something_was_made(built: Path, dataprep: Run, what: str, damage: bytes) -> None:
    name, typed = RESULTS[what]
    dataprep(*typed(built))
    made = built / name
    assert made.exists()
    follow(dataprep, made, damage, *typed(built))
