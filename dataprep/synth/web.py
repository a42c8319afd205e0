"""A local website of drawn photos, with VGG-Face-style lists, that reproduces the failures of the real web.

`publish_site` writes the site into a folder; `serve_site` serves it on loopback, faults included, until stopped.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from dataprep.errors import SourceError
from dataprep.reasons import Reason
from dataprep.storage import Folder
from dataprep.synth.faults import FAULTS, publish_unchanged
from dataprep.synth.photos import draw_photo, identity_name
from dataprep.types import Box

if TYPE_CHECKING:
    from aiohttp import web

HOST = "127.0.0.1"
_DEAD = f"{HOST}:2"  # nothing listens on this port
_SLOW = 0.5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteParams:
    """The size of a site. `faults` is the share of photos with a fault, `duplicates` that of repeated lines."""

    identities: int
    photos: int
    faults: float = 0.2
    duplicates: float = 0.01
    seed: int = 0
    width: int = 250
    height: int = 250
    port: int = 8765


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a person's list: file name, injected fault, box and server behaviour."""

    name: str
    fault: str
    box: Box
    behaviour: str


def publish_site(folder: Path, params: SiteParams, *, jobs: int = 1) -> dict[str, Any]:
    """Write photos, `lists/files/*.txt`, behaviours.json and truth.json; return the content of truth.json.

    truth.json has the number of lines in the lists, the number of samples expected under each reason, and the fault of
    each key. Equal parameters give equal files.
    """
    site = Folder(folder)
    described = {name: getattr(params, name) for name in SiteParams.__slots__}
    if site.get_json("site.json") not in (None, described):
        raise SourceError(f"{folder} holds a site with other parameters: publish into another folder")
    site.put_json("site.json", described)
    behaviours: dict[str, str] = {}
    faults: dict[str, str] = {}
    people = joblib.Parallel(n_jobs=jobs, return_as="generator")(
        joblib.delayed(_publish_person)(folder, params, identity) for identity in range(params.identities)
    )
    for identity, lines in enumerate(people):
        text = []
        for number, line in enumerate(lines, 1):
            faults[f"{identity_name(identity)}/{number:08d}"] = line.fault
            path = f"/{identity_name(identity)}/{line.name}"
            if line.behaviour != "plain":
                behaviours[path] = line.behaviour
            host = _DEAD if line.behaviour == "dead" else f"{HOST}:{params.port}"
            box = " ".join(f"{edge:.2f}" for edge in line.box)
            text.append(f"{number:08d} http://{host}{path} {box} 3.00 2.50 1\n")
        site.put(f"lists/files/{identity_name(identity)}.txt", "".join(text).encode())
    reasons = Counter(reason.code for fault in faults.values() if (reason := _ends_as(fault)))
    truth = {"lines": len(faults), "reasons": dict(sorted(reasons.items())), "faults": faults}
    site.put_json("behaviours.json", behaviours)
    site.put_json("truth.json", truth)
    return truth


def _publish_person(folder: Path, params: SiteParams, identity: int) -> list[_Line]:
    """Draw and write one person's photos; some lines repeat an earlier URL."""
    names = list(FAULTS)
    weights = np.array([FAULTS[name].weight for name in names])
    photos = Folder(folder / "photos" / identity_name(identity))
    lines: list[_Line] = []
    for photo in range(params.photos):
        generator = np.random.default_rng((params.seed, 7, identity, photo))
        if lines and generator.random() < params.duplicates:
            lines.append(lines[int(generator.integers(len(lines)))])
            continue
        fault = "none"
        if generator.random() < params.faults:
            fault = names[int(generator.choice(len(names), p=weights / weights.sum()))]
        drawn = draw_photo(identity, photo, seed=params.seed, width=params.width, height=params.height)
        published = (FAULTS[fault].publish if fault in FAULTS else publish_unchanged)(drawn, generator)
        name = f"{photo:04d}.jpg"
        photos.put(name, published.body)
        lines.append(_Line(name, fault, published.box, published.behaviour))
    return lines


def _ends_as(fault: str) -> Reason | None:
    return FAULTS[fault].ends_as if fault in FAULTS else None


async def start_site(folder: Path) -> tuple[web.AppRunner, str]:
    """Serve a published site on loopback. Returns the runner (call `cleanup` to stop it) and the base URL."""
    from aiohttp import web

    site = Folder(folder)
    described, behaviours = site.get_json("site.json"), site.get_json("behaviours.json")
    if described is None or behaviours is None:
        raise SourceError(f"{folder} holds no published site", hint=f"run `dataprep synth publish {folder}`")
    app = web.Application()
    app.router.add_get("/{path:.*}", partial(_answer, folder / "photos", behaviours))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, described["port"]).start()
    except OSError as error:
        raise SourceError(
            f"port {described['port']} on {HOST}: {error.strerror}", hint="publish the site with another --port"
        ) from None
    return runner, f"http://{HOST}:{described['port']}"


async def _answer(photos: Path, behaviours: dict[str, str], request: web.Request) -> web.StreamResponse:
    from aiohttp import web

    path = request.path
    behaviour = behaviours.get(path, "plain")
    if behaviour.isdigit():
        return web.Response(status=int(behaviour), text="no", content_type="text/html")
    if behaviour == "redirect" and "moved" not in request.query:
        return web.Response(status=301, headers={"Location": f"{path}?moved=1"})
    if behaviour == "redirect_loop":
        return web.Response(status=302, headers={"Location": path})
    try:
        body = (photos / path.lstrip("/")).read_bytes()
    except OSError:
        return web.Response(status=404, text="no")
    if behaviour == "slow":
        await asyncio.sleep(_SLOW)
    if behaviour == "stalled":
        response = web.StreamResponse(headers={"Content-Type": "image/jpeg", "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[:100])
        await asyncio.sleep(3600)
    if behaviour == "short":
        response = web.StreamResponse(headers={"Content-Type": "image/jpeg", "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
    return web.Response(body=body, content_type="image/jpeg")


async def serve_site(folder: Path) -> None:
    """Serve until cancelled."""
    runner, base = await start_site(folder)
    print(json.dumps({"serving": base}), flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
