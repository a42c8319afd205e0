"""Disks that are full or read-only: real ones, where file systems may be mounted."""

import json
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from helpers.command import Run, command, environment
from helpers.downloads import PHOTO
from helpers.webserver import serving


def mounted(script: str) -> str:
    """What a shell script says that may mount file systems; `dataprep` is the command, its errors among the output."""
    begin = f'set -e; dataprep() {{ {shlex.join(command())} "$@" 2>&1 && echo "exit 0" || echo "exit $?"; }}\n'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", begin + "mount -t tmpfs tmpfs /mnt || exit 99\n" + script],
        capture_output=True, text=True, env=environment(), check=False, timeout=120,
    )  # fmt: skip
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()[:100]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    return done.stdout


def commits(workspace: Path) -> dict[str, object]:
    """What the markers say, but for seconds and the names that hold them."""
    found = {}
    for path in sorted(workspace.glob("stages/*/done/*.json")):
        marker = json.loads(path.read_text())
        found[f"{path.parts[-3]}/{path.name}"] = {k: marker[k] for k in ("digest", "upstream", "account", "data_bytes")}
    return found


def test_a_disk_that_fills_up_while_faces_are_aligned(photos: Path, dataprep: Run, tmp_path: Path) -> None:
    said = mounted(
        f"""
        mkdir {tmp_path}/small && mount -t tmpfs -o size=1m tmpfs {tmp_path}/small && cd {tmp_path}/small
        dataprep -w ws import folder {photos}
        head -c 500000 /dev/zero > ballast
        dataprep -w ws align -j 1
        dataprep -w ws status --json > {tmp_path}/status.json
        rm ballast
        mount -o remount,size=8m {tmp_path}/small
        dataprep -w ws align -j 2
        cp -r ws {tmp_path}/ws
        """
    )
    exits = [line for line in said.splitlines() if line.startswith("exit")]
    assert exits == ["exit 0", "exit 1", "exit 0"]
    assert "No space left on device" in said
    first = {stage["stage"]: stage for stage in json.loads((tmp_path / "status.json").read_text()[:-7])["stages"]}
    assert 0 < first["align"]["pending"] <= 3
    dataprep("import", "folder", photos, workspace=tmp_path / "quiet")
    dataprep("align", workspace=tmp_path / "quiet")
    assert commits(tmp_path / "ws") == commits(tmp_path / "quiet")
    assert dataprep("gc").stdout.startswith("0 files")


def test_a_disk_that_fills_up_while_photos_come_in(dataprep: Run, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def photo(request: web.Request) -> web.Response:
        asked[request.path] += 1
        return web.Response(body=PHOTO + request.path.encode())

    with serving(photo) as base:
        table = tmp_path / "t.csv"
        table.write_text("url,identity,key\n" + "".join(f"{base}/{i}.jpg,p{i % 3},{i:03d}\n" for i in range(150)))
        fetch = ["download", "urls", table, "--allow-private", "--connections", 8]
        said = mounted(
            f"""
            mkdir {tmp_path}/small && mount -t tmpfs -o size=1m tmpfs {tmp_path}/small && cd {tmp_path}/small
            dataprep -w ws {shlex.join(map(str, fetch))}
            mount -o remount,size=16m {tmp_path}/small
            dataprep -w ws {shlex.join(map(str, fetch))}
            cp -r ws {tmp_path}/ws
            """
        )
        again = asked.total() - 150
        dataprep(*fetch, workspace=tmp_path / "quiet")
    assert [line for line in said.splitlines() if line.startswith("exit")] == ["exit 1", "exit 0"]
    assert "cannot be written: No space left on device; completed work is kept\nhint: free some space" in said
    assert 0 < again <= 8 + 8  # those in flight, and those in the batch that did not fit
    assert commits(tmp_path / "ws") == commits(tmp_path / "quiet")
    assert dataprep("gc").stdout.startswith("0 files")


def test_a_full_disk_has_no_room_for_the_board_either(tmp_path: Path) -> None:
    """A hole in a mapped file is filled when it is written to: on a full disk that is a SIGBUS and no exception."""
    board = "; ".join(
        [
            "from pathlib import Path",
            "from dataprep.pipeline.worker import ProgressBoard",
            "board = ProgressBoard(Path('board'), 4000)",
            "[board.set(slot, 1) for slot in range(0, 4000, 500)]",
        ]
    )
    said = mounted(
        f"""
        mkdir {tmp_path}/small && mount -t tmpfs -o size=100k tmpfs {tmp_path}/small && cd {tmp_path}/small
        head -c 90000 /dev/zero > ballast
        {sys.executable} -c {shlex.quote(board)} 2> {tmp_path}/errors && echo fits || echo "exit $?"
        tail -n 1 {tmp_path}/errors
        """
    )
    assert said.splitlines() == ["exit 1", "OSError: [Errno 28] No space left on device"]


def test_a_workspace_that_turns_read_only(photos: Path, dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "folder", photos)
    dataprep("validate")
    said = mounted(
        f"""
        mount --bind {tmp_path}/ws {tmp_path}/ws && mount -o remount,ro,bind {tmp_path}/ws
        dataprep -w {tmp_path}/ws align
        dataprep -w {tmp_path}/ws import folder {photos}/a
        dataprep -w {tmp_path}/ws status
        dataprep -w {tmp_path}/ws align --dry-run
        """
    )
    assert [line for line in said.splitlines() if line.startswith("exit")] == ["exit 1", "exit 1", "exit 0", "exit 0"]
    assert said.count("the disk is read-only; choose another workspace with -w") == 2
    assert f"dataprep: {tmp_path}/ws" in said
    dataprep("align")


@pytest.mark.parametrize("place", ["/proc/ws", "{file}/ws"])
def test_a_workspace_where_none_can_be(photos: Path, dataprep: Run, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    where = place.format(file=tmp_path / "file")
    said = dataprep("import", "folder", photos, workspace=where, code=1).stderr
    assert said.startswith(f"dataprep: {where}")
    assert len(said.splitlines()) == 1
