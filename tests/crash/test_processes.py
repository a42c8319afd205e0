"""Processes that are stopped, that meet, and that have too little memory."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web
from helpers.command import Run, command, environment
from helpers.downloads import PHOTO
from helpers.processes import command_line, workers_of
from helpers.webserver import serving
from PIL import Image

from dataprep.errors import ImagingError
from dataprep.imaging.codec import decode_image


def start(workspace: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("-w", workspace, *arguments), env=environment(), start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def accounts(dataprep: Run, workspace: Path) -> dict[str, dict[str, object]]:
    status = json.loads(dataprep("status", "--json", workspace=workspace).stdout)
    return {stage["stage"]: stage["account"] for stage in status["stages"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_for_all_processes_while_workers_are_starting(
    photos: Path, dataprep: Run, tmp_path: Path, number: signal.Signals
) -> None:
    """As a terminal's Ctrl-C and a batch system's SIGTERM come: to the workers too, in the middle of their imports."""
    dataprep("import", "folder", photos)
    run = start(tmp_path / "ws", "align", "-j", "2")
    while not workers_of(run.pid):
        time.sleep(0.005)
        assert run.poll() is None
    time.sleep(0.1)
    os.killpg(run.pid, number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("hint: run the same command again")
    dataprep("align")
    assert accounts(dataprep, tmp_path / "ws")["align"]["ok"] == 150


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_in_the_middle_of_a_download(dataprep: Run, tmp_path: Path, number: signal.Signals) -> None:
    asked: list[str] = []
    run: subprocess.Popen[str] | None = None

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if len(asked) == 60 and run is not None:
            os.killpg(run.pid, number)
        return web.Response(body=PHOTO + request.path.encode())

    with serving(answer) as base:
        table = tmp_path / "t.csv"
        table.write_text("url,identity,key\n" + "".join(f"{base}/{i}.jpg,p{i % 3},{i:03d}\n" for i in range(400)))
        fetch = ["download", "urls", table, "--allow-private", "--connections", "4"]
        run = start(tmp_path / "ws", *fetch)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 130
        assert "Traceback" not in errors
        assert 60 <= len(asked) < 400
        dataprep(*fetch)
    assert len(asked) <= 400 + 4  # those in flight
    assert accounts(dataprep, tmp_path / "ws")["download"]["ok"] == 400


def test_a_second_download_is_told_and_others_may_look_meanwhile(drawn: Path, dataprep: Run, tmp_path: Path) -> None:
    meanwhile: list[subprocess.CompletedProcess[str]] = []
    waiting = True

    async def answer(request: web.Request) -> web.Response:
        while waiting:
            await asyncio.sleep(0.02)
        return web.Response(body=PHOTO + request.path.encode())

    dataprep("import", "folder", drawn)
    with serving(answer) as base:
        table = tmp_path / "t.csv"
        table.write_text("url,identity,key\n" + "".join(f"{base}/{i}.jpg,q{i % 3},{i:03d}\n" for i in range(20)))
        fetch = ["download", "urls", table, "--allow-private"]
        first = start(tmp_path / "ws", *fetch)
        try:
            while not list((tmp_path / "ws").glob("stages/download@*/journal/*.jsonl")):
                time.sleep(0.02)
                assert first.poll() is None
            meanwhile.append(dataprep(*fetch, code=4))
            meanwhile.append(dataprep("gc", code=4))
            meanwhile.append(dataprep("status"))
        finally:
            waiting = False
            first.communicate(timeout=60)
        assert first.returncode == 0
    for told in meanwhile[:2]:
        assert f"download is being written by another run (process {first.pid})" in told.stderr
    assert "20" in meanwhile[2].stdout
    assert accounts(dataprep, tmp_path / "ws")["download"]["ok"] == 20
    dataprep("align")
    assert accounts(dataprep, tmp_path / "ws")["align"]["in"] == 56


def test_two_sizes_are_aligned_at_once(photos: Path, dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "folder", photos)
    dataprep("align", "--size", "112", workspace=tmp_path / "ws")
    both = [start(tmp_path / "ws", "align", "--size", size, "-j", "1") for size in ("128", "224")]
    for run in both:
        _, errors = run.communicate(timeout=100)
        assert run.returncode == 0, errors
    markers = [json.loads(path.read_text()) for path in (tmp_path / "ws").glob("stages/align@*/done/*.json")]
    assert sum(marker["account"]["ok"] for marker in markers) == 3 * 150


@pytest.mark.slow
def test_a_photo_for_which_the_memory_does_not_suffice_is_left_out_and_asked_for_later(
    photos: Path, dataprep: Run, tmp_path: Path
) -> None:
    Image.new("RGB", (11_000, 11_000), "red").save(photos / "b/huge.png", compress_level=1)
    dataprep("import", "folder", photos)
    done = subprocess.run(
        command("-w", tmp_path / "ws", "validate", "-j", "1"), env=environment(), capture_output=True, text=True,
        check=False, timeout=100, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000,) * 2),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "b/huge: killed a worker process 3 times, skipped as worker_died" in done.stderr
    assert accounts(dataprep, tmp_path / "ws")["validate"]["failed"] == {"worker_died": 1}
    dataprep("retry", "--reason", "worker_died")
    dataprep("validate")
    assert accounts(dataprep, tmp_path / "ws")["validate"] == {"in": 151, "ok": 151, "dropped": {}, "failed": {}}


HANGING = """
import os, time
real = os.open
def hanging(path, *rest, **options):
    if str(path).endswith("a/07.jpg"):
        time.sleep(600)
    return real(path, *rest, **options)
os.open = hanging
"""


def start_hanging(tmp_path: Path, photos: Path, dataprep: Run) -> tuple[subprocess.Popen[str], list[int]]:
    """A run one of whose workers waits for a photo for ten minutes, as on a network disk that is gone; and its workers."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(HANGING)
    dataprep("import", "folder", photos)
    run = subprocess.Popen(
        command("-w", tmp_path / "ws", "validate", "-j", "2"), start_new_session=True, text=True,
        env={**environment(), "PYTHONPATH": f"{tmp_path / 'site'}:{environment()['PYTHONPATH']}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not list((tmp_path / "ws").glob("stages/validate@*/done/*.json")):  # the others' shards
        time.sleep(0.05)
        assert run.poll() is None
    workers = workers_of(run.pid)
    assert workers
    return run, workers


def ended(processes: list[int], seconds: float) -> bool:
    """Whether all processes are gone before some seconds have passed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() and command_line(pid) for pid in processes):
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() and command_line(pid) for pid in processes)


def test_the_second_ctrl_c_ends_everything_whatever_workers_wait_for(
    photos: Path, dataprep: Run, tmp_path: Path
) -> None:
    run, workers = start_hanging(tmp_path, photos, dataprep)
    os.killpg(run.pid, signal.SIGINT)
    time.sleep(0.5)
    assert run.poll() is None, "waits for the running shards"
    began = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert time.monotonic() - began < 10  # 2 on a quiet machine
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert ended(workers, 5)
    dataprep("validate")
    assert accounts(dataprep, tmp_path / "ws")["validate"]["ok"] == 150


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_workers_end_with_the_run_that_started_them(
    photos: Path, dataprep: Run, tmp_path: Path, number: signal.Signals
) -> None:
    run, workers = start_hanging(tmp_path, photos, dataprep)
    run.send_signal(number)
    run.communicate()
    assert ended(workers, 15)


def test_a_lost_terminal_is_a_request_to_stop(photos: Path, dataprep: Run, tmp_path: Path) -> None:
    """SIGHUP for all processes of the session, and nobody who reads what they print."""
    dataprep("import", "folder", photos)
    run = start(tmp_path / "ws", "align", "-j", "2")
    while not list((tmp_path / "ws").glob("stages/align@*/.lock")) or not workers_of(run.pid):
        time.sleep(0.01)
        assert run.poll() is None
    time.sleep(1)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    run.stderr.close()
    os.killpg(run.pid, signal.SIGHUP)
    assert run.wait(60) == 130
    dataprep("align")
    assert accounts(dataprep, tmp_path / "ws")["align"]["ok"] == 150


DEADLY = """
import os, signal
real = os.open
def deadly(path, *rest, **options):
    if str(path).endswith(("a/07.jpg", "a/08.jpg")):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, *rest, **options)
os.open = deadly
"""


def test_exactly_the_photos_that_kill_on_being_read_are_left_out(photos: Path, dataprep: Run, tmp_path: Path) -> None:
    """The processes that read them die, as on a bad disk or for want of memory; whoever lies beside them is innocent."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(DEADLY)
    dataprep("import", "folder", photos)
    deadly = {**environment(), "PYTHONPATH": f"{tmp_path / 'site'}:{environment()['PYTHONPATH']}"}
    done = subprocess.run(
        command("-w", tmp_path / "ws", "validate", "-j", "2"), env=deadly, capture_output=True, text=True, check=False,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("a/07", "a/08"):
        assert f"{name}: killed a worker process 3 times, skipped as worker_died" in done.stderr
    assert accounts(dataprep, tmp_path / "ws")["validate"]["failed"] == {"worker_died": 2}
    lost = dataprep("samples", "--reason", "worker_died", "--csv").stdout
    assert [line.split(",")[0] for line in lost.splitlines()[1:]] == ["a/07", "a/08"]


HUNGRY = """
import io, resource, sys
from PIL import Image
import cv2
from dataprep.imaging.codec import decode_image
stream = io.BytesIO()
Image.new("RGB", (9000, 9000), "red").save(stream, sys.argv[1])
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 100_000_000,) * 2)
decode_image(stream.getvalue(), codec=sys.argv[2])
"""


@pytest.mark.parametrize(("form", "codec"), [("JPEG", "pillow"), ("JPEG", "opencv"), ("PNG", "pillow")])
def test_too_little_memory_is_never_the_photos_fault(form: str, codec: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, form, codec], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].startswith("MemoryError")


def test_damage_is_still_damage() -> None:
    with pytest.raises(ImagingError, match=r"truncated|corrupt"):
        decode_image(PHOTO[: len(PHOTO) // 2])
