"""The real mxnet 1.9.1 as an oracle: our codec's bytes against its own, both ways, and every record of our packs.

    python tests/interop/mxnet_oracle.py          # in an environment with mxnet: see `make mxnet`

The packs are of the real photos in ../shared/data if they are there, else of drawn ones; they are made by the Python that
`--dataprep` names, since mxnet wants an environment of its own.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT))
if not hasattr(np, "bool"):
    vars(np)["bool"] = bool  # mxnet 1.9.1 asks for what numpy 1.24 took away

from hypothesis import given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mxnet import image, recordio  # noqa: E402

from dataprep.packs.base import FaceRecord  # noqa: E402
from dataprep.packs.rec_reader import RecordPack  # noqa: E402
from dataprep.packs.rec_writer import write_flat, write_insightface  # noqa: E402
from dataprep.packs.record_index import format_index, read_index  # noqa: E402
from dataprep.packs.recordio import (  # noqa: E402
    MAGIC,
    RecordReader,
    RecordWriter,
    encode_image_header,
    encode_scalar_header,
    unpack_image,
)

_MAGIC = struct.pack("<I", MAGIC)
# magics, pieces of magics that shift the alignment, empties, and sizes around the padding
payloads = st.lists(
    st.one_of(
        st.just(_MAGIC),
        st.sampled_from([_MAGIC[:1], _MAGIC[:2], _MAGIC[:3], _MAGIC[1:], b"", b"\0", b"abcd"]),
        st.binary(max_size=9),
        st.integers(0, 300).map(lambda n: b"x" * n),
    ),
    max_size=9,
).map(b"".join)
labels = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=6)
ids = st.integers(0, 2**64 - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataprep", default=sys.executable, help="the Python that makes the packs")
    python = parser.parse_args().dataprep
    with tempfile.TemporaryDirectory() as scratch:
        codecs = compare_codecs(Path(scratch))
        headers = compare_headers()
        layouts = compare_layouts(Path(scratch))
        print(
            f"{codecs} files and {headers} image headers: the same bytes both ways; {layouts} packs of random faces read"
        )
        read_packs(python, Path(scratch))


def compare_codecs(scratch: Path) -> int:
    """Whatever is written, by them or by us in chunks of any size, has the same bytes and is read the same."""
    done = 0

    @seed(0)
    @settings(max_examples=1500, deadline=None, database=None)
    @given(st.lists(payloads, max_size=12), st.sampled_from([8, 64, 256, 1 << 19]))
    def compare(records: list[bytes], chunk: int) -> None:
        nonlocal done
        done += 1
        theirs = recordio.MXIndexedRecordIO(str(scratch / "t.idx"), str(scratch / "t.rec"), "w")
        with open(scratch / "o.rec", "wb") as stream:
            ours = RecordWriter(stream, chunk=chunk)
            for key, record in enumerate(records):
                theirs.write_idx(key, record)
                ours.write(key, record)
            index = ours.finish()
        theirs.close()
        (scratch / "o.idx").write_bytes(format_index(index))
        for suffix in ("rec", "idx"):
            assert (scratch / f"o.{suffix}").read_bytes() == (scratch / f"t.{suffix}").read_bytes()
        assert [payload for _, payload in RecordReader(scratch / "t.rec")] == records
        reader = recordio.MXIndexedRecordIO(str(scratch / "o.idx"), str(scratch / "o.rec"), "r")
        assert [reader.read_idx(key) for key in reader.keys] == records
        offsets = read_index(scratch / "t.idx", size=max(1, (scratch / "t.rec").stat().st_size)).offsets
        assert [RecordReader(scratch / "t.rec").read_at(int(offset)) for offset in offsets] == records
        reader.close()

    compare()
    return done


def compare_headers() -> int:
    done = 0

    @seed(0)
    @settings(max_examples=1500, deadline=None, database=None)
    @given(labels, ids, ids, st.binary(max_size=20))
    def compare(values: list[float], id: int, id2: int, data: bytes) -> None:
        nonlocal done
        done += 1
        several = recordio.pack(recordio.IRHeader(0, np.array(values, np.float32), id, id2), data)
        assert encode_image_header(values, id, id2=id2) + data == several
        assert unpack_image(several) == (tuple(values), id, data, id2, len(values))
        one = recordio.pack(recordio.IRHeader(0, values[0], id, id2), data)
        assert encode_scalar_header(values[0], id, id2=id2) + data == one
        header, found = recordio.unpack(encode_image_header(values, id, id2=id2) + data)
        assert (header.label.tolist(), header.id, header.id2, found) == (values, id, id2, data)

    compare()
    return done


def compare_layouts(scratch: Path) -> int:
    """face2rec2's and im2rec's loops over mxnet's writer make the bytes that our writers make."""
    generator = np.random.default_rng(0)
    for number in range(20):
        faces = [
            FaceRecord(
                name=f"{who}/{photo}.jpg", label=who, identity=str(who), image=generator.bytes(generator.integers(90))
            )
            for who in range(generator.integers(1, 30))
            for photo in range(generator.integers(1, 6))
        ]
        for style, ours, theirs in (("i", write_insightface, face2rec2), ("f", write_flat, im2rec)):
            for side in "ot":
                (scratch / f"{style}{number}{side}").mkdir()
            ours(scratch / f"{style}{number}o", faces, height=1, width=1)
            theirs(scratch / f"{style}{number}t", faces)
            for name in ("train.rec", "train.idx"):
                assert (scratch / f"{style}{number}o" / name).read_bytes() == (
                    scratch / f"{style}{number}t" / name
                ).read_bytes()
    return 40


def face2rec2(folder: Path, faces: list[FaceRecord]) -> None:
    """What insightface's script does with a list of aligned images (src/data/face2rec2.py, read_list and write_worker)."""
    record = recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
    identities: list[list[int]] = []
    last = -1
    for key, face in enumerate(faces, 1):
        if face.label != last:
            identities.append([key, key])
            last = face.label
        identities[-1][1] = key + 1
        record.write_idx(key, recordio.pack(recordio.IRHeader(0, [float(face.label), 1.0], key, 0), face.image))
    end = len(faces) + 1
    record.write_idx(0, recordio.pack(recordio.IRHeader(0, [float(end), float(end + len(identities))], 0, 0), b""))
    for number, ends in enumerate(identities, end):
        record.write_idx(number, recordio.pack(recordio.IRHeader(0, [float(e) for e in ends], number, 0), b""))
    record.close()


def im2rec(folder: Path, faces: list[FaceRecord]) -> None:
    record = recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
    for key, face in enumerate(faces):
        record.write_idx(key, recordio.pack(recordio.IRHeader(0, float(face.label), key, 0), face.image))
    record.close()


def read_packs(python: str, scratch: Path) -> None:
    """A pack in each layout, made by the command from photos; and what our own second reader says of it."""
    source = ["folder", str(SHARED / "lfw")] if SHARED.is_dir() else ["synth", "--identities", "80", "--photos", "4"]
    run(python, scratch, "import", *source)
    run(python, scratch, "pack", "--holdout", "0.3")
    run(python, scratch, "pack", "--holdout", "0.3", "--layout", "flat", "--name", "flat", "--shuffle", "1")
    there_and_back(python, scratch)
    for name in ("train", "flat"):
        folder = scratch / "ws" / "packs" / name
        pack = RecordPack(folder)
        record = recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "r")
        if name == "train":
            check_identities(record, pack)
        for position, key in enumerate(pack.keys.tolist()):
            header, data = recordio.unpack(record.read_idx(key))
            label = np.ravel(header.label)
            assert (data, int(label[0]), header.id) == (*pack[position], key)
            assert label[1:].tolist() == ([1.0] if name == "train" else [])
            assert image.imdecode(data).shape == (112, 112, 3)
        record.close()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "dataprep", "verify", folder, "--reader", "mxnet"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "whole", done.stdout
        print(f"mxnet reads all {len(pack)} images of the {pack.layout} pack made from {source[1:2] or source}")


def there_and_back(python: str, scratch: Path) -> None:
    """The pack of photos as WebDataset shards and as a folder, and each of them as a .rec again: the same bytes."""
    pack = scratch / "ws" / "packs" / "train"
    for form in ("webdataset", "folder"):
        run(python, scratch, "unpack", str(pack), "--format", form, "--out", str(scratch / form))
        run(python, scratch, "unpack", str(scratch / form), "--format", "rec", "--out", str(scratch / f"{form}-rec"))
        for name in ("train.rec", "train.idx", "train.lst", "property", "labels.tsv"):
            assert (scratch / f"{form}-rec" / name).read_bytes() == (pack / name).read_bytes(), (form, name)
    print("rec -> webdataset -> rec and rec -> folder -> rec: the same bytes")


def check_identities(record: Any, pack: RecordPack) -> None:
    header, _ = recordio.unpack(record.read_idx(0))
    first, last = (int(value) for value in header.label)
    found = pack.labels()
    assert (first, last) == (len(pack) + 1, len(pack) + 1 + pack.num_classes)
    for identity, key in enumerate(range(first, last)):
        header, data = recordio.unpack(record.read_idx(key))
        begin, end = (int(value) for value in header.label)
        assert data == b""
        assert set(found[begin - 1 : end - 1].tolist()) == {identity}


def run(python: str, scratch: Path, *arguments: str) -> None:
    command = [python, "-m", "dataprep", "-w", str(scratch / "ws"), *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


if __name__ == "__main__":
    main()
