"""The six promises, each held by a test: on drawn photos, with the command as a user types it."""

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from helpers.command import Run, command, environment, pack_bytes
from helpers.processes import seconds_of_cpu, workers_of
from helpers.webserver import serving

from dataprep.imaging.codec import encode_jpeg
from dataprep.synth.photos import draw_photo
from dataprep.synth.web import SiteParams, publish_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A site with every kind of fault, served by a process of its own."""
    folder = tmp_path_factory.mktemp("web")
    port = 20_000 + os.getpid() % 20_000
    publish_site(folder, SiteParams(identities=9, photos=16, faults=0.5, seed=2, port=port), jobs=2)
    server = subprocess.Popen(command("synth", "serve", folder), env=environment(), stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert b"serving" in server.stdout.readline()
    yield folder
    server.terminate()
    server.wait()
    server.stdout.close()


def download(site: Path) -> list[object]:
    return [
        "download", "vggface", "--lists", site / "lists", "--allow-private", "--idle-timeout", "1.5", "--retries", "1",
        "--backoff", "0.05", "--per-host", "32", "--host-failures", "1000",
    ]  # fmt: skip


def state_of(workspace: Path) -> dict[str, object]:
    done = subprocess.run(
        command("-w", workspace, "status", "--json"), env=environment(), check=True, capture_output=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def quiet_run(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace built without any disturbance, by one worker."""
    workspace = tmp_path_factory.mktemp("quiet") / "ws"
    subprocess.run(command("-w", workspace, *download(site)), env=environment(), check=True, capture_output=True)
    subprocess.run(command("-w", workspace, "pack", "--jobs", "1"), env=environment(), check=True, capture_output=True)
    return workspace


def test_every_sample_is_accounted_for(site: Path, quiet_run: Path) -> None:
    truth = json.loads((site / "truth.json").read_text())
    stages = state_of(quiet_run)["stages"]
    assert isinstance(stages, list)
    lost: dict[str, int] = {}
    coming = truth["lines"]
    for stage in stages:
        account = stage["account"]
        assert account["in"] == coming, stage["stage"]
        assert account["in"] == account["ok"] + sum(account["dropped"].values()) + sum(account["failed"].values())
        coming = account["ok"]
        for reasons in (account["dropped"], account["failed"]):
            for code, count in reasons.items():
                lost[code] = lost.get(code, 0) + count
    assert lost == truth["reasons"]


def test_the_number_of_workers_changes_no_byte(site: Path, quiet_run: Path, tmp_path: Path) -> None:
    subprocess.run(command("-w", tmp_path / "ws", *download(site)), env=environment(), check=True, capture_output=True)
    subprocess.run(
        command("-w", tmp_path / "ws", "pack", "--jobs", "2"), env=environment(), check=True, capture_output=True
    )
    assert pack_bytes(tmp_path / "ws/packs/train") == pack_bytes(quiet_run / "packs/train")


def test_killed_at_twenty_moments_the_pack_is_the_same(site: Path, quiet_run: Path, tmp_path: Path) -> None:
    """SIGKILL for the run and its workers together, again and again, download and align included."""
    generator = random.Random(5)
    workspace, kills = tmp_path / "ws", 0
    verbs = [download(site), ["align", "-j", "2"], ["pack"]]
    delays = {0: (0.3, 2.5), 1: (1.0, 5.0), 2: (0.3, 1.5)}
    quotas = {0: 8, 1: 9, 2: 3}
    for number, verb in enumerate(verbs):
        for _ in range(quotas[number]):
            process = subprocess.Popen(
                command("-w", workspace, *verb), env=environment(), start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(generator.uniform(*delays[number]))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        done = subprocess.run(
            command("-w", workspace, *verb), env=environment(), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    assert kills == 20
    assert pack_bytes(workspace / "packs/train") == pack_bytes(quiet_run / "packs/train")
    accounts = [[stage["account"] for stage in state_of(w)["stages"]] for w in (workspace, quiet_run)]  # type: ignore[attr-defined]
    assert accounts[0] == accounts[1]


def test_a_killed_worker_costs_its_attempt_and_not_the_run(drawn: Path, dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "folder", drawn)
    process = subprocess.Popen(
        command("-w", tmp_path / "ws", "align", "-j", "2", "--backend", "torch"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    killed = 0
    deadline = time.monotonic() + 60
    while process.poll() is None and not killed and time.monotonic() < deadline:
        workers = [pid for pid in workers_of(process.pid) if seconds_of_cpu(pid) > 1.5]
        if workers:
            os.kill(workers[0], signal.SIGKILL)
            killed += 1
        time.sleep(0.05)
    output, _ = process.communicate(timeout=120)
    assert killed == 1
    assert process.returncode == 0, output.decode()
    events = "".join(path.read_text() for path in (tmp_path / "ws/runs").glob("*.jsonl"))
    assert "worker died" in events
    account = state_of(tmp_path / "ws")["stages"][4]["account"]  # type: ignore[index]
    assert account["in"] == account["ok"] == 36


def test_two_runs_at_once_the_second_is_told(drawn: Path, dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "folder", drawn)
    first = subprocess.Popen(command("-w", tmp_path / "ws", "align"), env=environment(), stderr=subprocess.DEVNULL)
    try:
        lock = tmp_path / "ws/stages"
        while not list(lock.glob("align@*/.lock")):
            time.sleep(0.02)
            assert first.poll() is None
        second = dataprep("align", code=4)
        assert "being written by another run" in second.stderr
        assert str(first.pid) in second.stderr
    finally:
        assert first.wait(timeout=120) == 0


def test_ctrl_c_commits_what_is_in_hand(drawn: Path, dataprep: Run, tmp_path: Path) -> None:
    big = tmp_path / "photos"
    for copy in range(6):
        shutil.copytree(drawn, big, dirs_exist_ok=True) if copy == 0 else [
            shutil.copytree(person, big / f"{person.name}_{copy}") for person in drawn.iterdir() if person.is_dir()
        ]
    (big / "truth.csv").unlink()
    dataprep("import", "folder", big)
    process = subprocess.Popen(
        command("-w", tmp_path / "ws", "align", "-j", "1"), env=environment(), stderr=subprocess.PIPE
    )
    while not any((tmp_path / "ws/stages").glob("align@*/done/*.json")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert b"Traceback" not in errors
    account = state_of(tmp_path / "ws")["stages"][4]["account"]  # type: ignore[index]
    assert 0 < account["in"] < 216
    dataprep("align")
    assert state_of(tmp_path / "ws")["stages"][4]["account"]["ok"] == 216  # type: ignore[index]


# changing one parameter re-runs what depends on it, and nothing else
STAGES = ["validate", "crop", "detect", "align", "lst", "pack"]
TABLE = [
    (["validate", "--min-side", "40"], STAGES),
    (["crop", "--min-box", "12"], STAGES[1:]),
    (["align", "--min-face", "24"], STAGES[2:]),
    (["align", "--rule", "largest"], STAGES[2:]),
    (["align", "--size", "224"], STAGES[3:]),
    (["align", "--quality", "90"], STAGES[3:]),
    (["lst", "--min-images", "3"], STAGES[4:]),
    (["pack", "--licence", "mine"], STAGES[5:]),
    (["pack", "--jobs", "1"], []),
]


def test_changing_one_parameter_re_runs_what_depends_on_it(drawn: Path, dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "folder", drawn, "--limit", "8")
    dataprep("pack")
    base = pack_bytes(tmp_path / "ws/packs/train")
    for number, (verb, expected) in enumerate(TABLE):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "ws", copy)
        dataprep(*verb, workspace=copy)
        before = markers(copy)
        dataprep("pack", "--overwrite", *verb[1:] if verb[0] == "pack" else [], workspace=copy)
        ran = sorted(
            {path.split("@")[0] for path in markers(copy) if path not in markers(tmp_path / "ws")}, key=STAGES.index
        )
        assert ran == expected, verb
        assert set(before) <= set(markers(copy))
        shutil.rmtree(copy)
    assert pack_bytes(tmp_path / "ws/packs/train") == base


def markers(workspace: Path) -> dict[str, str]:
    """Every marker by `stage@fingerprint/shard`, with a hash of its content."""
    return {
        f"{path.parts[-3]}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in workspace.glob("stages/*/done/*.json")
    }


def test_a_second_size_detects_nothing_again(drawn: Path, dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "folder", drawn, "--limit", "8")
    dataprep("align", "--size", "112")
    dry = dataprep("align", "--size", "224", "--dry-run").stdout
    assert "align would run" in dry
    assert "detect" not in dry
    dataprep("align", "--size", "224")
    assert len(list((tmp_path / "ws/stages").glob("detect@*"))) == 1
    assert len(list((tmp_path / "ws/stages").glob("align@*"))) == 2


def test_a_retry_asks_for_those_samples_and_redoes_what_depends_on_them(
    site: Path, dataprep: Run, tmp_path: Path
) -> None:
    dataprep(*download(site))
    dataprep("align")
    before = markers(tmp_path / "ws")
    said = dataprep("retry", "--reason", "http_5xx,timeout").stdout
    assert "will be retried" in said
    why = dataprep("status", "--why").stdout
    assert "retry requested: http_5xx, timeout" in why
    dataprep("align")
    assert set(markers(tmp_path / "ws")) == set(before)
    dataprep("retry", "--reason", "nonsense", code=2)
    dataprep("retry", "--reason", "opted_out", code=1)


def test_a_retry_that_saves_photos_carries_them_through_to_the_pack(dataprep: Run, tmp_path: Path) -> None:
    photos = {f"/{i}.jpg": encode_jpeg(draw_photo(i % 3, i).pixels) for i in range(15)}
    healed = threading.Event()

    async def ailing(request: web.Request) -> web.StreamResponse:
        if not healed.is_set() and request.path in ("/0.jpg", "/7.jpg"):
            return web.Response(status=503)
        return web.Response(body=photos[request.path])

    with serving(ailing) as base:
        table = tmp_path / "t.csv"
        table.write_text("url,identity,key\n" + "".join(f"{base}/{i}.jpg,p{i % 3},{i:02d}\n" for i in range(15)))
        fetch = ["download", "urls", table, "--allow-private", "--retries", "0"]
        assert "dataprep retry --reason http_5xx" in dataprep(*fetch).stdout
        dataprep(*fetch, "--strict", code=3)
        dataprep("pack")
        first = pack_bytes(tmp_path / "ws/packs/train")
        dataprep("retry", "--reason", "http_5xx")
        dataprep("pack")
        assert pack_bytes(tmp_path / "ws/packs/train") == first  # in vain: the same photos, the same pack
        healed.set()
        dataprep("retry", "--reason", "http_5xx")
        dataprep("pack")
        dataprep(*fetch, workspace=tmp_path / "never_ill")
        dataprep("pack", workspace=tmp_path / "never_ill")
    assert len(pack_bytes(tmp_path / "ws/packs/train")["train.rec"]) > len(first["train.rec"])
    assert pack_bytes(tmp_path / "ws/packs/train") == pack_bytes(tmp_path / "never_ill/packs/train")
    assert dataprep("gc").stdout.startswith("0 files")  # each run has removed what it replaced


def test_finished_shards_are_aligned_while_others_still_download(dataprep: Run, tmp_path: Path) -> None:
    photo = encode_jpeg(draw_photo(0, 0).pixels)

    async def half_slow(request: web.Request) -> web.StreamResponse:
        if int(request.path[1:-4]) >= 50:
            await asyncio.sleep(12)
        return web.Response(body=photo)

    with serving(half_slow) as base:
        table = tmp_path / "t.csv"
        table.write_text("url,identity,key\n" + "".join(f"{base}/{i}.jpg,p{i % 3},{i:03d}\n" for i in range(100)))
        recipe = tmp_path / "r.yaml"
        recipe.write_text(
            f"source: {{kind: urls, table: {table}}}\n"
            "stages: {download: {allow-private: true, per-host: 100, placeholders: 0}}\n"
        )
        shown = dataprep("run", recipe).stderr
    (log,) = (tmp_path / "ws/runs").glob("*.jsonl")
    commits = [
        (event["stage"], event["shard"])
        for event in map(json.loads, log.read_text().splitlines())
        if event["event"] == "commit"
    ]
    assert commits.index(("align", "g0-000000")) < commits.index(("download", "g0-000001"))
    assert "download 50/100" in shown
    assert "align 50/100" in shown
