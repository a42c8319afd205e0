"""What sites say of robots: X-Robots-Tag in all its forms, robots.txt as RFC 9309 has it."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from helpers.downloads import PHOTO, download, to_loopback
from helpers.webserver import serving

from dataprep.download.addresses import parse_url
from dataprep.download.robots import RobotsRules, find_opt_out


@pytest.mark.parametrize(
    ("tags", "out"),
    [
        (["noai"], True),
        (["noindex, NoImageAI"], True),
        (["noindex", "noai"], True),
        (["dataprep: noindex, noai"], True),
        (["*: noai"], True),
        (["otherbot: noai"], False),
        (["otherbot: noindex, noai"], False),
        (["otherbot: noindex, dataprep: noai"], True),
        (["otherbot: noindex", "noai"], True),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], True),
        (["max-image-preview: large, noimageai"], True),
        (["noaim, xnoai, noindex"], False),
        (["", ":", ",,:,"], False),
        ([], False),
    ],
)
def test_who_opts_out(tags: list[str], out: bool) -> None:
    assert (find_opt_out(tags) is not None) is out


ROBOTS = {
    "open.test": (200, "User-agent: *\nDisallow:\n"),
    "closed.test": (200, "User-agent: *\nDisallow: /\n"),
    "partly.test": (200, "\ufeffUser-agent: *\nDisallow: /private\n"),
    "us.test": (200, "User-agent: otherbot\nDisallow: /\n\nUser-agent: dataprep\nDisallow: /private\n"),
    "none.test": (404, ""),
    "forbidden.test": (403, ""),
    "page.test": (200, "<html>not robots at all</html>\0\xff"),
    "long.test": (200, "User-agent: *\nDisallow: /\n" + "# and so on\n" * 100_000),
    "broken.test": (503, ""),
    "busy.test": (429, ""),
    "moved.test": (302, "http://closed.test:{port}/robots.txt"),
    "circle.test": (302, "/robots.txt"),
    "private.test": (302, "http://user:pw@closed.test:{port}/robots.txt"),
}
ALLOWED = {"open.test", "none.test", "forbidden.test", "page.test", "circle.test"}
PARTLY = {"partly.test", "us.test"}
FAILED = {"broken.test", "busy.test", "private.test"}


def test_robots_txt_is_asked_once_and_obeyed(tmp_path: Path) -> None:
    asked: Counter[tuple[str, str]] = Counter()

    async def answer(request: web.Request) -> web.StreamResponse:
        host, _, port = request.host.partition(":")
        asked[host, request.path] += 1
        assert request.headers["User-Agent"].startswith("dataprep/")
        if request.path != "/robots.txt":
            return web.Response(body=PHOTO + request.path.encode() + host.encode())
        if host == "stalled.test":
            await asyncio.sleep(30)
        status, text = ROBOTS[host]
        if status == 302:
            return web.Response(status=302, headers={"Location": text.format(port=port)})
        return web.Response(status=status, text=text)

    with serving(answer) as base:
        port = base.rpartition(":")[2]
        hosts = [*ROBOTS, "stalled.test"]
        urls = {(host, path): f"http://{host}:{port}{path}" for host in hosts for path in ("/a.jpg", "/private/b.jpg")}
        _, rows = download(tmp_path, list(urls.values()), lookup=to_loopback, robots=True, retries=1)
    for (host, path), url in urls.items():
        if host in ALLOWED or (host in PARTLY and path == "/a.jpg"):
            assert rows[url]["reason"] is None, url
        elif host == "stalled.test":  # which says nothing about its photos or its robots.txt
            assert rows[url]["reason"] == "timeout", url
        elif host in FAILED:
            assert rows[url]["reason"] == "robots_txt_unreachable", url
            assert rows[url]["verdict"] == "failed"
        else:
            assert rows[url]["reason"] == "robots_txt", url
        if rows[url]["reason"]:
            assert asked[host, path] == 0
    again = {host: count for (host, path), count in asked.items() if path == "/robots.txt" and count > 1}
    # asked for moved.test too, five times in a circle, and once more after a timeout
    assert set(again) <= {"closed.test", "circle.test", "stalled.test"}
    assert rows[urls["broken.test", "/a.jpg"]]["detail"] == "robots.txt: HTTP 503"


def test_a_redirect_is_asked_of_the_host_it_leads_to(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/robots.txt":
            closed = request.host.startswith("closed")
            return web.Response(text="User-agent: *\nDisallow: /\n" if closed else "")
        if request.host.startswith("open"):
            return web.Response(status=302, headers={"Location": f"http://closed.test:{request.url.port}/a.jpg"})
        return web.Response(body=PHOTO)

    with serving(answer) as base:
        url = f"http://open.test:{base.rpartition(':')[2]}/a.jpg"
        _, rows = download(tmp_path / "obeyed", [url], lookup=to_loopback, robots=True)
        assert rows[url]["reason"] == "robots_txt"
        _, rows = download(tmp_path / "unasked", [url], lookup=to_loopback)
        assert rows[url]["reason"] is None


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [  # RFC 9309 2.2 and 5, and what sites write about photos
        ("User-agent: *\nDisallow: /*.jpg$", "/a/b.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/a/b.jpg?x=1", True),
        ("User-agent: *\nAllow: /\nDisallow: /photos/", "/photos/a.jpg", False),
        ("User-agent: *\nDisallow: /\nAllow: /photos/", "/photos/a.jpg", True),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", True),
        ("User-agent: *\nDisallow: /*/private*/x", "/p/private1/y/x", False),
        ("User-agent: *\nDisallow: /*/private*/x", "/p/private1/y", True),
        ("User-agent: *\nDisallow: *a*a$", "/a", True),
        ("User-agent: *\nDisallow: /a$", "/a", False),
        ("User-agent: *\nDisallow: /a$", "/ab", True),
        ("User-agent: *\nDisallow: /%C3%BC b", "/ü%20b.jpg", False),
        ("User-agent: *\nDisallow: /x%2a", "/x*y", False),
        ("User-agent: *\nDisallow: /x%2a", "/xy", True),
        ("user-agent : DataPrep/1.0\nuser-agent: b\ndisallow: /a # why\n\nUser-agent: *\nDisallow: /", "/b", True),
        ("User-agent: *\nDisallow: /\nUser-agent: dataprep\nDisallow:", "/b", True),
        (
            "User-agent: dataprep\nDisallow: /a\nUser-agent: *\nDisallow: /b\nUser-agent: dataprep\nDisallow: /c",
            "/c",
            False,
        ),
        ("User-agent: other\nDisallow: /", "/a", True),
        ("Disallow: /\nnonsense\n: :\n<html>", "/a", True),
        ("User-agent: *\nDisallow: /" + "*a" * 2000 + "$", "/" + "a" * 1999 + "b", True),  # takes no time either
    ],
)
def test_rules_are_read_as_rfc_9309_has_it(text: str, path: str, allowed: bool) -> None:
    assert RobotsRules(text, "dataprep").is_allowed(parse_url("http://x" + path)) is allowed
