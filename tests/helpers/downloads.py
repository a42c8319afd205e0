"""Downloads as a test: URLs in, the ledger's rows out."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataprep.download.resolver import Lookup
from dataprep.imaging.codec import encode_jpeg
from dataprep.pipeline.pipeline import Pipeline
from dataprep.pipeline.progress import StageProgress
from dataprep.pipeline.runner import RunReport, run_pipeline
from dataprep.synth.photos import draw_photo
from dataprep.types import Sample
from dataprep.workspace.workspace import Workspace

PHOTO = encode_jpeg(draw_photo(0, 0).pixels)
FAST = {
    "connect_timeout": 1.0,
    "idle_timeout": 0.5,
    "timeout": 2.0,
    "backoff": 0.01,
    "retries": 1,
    "outage_after": 0.5,
    "allow_private": True,
}


@dataclass
class Noting:
    """A display that keeps what it is told."""

    notes: list[str] = field(default_factory=list)
    line: str = ""
    on_note: Callable[[str], None] = lambda text: None

    def refresh(self, gauges: dict[str, StageProgress]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.on_note(text)

    def close(self, gauges: dict[str, StageProgress]) -> None:
        self.line = gauges["download"].format_line() if "download" in gauges else ""


def samples(urls: Iterable[str], identity: str = "p") -> list[Sample]:
    return [Sample(key=f"{identity}/{i:05d}", identity=identity, url=url) for i, url in enumerate(urls)]


def download(
    folder: Path,
    wanted: Sequence[str] | Sequence[Sample],
    *,
    lookup: Lookup | None = None,
    display: Noting | None = None,
    **params: object,
) -> tuple[RunReport, dict[str, dict[str, Any]]]:
    """Download URLs (of one identity) or samples; the report, and the ledger's rows by URL."""
    listed = [w if isinstance(w, Sample) else samples([w])[0] for w in wanted]
    if listed and isinstance(wanted[0], str):
        listed = samples(str(url) for url in wanted)
    workspace = Workspace(folder / "ws", create=True)
    plan = workspace.plan()
    if not plan.generations:
        plan.add({"kind": "test"}, "test", listed)
    chain = Pipeline(workspace, {"download": {**FAST, **params}}, until="download")
    stage = chain.node("download").stage
    stage.lookup = lookup
    report = run_pipeline(chain, jobs=0, display=display or Noting())
    return report, rows_of(chain)


def rows_of(chain: Pipeline) -> dict[str, dict[str, Any]]:
    link = chain.node("download")
    return {row["url"]: row for marker in link.store.markers().values() for row in link.store.rows(marker)}


def to_loopback(host: str) -> list[str]:
    """A resolver for made-up hosts: dead-* names exist no more, lost-* have a name server that is silent."""
    if host.startswith("dead-"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if host.startswith("lost-"):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return ["127.0.0.1"]
