import contextlib
import io
import multiprocessing
import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.errors import RecordError
from dataprep.records import recordio
from dataprep.records.recordio import (
    RecordReader,
    RecordWriter,
    format_index,
    frame,
    pack_image,
    pack_scalar,
    read_index,
    unframe,
    unpack_image,
)

MAGIC = struct.pack("<I", recordio.MAGIC)

# written with mxnet 1.9.1 (FORMATS: golden vectors)
GOLDEN = [
    (b"", "0a23d7ce 00000000"),
    (b"abc", "0a23d7ce 03000000 61626300"),
    (b"abcde", "0a23d7ce 05000000 6162636465000000"),
    (MAGIC, "0a23d7ce 00000020 0a23d7ce 00000060"),
    (b"abcd" + MAGIC + b"ef", "0a23d7ce 04000020 61626364 0a23d7ce 02000060 65660000"),
    (MAGIC + MAGIC, "0a23d7ce 00000020 0a23d7ce 00000040 0a23d7ce 00000060"),
    (b"a" + MAGIC + b"xyz", "0a23d7ce 08000000 610a23d7ce78797a"),
    (
        pack_image([3, 1], 1, b"JPG"),
        "0a23d7ce 23000000 02000000 00000000 0100000000000000 0000000000000000 00004040 0000803f 4a504700",
    ),
    (pack_scalar(3, 1, b"JPG"), "0a23d7ce 1b000000 00000000 00004040 0100000000000000 0000000000000000 4a504700"),
]

# magics, pieces that shift their alignment, and pieces that almost are magics
payloads = st.lists(
    st.one_of(st.just(MAGIC), st.binary(max_size=9), st.sampled_from([MAGIC[:2], MAGIC[1:], b"\0"])), max_size=12
).map(b"".join)


@pytest.mark.parametrize(("payload", "framed"), GOLDEN)
def test_golden_vectors_of_mxnet(payload: bytes, framed: str) -> None:
    assert frame(payload) == bytes.fromhex(framed.replace(" ", ""))


@given(st.lists(payloads, max_size=8))
def test_what_is_written_is_read(records: list[bytes]) -> None:
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for key, record in enumerate(records):
        writer.write(key, record)
    data, offset = stream.getvalue(), 0
    assert len(data) % 4 == 0
    for (_, start), record in zip(writer.index, records, strict=True):
        assert start == offset
        payload, offset = unframe(data, offset)
        assert payload == record
    assert offset == len(data)


@given(payloads, st.data())
def test_a_cut_record_is_an_error_and_never_something_else(payload: bytes, data: st.DataObject) -> None:
    framed = frame(payload)
    without_padding = len(framed) - 3
    cut = data.draw(st.integers(0, max(0, without_padding - 1)))
    with contextlib.suppress(RecordError):
        assert unframe(framed[:cut])[0] == payload


@given(st.binary(max_size=60))
def test_noise_is_an_error(noise: bytes) -> None:
    if noise[:4] != MAGIC:
        with pytest.raises(RecordError):
            unframe(noise)


def test_the_middle_of_a_record_is_not_the_start_of_one() -> None:
    framed = frame(b"abcd" + MAGIC + b"ef")
    with pytest.raises(RecordError, match="middle of a split record"):
        unframe(framed, 12)


def test_too_long_a_payload_is_refused() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 1 << 29

    with pytest.raises(RecordError, match="at most 536870911"):
        frame(Long())


def test_labels_of_both_kinds() -> None:
    assert unpack_image(pack_image([3, 1], 7, b"J")) == ((3.0, 1.0), 7, b"J", 0)
    assert unpack_image(pack_scalar(5, 8, b"J", id2=2)) == ((5.0,), 8, b"J", 2)
    with pytest.raises(RecordError, match="24 bytes"):
        unpack_image(b"short")
    with pytest.raises(RecordError, match="1000 labels announced"):
        unpack_image(struct.pack("<IfQQ", 1000, 0, 1, 0))


def read_in_process(reader: RecordReader, offset: int, out: "multiprocessing.Queue[bytes]") -> None:
    out.put(reader.at(offset))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_serves_in_child_processes(tmp_path: Path, method: str) -> None:
    path = tmp_path / "x.rec"
    path.write_bytes(frame(b"one") + frame(b"two"))
    reader = RecordReader(path)
    assert reader.at(0) == b"one"
    context = multiprocessing.get_context(method)
    out = context.Queue()
    child = context.Process(target=read_in_process, args=(reader, 12, out))
    child.start()
    assert out.get(timeout=60) == b"two"
    child.join()
    assert pickle.loads(pickle.dumps(reader)).at(12) == b"two"


def test_an_index_is_read_and_its_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.idx"
    path.write_bytes(format_index([(1, 0), (2, 44), (0, 132)]))
    assert read_index(path) == {1: 0, 2: 44, 0: 132}
    path.write_text("1\t0\n2 44\n")
    with pytest.raises(RecordError, match="line 2"):
        read_index(path)
    path.write_text("1\t0\n1\t44\n")
    with pytest.raises(RecordError, match="twice"):
        read_index(path)
