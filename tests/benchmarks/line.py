"""The whole line, photos in a folder -> packed .rec, against the scripts that one would run today; wall-clock, side by side.

    python tests/benchmarks/line.py --facenet .venv-facenet/bin/python --mxnet .venv-mxnet/bin/python

dataprep is the real command in a fresh workspace, `import folder` and `pack -j 2` with its defaults. The peer is
peer_line.py: facenet_pytorch.MTCNN photo by photo, a similarity from its landmarks, `cv2.warpAffine`, JPEGs on disk; then
face2rec2's loop over mxnet's recordio, in an environment of its own since mxnet needs numpy 1. It runs in one process with
torch on two threads and in two processes of one thread with half of the photos each; the better counts. Both sides are
timed from the start of the first process to the end of the last one, imports included, on two cores; dataprep's modules
are compiled before, as pip does when it installs them.

Photos: LFW's 892 at 250x250; those of photos/ (WIDER FACE) as they are and once more resized to 1024x768, several copies of
each, since there are but 49; drawn ones at 1024x768. The real ones are those of ../shared/data, if they are there. Both
packs must hold the same faces with nearly the same pixels. Then it is said where dataprep's time goes: in the run, by its
own log, and per photo, by a profile.
"""

from __future__ import annotations

import argparse
import compileall
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
PEER = Path(__file__).with_name("peer_line.py")
sys.path.insert(0, str(ROOT))

from dataprep.imaging.codec import decode_image, encode_jpeg  # noqa: E402
from dataprep.packs.rec_reader import RecordPack  # noqa: E402
from dataprep.pipeline.pipeline import Pipeline  # noqa: E402
from dataprep.pipeline.progress import PlainDisplay  # noqa: E402
from dataprep.pipeline.runner import run_pipeline  # noqa: E402
from dataprep.sources.folder import FolderSource  # noqa: E402
from dataprep.synth.photos import draw_folder  # noqa: E402
from dataprep.workspace.workspace import Workspace  # noqa: E402

CORES = 2
GOALS = {"lfw": 8.0, "photos": 12.0, "synth": 12.0}
MAX_DIFFERENCE = 4.0  # mean over a face's pixels, of 255: another JPEG encoder differs by about 1
GROWING = {"detection", "all else", "pack", "the shards", "lst and pack"}
# what the profile's parts are the time of, (file, function) with all that it calls
PARTS = {
    "read": [("stages/base.py", "local_photo")],
    "decode": [("imaging/codec.py", "decode")],
    "detect": [("mtcnn/c_backend.py", "detect"), ("mtcnn/torch_backend.py", "detect")],
    "warp": [("imaging/geometry.py", "similarity"), ("imaging/geometry.py", "warp")],
    "encode": [("imaging/codec.py", "encode_jpeg")],
    "commit": [("workspace/stage_store.py", "commit")],
    "lst, pack": [("pipeline/runner.py", "_run_merges")],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of the clock and of all cores' work, and the seconds of the parts: of one process after another."""

    wall: float
    cpu: float
    parts: dict[str, float]

    @property
    def begun(self) -> float:
        """Seconds of the clock without what does not grow with the photos."""
        return sum(seconds for name, seconds in self.parts.items() if name in GROWING)

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facenet", required=True, help="a Python in which facenet_pytorch imports")
    parser.add_argument("--mxnet", required=True, help="a Python in which mxnet imports")
    parser.add_argument("--cases", default="lfw,photos,synth", help="which photos, of %(default)s")
    parser.add_argument("--drawn", type=int, default=1200, help="how many photos to draw for synth")
    parser.add_argument("--copies", type=int, default=6, help="how many copies of each of photos/")
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        help="runs of the peer's forms each, of which the best counts; dataprep has three times as many, the median counts",
    )
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    compileall.compile_dir(ROOT / "dataprep", quiet=2)
    with tempfile.TemporaryDirectory() as scratch:
        for case in options.cases.split(","):
            photos = make_photos(case, Path(scratch) / case / "photos", options)
            if photos is None:
                print(f"{case}: the real photos are not there ({SHARED}): left out")
                continue
            compare(case, photos, Path(scratch) / case, options)


def make_photos(case: str, folder: Path, options: argparse.Namespace) -> Path | None:
    """The folder with the photos of a case, ROOT/identity/photo.jpg; None if they are not there."""
    if case == "synth":
        draw_folder(folder, identities=-(-options.drawn // 10), photos=10, width=1024, height=768)
        return folder
    if not SHARED.is_dir():
        return None
    if case == "lfw":
        return SHARED / "lfw"
    for path in sorted(SHARED.glob("photos/*.jpg")):
        pixels, _ = decode_image(path.read_bytes())
        resized = np.asarray(cv2.resize(pixels, (1024, 768), interpolation=cv2.INTER_AREA), np.uint8)
        for name, data in (("as_they_are", path.read_bytes()), ("1024x768", encode_jpeg(resized))):
            for copy in range(options.copies):
                place = folder / f"{name}_{copy}" / path.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
    return folder


def compare(case: str, photos: Path, scratch: Path, options: argparse.Namespace) -> None:
    paths = [sample.path for sample in FolderSource(photos).samples()]
    ours: list[Timed] = []
    peers: dict[int, list[Timed]] = {1: [], 2: []}
    for number in range(options.rounds):
        for processes, timed in peers.items():  # in turns, so that whatever else this machine does meets both sides
            ours.append(dataprep(photos, scratch / f"ours-{number}-{processes}"))
            timed.append(peer(paths, scratch / f"peer-{number}-{processes}", processes, options))
        ours.append(dataprep(photos, scratch / f"ours-{number}-0"))
    middle = sorted(ours, key=lambda timed: timed.wall)[len(ours) // 2]
    forms = {processes: min(timed, key=lambda timed: timed.wall) for processes, timed in peers.items()}
    print(
        f"{case}: {len(paths)} photos; the median of {len(ours)} runs of dataprep, the best of {options.rounds} of each peer"
    )
    for processes, form in forms.items():
        print(f"  peer, processes: {processes}  {rate(form, len(paths))}   {form}")
    print(f"  dataprep, -j {CORES}        {rate(middle, len(paths))}")
    wall, cpu, begun = (
        min(getattr(form, what) for form in forms.values()) / getattr(middle, what) for what in ("wall", "cpu", "begun")
    )
    print(
        f"  {wall:.1f}x by the clock (goal {GOALS[case]:.0f}x), {cpu:.1f}x by the cores' work, "
        f"{begun:.1f}x by the clock once both have started",
        flush=True,
    )
    check_same(RecordPack(scratch / "ours-0-1" / "packs" / "train"), RecordPack(scratch / "peer-0-1" / "pack"))
    print(f"  the line by its own log: {middle}")
    print(f"  by a profile in one process: {profile(photos, scratch / 'profiled', len(paths))}", flush=True)


def rate(timed: Timed, photos: int) -> str:
    return f"{photos / timed.wall:7.1f} images/s ({timed.wall:6.2f} s, {timed.cpu:6.2f} s of the cores)"


def measured(work: Callable[[], dict[str, float]]) -> Timed:
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began, before = time.perf_counter(), spent()
    parts = work()
    return Timed(wall=time.perf_counter() - began, cpu=spent() - before, parts=parts)


# the two sides -----------------------------------------------------------------------------------------------------------


def dataprep(photos: Path, workspace: Path) -> Timed:
    def work() -> dict[str, float]:
        moments = [time.time()]
        for arguments in (["import", "folder", str(photos)], ["pack", "-j", str(CORES)]):
            command = [sys.executable, "-m", "dataprep", "-w", str(workspace), *arguments]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            moments.append(time.time())
        return phases(workspace, moments)

    return measured(work)


def phases(workspace: Path, moments: Sequence[float]) -> dict[str, float]:
    """What the real run spent, from the moments of its processes' starts and ends and its log of events."""
    (log,) = (workspace / "runs").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]

    def moment(event: dict[str, str]) -> float:
        return datetime.fromisoformat(event["time"]).timestamp()

    shards = [event for event in events if event["event"] == "commit" and event["stage"] == "align"]
    begins = min(moment(event) - float(event["seconds"]) for event in shards)
    marks = [*moments[:2], moment(events[0]), begins, moment(shards[-1]), moment(events[-1]), moments[2]]
    names = ["import", "start of pack", "start of its workers", "the shards", "lst and pack", "end of pack"]
    return {name: until - since for name, (since, until) in zip(names, pairwise(marks), strict=True)}


def peer(paths: Sequence[str], scratch: Path, processes: int, options: argparse.Namespace) -> Timed:
    scratch.mkdir(parents=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(CORES // processes)}

    def work() -> dict[str, float]:
        aligning = []
        for number in range(processes):
            listed = scratch / f"photos-{number}.txt"
            listed.write_text(
                "\n".join(paths[number * len(paths) // processes : (number + 1) * len(paths) // processes])
            )
            command = [
                options.facenet,
                str(PEER),
                "align",
                str(listed),
                str(scratch / "faces"),
                str(CORES // processes),
            ]
            aligning.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        said = [process.communicate()[0] for process in aligning]
        assert not any(process.returncode for process in aligning), "the peer failed"
        lists = [str(scratch / f"photos-{number}.lst") for number in range(processes)]
        command = [options.mxnet, "-W", "ignore", str(PEER), "pack", str(scratch / "pack"), *lists]
        packed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        slowest = max(map(json.loads, said), key=lambda parts: sum(parts.values()))
        return {**slowest, **json.loads(packed.stdout)}

    return measured(work)


# what came of it ---------------------------------------------------------------------------------------------------------


def check_same(ours: RecordPack, theirs: RecordPack) -> None:
    """The same photos in both packs, and the same faces of them."""
    faces = [
        {pack.name(i, label).rpartition(".")[0]: image for i, (image, label) in enumerate(pack)}
        for pack in (ours, theirs)
    ]
    missing, more = (sorted(set(faces[1 - side]) - set(faces[side])) for side in (0, 1))
    both = sorted(set(faces[0]) & set(faces[1]))
    pixels = ([decode_image(side[name])[0].astype(np.float32) for side in faces] for name in both)
    differences = np.array([np.abs(one - other).mean() for one, other in pixels])
    others = [name for name, difference in zip(both, differences, strict=True) if difference > MAX_DIFFERENCE]
    print(
        f"  {len(faces[0])} faces packed, {len(faces[1])} by the peer; pixels differ by {np.median(differences):.2f} of 255 "
        f"(99 %: {np.percentile(differences, 99):.2f}); by more than {MAX_DIFFERENCE:.0f}: {others or 'none'}; "
        f"only the peer's: {missing or 'none'}; only dataprep's: {more or 'none'}"
    )
    assert len(missing) + len(more) + len(others) <= 0.01 * len(both), "the two sides do not pack the same faces"


def profile(photos: Path, workspace: Path, count: int) -> str:
    """Milliseconds a photo of each part of the run, all in this process."""
    plan = Workspace(workspace, create=True).plan()
    source = FolderSource(photos)
    plan.add(source.describe(), source.digest(), source.samples())
    cv2.setNumThreads(1)
    profiler = cProfile.Profile()
    with open(os.devnull, "w") as nowhere:
        profiler.runcall(run_pipeline, Pipeline(Workspace(workspace), {}), jobs=0, display=PlainDisplay(nowhere))
    stats = pstats.Stats(profiler)
    spent = dict.fromkeys(PARTS, 0.0)
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        for part, places in PARTS.items():
            if any(file.endswith(end) and function == name for end, name in places):
                spent[part] += cumulative
    every = {**spent, "all else": stats.total_tt - sum(spent.values())}  # type: ignore[attr-defined]
    return ", ".join(f"{part} {1000 * seconds / count:.2f}" for part, seconds in every.items()) + " ms a photo"


if __name__ == "__main__":
    main()
