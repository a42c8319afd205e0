"""The loader against those of the replaced trainers: images/s of 112x112 faces, side by side.

    python tests/benchmarks/loader.py --mxnet .venv-mxnet/bin/python

Peers, by peer_loader.py in an environment of their own: `mx.io.ImageRecordIter` with preprocess_threads=2, and
arcface_torch's `MXFaceDataset` in a DataLoader of 2 workers. All give batches of 128, flipped at random and normalised,
as float32. On two cores ImageRecordIter takes one thread for decoding whatever it is told (half of the cores, less one), so
it also runs twice, in two processes with half of the file each; the better counts. Ours decodes in 2 processes, and
its own process takes the batches; as float32 in either layout, and as uint8, whose normalisation is the device's work.

JPEG at quality 95: real faces where ../shared/data is, aligned by `dataprep align`, else drawn ones, repeated to
--images. ImageRecordIter reads them from a flat .rec in the order of the file (it takes neither record 0 nor two labels);
the others shuffle. Everything runs on the same two cores. Rounds take turns, each an epoch; medians. The
cores' work per image says the same where others disturb the clock. Then it is said what a face costs, step by step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
PEER = Path(__file__).with_name("peer_loader.py")
sys.path.insert(0, str(ROOT))

from dataprep.imaging.codec import decode_face, decode_image, encode_jpeg  # noqa: E402
from dataprep.imaging.geometry import estimate_similarity, scale_template, warp_image  # noqa: E402
from dataprep.models.preprocessing import Preprocessing  # noqa: E402
from dataprep.packs.base import FaceRecord  # noqa: E402
from dataprep.packs.rec_reader import RecordPack  # noqa: E402
from dataprep.packs.rec_writer import write_flat, write_insightface  # noqa: E402
from dataprep.synth.photos import draw_photo  # noqa: E402
from dataprep.train.data.dataset import PackDataset, open_dataset  # noqa: E402
from dataprep.train.data.loader import close_workers, iterate_batches, normalise_batch  # noqa: E402

BATCH = 128
CORES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mxnet", required=True, help="a Python in which mxnet, torch and torchvision import")
    parser.add_argument("--images", type=int, default=10_240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pack", type=Path, help="faces of 112x112 to take instead of drawn or aligned ones")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        images = make_faces(Path(scratch), options.pack)
        print(f"{len(images)} faces, {np.mean([len(image) for image in images]):,.0f} bytes each on average")
        faces = [
            FaceRecord(name=f"{i % 100}/{i}.jpg", label=label, identity=str(label), image=images[i % len(images)])
            for i in range(options.images)
            for label in [i * 100 // options.images]
        ]
        for name, writer in (("pack", write_insightface), ("flat", write_flat)):
            (Path(scratch) / name).mkdir()
            writer(Path(scratch) / name, faces, height=112, width=112)
        race(Path(scratch), options)
        costs(RecordPack(Path(scratch) / "pack"))


def make_faces(scratch: Path, pack: Path | None) -> list[bytes]:
    if pack:
        opened = RecordPack(pack)
        return list(dict.fromkeys(opened[i][0] for i in range(len(opened))))
    if SHARED.is_dir():
        for arguments in (
            ("import", "folder", SHARED / "lfw"),
            ("align", "--size", "112"),
            ("export", "--format", "folder", scratch / "faces"),
        ):
            command = [sys.executable, "-m", "dataprep", "-w", str(scratch / "ws"), *map(str, arguments)]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        found = sorted((scratch / "faces").glob("*/*.jpg"))
        return [encode_jpeg(decode_image(path.read_bytes())[0], quality=95) for path in found]
    drawn = [draw_photo(identity, photo) for identity in range(50) for photo in range(5)]
    return [
        encode_jpeg(warp_image(each.pixels, estimate_similarity(each.landmarks, scale_template(112, 112)), 112, 112))
        for each in drawn
    ]


class Peer:
    """peer_loader.py, once or several times beside each other; a round is over when the last one is."""

    def __init__(self, python: str, *jobs: Sequence[object]) -> None:
        self._processes = [
            subprocess.Popen(
                [python, "-W", "ignore", str(PEER), *map(str, job)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"},
            )
            for job in jobs
        ]  # fmt: skip
        for process in self._processes:
            assert process.stdout
            while (line := process.stdout.readline()) != "ready\n":
                assert line, "the peer did not begin"

    def __call__(self) -> tuple[int, float, float]:
        before = sum(cpu(process.pid) for process in self._processes)
        for process in self._processes:
            print("go", file=process.stdin, flush=True)
        answers = [process.stdout.readline().split() for process in self._processes]
        work = sum(cpu(process.pid) for process in self._processes) - before
        return sum(int(count) for count, _ in answers), max(float(seconds) for _, seconds in answers), work

    def close(self) -> None:
        for process in self._processes:
            process.communicate()


def race(folder: Path, options: argparse.Namespace) -> None:
    source = open_dataset([folder / "pack"])
    flat = folder / "flat" / "train.rec"
    peers = {
        "ImageRecordIter": Peer(options.mxnet, ("iter", flat, 0, 1)),
        "ImageRecordIter twice": Peer(options.mxnet, ("iter", flat, 0, 2), ("iter", flat, 1, 2)),
        "MXFaceDataset": Peer(options.mxnet, ("dataset", folder / "pack")),
    }
    ours: dict[str, Callable[[], tuple[int, float, float]]] = {
        "float32": lambda: epoch(source, "float32"),
        "float32, planes": lambda: epoch(source, "float32", lambda batch: batch.contiguous()),
        "uint8": lambda: epoch(source, "uint8"),
        "uint8, normalised here": lambda: epoch(source, "uint8", lambda batch: normalise_batch(batch, Preprocessing())),
    }
    runners = {**peers, **ours}
    found: dict[str, list[tuple[int, float, float]]] = {name: [] for name in runners}
    names = list(runners)
    for number in range(-1, options.rounds):  # the first one warms up
        for name in names[number % len(names) :] + names[: number % len(names)]:
            result = runners[name]()
            if name in ours:
                close_workers(source)  # a process that stays would be counted, and idle ones too
            if number >= 0:
                found[name].append(result)
    for peer in peers.values():
        peer.close()
    rates = {name: statistics.median(count / seconds for count, seconds, _ in each) for name, each in found.items()}
    works = {name: statistics.median(work / count for count, _, work in each) for name, each in found.items()}
    best = max(("ImageRecordIter", "ImageRecordIter twice"), key=rates.__getitem__)
    print(f"{'':24} {'images/s':>9} {'(lowest to highest)':>21} {'core us/image':>14} {best:>24} {'MXFaceDataset':>14}")
    for name, each in found.items():
        every = sorted(count / seconds for count, seconds, _ in each)
        print(
            f"{name:24} {rates[name]:9,.0f} {f'({every[0]:,.0f} to {every[-1]:,.0f})':>21} {works[name] * 1e6:14.0f} "
            f"{rates[name] / rates[best]:23.2f}x {rates[name] / rates['MXFaceDataset']:13.2f}x"
        )
    for name, peer, goal in (("float32", best, 1.5), ("uint8", best, 2.0), ("float32", "MXFaceDataset", 4.0)):
        ratio = rates[name] / rates[peer]
        print(f"{name} against {peer}: {ratio:.2f}x, aimed at {goal}x: {'met' if ratio >= goal else 'MISSED'}")


def epoch(
    source: PackDataset, dtype: str, after: Callable[[torch.Tensor], torch.Tensor] = lambda batch: batch
) -> tuple[int, float, float]:
    """Images, seconds and seconds of work of an epoch; the processes have begun before."""
    settings = {"batch_size": BATCH, "seed": 0, "workers": 2, "dtype": dtype}
    warm = iterate_batches(source, Preprocessing(), epoch=0, skip=len(source) // BATCH - 4, **settings)
    for _ in warm:
        pass
    work, began, count = cpu(os.getpid()), time.perf_counter(), 0
    for images, _ in iterate_batches(source, Preprocessing(), epoch=1, skip=0, **settings):
        count += len(after(images))
    return count, time.perf_counter() - began, cpu(os.getpid()) - work


def cpu(pid: int) -> float:
    """Seconds of work of a process and its children, those that have ended and those that have not."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == pid:
            total += sum(map(int, fields[11:15]))
        elif int(fields[1]) == pid:
            total += sum(map(int, fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def costs(pack: RecordPack) -> None:
    """What a face costs, in microseconds of one core: the least of some passes."""
    from PIL import Image  # noqa: F401

    data = [pack[i][0] for i in range(0, len(pack), max(1, len(pack) // 1000))]
    pixels = decode_face(data[0])
    table = np.zeros((1, 256, 3), np.float32)
    floats = np.empty((112, 112, 3), np.float32)
    planes = np.empty((3, 112, 112), np.float32)
    arrays = [np.frombuffer(image, np.uint8) for image in data]
    print("what a face costs, in microseconds of one core")
    for name, step in {
        "read a record": lambda i: pack[i],
        "decode: OpenCV alone": lambda i: cv2.imdecode(arrays[i], cv2.IMREAD_COLOR),
        "decode: decode_face": lambda i: decode_face(data[i]),
        "decode: Pillow, as decode": lambda i: decode_image(data[i]),
        "mirror": lambda i: cv2.flip(pixels, 1),
        "normalise by a table": lambda i: cv2.LUT(pixels, table, dst=floats),
        "normalise by numpy": lambda i: (pixels - np.float32(127.5)) / np.float32(127.5),
        "turn into planes": lambda i: np.copyto(planes, floats.transpose(2, 0, 1)),
    }.items():
        best = np.inf
        for _ in range(5):
            began = time.perf_counter()
            for i in range(len(data)):
                step(i)
            best = min(best, (time.perf_counter() - began) / len(data))
        print(f"  {name:28} {best * 1e6:7.1f}")


if __name__ == "__main__":
    main()
