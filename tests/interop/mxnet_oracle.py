"""The real mxnet 1.9.1 on our packs: every record of a pack read, and our codec's bytes against its own, both ways.

    python tests/interop/mxnet_oracle.py --python .venv-mxnet/bin/python

The pack is made of the real photos in ../shared/data/lfw if they are there, else of drawn ones.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT))

from dataprep.records.pack import Pack  # noqa: E402
from dataprep.records.recordio import MAGIC, RecordReader, RecordWriter, format_index, pack_image, read_index  # noqa: E402

READ = """
import json, sys
import mxnet as mx
from mxnet import recordio
folder = sys.argv[1]
record = recordio.MXIndexedRecordIO(folder + "/train.idx", folder + "/train.rec", "r")
header, _ = recordio.unpack(record.read_idx(0))
images, last = int(header.label[0]), int(header.label[1])
out = {"images": [], "ranges": []}
for key in range(1, images):
    header, image = recordio.unpack(record.read_idx(key))
    pixels = mx.image.imdecode(image).asnumpy()
    out["images"].append([int(header.label[0]), int(header.label[1]), header.id, list(pixels.shape), len(image)])
for key in range(images, last):
    header, image = recordio.unpack(record.read_idx(key))
    out["ranges"].append([int(header.label[0]), int(header.label[1]), len(image)])
print(json.dumps(out))
"""

COPY = """
import sys
from mxnet import recordio
source, target = sys.argv[1:]
reader = recordio.MXIndexedRecordIO(source + ".idx", source + ".rec", "r")
writer = recordio.MXIndexedRecordIO(target + ".idx", target + ".rec", "w")
for key in reader.keys:
    writer.write_idx(key, reader.read_idx(key))
writer.close()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="a Python in which mxnet 1.9.1 imports")
    python = parser.parse_args().python
    with tempfile.TemporaryDirectory() as scratch:
        compare_codecs(python, Path(scratch))
        read_pack(python, Path(scratch) / "ws")


def compare_codecs(python: str, scratch: Path) -> None:
    """Payloads of magics, almost-magics and every padding: what we write mxnet copies to the same bytes."""
    generator = random.Random(0)
    magic = struct.pack("<I", MAGIC)
    pieces = [magic, magic[:2], magic[1:], b"", b"\0", b"a", b"abc", b"abcd"]
    with open(scratch / "ours.rec", "wb") as stream:
        writer = RecordWriter(stream)
        for key in range(3000):
            payload = b"".join(generator.choice(pieces) for _ in range(generator.randrange(9)))
            writer.write(key, pack_image([1, 2], key, payload) if key % 3 == 0 else payload)
    (scratch / "ours.idx").write_bytes(format_index(writer.index))
    subprocess.run([python, "-W", "ignore", "-c", COPY, scratch / "ours", scratch / "theirs"], check=True)
    assert (scratch / "ours.rec").read_bytes() == (scratch / "theirs.rec").read_bytes()
    assert read_index(scratch / "ours.idx") == read_index(scratch / "theirs.idx")
    ours, theirs = (list(RecordReader(scratch / f"{name}.rec")) for name in ("ours", "theirs"))
    assert ours == theirs
    print(f"{len(ours)} records: mxnet reads ours and writes the same bytes, and we read its file the same")


def read_pack(python: str, workspace: Path) -> None:
    source = ["folder", str(SHARED / "lfw")] if SHARED.is_dir() else ["synth", "--identities", "80", "--photos", "4"]
    for arguments in (["import", *source], ["pack", "--holdout", "0.3"]):
        subprocess.run(
            [sys.executable, "-m", "dataprep", "-w", workspace, *arguments], cwd=ROOT, check=True, capture_output=True
        )
    folder = workspace / "packs" / "train"
    done = subprocess.run([python, "-W", "ignore", "-c", READ, folder], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    pack = Pack(folder)
    assert [[label, len(image)] for image, label in pack] == [[row[0], row[4]] for row in found["images"]]
    assert all(row[1] == 1 and row[2] == key for key, row in enumerate(found["images"], 1))
    assert {tuple(row[3]) for row in found["images"]} == {(112, 112, 3)}
    labels = pack.labels().tolist()
    for identity, (first, end, size) in enumerate(found["ranges"]):
        assert size == 0
        assert {labels[key - 1] for key in range(first, end)} == {identity}
    assert len(found["ranges"]) == pack.num_classes
    print(
        f"mxnet reads all {len(pack)} images and {pack.num_classes} identities of the pack made from {source[1:2] or source}"
    )


if __name__ == "__main__":
    main()
