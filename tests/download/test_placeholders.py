"""Placeholders: found whatever the order of arrival, the kills and the shards, and nothing else with them."""

import asyncio
import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from helpers.downloads import FAST, PHOTO, Noting, download, to_loopback
from helpers.webserver import serving

from dataprep.pipeline.pipeline import Pipeline, PipelineState
from dataprep.pipeline.runner import run_pipeline
from dataprep.types import Sample
from dataprep.workspace.journal import Journal
from dataprep.workspace.stage_store import StageStore
from dataprep.workspace.workspace import Workspace

GONE = PHOTO + b"this image was removed"
_PEOPLE, _PHOTOS = 12, 20  # shards of 50: a person's photos lie in two of them at times


def body_of(host: str, path: str, port: str) -> bytes:
    """What lies behind a URL: every fifth photo of one host is gone; other hosts repeat themselves innocently."""
    person, number = (int(part) for part in path.removesuffix(".jpg").strip("/").split("/"))
    if host == "a.test" and number % 5 == 0:
        return GONE
    if host == "b.test" and number % 5 == 1:
        return PHOTO + b"again and again of %d" % person  # many URLs, one identity
    if host == "c.test" and number % 5 == 2 and person < 4:
        return PHOTO + b"four times"
    return PHOTO + f"{host}{path}".encode()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(random.random() * 0.1)  # who is to be stopped on the way must not be there before
        host, _, port = request.host.partition(":")
        return web.Response(body=body_of(host, request.path, port))

    with serving(answer) as url:
        yield url


def wanted(base: str) -> list[Sample]:
    port = base.rpartition(":")[2]
    found = []
    for person in range(_PEOPLE):
        for number in range(_PHOTOS):
            host = {0: "a", 1: "b", 2: "c"}.get(number % 5, "d")
            if host == "c" and (person >= 4 or number != 2):
                host = "d"
            url = f"http://{host}.test:{port}/{person}/{number}.jpg"
            found.append(Sample(key=f"p{person:02d}/{number:02d}", identity=f"p{person:02d}", url=url))
    return found


def final(folder: Path) -> tuple[list[object], list[str]]:
    """The account, verdicts and photos in plan order, and the digests that later stages see."""
    chain = Pipeline(Workspace(folder / "ws"), {"download": FAST}, until="download")
    directory = chain.node("download").store
    rows, digests = [], []
    for marker in sorted(directory.markers().values(), key=lambda marker: marker.shard):
        payloads = directory.payloads(marker)
        for row in directory.rows(marker):
            photo = None
            if row["size"] is not None:
                photo = payloads.read(row["offset"], row["size"])
                assert hashlib.sha256(photo).hexdigest() == row["sha256"]
            names = ("key", "verdict", "reason", "detail", "status", "bytes", "body_sha256")
            rows.append((*(row[name] for name in names), photo))
        payloads.close()
        rows.append(marker.account)
        digests.append(marker.digest)
        assert GONE not in (directory.folder / f"data/{marker.data}").read_bytes()
    assert list((directory.folder / "journal").iterdir()) == []
    return rows, digests


@pytest.fixture(scope="module")
def quiet(base: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], list[str]]:
    folder = tmp_path_factory.mktemp("quiet")
    display = Noting()
    report, _ = download(folder, wanted(base), lookup=to_loopback, connections=4, display=display)
    gone = _PEOPLE * _PHOTOS // 5
    assert report.accounts["download"]["dropped"] == {"placeholder": gone}
    assert f"ok {_PEOPLE * _PHOTOS - gone}; dropped placeholder {gone}" in display.line
    return final(folder)


@pytest.mark.parametrize("connections", [3, 64])
def test_the_order_of_arrival_changes_nothing(
    base: str, tmp_path: Path, quiet: tuple[list[object], list[str]], connections: int
) -> None:
    download(tmp_path, wanted(base), lookup=to_loopback, connections=connections, per_host=64)
    assert final(tmp_path) == quiet


def test_stopped_and_killed_on_the_way_the_end_is_the_same(
    base: str, tmp_path: Path, quiet: tuple[list[object], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataprep.download.settings import DownloadCallbacks
    from dataprep.download.writer import DownloadShard

    workspace = Workspace(tmp_path / "ws", create=True)
    workspace.plan().add({"kind": "test"}, "test", wanted(base))
    for enough in (15, 40, 90):
        chain = Pipeline(workspace, {"download": FAST}, until="download")
        link, state = chain.node("download"), PipelineState(chain, workspace.plan())
        link.stage.lookup = to_loopback
        stop, came = threading.Event(), []

        def seen(row: object, came: list = came, stop: threading.Event = stop, enough: int = enough) -> None:
            came.append(row)
            if len(came) >= enough:
                stop.set()

        shards = (
            DownloadShard(
                id=shard.id, upstream=shard.digest, samples=state.plan.samples(shard),
                journal=Journal(link.store, shard.id), remaining=0, started=0.0,
            )
            for shard in state.shards.values() if state.marker(link, shard.id) is None
        )  # fmt: skip
        asyncio.run(link.stage.process(shards, DownloadCallbacks(on_sample=seen, on_shard=lambda shard: None), stop))
    # and killed in the middle of the closing pass, at its first and at its last commit
    commit = StageStore.commit_flat
    for survive in (1, 0):
        left = [survive]

        def killed(self: StageStore, shard: str, *args: object, left: list[int] = left, **values: object) -> object:
            if self.marker(shard) is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            return commit(self, shard, *args, **values)  # type: ignore[arg-type]

        chain = Pipeline(workspace, {"download": FAST}, until="download")
        chain.node("download").stage.lookup = to_loopback
        with monkeypatch.context() as patch:
            patch.setattr(StageStore, "commit_flat", killed)
            with pytest.raises(BaseException):  # noqa: B017 - a kill, as far as the files know
                run_pipeline(chain, jobs=0, display=Noting())
    chain = Pipeline(workspace, {"download": FAST}, until="download")
    chain.node("download").stage.lookup = to_loopback
    run_pipeline(chain, jobs=0, display=Noting())
    assert final(tmp_path) == quiet


def test_zero_keeps_them_and_the_threshold_is_exact(base: str, tmp_path: Path) -> None:
    port = base.rpartition(":")[2]
    # the same bytes from five URLs, but of four: the fifth line repeats a URL
    listed = [Sample(key=f"p{i}/0", identity=f"p{i}", url=f"http://c.test:{port}/{min(i, 3)}/2.jpg") for i in range(5)]
    report, _ = download(tmp_path / "four", listed, lookup=to_loopback)
    assert report.accounts["download"]["ok"] == 5
    report, rows = download(tmp_path / "less", listed, lookup=to_loopback, placeholders=4)
    assert report.accounts["download"]["dropped"] == {"placeholder": 5}
    assert {(row["status"], row["attempts"]) for row in rows.values()} == {(200, 1)}
    report, _ = download(tmp_path / "zero", wanted(base), lookup=to_loopback, placeholders=0)
    assert report.accounts["download"]["ok"] == _PEOPLE * _PHOTOS


def test_later_stages_see_the_placeholders_of_shards_they_had_begun(base: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws", create=True)
    workspace.plan().add({"kind": "test"}, "test", wanted(base))
    chain = Pipeline(workspace, {"download": {**FAST, "connections": 2}}, until="validate")
    chain.node("download").stage.lookup = to_loopback
    report = run_pipeline(chain, jobs=0, display=Noting())
    assert not report.errors
    kept = _PEOPLE * _PHOTOS * 4 // 5
    assert report.accounts["download"]["ok"] == kept
    assert report.accounts["validate"]["in"] == kept
    state = PipelineState(chain, workspace.plan())
    assert [state.pending(link) for link in chain.nodes] == [[], []]
