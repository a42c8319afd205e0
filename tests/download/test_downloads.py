"""The download stage against a real server: what each kind of answer ends as, politeness, safety, resuming."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from helpers.downloads import FAST, PHOTO, Noting, download, rows_of
from helpers.webserver import serving

from dataprep.pipeline.pipeline import Pipeline, PipelineState
from dataprep.pipeline.runner import run_pipeline
from dataprep.reasons import Reason
from dataprep.sources.urls import UrlTableSource
from dataprep.workspace.workspace import Workspace


async def answer(request: web.Request) -> web.StreamResponse:
    path = request.path
    if path.startswith("/status/"):
        return web.Response(status=int(path[8:]))
    if path == "/loop":
        return web.Response(status=302, headers={"Location": "/loop"})
    if path == "/moved":
        return web.Response(status=301, headers={"Location": "/photo%20one.jpg"})
    if path == "/elsewhere":
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})
    if path == "/html.jpg":
        return web.Response(text="<!doctype html><p>gone", content_type="image/jpeg")
    if path == "/cut.jpg":
        return web.Response(body=PHOTO[:2000].replace(b"\xff\xd9", b""))
    if path == "/empty.jpg":
        return web.Response(body=b"")
    if path == "/large.jpg":
        return web.Response(body=PHOTO + bytes(3_000_000))
    if path == "/noai.jpg":
        return web.Response(body=PHOTO, headers={"X-Robots-Tag": "noindex, noai"})
    if path in ("/stalled", "/short"):
        response = web.StreamResponse(headers={"Content-Length": str(len(PHOTO))})
        await response.prepare(request)
        await response.write(PHOTO[:500])
        if path == "/stalled":
            await asyncio.sleep(30)
        assert request.transport is not None
        request.transport.close()
        return response
    return web.Response(body=PHOTO)


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with serving(answer) as url:
        yield url


def test_every_answer_ends_under_its_reason(base: str, tmp_path: Path) -> None:
    expected = {
        f"{base}/photo.jpg": None,
        f"{base}/moved": None,
        f"{base}/status/403": Reason.HTTP_4XX,
        f"{base}/status/404": Reason.HTTP_404,
        f"{base}/status/410": Reason.HTTP_404,
        f"{base}/status/429": Reason.HTTP_429,
        f"{base}/status/500": Reason.HTTP_5XX,
        f"{base}/loop": Reason.REDIRECTS,
        f"{base}/elsewhere": Reason.BAD_URL,
        f"{base}/html.jpg": Reason.HTML,
        f"{base}/cut.jpg": Reason.TRUNCATED,
        f"{base}/empty.jpg": Reason.EMPTY,
        f"{base}/large.jpg": Reason.TOO_LARGE,
        f"{base}/noai.jpg": Reason.OPTED_OUT,
        f"{base}/stalled": Reason.TIMEOUT,
        f"{base}/short": Reason.SHORT_BODY,
        "http://127.0.0.1:2/dead.jpg": Reason.CONNECTION,
        "http://no-such-host.invalid/x.jpg": Reason.DNS,
    }
    report, rows = download(tmp_path, list(expected), max_bytes=1_000_000)
    assert not report.errors
    found = {url: rows[url]["reason"] for url in expected}
    assert found == {url: reason.code if reason else None for url, reason in expected.items()}
    assert rows[f"{base}/moved"]["final_url"] == f"{base}/photo%20one.jpg"
    account = report.accounts["download"]
    assert account["in"] == len(expected)
    assert account["in"] == account["ok"] + sum(account["dropped"].values()) + sum(account["failed"].values())


def test_only_transient_failures_are_asked_again(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def counting(request: web.Request) -> web.StreamResponse:
        asked[request.path] += 1
        if request.path == "/second.jpg" and asked[request.path] == 2:
            return web.Response(body=PHOTO)
        return web.Response(status={"/gone.jpg": 404, "/forbidden.jpg": 403}.get(request.path, 503))

    with serving(counting) as base:
        names = ["gone", "forbidden", "down", "second"]
        _, rows = download(tmp_path, [f"{base}/{name}.jpg" for name in names], retries=2)
    assert asked == {"/gone.jpg": 1, "/forbidden.jpg": 1, "/down.jpg": 3, "/second.jpg": 2}
    assert rows[f"{base}/second.jpg"]["verdict"] == "ok"
    assert rows[f"{base}/second.jpg"]["attempts"] == 2


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    times: list[float] = []

    async def busy(request: web.Request) -> web.StreamResponse:
        times.append(time.monotonic())
        if len(times) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response(body=PHOTO)

    with serving(busy) as base:
        download(tmp_path, [f"{base}/{name}.jpg" for name in "abc"], per_host=1, spacing=0.05)
    assert times[1] - times[0] >= 0.99  # the host rests, whichever URL would have been next


def test_a_host_is_never_asked_more_than_is_polite(tmp_path: Path) -> None:
    now, most = 0, 0
    starts: list[float] = []

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        starts.append(time.monotonic())
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.03)
        now -= 1
        return web.Response(body=PHOTO)

    with serving(slow) as base:
        download(tmp_path, [f"{base}/{i}.jpg" for i in range(30)], per_host=3, spacing=0.02)
    assert most <= 3
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert sum(gaps) >= 29 * 0.02 * 0.95


def test_who_we_are_and_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    async def note(request: web.Request) -> web.StreamResponse:
        seen.update(request.headers)
        return web.Response(body=PHOTO, headers={"Set-Cookie": "id=1"})

    with serving(note) as base:
        download(tmp_path, [f"{base}/a.jpg"])
    assert seen["User-Agent"].startswith("dataprep/")
    assert set(seen) <= {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}


async def to_private(request: web.Request) -> web.StreamResponse:
    return web.Response(body=PHOTO)


def test_private_addresses_are_refused_however_they_are_written(tmp_path: Path) -> None:
    with serving(to_private) as base:
        port = base.rpartition(":")[2]
        urls = [
            f"http://{host}:{port}/a.jpg"
            for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433")
        ]
        urls += ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/a.jpg", "http://192.168.1.1/a.jpg"]
        _, rows = download(tmp_path, urls, allow_private=False, timeout=1.0, retries=0)
    assert {url: row["reason"] for url, row in rows.items() if row["verdict"] == "ok"} == {}
    assert {row["reason"] for row in rows.values()} <= {"forbidden_address", "bad_url", "dns"}
    assert rows[f"http://localhost:{port}/a.jpg"]["reason"] == "forbidden_address"


def test_the_users_own_proxy_may_be_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def proxy(request: web.Request) -> web.StreamResponse:
        asked.append(request.raw_path if "://" in request.raw_path else str(request.url))
        return web.Response(body=PHOTO)

    with serving(proxy) as base:
        monkeypatch.setenv("http_proxy", base.replace("127.0.0.1", "localhost"))
        monkeypatch.setenv("no_proxy", "direct.invalid")
        _, rows = download(
            tmp_path, ["http://photos.example/a.jpg", "http://direct.invalid/b.jpg"], allow_private=False
        )
    assert rows["http://photos.example/a.jpg"]["reason"] is None
    assert rows["http://direct.invalid/b.jpg"]["reason"] == "dns"
    assert len(asked) == 1


def test_a_proxys_host_is_not_asked_past_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one host that may have a private address, and lists could name it."""
    asked: list[str] = []

    async def origin(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(body=PHOTO)

    with serving(origin) as base:
        url = base.replace("127.0.0.1", "inside.test") + "/a.jpg"
        monkeypatch.setenv("https_proxy", "http://inside.test:3128")
        _, rows = download(tmp_path, [url], lookup=lambda host: ["127.0.0.1"], allow_private=False)
    assert rows[url]["reason"] == "forbidden_address"
    assert asked == []


def test_stopped_and_started_again_nothing_is_asked_twice(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()
    enough = threading.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        asked[request.path] += 1
        if sum(asked.values()) > 40:
            enough.set()
        await asyncio.sleep(0.02)
        return web.Response(body=PHOTO)

    with serving(slowly) as base:
        urls = [f"{base}/{i}.jpg" for i in range(100)]
        workspace = Workspace(tmp_path / "ws", create=True)
        (tmp_path / "t.csv").write_text("url,identity\n" + "".join(f"{url},p\n" for url in urls))
        source = UrlTableSource(tmp_path / "t.csv")
        workspace.plan().add(source.describe(), source.digest(), source.samples())
        chain = Pipeline(workspace, {"download": {**FAST, "per_host": 2}}, until="download")
        state = PipelineState(chain, workspace.plan())
        stop = threading.Event()
        threading.Thread(target=lambda: (enough.wait(), stop.set())).start()
        stage = chain.node("download").stage
        from dataprep.download.settings import DownloadCallbacks

        asyncio.run(
            stage.process(
                open_shards(chain, state),
                DownloadCallbacks(on_sample=lambda row: None, on_shard=lambda shard: None),
                stop,
            )
        )  # type: ignore[attr-defined]
        first = Counter(asked)
        assert 40 <= first.total() < 100
        run_pipeline(chain, jobs=0, display=Noting())
    again = [path for path, count in asked.items() if count > 1]
    assert len(again) <= 2  # those in flight when it was stopped
    assert len(rows_of(chain)) == 100


def open_shards(chain: Pipeline, state: PipelineState) -> Iterator[object]:
    from dataprep.download.writer import DownloadShard
    from dataprep.workspace.journal import Journal

    link = chain.node("download")
    for shard in state.shards.values():
        yield DownloadShard(
            id=shard.id,
            upstream=shard.digest,
            samples=state.plan.samples(shard),
            journal=Journal(link.store, shard.id),
            remaining=0,
            started=0.0,
        )
