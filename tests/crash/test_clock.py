"""A wall clock that jumps while photos come in and are validated: nothing hangs, nothing ends otherwise."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from aiohttp import web
from helpers.command import Run, command, environment
from helpers.downloads import PHOTO
from helpers.webserver import serving

DAY, TEN_YEARS = 86_400, 315_576_000


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes the clock of the process into which it is preloaded go wrong."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("jump", [-DAY, TEN_YEARS])
def test_the_clock_jumps_half_way(wrong_clock: Path, dataprep: Run, tmp_path: Path, jump: int) -> None:
    clock, asked = tmp_path / "clock", 0
    jumps = True

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if jumps and asked == 60:
            clock.write_text(str(jump))
        number = int(request.path[1:-4])
        if number % 10 == 0:
            return web.Response(status=429 if number % 20 else 404, headers={"Retry-After": "0.1"})
        return web.Response(body=PHOTO + request.path.encode())

    with serving(answer) as base:
        (tmp_path / "t.csv").write_text(
            "url,identity,key\n" + "".join(f"{base}/{i}.jpg,p{i % 3},{i:03d}\n" for i in range(120))
        )
        recipe = {
            "source": {"kind": "urls", "table": str(tmp_path / "t.csv")},
            "stages": {"download": {"allow-private": True, "retries": 1, "backoff": 0.1, "connections": 8}},
        }
        (tmp_path / "r.yaml").write_text(json.dumps(recipe))
        build = ["run", tmp_path / "r.yaml", "--until", "crop", "-j", "1"]
        done = subprocess.run(
            command("-w", tmp_path / "jumped", *build), capture_output=True, text=True, check=False, timeout=100,
            env={**environment(), "LD_PRELOAD": str(wrong_clock), "WALL_CLOCK": str(clock)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        jumps = False
        dataprep(*build)
    (log,) = (tmp_path / "jumped/runs").glob("*.jsonl")
    years = {json.loads(line)["time"][:10] for line in log.read_text().splitlines()}
    assert len(years) >= 2  # the clock did jump
    accounts = [
        stages(dataprep("status", "--json", workspace=w).stdout) for w in (tmp_path / "jumped", tmp_path / "ws")
    ]
    assert accounts[0] == accounts[1]
    assert dataprep("crop", workspace=tmp_path / "jumped").stdout.startswith("crop: nothing to do")


def stages(status: str) -> list[tuple[object, object]]:
    return [(stage["stage"], stage["account"]) for stage in json.loads(status)["stages"]]
