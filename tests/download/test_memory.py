"""Bodies in flight share one budget of memory: large ones wait their turn, which is not held against their servers."""

import asyncio
import gzip
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from helpers.downloads import PHOTO, download, to_loopback
from helpers.webserver import serving

from dataprep.download.limits import MemoryBudget

MB = 1_000_000


def test_large_bodies_come_one_after_the_other_and_no_time_out_runs_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataprep.download.client._IN_MEMORY", 20 * MB)
    now, most = 0, 0

    async def large(request: web.Request) -> web.StreamResponse:
        nonlocal now, most
        if request.path == "/small.jpg":
            return web.Response(body=PHOTO)
        response = web.StreamResponse(headers={"Content-Length": str(18 * MB)})
        await response.prepare(request)
        await response.write(PHOTO + bytes(MB - len(PHOTO)))
        for _ in range(14):  # more than the kernel takes for somebody who does not read: 10 MB
            await response.write(bytes(MB))
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.3)
        now -= 1
        for _ in range(3):
            await response.write(bytes(MB))
        return response

    with serving(large) as base:
        port = base.rpartition(":")[2]
        urls = [f"http://h{i}.test:{port}/large.jpg" for i in range(8)]
        urls += [f"http://h{i}.test:{port}/small.jpg" for i in range(8)]
        _, rows = download(tmp_path, urls, lookup=to_loopback, retries=0, idle_timeout=1.0, timeout=2.0, placeholders=0)
    assert most == 1
    assert Counter((row["reason"], row["bytes"]) for row in rows.values()) == {
        (None, 18 * MB): 8, (None, len(PHOTO)): 8
    }  # fmt: skip


def test_whatever_becomes_of_a_body_its_memory_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataprep.download.client._IN_MEMORY", 2 * MB)  # each of these takes all of it
    packed = {"packed": gzip.compress(PHOTO + bytes(5 * MB), 1), "bomb": gzip.compress(bytes(50 * MB), 1)}

    async def answer(request: web.Request) -> web.StreamResponse:
        kind = request.path.split("/")[1]
        if kind in packed:
            return web.Response(body=packed[kind], headers={"Content-Encoding": "gzip"})
        response = web.StreamResponse()
        if kind in ("stalled", "cut"):
            response.content_length = 6 * MB
        await response.prepare(request)
        await response.write(b"<html>" + bytes(4 * MB) if kind == "html" else PHOTO + bytes(4 * MB))
        if kind == "stalled":
            await asyncio.sleep(30)
        elif kind == "cut":
            assert request.transport is not None
            request.transport.close()
        elif kind == "endless":
            await response.write(bytes(20 * MB))
        return response

    expected = {
        "whole": None, "packed": None, "bomb": "too_large", "stalled": "timeout", "cut": "short_body", "html": "html",
        "endless": "too_large",
    }  # fmt: skip
    with serving(answer) as base:
        port = base.rpartition(":")[2]
        urls = [f"http://{kind}-{i}.test:{port}/{kind}/{i}.jpg" for i in range(3) for kind in expected]
        _, rows = download(tmp_path, urls, lookup=to_loopback, retries=0, placeholders=0, outage_patience=0.0)
    assert {url.split("/")[3]: row["reason"] for url, row in rows.items()} == expected
    assert Counter(row["reason"] for row in rows.values()) == {
        reason: 3 * count for reason, count in Counter(expected.values()).items()
    }


def test_how_the_budget_is_shared() -> None:
    async def share() -> None:
        budget = MemoryBudget(10 * MB)
        assert await budget.reserve(7 * MB) == 6 * MB
        assert await budget.reserve(MB // 2) == 0
        large, small = (asyncio.create_task(budget.reserve(size * MB)) for size in (90, 2))
        await asyncio.sleep(0)
        budget.release(MB)
        await asyncio.sleep(0)
        assert not large.done()
        assert not small.done()  # there is room, but others were first
        budget.release(5 * MB)
        assert await large == 10 * MB  # more than there is: it gets all
        assert not small.done()
        budget.release(10 * MB)
        assert await small == MB

    asyncio.run(share())
