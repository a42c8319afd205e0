"""What is read is checked: one flipped bit anywhere in a workspace is noticed, told, and made again from its input."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from helpers.command import Run, pack_bytes
from helpers.downloads import FAST, Noting, samples
from helpers.webserver import serving

from dataprep.errors import DataprepError
from dataprep.imaging.codec import encode_jpeg
from dataprep.pipeline.integrity_check import check_workspace
from dataprep.pipeline.pipeline import Pipeline
from dataprep.pipeline.runner import run_pipeline
from dataprep.sources.catalog import open_source
from dataprep.storage import Folder
from dataprep.synth.photos import draw_photo
from dataprep.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a pack."""
    path = tmp_path_factory.mktemp("built") / "ws"
    workspace = Workspace(path, create=True)
    source = open_source("synth", {"identities": 5, "photos": 4, "root": str(path.parent / "drawn")}, str(path))
    workspace.plan().add(source.describe(), source.digest(), source.samples())
    run_pipeline(Pipeline(workspace, {"pack": {"name": "train"}}, until="pack"), jobs=0)
    return path


@pytest.fixture
def workspace(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "ws")
    return tmp_path / "ws"


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def only(files: Iterator[Path]) -> Path:
    return next(iter(sorted(files)))


@pytest.mark.parametrize(
    ("part", "wanted_by"),
    [
        ("align@*/data/*.tar", "pack"), ("align@*/rows/*.parquet", "lst"), ("align@*/done/*.json", "lst"),
        ("lst@*/rows/*.parquet", "pack"), ("validate@*/rows/*.parquet", "align"), ("detect@*/rows/*.parquet", "align"),
    ],
)  # fmt: skip
def test_a_damaged_shard_is_made_again_and_the_pack_is_the_same(
    workspace: Path, dataprep: Run, part: str, wanted_by: str
) -> None:
    before = pack_bytes(workspace / "packs/train")
    damaged = only(workspace.glob(f"stages/{part}"))
    flip(damaged, 8 * (damaged.stat().st_size // 2) + 3)
    shutil.rmtree(workspace / "packs")
    for folder in workspace.glob(f"stages/{wanted_by}@*"):
        shutil.rmtree(folder)
    done = dataprep("-w", workspace, "pack")
    assert damaged.name in done.stderr
    assert "done again" in done.stderr
    assert pack_bytes(workspace / "packs/train") == before
    assert dataprep("-w", workspace, "check").stdout.endswith("everything is whole\n")


def test_export_hands_out_no_damaged_face_and_says_what_to_do(workspace: Path, tmp_path: Path, dataprep: Run) -> None:
    damaged = only(workspace.glob("stages/align@*/data/*.tar"))
    flip(damaged, 8 * (damaged.stat().st_size // 2))
    failed = dataprep("-w", workspace, "export", tmp_path / "faces", code=1)
    assert f"{damaged} is damaged" in failed.stderr
    assert "`dataprep check --redo`" in failed.stderr
    told = dataprep("-w", workspace, "check", "--redo", code=1).stdout
    assert f"damaged: {damaged}" in told
    dataprep("-w", workspace, "align")  # as the remedy says
    dataprep("-w", workspace, "export", tmp_path / "faces2")


@pytest.mark.parametrize("part", ["packs/train/train.rec", "packs/train/train.idx", "stages/pack@*/rows/*.parquet"])
def test_check_finds_a_damaged_pack_and_its_advice_makes_it_whole(workspace: Path, dataprep: Run, part: str) -> None:
    damaged, before = only(workspace.glob(part)), pack_bytes(workspace / "packs/train")
    flip(damaged, 8 * (damaged.stat().st_size // 3))
    told = dataprep("-w", workspace, "check", code=1).stdout
    assert f"damaged: {damaged}" in told
    assert "`dataprep check --redo`, then `dataprep pack`" in told
    dataprep("-w", workspace, "check", "--redo", code=1)
    dataprep("-w", workspace, "pack")
    assert pack_bytes(workspace / "packs/train") == before
    dataprep("-w", workspace, "check")


def test_a_missing_payload_is_made_again(workspace: Path, dataprep: Run) -> None:
    before = pack_bytes(workspace / "packs/train")
    only(workspace.glob("stages/align@*/data/*.tar")).unlink()
    shutil.rmtree(workspace / "packs")
    assert "is damaged or gone; its shard is done again" in dataprep("-w", workspace, "pack").stderr
    assert pack_bytes(workspace / "packs/train") == before


def test_a_damaged_plan_is_not_read_as_another_one(workspace: Path, dataprep: Run) -> None:
    shard = only(workspace.glob("plan/*.parquet"))
    flip(shard, 8 * (shard.stat().st_size // 2))
    failed = dataprep("-w", workspace, "status", code=1)
    assert "it is not what was planned" in failed.stderr
    assert "restore the folder plan/ from a copy, or import everything into a new workspace" in failed.stderr


def test_no_flipped_bit_is_read_as_another_value(workspace: Path) -> None:
    """A thousand bits of all files but the runs' logs: noticed by check, or the values that are read are the same."""
    files = [
        path
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and path.suffix in (".json", ".parquet", ".tar", ".rec", ".idx", ".lst", ".bin", ".tsv")
        and path.relative_to(workspace).parts[0] in ("plan", "stages", "packs", "recipe.json", "dataprep.json")
        and path.name != "pack.json"  # holds the checksums of a pack, and is no input of anything
    ]  # fmt: skip
    before = {path: path.read_bytes() for path in files}
    assert check_workspace(str(workspace)).damaged == []
    generator, missed = random.Random(5), []
    for number in range(1000):
        path = files[number % len(files)]
        bit = generator.randrange(8 * len(before[path]))
        flip(path, bit)
        try:
            noticed = bool(check_workspace(str(workspace)).damaged)
        except DataprepError:
            noticed = True
        if not noticed and not _says_the_same(path, before[path]):
            missed.append((path.name, bit))
        path.write_bytes(before[path])
    assert missed == []


def _says_the_same(path: Path, before: bytes) -> bool:
    """A flip in the name of a JSON file's checksum, which is then not compared, changes no value."""
    if path.suffix != ".json":
        return False
    try:
        now = Folder(path.parent).get_record(path.name)
    except DataprepError:
        return False
    was = {name: value for name, value in json.loads(before).items() if name != "checksum"}
    return now is not None and {name: now.get(name) for name in was} == was


def face_hashes(chain: Pipeline) -> dict[str, str]:
    store = chain.node("align").store
    return {row["key"]: row["sha256"] for marker in store.markers().values() for row in store.rows(marker)}


@pytest.mark.parametrize("damage", ["photo", "cut", "marker", "ledger", "gone"])
def test_a_damaged_download_asks_the_web_only_for_what_is_lost(tmp_path: Path, damage: str) -> None:
    asked: Counter[str] = Counter()

    async def answer(request: web.Request) -> web.Response:
        asked[request.path] += 1
        return web.Response(body=encode_jpeg(draw_photo(int(request.path[2:-4]), 0).pixels))

    with serving(answer) as site:
        urls = [f"{site}/p{number}.jpg" for number in range(6)]
        recipe = {"download": {**FAST, "placeholders": 0}}
        workspace = Workspace(tmp_path / "ws", create=True)
        workspace.plan().add({"kind": "urls"}, "d", samples(urls))
        chain = Pipeline(workspace, recipe, until="align")
        run_pipeline(chain, jobs=0, display=Noting())
        (marker,) = chain.download.store.markers().values()
        assert marker.account["ok"] == 6
        faces = face_hashes(chain)
        store = chain.download.store
        tar, rows, done = (
            store.data_paths(marker)[0],
            store.rows_path(marker),
            store.folder / f"done/{marker.shard}.json",
        )
        third = store.rows(marker)[2]
        if damage == "photo":
            flip(tar, 8 * (third["offset"] + third["size"] // 2))
        elif damage == "cut":
            tar.write_bytes(tar.read_bytes()[: third["offset"] + 10])
        elif damage == "gone":
            tar.unlink()
        elif damage == "marker":
            done.write_bytes(b"{")
        else:
            rows.write_bytes(rows.read_bytes()[:-9])
        for node in chain.map_nodes:
            shutil.rmtree(node.store.folder.path)
        before = Counter(asked)
        again = Pipeline(workspace, recipe, until="align")
        run_pipeline(again, jobs=0, display=Noting())
        repeated = {path for path in asked if asked[path] > before[path]}
        expected = {"photo": {"/p2.jpg"}, "cut": {f"/p{n}.jpg" for n in range(2, 6)}, "marker": set()}
        assert repeated == expected.get(damage, {f"/p{n}.jpg" for n in range(6)})
        assert face_hashes(again) == faces
        assert check_workspace(str(workspace.path)).damaged == []
