"""SIGKILL at fifty random moments: photos, verdicts, account and pack equal a quiet run's, and little is asked for twice.

    python tests/crash/kill.py                # `make crash`: some minutes on two cores
    python tests/crash/kill.py --kills 200 --seed 7

A download alone, then a recipe that downloads while other photos are aligned, then packing: each is killed (the whole
process group, the process alone, one of its workers alone) and typed again until its share of the kills is used up, and
then runs to its end. The delays are drawn from the time that a quiet run takes. What a kill hit is counted and shown.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from crash.oldweb import WAITING, OldWeb  # noqa: E402
from helpers.command import environment, pack_bytes  # noqa: E402
from helpers.processes import workers_of  # noqa: E402
from helpers.webserver import serving  # noqa: E402

from dataprep.pipeline.pipeline import Pipeline, PipelineState  # noqa: E402
from dataprep.pipeline.worker import ProgressBoard  # noqa: E402
from dataprep.stages.base import MERGE_UNIT  # noqa: E402
from dataprep.workspace.workspace import Workspace  # noqa: E402

CONNECTIONS = 16
FETCH = {
    "allow-private": True, "connections": CONNECTIONS, "per-host": 4, "idle-timeout": 3.0, "retries": 1, "backoff": 0.2,
    "outage-after": 1.0,
}  # fmt: skip
SHARES = {"download": 0.4, "build": 0.4, "pack": 0.2}  # of the kills
WORK = {"download": 0.6, "build": 1.5, "pack": 2.0}  # what the delays add up to, in times of a quiet run's work
AT_ONCE = 0.15  # of the kills do not wait until there is work in hand
VICTIMS = {"download": ("group", "process"), "build": ("group", "process", "worker"), "pack": ("group", "process")}
DIFFERS = ("seconds", "attempts", "offset")  # photos lie in the order in which they came


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--urls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    site = OldWeb(given.urls, given.seed)
    with tempfile.TemporaryDirectory() as scratch, serving(site.answer) as base:
        folder = Path(scratch)
        site.list_urls(folder / "urls.csv", base)
        recipe = {"source": {"kind": "urls", "table": str(folder / "urls.csv")}, "stages": {"download": FETCH}}
        (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
        quiet = {phase: run_to_its_end(folder / "quiet", verb(phase, folder, "quiet"), site) for phase in SHARES}
        usual = len(site.asked)
        print("seconds of work in a quiet run: " + ", ".join(f"{name} {n:.1f}" for name, n in quiet.items()))
        trial = Trial(folder, site, random.Random(given.seed))
        left = 0
        for phase, share in SHARES.items():
            left = trial.kill(phase, round(given.kills * share) + left, quiet[phase])
            run_to_its_end(folder / "killed", verb(phase, folder, "quiet"))
        run_to_its_end(folder / "killed", ["gc"])  # removes nothing that is needed
        trial.check_requests(len(site.asked) - usual, usual)
        trial.check_hits(given.kills)
        trial.wrong += differences(folder / "quiet", folder / "killed", site)
    for trouble in trial.wrong:
        print(f"WRONG: {trouble}")
    print("WRONG" if trial.wrong else "photos, verdicts, account and pack are those of a quiet run")
    sys.exit(bool(trial.wrong))


def verb(phase: str, folder: Path, life: str) -> list[str]:
    """The command of a phase; `life` tells the server which process asks, and makes every pack another one."""
    if phase == "download":
        options = [f"--{name}" + ("" if value is True else f"={value}") for name, value in FETCH.items()]
        return ["download", "urls", str(folder / "urls.csv"), *options, "--contact", life]
    if phase == "build":
        contact = f"stages.download.contact={life}"
        return ["run", str(folder / "recipe.yaml"), "--until", "align", "-j", "2", "--override", contact]
    return ["pack", "--licence", life, "-j", "2"]


def start(workspace: Path, arguments: list[str]) -> subprocess.Popen[str]:
    with open(workspace.with_suffix(".err"), "w", encoding="utf-8") as errors:
        return subprocess.Popen(
            [sys.executable, Path(__file__).with_name("launch.py"), "-w", workspace, *arguments],
            env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip


def run_to_its_end(workspace: Path, arguments: list[str], site: OldWeb | None = None) -> float:
    """The seconds that the run was at work."""
    process = start(workspace, arguments)
    while site and process.poll() is None and not is_at_work(workspace, process.pid, site.asked_by("quiet").total()):
        time.sleep(0.01)
    began = time.monotonic()
    while site and process.poll() is None and events_of(workspace, process.pid)[-1]["event"] != "end":
        time.sleep(0.01)
    seconds = time.monotonic() - began
    if process.wait(timeout=600):
        errors = workspace.with_suffix(".err").read_text()
        sys.exit(f"WRONG: dataprep {' '.join(arguments)}: exit {process.returncode}\n{errors}")
    return seconds


def is_at_work(workspace: Path, pid: int, requests: int) -> bool:
    """Whether a request has come, a worker is past its first photos, or the merges have begun."""
    events = [(event["event"], event.get("stage")) for event in events_of(workspace, pid)]
    if not events:
        return False
    if ("pending", "download") in events:
        return requests > 0
    if ("pending", "align") in events:
        return any(any(board.read_bytes()) for board in (workspace / "runs").glob(f".*-{pid}.board"))
    return ("pending", "pack") in events


def events_of(workspace: Path, pid: int) -> list[dict[str, Any]]:
    """The events in the log of a process, as far as it has come."""
    for log in (workspace / "runs").glob(f"*-{pid}.jsonl"):
        return [json.loads(line) for line in log.read_text().split("\n")[:-1]]
    return []


class Trial:
    """The workspace that is killed again and again, and what is found out about it."""

    def __init__(self, folder: Path, site: OldWeb, generator: random.Random) -> None:
        self._folder, self._site, self._random = folder, site, generator
        self._workspace = folder / "killed"
        self._life = 0
        self._lost = 0  # requests that a kill made vain
        self._kills: Counter[str] = Counter()
        self._hits: Counter[str] = Counter()
        self.wrong: list[str] = []

    def kill(self, phase: str, kills: int, seconds: float) -> int:
        """Kill and type again; how many kills are left over because all was done before."""
        mean = WORK[phase] * seconds / kills
        while kills:
            self._life += 1
            life = f"life-{self._life}"
            before = recorded(self._workspace)
            process = start(self._workspace, verb(phase, self._folder, life))
            patient = self._random.random() > AT_ONCE
            while process.poll() is None and (
                not is_at_work(self._workspace, process.pid, self._site.asked_by(life).total())
                if patient
                else not events_of(self._workspace, process.pid)
            ):
                time.sleep(0.005)
            victim = "worker"
            while victim == "worker" and kills:  # the run goes on without it
                time.sleep(self._random.uniform(0, 2 * mean))
                if process.poll() is not None:
                    break
                victim = self._random.choice(VICTIMS[phase])
                self._note_hits(process.pid, life, before)
                self._strike(process, victim)
                kills -= 1
            if process.poll() is None:
                process.wait(600)
            self._check_life(life, before)
            if process.returncode != -signal.SIGKILL:
                self._hits["nothing: all was done"] += 1
                if process.returncode:
                    self.wrong.append(f"exit {process.returncode}: {self._workspace.with_suffix('.err').read_text()}")
                if phase != "pack":
                    break
        return kills

    def _strike(self, process: subprocess.Popen[str], victim: str) -> None:
        workers = workers_of(process.pid)
        if victim == "worker" and workers:
            os.kill(self._random.choice(workers), signal.SIGKILL)
        elif victim == "process":
            os.kill(process.pid, signal.SIGKILL)
        else:
            victim = "group"
            os.killpg(process.pid, signal.SIGKILL)
        self._kills[victim] += 1
        if victim != "worker":
            process.wait()

    def _note_hits(self, pid: int, life: str, before: set[str]) -> None:
        """What is under way just now."""
        hits = []
        if set(self._site.asked_by(life)) - recorded(self._workspace):
            hits.append("download")
        if workers_of(pid) and self._in_workers(pid):
            hits.append("map stages")
        events = [(event["event"], event.get("stage")) for event in events_of(self._workspace, pid)]
        if ("pending", "pack") in events and ("commit", "pack") not in events:
            hits.append("merge")
        self._hits.update(hits or ["nothing yet"])
        self._hits["two at once"] += len(hits) > 1

    def _in_workers(self, pid: int) -> bool:
        """Whether a worker is in the middle of a shard: the board says so, and the shard is not committed."""
        boards = list((self._workspace / "runs").glob(f".*-{pid}.board"))
        if not boards:
            return False
        opened = Workspace(self._workspace)
        chain = Pipeline(opened, opened.recipe(), until="align")
        state = PipelineState(chain, opened.plan())
        board = ProgressBoard(boards[0], len(state.shards))
        align = chain.node("align")
        return any(
            board.get(slot) > 0 and state.marker(align, shard) is None for slot, shard in enumerate(state.shards)
        )

    def _check_life(self, life: str, before: set[str]) -> None:
        """What had a row was not asked for, and no more than the connections allow is asked for without a row now."""
        asked = self._site.asked_by(life)
        again = sorted(set(asked) & before)
        if again:
            self.wrong.append(f"{life} asked for {len(again)} that it had, {again[0]} for one")
        vain = set(asked) - recorded(self._workspace)
        self._lost += sum(asked[key] for key in vain)
        in_flight = [key for key in vain if self._site.kinds[key] not in WAITING]
        if len(in_flight) > CONNECTIONS:
            self.wrong.append(f"{life} asked for {len(in_flight)} URLs in vain, with {CONNECTIONS} connections")

    def check_requests(self, asked: int, usual: int) -> None:
        print(f"requests: {asked}, and {usual} in a quiet run; {self._lost} were in flight at a kill")
        if asked - usual > self._lost:
            self.wrong.append(f"{asked - usual} requests more, of which only {self._lost} were in flight")

    def check_hits(self, kills: int) -> None:
        print(f"{self._kills.total()} kills: " + ", ".join(f"{name} {n}" for name, n in sorted(self._kills.items())))
        print("they hit: " + ", ".join(f"{name} {n}" for name, n in sorted(self._hits.items()) if n))
        if self._kills.total() < kills:
            self.wrong.append("all was done before the kills were used up")
        for work in ("download", "map stages", "merge"):
            if self._hits[work] < kills // 10:
                self.wrong.append(f"only {self._hits[work]} kills hit {work}: that proves little")


def recorded(workspace: Path) -> set[str]:
    """The samples that the download is done with, in committed shards and in journals."""
    found = set()
    for journal in workspace.glob("stages/download@*/journal/*.jsonl"):
        rows = map(json.loads, journal.read_bytes().split(b"\n")[:-1])
        found |= {row["key"] for row in rows if "key" in row}  # a retry's begins with another line
    if (workspace / "recipe.json").exists():
        opened = Workspace(workspace)
        directory = Pipeline(opened, opened.recipe(), until="download").node("download").store
        for marker in directory.markers().values():
            found |= {row["key"] for row in directory.rows(marker, ["key"])}
    return found


def differences(quiet: Path, killed: Path, site: OldWeb) -> list[str]:
    """In what two workspaces differ: rows, photos and accounts of every stage, and the pack."""
    wrong = []
    facts = [dict(facts_of(workspace, site)) for workspace in (quiet, killed)]
    for name in facts[0] | facts[1]:
        one, other = (found.get(name) for found in facts)
        if one != other:
            wrong.append(f"{name}: {one} in a quiet run, {other} here")
    if pack_bytes(quiet / "packs/train") != pack_bytes(killed / "packs/train"):
        wrong.append("the packs differ")
    print(f"{len(facts[0])} rows, photos and accounts compared")
    return wrong


def facts_of(workspace: Path, site: OldWeb) -> Any:
    """(name, fact) of every row and every account."""
    opened = Workspace(workspace)
    chain = Pipeline(opened, opened.recipe())
    for link in chain.nodes:
        for shard in [*(shard.id for shard in opened.plan().shards), MERGE_UNIT]:
            marker = link.store.marker(shard)
            if marker is None:
                continue
            photos = link.store.payloads(marker) if marker.data else None
            for row in link.store.rows(marker):
                if photos and row["size"] is not None:
                    row["photo"] = photos.read(row["offset"], row["size"])
                if site.kinds.get(row["key"]) == "down":  # which of its URLs found out that it is down is chance
                    row.update(reason="down", detail="down", final_url=None)
                yield (link.name, row["key"]), {name: value for name, value in row.items() if name not in DIFFERS}
            account = {**marker.account, "failed": Counter(marker.account["failed"])}
            account["failed"]["connection"] += account["failed"].pop("host_down", 0)
            yield (link.name, shard), account


if __name__ == "__main__":
    main()
