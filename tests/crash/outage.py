"""A download whose network goes away for some seconds; to be run in a network namespace of its own, by test_network.py.

The loopback interface is taken down while requests are in flight, and up again: connections stall, new ones find no route.
Prints a summary as JSON.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from aiohttp import web  # noqa: E402
from helpers.command import environment  # noqa: E402
from helpers.downloads import PHOTO  # noqa: E402
from helpers.webserver import serving  # noqa: E402

from dataprep.pipeline.pipeline import Pipeline  # noqa: E402
from dataprep.workspace.workspace import Workspace  # noqa: E402

URLS, HOSTS, CUT_AFTER, SECONDS = 300, 25, 80, 10.0
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP


def set_loopback(up: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _GET_FLAGS, asked))[1]
        wanted = flags | _UP if up else flags & ~_UP
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", wanted))


def main() -> None:
    folder = Path(sys.argv[1])
    asked: Counter[str] = Counter()
    cut = threading.Event()

    async def answer(request: web.Request) -> web.Response:
        asked[request.path] += 1
        if asked.total() == CUT_AFTER:
            cut.set()
        await asyncio.sleep(0.05)
        return web.Response(body=PHOTO + request.path.encode())

    def outage() -> None:
        cut.wait(60)
        set_loopback(False)
        time.sleep(SECONDS)
        set_loopback(True)

    set_loopback(True)
    with serving(answer) as base:
        port = base.rpartition(":")[2]
        lines = [f"http://host-{i % HOSTS}.test:{port}/{i}.jpg,p{i % 3},{i:03d}\n" for i in range(URLS)]
        (folder / "t.csv").write_text("url,identity,key\n" + "".join(lines))
        threading.Thread(target=outage).start()
        fetch = [
            "download", "urls", folder / "t.csv", "--allow-private", "--retries", "0", "--connections", "12",
            "--idle-timeout", "2", "--connect-timeout", "1", "--outage-after", "1",
        ]  # fmt: skip
        launcher = Path(__file__).with_name("launch.py")
        done = subprocess.run(
            [sys.executable, launcher, "-w", folder / "ws", *fetch], env=environment(), capture_output=True, text=True
        )
    opened = Workspace(folder / "ws")
    directory = Pipeline(opened, opened.recipe(), until="download").node("download").store
    rows = [row for marker in directory.markers().values() for row in directory.rows(marker)]
    print(
        json.dumps(
            {
                "exit": done.returncode,
                "said": done.stderr,
                "verdicts": Counter(row["detail"] or row["verdict"] for row in rows),
                "attempts": Counter(row["attempts"] for row in rows),
                "asked": asked.total(),
            }
        )
    )


if __name__ == "__main__":
    main()
