"""Files that are damaged, that lie, or that mean harm: always a result or a RecordError, soon and in little memory."""

import contextlib
import itertools
import json
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.command import environment
from helpers.small_faces import noise, people
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataprep.errors import DataprepError, RecordError
from dataprep.packs.base import PackFormat
from dataprep.packs.io import open_pack
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.recordio import MAGIC, decode_record, encode_image_header, encode_record
from dataprep.packs.recovery import DamagedRange, RecoveredRecord, recover_records
from dataprep.packs.tools.repair import repair_pack
from dataprep.packs.tools.verify import verify_pack

HEAD = struct.Struct("<II")
fuzz = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

# pieces of what a .rec is made of, put together in any way
pieces = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.just(struct.pack("<I", MAGIC)),
        st.builds(
            lambda cflag, size: HEAD.pack(MAGIC, cflag << 29 | size),
            st.integers(0, 7),
            st.one_of(st.integers(0, 40), st.just((1 << 29) - 1)),
        ),
        st.builds(lambda labels, id: encode_record(encode_image_header(labels, id)), st.lists(st.floats(width=32),
        max_size=3),
                  st.integers(0, 2**64 - 1)),
        st.builds(lambda payload: encode_record(payload), st.binary(max_size=40)),
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


def everything(path: Path, scratch: Path) -> None:
    """Open, read, verify and repair; each may refuse."""
    with contextlib.suppress(DataprepError):
        pack = open_pack(path)
        labels = pack.labels()
        assert len(labels) == len(pack)
        for position in range(min(len(pack), 20)):
            pack.face(position)
    verify_pack(path)
    try:
        repair_pack(path, scratch)
    except RecordError:
        assert not scratch.exists()
    else:
        assert [f.code for f in verify_pack(scratch)[1] if not f.warning] == []
        subprocess.run(["rm", "-r", scratch], check=True)


@fuzz
@given(data=pieces)
def test_salvage_covers_every_byte_and_finds_every_record_that_follows_another(data: bytes) -> None:
    end = 0
    for thing in recover_records(data):
        assert thing.offset == end
        if isinstance(thing, DamagedRange):
            assert thing.end > thing.offset
            end = thing.end
        else:
            assert isinstance(thing, RecoveredRecord)
            payload, end = decode_record(data, thing.offset)
            assert payload == thing.payload(data)
    assert end == len(data)


@fuzz
@given(data=pieces, index=st.none() | st.text(alphabet="0123456789\t\n", max_size=40))
def test_any_bytes_as_a_pack(tmp_path: Path, data: bytes, index: str | None) -> None:
    (tmp_path / "train.rec").write_bytes(data)
    if index is None:
        (tmp_path / "train.idx").unlink(missing_ok=True)
    else:
        (tmp_path / "train.idx").write_text(index)
    everything(tmp_path, tmp_path.with_name(tmp_path.name + "-new"))


@fuzz
@given(seed=st.integers(0, 2**32), edits=st.integers(1, 6))
def test_a_pack_with_any_of_its_files_edited(
    packed: Callable[..., Path], tmp_path: Path, seed: int, edits: int
) -> None:
    """Bits flipped, stretches cut, moved or doubled, in any file of a pack, of every format in turn."""
    generator = np.random.default_rng(seed)
    forms = [
        PackFormat(),
        PackFormat(record_layout="flat"),
        PackFormat(container="webdataset"),
        PackFormat(container="folder"),
        PackFormat(max_part=900),
    ]
    pack = packed(people(3, 2), f"pack{seed}-{edits}", forms[seed % 5]) if not (tmp_path / f"pack{seed}-{edits}").exists() \
        else tmp_path / f"pack{seed}-{edits}"  # fmt: skip
    files = sorted(path for path in pack.rglob("*") if path.is_file())
    for _ in range(edits):
        path = files[int(generator.integers(len(files)))]
        data = bytearray(path.read_bytes())
        a, b = sorted(generator.integers(0, len(data) + 1, 2).tolist())
        match int(generator.integers(6)):
            case 0:
                data[a : a + 1] = bytes([int(generator.integers(256))])
            case 1:
                del data[a:]
            case 2:
                del data[a:b]
            case 3:
                data[a:a] = data[a:b]
            case 4:
                data[a:b] = data[a:b][::-1]
            case 5:
                data[a : a + 8] = HEAD.pack(MAGIC, int(generator.integers(1 << 32)))
        path.write_bytes(data)
    everything(pack, tmp_path / "new")


def test_counts_and_offsets_that_lie(tmp_path: Path) -> None:
    """Negative counts, ranges that run in circles, offsets past the end, labels that are no numbers."""
    image = noise(1)
    for number, (head, ranges) in enumerate(
        itertools.product(
            [
                (-5.0, 3.0),
                (3.0, -3.0),
                (float("nan"), 4.0),
                (float("inf"), float("inf")),
                (2.0**31, 2.0**33),
                (2.0, 3.0),
            ],
            [(0.0, 0.0), (3.0, 1.0), (float("nan"), 1.0), (-1.0, 1e30)],
        )
    ):
        pack = tmp_path / str(number)
        pack.mkdir()
        records = [encode_image_header((0, 1), 1) + image, encode_image_header(head, 0), encode_image_header(ranges, 2)]
        framed = [encode_record(record) for record in records]
        (pack / "train.rec").write_bytes(b"".join(framed))
        ends = list(itertools.accumulate(map(len, framed), initial=0))
        (pack / "train.idx").write_text(f"1\t0\n0\t{ends[1]}\n2\t{ends[2]}\n")
        everything(pack, tmp_path / "new")
        codes = {finding.code for finding in verify_pack(pack)[1]}
        assert codes
        assert codes <= {"unopenable", "range"}


@pytest.mark.parametrize("label", [float("nan"), float("inf"), -1.0, 0.5, 2.0**25])
def test_labels_that_are_none(tmp_path: Path, label: float) -> None:
    (tmp_path / "train.rec").write_bytes(
        encode_record(encode_image_header((label, 1), 1) + noise(1))
        + encode_record(encode_image_header((0, 1), 2) + noise(2))
    )
    (tmp_path / "train.idx").write_text("1\t0\n2\t36\n")
    everything(tmp_path, tmp_path / "new")
    assert repair_pack(tmp_path, tmp_path / "new")["repaired_from"]["lost"] == {"header": 1}


HOSTILE = {
    # every part begins a record that is never ended: walking each of them anew would be quadratic
    "chains": b"".join(HEAD.pack(MAGIC, 1 << 29 | 8 * (4000 - n)) for n in range(4000))
    + HEAD.pack(MAGIC, 2 << 29) * 40_000,
    "lengths near 2**29": HEAD.pack(MAGIC, (1 << 29) - 1) * 50_000,
    "middles": HEAD.pack(MAGIC, 2 << 29) * 100_000,
    "magics": struct.pack("<I", MAGIC) * 200_000,
    "labels without end": encode_record(struct.pack("<IfQQ", 0xFFFFFFFF, 0, 1, 0)) * 20_000,
    "almost magics": (struct.pack("<I", MAGIC)[1:] + b"\n") * 200_000,
}

LOOK = """
import json, sys, time
from pathlib import Path
from dataprep.errors import DataprepError
from dataprep.packs.tools.repair import repair_pack
from dataprep.packs.tools.verify import verify_pack
source = Path(sys.argv[1])
before = time.process_time()
codes = [finding.code for finding in verify_pack(source)[1]]
try:
    repair_pack(source, source / "new")
except DataprepError as error:
    codes.append(str(error))
print(json.dumps({"codes": codes, "seconds": time.process_time() - before}))
"""


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("indexed", [True, False])
def test_hostile_files_cost_little(tmp_path: Path, kind: str, indexed: bool) -> None:
    """A limit on the processor's time and on memory kills what would not end."""
    (tmp_path / "train.rec").write_bytes(HOSTILE[kind])
    if indexed:
        (tmp_path / "train.idx").write_text("".join(f"{key}\t{key * 8}\n" for key in range(2000)))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    command = [sys.executable, "-c", LOOK, tmp_path]
    done = subprocess.run(
        command, preexec_fn=limit, capture_output=True, text=True, env=environment(), check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    assert json.loads(done.stdout)["codes"]


def test_a_pack_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "train.rec").write_bytes(b"")
    (tmp_path / "train.idx").write_bytes(b"")
    assert len(RecordPack(tmp_path)) == 0
    everything(tmp_path, tmp_path / "new")
