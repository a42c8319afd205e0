"""Redirects from host to host: whoever they lead to is treated as any other host, and the row tells of the whole way."""

import asyncio
import itertools
import time
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from helpers.downloads import PHOTO, download, to_loopback
from helpers.webserver import serving


def name_of(request: web.Request) -> str:
    return request.host.partition(":")[0]


def moved(request: web.Request, host: str, path: str = "") -> web.StreamResponse:
    port = request.host.rpartition(":")[2]
    return web.Response(status=302, headers={"Location": f"http://{host}:{port}{path or request.path}"})


@pytest.mark.parametrize("spacing", [0.0, 0.02])
def test_hosts_that_all_lead_to_one_do_not_ask_it_more_than_is_polite(tmp_path: Path, spacing: float) -> None:
    now, most = 0, 0
    starts: list[float] = []

    async def parked(request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        if name_of(request) != "park.test":
            return moved(request, "park.test", f"/{name_of(request)}.jpg")
        starts.append(time.monotonic())
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.03)
        now -= 1
        return web.Response(body=PHOTO + request.path.encode())

    with serving(parked) as base:
        port = base.rpartition(":")[2]
        urls = [f"http://h{i}.test:{port}/x.jpg" for i in range(40)]
        _, rows = download(tmp_path, urls, lookup=to_loopback, per_host=3, spacing=spacing)
    assert len(starts) == 40
    assert most <= 3
    assert sum(later - earlier for earlier, later in itertools.pairwise(starts)) >= 39 * spacing * 0.95
    assert {(row["reason"], row["status"], row["attempts"]) for row in rows.values()} == {(None, 200, 1)}
    assert [rows[url]["final_url"] for url in urls] == [f"http://park.test:{port}/h{i}.test.jpg" for i in range(40)]


def test_what_the_target_says_of_its_rest_holds_for_all_that_lead_to_it(tmp_path: Path) -> None:
    times: list[float] = []

    async def busy(request: web.Request) -> web.StreamResponse:
        if name_of(request) != "park.test":
            await asyncio.sleep(0.1 * int(name_of(request)[1]))
            return moved(request, "park.test")
        times.append(time.monotonic())
        if len(times) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response(body=PHOTO)

    with serving(busy) as base:
        port = base.rpartition(":")[2]
        urls = [f"http://h{i}.test:{port}/{i}.jpg" for i in range(4)] + [f"http://park.test:{port}/direct.jpg"]
        _, rows = download(tmp_path, urls, lookup=to_loopback, per_host=1, idle_timeout=2.0, placeholders=0)
    assert times[1] - times[0] >= 0.99
    assert {row["verdict"] for row in rows.values()} == {"ok"}
    assert sorted(row["attempts"] for row in rows.values()) == [1, 1, 1, 1, 2]


def test_a_host_that_wants_a_long_rest_is_left_for_another_run(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def closed(request: web.Request) -> web.StreamResponse:
        asked[request.path] += 1
        return web.Response(status=503, headers={"Retry-After": "3600"})

    with serving(closed) as base:
        _, rows = download(tmp_path, [f"{base}/{number}.jpg" for number in range(40)], retries=2, per_host=2)
    found = Counter((row["reason"], row["verdict"], row["attempts"]) for row in rows.values())
    assert set(asked.values()) == {1}
    assert 1 <= len(asked) <= 4  # those that were out when the first answer came, at most
    assert found == {("http_5xx", "failed", 1): len(asked), ("host_down", "failed", 0): 40 - len(asked)}


def test_a_way_over_many_hosts_is_one_attempt_and_the_next_one_begins_where_it_began(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def chain(request: web.Request) -> web.StreamResponse:
        asked[name_of(request) + request.path] += 1
        await asyncio.sleep(0.05)
        if request.path == "/x.jpg":
            return moved(request, name_of(request), "/y.jpg")
        if name_of(request) != "c.test":
            return moved(request, {"a.test": "b.test", "b.test": "c.test"}[name_of(request)], "/x.jpg")
        return web.Response(body=PHOTO, status=503 if asked["c.test/y.jpg"] == 1 else 200)

    with serving(chain) as base:
        port = base.rpartition(":")[2]
        url = f"http://a.test:{port}/x.jpg"
        _, rows = download(tmp_path, [url], lookup=to_loopback, retries=1, redirects=5)
    assert asked == {f"{host}.test/{path}.jpg": 2 for host in "abc" for path in "xy"}
    row = rows[url]
    assert (row["verdict"], row["attempts"], row["status"]) == ("ok", 2, 200)
    assert row["final_url"] == f"http://c.test:{port}/y.jpg"
    assert row["seconds"] >= 12 * 0.05


@pytest.mark.parametrize("most", [0, 3])
def test_a_circle_over_two_hosts_ends_as_one_within_a_host_does(tmp_path: Path, most: int) -> None:
    asked: list[str] = []

    async def circle(request: web.Request) -> web.StreamResponse:
        asked.append(name_of(request))
        return moved(request, "b.test" if name_of(request) == "a.test" else "a.test")

    with serving(circle) as base:
        port = base.rpartition(":")[2]
        url = f"http://a.test:{port}/x.jpg"
        _, rows = download(tmp_path, [url], lookup=to_loopback, redirects=most)
    assert asked == ["a.test", "b.test", "a.test", "b.test"][: most + 1]
    assert (rows[url]["reason"], rows[url]["detail"]) == ("too_many_redirects", f"more than {most}")
    assert (rows[url]["status"], rows[url]["attempts"]) == (302, 1)
    assert rows[url]["final_url"] == (f"http://b.test:{port}/x.jpg" if most == 0 else "")  # none: back at its own


def test_the_time_for_a_request_is_for_all_of_its_way_and_the_last_host_is_not_blamed_for_the_others(
    tmp_path: Path,
) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.6 if name_of(request) != "last.test" or request.path.startswith("/slow") else 0)
        if name_of(request) == "last.test":
            return web.Response(body=PHOTO + request.path.encode())
        return moved(request, "last.test")

    with serving(slow) as base:
        port = base.rpartition(":")[2]
        late = [f"http://h{i}.test:{port}/slow{i}.jpg" for i in range(3)]
        soon = [f"http://h{i}.test:{port}/{i}.jpg" for i in range(3)]
        _, rows = download(
            tmp_path, [*late, *soon], lookup=to_loopback, timeout=1.0, idle_timeout=0.9, retries=0, host_failures=1,
            per_host=1,
        )  # fmt: skip
    assert {rows[url]["detail"] for url in late} == {"not done within 1 s"}
    assert {rows[url]["final_url"].partition(":" + port)[0] for url in rows} == {"http://last.test"}
    assert {rows[url]["reason"] for url in soon} == {None}


def test_every_hop_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def proxy(request: web.Request) -> web.StreamResponse:
        host, path = name_of(request), request.path
        if path == "/robots.txt":
            return web.Response(text="User-agent: *\nDisallow: /" if host == "closed.test" else "")
        asked.append(host)
        return web.Response(status=302, headers={"Location": f"http:/{path}"} if path.count("/") > 1 else {})

    with serving(proxy) as base:
        monkeypatch.setenv("http_proxy", base)
        places = ["10.0.0.1", "localhost", "closed.test", "me:pw@open.test", "open.test:25"]
        urls = [f"http://open.test/{place}/a.jpg" for place in places]
        _, rows = download(tmp_path, urls, allow_private=False, robots=True)
    assert [rows[url]["reason"] for url in urls] == [
        "forbidden_address", "forbidden_address", "robots_txt", "bad_url", "bad_url"
    ]  # fmt: skip
    assert [rows[url]["final_url"] for url in urls[:3]] == [f"http://{place}/a.jpg" for place in places[:3]]
    assert set(asked) == {"open.test"}
