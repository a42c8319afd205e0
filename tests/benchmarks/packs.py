"""RecordIO, ours against mxnet's own, side by side in one process: records/s written and read at random.

    python tests/benchmarks/packs.py          # in an environment with mxnet: see `make mxnet`

The records have a JPEG's size and entropy (random bytes, 5.0 to 8.2 KB, mean 6.6 KB); 1 in 1,000 holds a magic, so that it
has to be split. Both sides write the same bytes, which is checked. Each round writes to a new file, the order changes from
round to round, and the ratio is that of the medians. Nothing is synced: both leave that to the system.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
if not hasattr(np, "bool"):
    vars(np)["bool"] = bool  # mxnet 1.9.1 asks for what numpy 1.24 took away

from mxnet import recordio

from dataprep.packs.record_index import format_index
from dataprep.packs.recordio import MAGIC, RecordReader, RecordWriter, encode_image_header
from dataprep.storage import HashedFile

Timed = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--folder", help="where to write; default: the temporary folder")
    given = parser.parse_args()
    images = make_images(given.records)
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder = Path(scratch)
        alone = {"mxnet": lambda: write_mxnet(folder, images), "dataprep": lambda: write_ours(folder, images)}
        report("codec alone", race(alone, given.rounds), given.records)
        check_equal(folder)
        written = race(
            {
                "mxnet": lambda: write_mxnet(folder, images, labelled=True),
                "dataprep": lambda: write_ours(folder, images, labelled=True),
                "dataprep with sha256 beside": lambda: write_hashed(folder, images),
                "dataprep, then sha256": lambda: write_then_hash(folder, images),
            },
            given.rounds,
        )
        report("with labels", written, given.records)
        check_equal(folder)
        order = list(range(given.records))
        random.Random(1).shuffle(order)
        read = race(
            {"mxnet": lambda: read_mxnet(folder, order), "dataprep": lambda: read_ours(folder, order)}, given.rounds
        )
        report("read at random", read, given.records)


def check_equal(folder: Path) -> None:
    for suffix in ("rec", "idx"):
        assert (folder / f"mxnet.{suffix}").read_bytes() == (folder / f"dataprep.{suffix}").read_bytes()


def make_images(count: int) -> Sequence[bytes]:
    generator = random.Random(0)
    distinct = [os.urandom(generator.randrange(5000, 8200)) for _ in range(2000)]
    for number in (500, 1500):
        distinct[number] = distinct[number][:400] + struct.pack("<I", MAGIC) + distinct[number][400:]
    return [distinct[number % 2000] for number in range(count)]


def race(runners: dict[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Seconds of each runner in each round; the order changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    names = list(runners)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds[name].append(runners[name]())
    return seconds


def report(what: str, seconds: dict[str, list[float]], records: int) -> None:
    peer = statistics.median(seconds["mxnet"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        spread = f"{records / max(times):,.0f} to {records / min(times):,.0f}"
        print(f"{what:>15}  {name:<28} {records / middle:>9,.0f} records/s ({spread})  {peer / middle:5.2f}x")


def write_mxnet(folder: Path, images: Sequence[bytes], *, labelled: bool = False) -> float:
    fresh(folder, "mxnet")
    began = time.perf_counter()
    writer = recordio.MXIndexedRecordIO(str(folder / "mxnet.idx"), str(folder / "mxnet.rec"), "w")
    for key, image in enumerate(images):
        record = recordio.pack(recordio.IRHeader(0, [7.0, 1.0], key, 0), image) if labelled else image
        writer.write_idx(key, record)
    writer.close()
    return time.perf_counter() - began


def write_ours(folder: Path, images: Sequence[bytes], *, labelled: bool = False) -> float:
    fresh(folder, "dataprep")
    began = time.perf_counter()
    with open(folder / "dataprep.rec", "wb", buffering=0) as stream:
        writer = RecordWriter(stream)
        for key, image in enumerate(images):
            writer.write(key, image, encode_image_header((7.0, 1.0), key) if labelled else b"")
        (folder / "dataprep.idx").write_bytes(format_index(writer.finish()))
    return time.perf_counter() - began


def write_hashed(folder: Path, images: Sequence[bytes]) -> float:
    fresh(folder, "hashed")
    began = time.perf_counter()
    stream = HashedFile(folder / "hashed.rec")
    writer = RecordWriter(stream)
    for key, image in enumerate(images):
        writer.write(key, image, encode_image_header((7.0, 1.0), key))
    (folder / "hashed.idx").write_bytes(format_index(writer.finish()))
    stream.close()
    return time.perf_counter() - began


def write_then_hash(folder: Path, images: Sequence[bytes]) -> float:
    seconds = write_ours(folder, images, labelled=True)
    began = time.perf_counter()
    with open(folder / "dataprep.rec", "rb") as stream:
        hashlib.file_digest(stream, "sha256")
    return seconds + time.perf_counter() - began


def fresh(folder: Path, name: str) -> None:
    for suffix in ("rec", "idx"):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    os.sync()


def read_mxnet(folder: Path, order: Sequence[int]) -> float:
    reader = recordio.MXIndexedRecordIO(str(folder / "mxnet.idx"), str(folder / "mxnet.rec"), "r")
    began = time.perf_counter()
    for key in order:
        reader.read_idx(key)
    seconds = time.perf_counter() - began
    reader.close()
    return seconds


def read_ours(folder: Path, order: Sequence[int]) -> float:
    reader = RecordReader(folder / "mxnet.rec")
    offsets = [int(line.split("\t")[1]) for line in (folder / "mxnet.idx").read_text().splitlines()]
    began = time.perf_counter()
    for position in order:
        reader.read_at(offsets[position])
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
