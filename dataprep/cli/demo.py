"""demo: run a user's commands in order on synthetic faces, and compare the results with the truth."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from dataprep.errors import DataprepError

_MISSED = 0.005  # maximum share of drawn faces that MTCNN may miss


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default="demo")
@click.option("--identities", type=click.IntRange(30), default=120, show_default=True, help="Number of people to draw.")
@click.option("--photos", type=click.IntRange(10), default=24, show_default=True, help="URLs in each person's list.")
@click.option("--epochs", type=click.IntRange(1), default=3, show_default=True, help="Training epochs.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the drawn people.")
def demo(folder: Path, identities: int, photos: int, epochs: int, seed: int) -> None:
    """Serve synthetic faces from a local site that reproduces the web's failures, then build, train and test.

    Run the same command again to resume an interrupted demo.

    \b
    Example: dataprep demo
    """
    began = time.monotonic()
    site, workspace = folder / "web", folder / "workspace"
    lists = str(site / "lists")
    port = _site_port(site)
    _say("Publish lists of face URLs on a local website; a fifth of the URLs are faulty.")
    _type(
        "synth", "publish", str(site), "--identities", str(identities), "--photos", str(photos), "--seed", str(seed),
        "--port", str(port),
    )  # fmt: skip
    server = _serve(site)
    try:
        _say("Download the photos ...")
        _type(
            "-w", str(workspace), "download", "vggface", "--lists", lists, "--allow-private", "--idle-timeout", "3",
            "--retries", "1", "--per-host", "32", "--host-failures", "1000",  # all dead URLs there share one host
        )  # fmt: skip
    finally:
        server.terminate()
        server.wait()
    _say("... detect and align the faces (validate and crop run automatically) ...")
    _type("-w", str(workspace), "align", "--size", "112")
    _say("... pack them, with a third of the people held out ...")
    _type("-w", str(workspace), "pack", "--format", "rec", "--holdout", "0.333")
    _say("... train on the pack, and test on the held-out people.")
    _type("-w", str(workspace), "train", "--epochs", str(epochs), "--batch-size", "32", "--lr", "0.2")
    _type("-w", str(workspace), "test", "--baselines")
    _conclude(folder, site, workspace, time.monotonic() - began)


def _conclude(folder: Path, site: Path, workspace: Path, seconds: float) -> None:
    from dataprep.pipeline.image_export import draw_contact_sheet
    from dataprep.pipeline.maintenance import workspace_status

    _say(f"Results in {folder}: planted faults against found ones")
    equal = _compare(json.loads((site / "truth.json").read_bytes()), workspace_status(str(workspace)))
    sheet = draw_contact_sheet(str(workspace), folder / "faces.png")
    roc = workspace / "models/default/test/holdout/roc.png"
    click.echo(f"\nAligned faces: {sheet}. ROC curve: {roc}. Total time: {seconds / 60:.1f} minutes.")
    click.echo(
        "Next: dataprep import folder YOUR_PHOTOS && dataprep pack --holdout 0.1 && dataprep train && dataprep test"
    )
    if not equal:
        raise DataprepError("the results differ from what was planted")


def _compare(truth: dict[str, Any], found: dict[str, Any]) -> bool:
    """Print the results against the truth; False if they differ.

    `in` must be the number of lines. Every line must end as ok or with exactly one reason. The reasons must be the
    planted ones, except that the detector may miss a few drawn faces.
    """
    ends: Counter[str] = Counter()
    stages = [stage for stage in found["stages"] if stage["account"]["in"] and stage["stage"] != "pack"]
    for stage in stages:
        ends.update(stage["account"]["dropped"])
        ends.update(stage["account"]["failed"])
    lines, ok = stages[0]["account"]["in"], stages[-1]["account"]["ok"]
    missed = ends["no_face"] - truth["reasons"].get("no_face", 0)
    click.echo(f"  {lines} lines = {ok} faces listed + {ends.total()} lost")
    for reason in sorted({*truth["reasons"], *ends}, key=lambda code: -truth["reasons"].get(code, 0)):
        planted, seen = truth["reasons"].get(reason, 0), ends.get(reason, 0)
        click.echo(f"  {reason:<20} planted {planted:>4}   found {seen:>4}{'' if planted == seen else '   <- differs'}")
    if 0 < missed <= _MISSED * ok:
        click.echo(f"  the detector missed {missed} of {ok + missed} drawn faces; the rest is as planted")
        ends["no_face"] -= missed
    return bool(
        lines == truth["lines"] and lines == ok + sum(ends.values()) + max(0, missed) and +ends == truth["reasons"]
    )


def _say(text: str) -> None:
    click.echo(f"\n{text}")


def _type(*arguments: str) -> None:
    click.echo(f"$ dataprep {shlex.join(arguments)}")
    code = subprocess.run([sys.executable, "-m", "dataprep", *arguments], check=False).returncode
    if code:
        raise SystemExit(code)


def _serve(site: Path) -> subprocess.Popen[bytes]:
    click.echo(f"$ dataprep synth serve {shlex.quote(str(site))} &")
    server = subprocess.Popen(
        [sys.executable, "-m", "dataprep", "synth", "serve", str(site)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert server.stdout is not None
    if not server.stdout.readline():
        raise DataprepError("the site cannot be served; the error is shown above")
    return server


def _site_port(site: Path) -> int:
    """The port of an already published site, else a free port."""
    try:
        return int(json.loads((site / "site.json").read_bytes())["port"])
    except (OSError, ValueError, KeyError):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
