"""A workspace of the real lists' size: seconds and peak memory of every step that looks at all of it at once.

    python tests/benchmarks/scale.py                      # 2,604,849 URLs on 124,451 hosts, 2,622 people, as VGG-Face has
    python tests/benchmarks/scale.py --samples 200000 --folder scratch/    # smaller; --folder keeps what was made

The lists are made up in the release's format, the verdicts too (half of the URLs dead), and committed by the code that
commits real ones; no photo exists, and no request is made. Each step is a process of its own, its memory the peak of its
resident set. Seconds include the start of the interpreter; those on a processor are what the limits are about, so that a
machine that others use too gives the same answer.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SAMPLES, HOSTS, PEOPLE = 2_604_849, 124_451, 2_622
MEMORY = 500  # MB, for every step
FACE = 64  # bytes of a made-up aligned face, all of them zeros


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--folder", type=Path, help="where to make it, and keep it; default: a temporary folder")
    parser.add_argument("--only", help="these steps, separated by commas, in a folder that has what they need")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        STEPS[given.step][0](given.folder)
        return
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_lists(folder / "lists", given.samples)
        names = given.only.split(",") if given.only else list(STEPS)
        results = [(name, *measured(name, folder)) for name in names]
    share = given.samples / SAMPLES
    print(f"\n{given.samples} URLs\n{'step':<16} {'seconds':>8} {'of CPU':>8} {'at most':>8} {'MB':>6} {'at most':>8}")
    for name, seconds, busy, megabytes in results:
        goal = STEPS[name][1]
        line = f"{name:<16} {seconds:8.1f} {busy:8.1f}"
        if goal is None:
            print(f"{line} {'':>8} {megabytes:6.0f}")
            continue
        most = max(1.5, goal * share)
        late = "  MISSED" if busy > most or megabytes > MEMORY else ""
        print(f"{line} {most:8.1f} {megabytes:6.0f} {MEMORY:8}{late}")


def measured(step: str, folder: Path) -> tuple[float, float, float]:
    """Seconds of a step in a process of its own, those of them on a processor, and the peak of its resident set in MB."""
    print(f"--- {step}", flush=True)
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, "--step", step, "--folder", str(folder)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{step} failed")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def write_lists(folder: Path, samples: int) -> None:
    """Lists as VGG-Face's, a few hosts with thousands of photos and most of the others with a handful."""
    if folder.is_dir():
        return
    generator = random.Random(1)
    hosts = max(1, HOSTS * samples // SAMPLES)
    people = max(2, PEOPLE * samples // SAMPLES)
    folder.mkdir(parents=True)
    for person in range(people):
        count = samples // people + (person < samples % people)
        with open(folder / f"Person_{person:04d}.txt", "w") as out:
            for number in range(1, count + 1):
                host = int(hosts * generator.random() ** 3)
                path = f"{generator.getrandbits(64):016x}/wp-content/uploads/2013/{generator.getrandbits(32):08x}.jpg"
                out.write(f"{number:08d} http://www.host{host:06d}.example/{path} 38.25 51.50 {number % 400 + 90}.75 "
                          f"{number % 300 + 99}.00 1.00 2.{number % 100:02d} {number % 2}\n")  # fmt: skip


# the steps, each in a process of its own ------------------------------------------------------------------------------


def plan(folder: Path) -> None:
    from dataprep.cli._sources import add_source
    from dataprep.sources.vggface import VggFaceSource

    add_source(str(folder / "ws"), VggFaceSource(folder / "lists"))


def plan_grown(folder: Path) -> None:
    """The same lists with one more line in a hundred, in a copy of the plan."""
    from dataprep.cli._sources import add_source
    from dataprep.sources.vggface import VggFaceSource

    add_source(str(folder / "ws-grown"), VggFaceSource(folder / "lists-grown"))


def grow(folder: Path) -> None:
    shutil.rmtree(folder / "ws-grown", ignore_errors=True)
    shutil.copytree(folder / "ws/plan", folder / "ws-grown/plan")
    shutil.copy(folder / "ws/dataprep.json", folder / "ws-grown")
    (folder / "lists-grown").mkdir(exist_ok=True)
    for path in (folder / "lists").iterdir():
        lines = path.read_text().splitlines()
        more = [f"9{line[1:9]}http://new.example/{line[16:]}" for line in lines[::100]]
        (folder / "lists-grown" / path.name).write_text("\n".join([*lines, *more]) + "\n")


def start(folder: Path) -> None:
    """A run up to the moment in which requests could go out: the first 20 shards are open."""
    from dataprep.pipeline import runner
    from dataprep.pipeline.pipeline import Pipeline
    from dataprep.stages.download import DownloadStage
    from dataprep.workspace.workspace import Workspace

    async def open_some(self: DownloadStage, shards: Iterator[Any], hooks: Any, stop: Any) -> None:
        for shard in list(itertools.islice(shards, 20)):
            shard.journal.close()
        stop.set()

    DownloadStage.process = open_some  # type: ignore[method-assign]
    with contextlib.suppress(runner.Interrupted):
        runner.run_pipeline(Pipeline(Workspace(folder / "ws"), {}, until="download"), jobs=0)


def commit_all(folder: Path) -> None:
    """Ledgers of every shard at every map stage, half of the photos dead on the way; goes on where it was stopped."""
    import numpy as np
    import pyarrow as pa

    from dataprep.pipeline.pipeline import Pipeline
    from dataprep.reasons import Reason
    from dataprep.workspace import ledger
    from dataprep.workspace.workspace import Workspace

    workspace = Workspace(folder / "ws")
    chain = Pipeline(workspace, {})
    workspace.write_recipe(chain.recipe())
    dead = [Reason.HTTP_404] * 6 + [Reason.DNS] * 3 + [Reason.CONNECTION, Reason.TIMEOUT, Reason.HTML]
    opened = workspace.plan()
    for shard in opened.shards:
        if chain.node("align").store.marker(shard.id):
            continue
        generator = np.random.default_rng(int(shard.id.rpartition("-")[2]))
        coming = opened._table(shard, ["key", "identity", "url", "box"])
        upstream = shard.digest
        for link in [chain.node("download"), *chain.map_nodes]:
            count = len(coming)
            losses = {"download": (0.48, dead), "detect": (0.03, [Reason.NO_FACE])}
            share, reasons = losses.get(link.name, (0.0, dead))
            lost = generator.random(count) < share
            drawn = generator.integers(len(reasons), size=count)
            why = [reasons[n] if gone else None for n, gone in zip(drawn, lost, strict=True)]
            verdicts, codes = [r.verdict if r else "ok" for r in why], [r.code if r else None for r in why]
            columns = {"key": coming["key"], "identity": coming["identity"], "verdict": verdicts, "reason": codes,
                       "detail": [""] * count, **made_up(link.name, coming, generator)}  # fmt: skip
            table = ledger.add_missing_columns(pa.table(columns), link.stage.columns)
            digest = hashlib.sha256(f"{link.name} {shard.id}".encode()).hexdigest()
            data = None
            if link.name == "align":
                path = link.store.folder / f"data/{shard.id}.made"
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as stream:
                    stream.truncate(count * FACE)
                data = (path, digest)
            link.store._commit(shard.id, table, digest, data=data, upstream=upstream, seconds=1.0, extra=None)
            upstream, coming = digest, coming.filter(pa.array(~lost))


def made_up(stage: str, coming: Any, generator: Any) -> dict[str, Any]:
    """What a stage would have found; one photo in thirty is one of 20,000 that turn up again and again."""
    import numpy as np

    count = len(coming)

    def hashes() -> list[str]:
        whole = generator.bytes(32 * count).hex()
        return [whole[64 * at : 64 * at + 64] for at in range(count)]

    def place(size: int) -> dict[str, Any]:
        return {"offset": np.arange(count) * size, "size": np.full(count, size), "sha256": hashes()}

    if stage == "download":
        seconds = generator.random(count)
        return {"url": coming["url"], "status": np.full(count, 200), "attempts": np.full(count, 1), "seconds": seconds,
                **place(17_000)}  # fmt: skip
    if stage == "validate":
        photos = hashes()
        for at in np.flatnonzero(generator.random(count) < 1 / 30):
            photos[at] = hashlib.sha256(b"%d" % generator.integers(20_000)).hexdigest()
        return {"width": np.full(count, 640), "height": np.full(count, 480), "photo_sha256": photos}
    if stage == "detect":
        return {"faces": np.full(count, 1), "landmarks": list(generator.random((count, 10)) * 90 + 80),
                "selected": np.zeros(count, np.int64)}  # fmt: skip
    if stage == "align":
        return {"scale": generator.random(count), "matrix": list(generator.random((count, 6))), **place(FACE)}
    return {"box": coming["box"]} if stage == "crop" else {}


def command(*arguments: str) -> Callable[[Path], None]:
    def step(folder: Path) -> None:
        from dataprep.cli.main import main as dataprep

        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
        dataprep(["-w", str(folder / "ws"), *arguments])

    return step


def retry(folder: Path) -> None:
    command("retry", "--reason", "timeout")(folder)


def forget_retry(folder: Path) -> None:
    for path in (folder / "ws/stages").glob("*/retry"):
        shutil.rmtree(path)


def pack(folder: Path) -> None:
    """Up to the ten-thousandth face; the format's own writing is measured elsewhere."""
    from dataprep.stages import pack as stage

    def first_faces(target: Path, faces: Iterator[Any], **_: Any) -> dict[str, Any]:
        assert sum(1 for _ in itertools.islice(faces, 10_000)) == 10_000
        os._exit(0)

    stage.write_pack = first_faces
    command("pack", "-j", "0")(folder)


# by name: what to do, and how many seconds of one core the full size may take; None for what is only preparation
STEPS: dict[str, tuple[Callable[[Path], None], float | None]] = {
    "plan": (plan, 40),
    "plan again": (plan, 3),
    "grow": (grow, None),
    "plan grown": (plan_grown, 60),
    "start": (start, 5),
    "commit all": (commit_all, None),
    "status": (command("status"), 3),
    "status --hosts": (command("status", "--hosts", "20"), 30),
    "status --json": (command("status", "--json"), 3),
    "status --why": (command("status", "--why"), 3),
    "retry": (retry, 5),
    "status retries": (command("status", "--why"), 3),
    "forget": (forget_retry, None),
    "lst": (command("lst", "-j", "0"), 30),
    "pack": (pack, 10),
}

if __name__ == "__main__":
    main()
