"""Hosts that do not answer, a network that goes away, names that cannot be resolved; over thousands of made-up hosts."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from helpers.command import command, environment
from helpers.downloads import PHOTO, Noting, download, to_loopback
from helpers.webserver import serving

from dataprep.download.host_queue import CircuitBreaker
from dataprep.download.resolver import Lookup
from dataprep.errors import DataprepError
from dataprep.pipeline.maintenance import request_retry


async def photo(request: web.Request) -> web.StreamResponse:
    return web.Response(body=PHOTO + request.path_qs.encode() + request.host.encode())


def counts(rows: dict[str, dict]) -> Counter[str]:
    return Counter(row["reason"] or "ok" for row in rows.values())


def test_a_host_that_stalls_costs_a_few_timeouts_and_not_one_per_url(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def stalls(request: web.Request) -> web.StreamResponse:
        asked[request.host] += 1
        if request.host.startswith("stalled"):
            await asyncio.sleep(30)
        return await photo(request)

    with serving(stalls) as base:
        port = base.rpartition(":")[2]
        urls = [f"http://stalled.test:{port}/{i}.jpg" for i in range(500)]
        urls += [f"http://good.test:{port}/{i}.jpg" for i in range(40)]
        _, rows = download(tmp_path, urls, lookup=to_loopback, host_failures=5, per_host=4, idle_timeout=0.2)
    assert asked[f"stalled.test:{port}"] <= 5 + 3 + 2  # those under way at the fifth, and two probes
    found = counts(rows)
    assert found["ok"] == 40
    assert found["timeout"] + found["host_down"] == 500
    assert 5 <= found["timeout"] <= 5 + 3 + 2
    spared = [row for row in rows.values() if row["reason"] == "host_down"]
    assert {(row["verdict"], row["attempts"], row["status"]) for row in spared} == {("failed", 0, None)}


def test_a_host_that_answers_now_and_then_is_never_put_aside(tmp_path: Path) -> None:
    number = itertools.count()

    async def flaky(request: web.Request) -> web.StreamResponse:
        if next(number) % 5 == 4:
            return web.Response(status=404)  # an answer, if no photo
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    with serving(flaky) as base:
        urls = [f"{base}/{i}.jpg" for i in range(60)]
        _, rows = download(tmp_path, urls, host_failures=5, per_host=1, retries=0)
    found = counts(rows)
    assert found["host_down"] == 0
    assert found["http_404"] >= 10


def test_a_url_that_is_asked_again_says_nothing_new_of_its_host(tmp_path: Path) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    with serving(never) as base:
        urls = [f"{base}/{i}.jpg" for i in range(2)]
        _, rows = download(tmp_path, urls, host_failures=3, retries=3, backoff=0.01)
    assert {(row["reason"], row["attempts"]) for row in rows.values()} == {("connection", 4)}


def test_a_host_put_aside_is_probed_after_its_rest_and_comes_back(tmp_path: Path) -> None:
    number = itertools.count()

    async def sick(request: web.Request) -> web.StreamResponse:
        if next(number) >= 3:
            return await photo(request)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    with serving(sick) as base:
        urls = [f"{base}/{i}.jpg" for i in range(30)]
        _, rows = download(tmp_path, urls, host_failures=3, host_rest=0.0, per_host=1, retries=0)
    assert counts(rows)["ok"] >= 20


def test_a_host_that_cannot_be_connected_to_opens_the_circuit_at_once() -> None:
    breaker = CircuitBreaker(failures=2, rest=10)
    assert not breaker.record_failure("a", 0)
    assert breaker.record_failure("a", 2)
    assert breaker.is_open("a", 11.9)
    assert not breaker.is_open("a", 12.1)
    assert breaker.is_probing("a")
    assert not breaker.is_recoverable("a")
    assert breaker.record_failure("a", 13)  # the probe: one failure is enough
    breaker.record_answer("a")
    assert not breaker.is_open("a", 14)
    assert not breaker.is_probing("a")


def test_a_host_that_stalls_is_probed_before_the_circuit_opens() -> None:
    breaker = CircuitBreaker(failures=2, rest=10)
    assert [breaker.record_failure("a", 0, connected=True) for _ in range(4)] == [False, False, False, True]
    assert not breaker.is_recoverable("a")


def test_a_host_that_has_answered_rests_once_before_its_urls_are_given_up() -> None:
    breaker = CircuitBreaker(failures=2, rest=10)
    breaker.record_answer("a")
    assert [breaker.record_failure("a", 0, connected=True) for _ in range(4)] == [False, False, False, True]
    assert breaker.is_recoverable("a")
    assert breaker.remaining("a", 4) == 6
    assert breaker.record_failure("a", 11, connected=True)
    assert not breaker.is_recoverable("a")
    breaker.trip("b", 100)
    assert not breaker.is_recoverable("b")


class Hanging:
    """A host that hangs on some of its URLs for longer than anybody waits."""

    def __init__(self, hangs: Callable[[int], bool]) -> None:
        self._hangs = hangs
        self.order: list[int] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        number = int(request.path[1:-4])
        self.order.append(number)
        if self._hangs(number):
            await asyncio.sleep(30)
        return await photo(request)


def test_six_urls_that_hang_cost_themselves_and_no_others(tmp_path: Path) -> None:
    host = Hanging(lambda number: number < 6)
    with serving(host.answer) as base:
        urls = [f"{base}/{i}.jpg" for i in range(200)]
        _, rows = download(tmp_path, urls, idle_timeout=0.3)
    assert counts(rows) == {"ok": 194, "timeout": 6}


def test_a_retry_of_a_host_that_was_down_brings_its_photos(tmp_path: Path) -> None:
    """The host is dead for a run; then it hangs on some of its URLs only."""
    dead = [True]
    host = Hanging(lambda number: dead[0] or number % 23 == 0)
    with serving(host.answer) as base:
        urls = [f"{base}/{i}.jpg" for i in range(200)]
        _, rows = download(tmp_path, urls, idle_timeout=0.2, retries=0)
        assert set(counts(rows)) == {"timeout", "host_down"}
        timed_out = {int(url.rpartition("/")[2][:-4]) for url, row in rows.items() if row["reason"] == "timeout"}
        dead[0] = False
        host.order.clear()
        request_retry(str(tmp_path / "ws"), ["timeout", "host_down"])
        _, rows = download(tmp_path, urls, idle_timeout=0.2, retries=0)
    assert counts(rows) == {"ok": 191, "timeout": 9}
    shard = host.order[:50]  # of the first shard, what timed out is asked for last
    assert timed_out - {0} <= set(host.order)
    assert min(map(shard.index, timed_out & set(shard))) > 20


def test_a_stop_and_a_resume_lose_nothing_of_a_host_that_hangs_now_and_then(tmp_path: Path) -> None:
    host = Hanging(lambda number: number % 23 == 0)
    stopped = threading.Event()

    async def stopping(request: web.Request) -> web.StreamResponse:
        if len(host.order) == 150 and not stopped.is_set():
            stopped.set()
            os.kill(process.pid, signal.SIGINT)
        return await host.answer(request)

    with serving(stopping) as base:
        with open(tmp_path / "list.csv", "w") as table:
            table.write("url,identity\n")
            for i in range(300):  # with lines that nobody is asked for in every shard
                table.write(f"{base}/{i}.jpg,p{i // 50}\n" + (f"javascript:{i},p{i // 50}\n" if i % 25 == 0 else ""))
        typed = command(
            "-w", tmp_path / "ws", "download", "urls", tmp_path / "list.csv", "--allow-private", "--idle-timeout", 0.5,
            "--retries", 0, "--outage-after", 0.5,
        )  # fmt: skip
        process = subprocess.Popen(typed, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        assert process.wait(60) == 130
        done = subprocess.run(typed, env=environment(), capture_output=True, text=True, check=True)
    assert "312 in = 286 ok + 12 dropped (bad_url 12) + 14 failed (timeout 14)" in done.stdout


def test_the_rest_of_a_host_that_has_answered_is_waited_out_where_only_it_is_left(tmp_path: Path) -> None:
    sick = itertools.count()

    async def sick_for_a_while(request: web.Request) -> web.StreamResponse:
        if 10 <= next(sick) < 16:
            await asyncio.sleep(30)
        return await photo(request)

    with serving(sick_for_a_while) as base:
        urls = [f"{base}/{i}.jpg" for i in range(40)]
        _, rows = download(tmp_path, urls, idle_timeout=0.2, host_failures=3, host_rest=0.5, per_host=1, retries=0)
    assert counts(rows) == {"ok": 34, "timeout": 6}


def test_a_redirect_to_a_dead_host_is_not_held_against_the_one_that_redirects(tmp_path: Path) -> None:
    async def leads_on(request: web.Request) -> web.StreamResponse:
        if int(request.path[1:-4]) < 20:
            return web.Response(status=302, headers={"Location": "http://gone.test:2" + request.path})
        return await photo(request)

    with serving(leads_on) as base:
        urls = [f"{base}/{i}.jpg" for i in range(40)]
        _, rows = download(tmp_path, urls, lookup=to_loopback, host_failures=3, per_host=1, retries=0)
    found = counts(rows)
    assert found["ok"] == 20
    assert found["connection"] == 3
    assert found["host_down"] == 17
    spared = [row for row in rows.values() if row["reason"] == "host_down"]
    assert {(row["detail"], row["attempts"]) for row in spared} == {("leads to a host that does not answer", 1)}
    assert all(row["final_url"].startswith("http://gone.test:2/") for row in spared)


def test_thousands_of_dead_hosts_do_not_look_like_a_dead_network(tmp_path: Path) -> None:
    """Names that are gone, name servers that are silent, ports that refuse; a photo in every hundred."""
    display = Noting()
    with serving(photo) as base:
        port = base.rpartition(":")[2]
        kinds = [
            f"http://dead-{{}}.test:{port}/a.jpg",
            f"http://lost-{{}}.test:{port}/a.jpg",
            "http://no-{}.test:2/a.jpg",
        ]
        urls = [kinds[i % 3].format(i) for i in range(1500)]
        urls[50::100] = [f"http://good-{i}.test:{port}/a.jpg" for i in range(15)]
        report, rows = download(tmp_path, urls, lookup=to_loopback, retries=0, display=display)
    assert display.notes == []
    assert counts(rows) == {"ok": 15, "dns": 990, "connection": 495}
    assert report.accounts["download"]["in"] == 1500


class Plug:
    """A resolver that can be cut off, and counts what it was asked meanwhile."""

    def __init__(self) -> None:
        self.out = False
        self.asked = 0

    def __call__(self, host: str) -> list[str]:
        if self.out:
            self.asked += 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return to_loopback(host)


def test_while_no_name_server_answers_the_run_pauses_and_nothing_counts(tmp_path: Path) -> None:
    plug, served = Plug(), itertools.count(1)

    async def cutting(request: web.Request) -> web.StreamResponse:
        if next(served) == 100:
            plug.out = True
        return await photo(request)

    def mend(text: str) -> None:
        if "paused" in text:
            threading.Timer(0.3, setattr, (plug, "out", False)).start()

    display = Noting(on_note=mend)
    with serving(cutting) as base:
        port = base.rpartition(":")[2]
        urls = [f"http://host-{i}.test:{port}/a.jpg" for i in range(400)]
        _, rows = download(tmp_path, urls, lookup=plug, connections=16, retries=0, display=display)
    assert counts(rows) == {"ok": 400}
    assert {row["attempts"] for row in rows.values()} == {1}
    assert plug.asked > 0
    assert [note.partition(":")[0].partition(" after")[0] for note in display.notes] == [
        "no name server answers", "the network responds"
    ]  # fmt: skip


def black_hole() -> tuple[socket.socket, list[socket.socket], int]:
    """A port whose queue of connections is full: whoever connects hears nothing at all."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        fillers.append(filler)
    time.sleep(0.1)
    return listener, fillers, port


def names_here_only(host: str) -> list[str]:
    """What is in /etc/hosts or a cache is found; no name server answers."""
    if not host.endswith(".test"):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return to_loopback(host)


def test_while_nothing_answers_the_run_pauses_and_gives_up_with_the_cause(tmp_path: Path) -> None:
    listener, fillers, port = black_hole()
    display = Noting()
    urls = [f"http://host-{i}.test:{port}/a.jpg" for i in range(60)]
    try:
        with pytest.raises(DataprepError, match="nothing answers for 1 s"):
            download(
                tmp_path, urls, lookup=names_here_only, connect_timeout=0.2, outage_patience=1.0, retries=0,
                display=display,
            )  # fmt: skip
    finally:
        for held in (listener, *fillers):
            held.close()
    assert display.notes[0].startswith("nothing answers: paused")
    lines = "".join(path.read_text() for path in (tmp_path / "ws").rglob("journal/*.jsonl"))
    assert lines == ""  # nothing was recorded against anybody


@pytest.mark.parametrize(("lookup", "patience"), [(to_loopback, 60.0), (names_here_only, 0.0)])
def test_a_list_of_dead_hosts_only_is_no_outage_where_names_are_served_or_the_user_says_so(
    tmp_path: Path, lookup: Lookup, patience: float
) -> None:
    listener, fillers, port = black_hole()
    display = Noting()
    urls = [f"http://dead-{i}.test/a.jpg" for i in range(3)]  # names that are gone are no witnesses of the network
    urls += [f"http://host-{i}.test:{port}/a.jpg" for i in range(40)]
    try:
        _, rows = download(
            tmp_path, urls, lookup=lookup, connect_timeout=0.2, retries=0, outage_patience=patience, display=display
        )
    finally:
        for held in (listener, *fillers):
            held.close()
    assert counts(rows) == {"dns": 3, "timeout": 40}
    assert display.notes == []


def test_a_dead_network_is_one_with_robots_txt_asked_too(tmp_path: Path) -> None:
    listener, fillers, port = black_hole()
    urls = [f"http://host-{i}.test:{port}/a.jpg" for i in range(40)]
    try:
        with pytest.raises(DataprepError, match="nothing answers for 1 s"):
            download(
                tmp_path, urls, lookup=names_here_only, connect_timeout=0.2, outage_patience=1.0, retries=0, robots=True
            )
    finally:
        for held in (listener, *fillers):
            held.close()
    assert "".join(path.read_text() for path in (tmp_path / "ws").rglob("journal/*.jsonl")) == ""


def test_a_few_dead_hosts_at_the_end_are_dead_and_no_outage(tmp_path: Path) -> None:
    listener, fillers, port = black_hole()
    display = Noting()
    try:
        with serving(photo) as base:
            good = base.rpartition(":")[2]
            urls = [f"http://good-{i}.test:{good}/a.jpg" for i in range(20)]
            urls += [f"http://stalled-{i}.test:{port}/a.jpg" for i in range(40)]
            _, rows = download(
                tmp_path, urls, lookup=to_loopback, connect_timeout=0.4, retries=0, connections=20, display=display
            )
    finally:
        for held in (listener, *fillers):
            held.close()
    assert counts(rows) == {"ok": 20, "timeout": 40}
    assert {row["detail"] for row in rows.values() if row["reason"]} == {"no connection within 0.4 s"}
    assert display.notes == []


def test_two_hosts_that_say_nothing_in_different_ways_do_not_wait_for_each_other(tmp_path: Path) -> None:
    listener, fillers, port = black_hole()
    try:
        urls = [f"http://stalled.test:{port}/a.jpg", f"http://lost-1.test:{port}/a.jpg"]
        _, rows = download(tmp_path, urls, lookup=to_loopback, connect_timeout=0.3, retries=0)
    finally:
        for held in (listener, *fillers):
            held.close()
    assert [rows[url]["reason"] for url in urls] == ["timeout", "dns"]


def test_a_host_that_rests_with_nothing_left_to_ask_is_not_waited_for(tmp_path: Path) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "100"})

    listener, fillers, port = black_hole()
    try:
        with serving(busy) as base:
            urls = [f"{base}/a.jpg", f"http://stalled.test:{port}/a.jpg"]
            began = time.monotonic()
            _, rows = download(tmp_path, urls, lookup=to_loopback, connect_timeout=0.5, retries=0)
    finally:
        for held in (listener, *fillers):
            held.close()
    assert [rows[url]["reason"] for url in urls] == ["http_429", "timeout"]
    assert time.monotonic() - began < 100


def test_names_that_take_forever_hold_up_no_other_and_each_is_looked_up_once(tmp_path: Path) -> None:
    looked: Counter[str] = Counter()
    free = threading.Event()

    def slow(host: str) -> list[str]:
        looked[host] += 1
        if host.startswith("slow"):
            free.wait(20)
        return to_loopback(host)

    came: list[str] = []

    async def noting(request: web.Request) -> web.StreamResponse:
        came.append(request.host)
        return await photo(request)

    with serving(noting) as base:
        port = base.rpartition(":")[2]
        urls = [f"http://slow-{i}.test:{port}/a.jpg" for i in range(30)]
        urls += [f"http://dead-{i % 3}.test:{port}/{i}.jpg" for i in range(60)]
        urls += [f"http://good-{i % 50}.test:{port}/{i}.jpg" for i in range(200)]
        _, rows = download(tmp_path, urls, lookup=slow, connections=40, per_host=1, retries=0, connect_timeout=0.5)
        free.set()
    assert len(came) == 200
    assert counts(rows) == {"ok": 200, "dns": 90}
    assert {row["detail"] for url, row in rows.items() if "slow" in url} == {"no answer within 0.5 s"}
    again = sum(n - 1 for host, n in looked.items() if not host.startswith("slow"))
    assert again <= 16  # "no such name" is remembered too; some are asked whether the name server is there


def test_a_name_that_leads_elsewhere_the_second_time_is_checked_the_second_time(tmp_path: Path) -> None:
    """DNS rebinding: the address is checked where it is connected to, after a redirect too."""
    asked: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        asked.append(request.host)
        return await photo(request)

    with serving(note) as base:
        port = base.rpartition(":")[2]
        urls = [f"http://a.test:{port}/a.jpg", f"http://b.test:{port}/b.jpg", f"http://c.test:{port}/c.jpg"]
        found = {"a.test": ["10.0.0.1", "127.0.0.1"], "b.test": ["::ffff:127.0.0.1"], "c.test": ["fe80::1"]}
        _, rows = download(tmp_path, urls, lookup=found.__getitem__, allow_private=False)
    assert asked == []
    assert counts(rows) == {"forbidden_address": 3}


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
from dataprep.cli.main import main
main(sys.argv[1:])
"""


def test_a_full_disk_stops_with_the_folder_and_loses_nothing(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def counting(request: web.Request) -> web.StreamResponse:
        asked[request.path] += 1
        return await photo(request)

    with serving(counting) as base:
        table = tmp_path / "t.csv"
        table.write_text("url,identity\n" + "".join(f"{base}/{i}.jpg,p{i}\n" for i in range(120)))
        verb = ["-w", str(tmp_path / "ws"), "download", "urls", str(table), "--allow-private", "--connections", "8"]
        done = subprocess.run(
            [sys.executable, "-c", FULL, *verb], env=environment(), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert f"{tmp_path}/ws/stages/download@" in done.stderr.splitlines()[-2]
        assert "cannot be written: File too large; completed work is kept" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("hint: free some space")
        assert "Traceback" not in done.stderr
        first = asked.total()
        done = subprocess.run(
            [sys.executable, "-m", "dataprep", *verb], env=environment(), capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert 0 < first < 120
    assert asked.total() <= 120 + 8 + 8  # those in flight, and those in the batch that did not fit
