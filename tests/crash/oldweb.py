"""A web like VGG-Face's in memory, on loopback: half of it dead, some of it strange; it remembers who asked for what."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from dataprep.imaging.codec import encode_jpeg
from dataprep.synth.faults import NOT_FOUND_PAGE
from dataprep.synth.photos import draw_photo

# how many of a thousand URLs; what must come of them is what comes of them in a quiet run
KINDS = {
    "plain": 500, "slow": 40, "moved": 40, "sick": 20, "placeholder": 40, "to_placeholder": 10, "gone": 100,
    "403": 20, "404": 40, "500": 10, "loop": 10, "html": 40, "cut": 20, "empty": 10, "short": 10, "stalled": 3,
    "hanging": 24, "refused": 40, "down": 30, "strange": 17,
}  # fmt: skip
# asked for again, or sent on to a host with many others: may wait for that while nothing is in flight
WAITING = ("sick", "500", "short", "stalled", "hanging", "moved", "to_placeholder", "loop")
_STRANGE = ("data:image/png;base64,AA", "javascript:void(0)", "file:///etc/passwd", "//", "http://user@/a b.jpg")
_PEOPLE = 10


@dataclass(slots=True)
class Asked:
    """One request: by which process (its --contact says so), for which sample."""

    life: str
    key: str


class OldWeb:
    """`list_urls` writes the table, `answer` serves it. Hosts are made up: see `launch.py` for where they lead."""

    def __init__(self, urls: int, seed: int) -> None:
        generator = random.Random(seed)
        kinds = generator.choices(list(KINDS), list(KINDS.values()), k=urls)
        for number, kind in enumerate(KINDS):  # each at least once
            kinds[number] = kind
        self.kinds = {f"p{number % _PEOPLE:02d}/{number:05d}": kind for number, kind in enumerate(kinds)}
        self.asked: list[Asked] = []
        self._photos = [
            encode_jpeg(draw_photo(person, photo, width=192, height=192).pixels)
            for person in range(_PEOPLE)
            for photo in range(4)
        ]
        self._latency = {key: generator.uniform(0.01, 0.12) for key in self.kinds}
        self._sick: Counter[str] = Counter()

    def list_urls(self, path: Path, base: str) -> None:
        port = base.rpartition(":")[2]
        with open(path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["url", "identity", "key"])
            for number, (key, kind) in enumerate(self.kinds.items()):
                person, _, name = key.partition("/")
                writer.writerow([_url(kind, number, key, port), person, name])

    def asked_by(self, life: str) -> Counter[str]:
        """Requests by sample, of one process."""
        return Counter(asked.key for asked in self.asked if asked.life == life)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        kind, _, key = request.path[1:-4].partition("/")
        self.asked.append(Asked(life=request.headers["User-Agent"].partition("(")[2].partition(";")[0], key=key))
        await asyncio.sleep(self._latency[key])
        if kind.isdigit():
            return web.Response(status=int(kind), text="no")
        if kind == "sick":
            self._sick[key] += 1
            if self._sick[key] == 1:
                return web.Response(status=503)
        if kind in ("moved", "loop", "to_placeholder"):
            onward = {"moved": "plain", "loop": "loop", "to_placeholder": "placeholder"}[kind]
            port = request.host.rpartition(":")[2]
            return web.Response(status=302, headers={"Location": f"http://new.test:{port}/{onward}/{key}.jpg"})
        if kind == "hanging" and number_of(key) % 4 == 0:  # one host hangs on some of its URLs, for ever
            await asyncio.sleep(60)
        if kind == "slow":
            await asyncio.sleep(0.4)
        number = number_of(key)
        body = self._photos[number % len(self._photos)] + key.encode()  # what follows a JPEG's end is no fault
        if kind == "placeholder":
            body = self._photos[0]
        if kind == "html":
            body = NOT_FOUND_PAGE
        if kind == "cut":
            body = body[:2000].replace(b"\xff\xd9", b"")
        if kind == "empty":
            body = b""
        if kind in ("short", "stalled"):
            response = web.StreamResponse(headers={"Content-Length": str(len(body))})
            with contextlib.suppress(ConnectionError):  # whoever asked was killed
                await response.prepare(request)
                await response.write(body[:1000])
                if kind == "stalled":
                    await asyncio.sleep(60)
            if request.transport is not None:
                request.transport.close()
            return response
        return web.Response(body=body)


def number_of(key: str) -> int:
    return int(key.rpartition("/")[2])


def _url(kind: str, number: int, key: str, port: str) -> str:
    if kind == "strange":
        return _STRANGE[number % len(_STRANGE)]
    host = {
        "gone": f"dead-{number % 20}.test:{port}",
        "refused": f"no-{number}.test:2",  # nobody listens there
        "down": "down.test:2",
        "placeholder": f"hoster-{number % 2}.test:{port}",
        "hanging": f"hanging.test:{port}",
        "stalled": f"stalled-{number}.test:{port}",
    }.get(kind, f"host-{number % 50}.test:{port}")
    return f"http://{host}/{kind}/{key}.jpg"
