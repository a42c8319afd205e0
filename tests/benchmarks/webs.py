"""Lists of URLs with a known end, and the names and ports behind them: a web that is all alive, and one like VGG-Face's."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from fastserver import ADDRESSES, photo

BYTES = 17_000
BASES = 64
ALIVE_HOSTS = 64
# what becomes of a URL of the list like VGG-Face's, in per cent: 45 are dead, a third of them by saying nothing
FATES = {"no name": 8, "refused": 7, "no connection": 10, "gone": 12, "html": 3, "stall": 5, "photo": 55}
_HOSTS_FATES = ("no name", "refused", "no connection")  # of whole hosts; the others are of single URLs
_SILENT = 0.5  # the share of the stalls that are of whole hosts, which take connections and say nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A list: URLs in its order, the sha256 of the photos behind those that have one, and each name's address."""

    urls: Sequence[str]
    photos: dict[str, str]
    names: dict[str, str]
    fates: dict[str, int]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The table that both sides read, and the names for `sitecustomize`."""
        folder.mkdir(parents=True)
        table, names = folder / "list.csv", folder / "names.json"
        with open(table, "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["url", "identity"])
            writer.writerows((url, f"person_{number // 1000:04d}") for number, url in enumerate(self.urls))
        names.write_text(json.dumps(self.names))
        return table, names


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where something answers, where nobody listens, and where somebody does but takes no connection."""

    alive: int
    refused: int
    deaf: int
    server: int  # its process


def draw_bases(folder: Path) -> list[bytes]:
    """Photos of noise, BYTES large, in the folder for the server."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(BASES):
        coarse = generator.integers(0, 256, (36, 36, 3), np.uint8)
        pixels = cv2.resize(coarse, (250, 250), interpolation=cv2.INTER_CUBIC)
        grain = generator.normal(0, 12, (250, 250, 3))
        pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
        sizes = [cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for quality in range(50, 96, 3)]
        nearest = min(sizes, key=lambda data: abs(len(data) - BYTES))
        (folder / f"{number:03d}.jpg").write_bytes(nearest.tobytes())
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def all_alive(bases: Sequence[bytes], ports: Ports, count: int) -> Web:
    """Every URL a photo, at once, on hosts that take turns."""
    names = {f"host{number:02d}.test": ADDRESSES[number % len(ADDRESSES)] for number in range(ALIVE_HOSTS)}
    hosts = list(names)
    urls = [f"http://{hosts[n % ALIVE_HOSTS]}:{ports.alive}/photo/0/{n}/{n:06d}.jpg" for n in range(count)]
    photos = {url: hashlib.sha256(photo(bases, number)).hexdigest() for number, url in enumerate(urls)}
    return Web(urls=urls, photos=photos, names=names, fates={"photo": count})


def like_vggface(bases: Sequence[bytes], ports: Ports, count: int, *, latency: float) -> Web:
    """A list whose hosts have the sizes of the real one's: the r-th has a share of 1/(r + 11)^1.15 of the URLs.

    (So do the 11,000 URLs of eleven of VGG-Face's people: the first host has 1.9 % of them, the first hundred 47 %.)
    Names, ports and silence die with whole hosts; pages go one by one. Answers take `latency` seconds in the middle,
    log-normal over hosts.
    """
    chance = random.Random(7)
    ranks = range(1, count // 2)
    drawn = chance.choices(ranks, weights=[(rank + 11) ** -1.15 for rank in ranks], k=count)
    sizes = {rank: drawn.count(rank) for rank in sorted(set(drawn))}
    fate = _fates_of_hosts(sizes, count, chance)
    alive = [number for number, rank in enumerate(drawn) if rank not in fate]
    single = {"gone": FATES["gone"], "html": FATES["html"], "stall": FATES["stall"] * (1 - _SILENT)}
    kinds = chance.choices(["photo", *single], weights=[FATES["photo"], *single.values()], k=len(alive))
    kind_of = dict(zip(alive, kinds, strict=True))
    port_of = {"refused": ports.refused, "no connection": ports.deaf}
    names, slow, urls, photos = {}, {}, [], {}
    fates = dict.fromkeys(FATES, 0)
    for number, rank in enumerate(drawn):
        name = f"www.host{rank:05d}.test"
        if fate.get(rank) != "no name":
            names[name] = ADDRESSES[rank % len(ADDRESSES)]
        kind = kind_of.get(number) or fate[rank]
        fates[kind] += 1
        milliseconds = slow.setdefault(rank, round(1000 * latency * min(10.0, chance.lognormvariate(0, 0.6))))
        path = f"{kind if kind in ('gone', 'html', 'stall') else 'photo'}/{milliseconds}/{number}/{number:06d}.jpg"
        url = f"http://{name}:{port_of.get(kind, ports.alive)}/{path}"
        urls.append(url)
        if kind == "photo":
            photos[url] = hashlib.sha256(photo(bases, number)).hexdigest()
    return Web(urls=urls, photos=photos, names=names, fates=fates)


def _fates_of_hosts(sizes: dict[int, int], count: int, chance: random.Random) -> dict[int, str]:
    """Which hosts are dead and how, so that of all URLs the shares in FATES are; the ten busiest live."""
    left = {fate: FATES[fate] / 100 * count for fate in _HOSTS_FATES} | {
        "stall": FATES["stall"] / 100 * count * _SILENT
    }
    dead: dict[int, str] = {}
    ranks = [rank for rank in sizes if rank > 10]
    chance.shuffle(ranks)
    for rank in ranks:
        open_fates = [fate for fate, rest in left.items() if rest >= sizes[rank]]
        if open_fates:
            dead[rank] = max(open_fates, key=left.__getitem__)
            left[dead[rank]] -= sizes[rank]
        if not any(rest >= 1 for rest in left.values()):
            break
    return dead


@contextmanager
def serving(photos: Path, *, close: bool) -> Iterator[Ports]:
    """A server process for the time of the block, a port that refuses, and one that is deaf."""
    script = Path(__file__).with_name("fastserver.py")
    command = [sys.executable, str(script), str(photos), "close" if close else "keep"]
    with ExitStack() as stack:
        server = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert server.stdout is not None
        # bound and never listening: nothing else can come to listen there
        refusing = [stack.enter_context(socket.socket()) for _ in ADDRESSES]
        deaf = [stack.enter_context(socket.socket()) for _ in ADDRESSES]
        for group in (refusing, deaf):
            port = 0
            for address, bound in zip(ADDRESSES, group, strict=True):
                bound.bind((address, port))
                port = bound.getsockname()[1]
        for bound in deaf:
            bound.listen(0)
            for _ in range(4):  # more than fit: whoever comes now is neither taken nor refused
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(bound.getsockname())
        try:
            yield Ports(
                alive=int(server.stdout.readline()),
                refused=refusing[0].getsockname()[1],
                deaf=deaf[0].getsockname()[1],
                server=server.pid,
            )
        finally:
            assert server.stdin is not None
            server.stdin.close()
