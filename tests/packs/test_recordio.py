import contextlib
import io
import multiprocessing
import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.errors import RecordError, WorkspaceError
from dataprep.packs import recordio
from dataprep.packs.recordio import (
    RecordReader,
    RecordWriter,
    decode_record,
    encode_image_header,
    encode_record,
    encode_scalar_header,
    read_stream,
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
        encode_image_header([3, 1], 1) + b"JPG",
        "0a23d7ce 23000000 02000000 00000000 0100000000000000 0000000000000000 00004040 0000803f 4a504700",
    ),
    (
        encode_scalar_header(3, 1) + b"JPG",
        "0a23d7ce 1b000000 00000000 00004040 0100000000000000 0000000000000000 4a504700",
    ),
]

# magics, pieces that shift their alignment, and pieces that almost are magics
payloads = st.lists(
    st.one_of(st.just(MAGIC), st.binary(max_size=9), st.sampled_from([MAGIC[:2], MAGIC[1:], b"\0"])), max_size=12
).map(b"".join)


@pytest.mark.parametrize(("payload", "framed"), GOLDEN)
def test_golden_vectors_of_mxnet(payload: bytes, framed: str) -> None:
    assert encode_record(payload) == bytes.fromhex(framed.replace(" ", ""))


@given(st.lists(payloads, max_size=12), st.sampled_from([8, 64, 1 << 19]), st.integers(0, 30))
def test_what_is_written_is_read(records: list[bytes], chunk: int, cut: int) -> None:
    stream = io.BytesIO()
    writer = RecordWriter(stream, chunk=chunk)
    for key, record in enumerate(records):
        writer.write(key, record[cut:], record[:cut])
    index = writer.finish()
    data, offset = stream.getvalue(), 0
    assert data == b"".join(map(encode_record, records))
    assert index.keys.tolist() == list(range(len(records)))
    for start, record in zip(index.offsets.tolist(), records, strict=True):
        assert start == offset
        payload, offset = decode_record(data, offset)
        assert payload == record
    assert offset == len(data) == writer.position


class Dripping(io.RawIOBase):
    """A pipe that gives a few bytes at a time, and cannot seek."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = io.BytesIO(data), step

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, self._step))


@given(st.lists(payloads, max_size=8), st.integers(1, 40))
def test_a_stream_is_read_whatever_the_blocks(records: list[bytes], step: int) -> None:
    data = b"".join(map(encode_record, records))
    found = list(read_stream(Dripping(data, step), block=16))  # type: ignore[arg-type]
    assert [payload for _, payload in found] == records
    assert all(data[offset : offset + 4] == MAGIC for offset, _ in found)


@given(st.lists(payloads, min_size=1, max_size=5), st.integers(4, 60))
def test_a_cut_stream_gives_its_whole_records_and_then_an_error(records: list[bytes], cut: int) -> None:
    data = b"".join(map(encode_record, records))
    kept = max(0, len(data) - cut)
    found = []
    with contextlib.suppress(RecordError):
        for _, payload in read_stream(io.BytesIO(data[:kept]), block=16):
            found.append(payload)
    assert found == records[: len(found)]
    assert len(b"".join(map(encode_record, found))) <= kept + 3


def test_records_go_to_and_come_from_urls() -> None:
    import fsspec

    with fsspec.open("memory://packs/x.rec", "wb") as stream:
        writer = RecordWriter(stream)
        for key in range(100):
            writer.write(key, b"x" * key + MAGIC * (key % 3))
        writer.finish()
    with fsspec.open("memory://packs/x.rec", "rb") as stream:
        assert len(list(read_stream(stream))) == 100
    assert RecordReader("memory://packs/x.rec").read_at(0) == b""
    with pytest.raises(WorkspaceError, match="memory://packs/missing"):
        RecordReader("memory://packs/missing.rec")


@given(payloads, st.data())
def test_a_cut_record_is_an_error_and_never_something_else(payload: bytes, data: st.DataObject) -> None:
    framed = encode_record(payload)
    without_padding = len(framed) - 3
    cut = data.draw(st.integers(0, max(0, without_padding - 1)))
    with contextlib.suppress(RecordError):
        assert decode_record(framed[:cut])[0] == payload


@given(st.binary(max_size=60))
def test_noise_is_an_error(noise: bytes) -> None:
    if noise[:4] != MAGIC:
        with pytest.raises(RecordError):
            decode_record(noise)


def test_the_middle_of_a_record_is_not_the_start_of_one() -> None:
    framed = encode_record(b"abcd" + MAGIC + b"ef")
    with pytest.raises(RecordError, match="middle of a split record"):
        decode_record(framed, 12)


def test_too_long_a_payload_is_refused() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 1 << 29

    with pytest.raises(RecordError, match="at most 536870911"):
        encode_record(Long())


def test_labels_of_both_kinds() -> None:
    assert unpack_image(encode_image_header([3, 1], 7) + b"J") == ((3.0, 1.0), 7, b"J", 0, 2)
    assert unpack_image(encode_scalar_header(5, 8, id2=2) + b"J") == ((5.0,), 8, b"J", 2, 0)
    with pytest.raises(RecordError, match="24 bytes"):
        unpack_image(b"short")
    with pytest.raises(RecordError, match="1000 labels announced"):
        unpack_image(struct.pack("<IfQQ", 1000, 0, 1, 0))


def read_in_process(reader: RecordReader, offset: int, out: "multiprocessing.Queue[bytes]") -> None:
    out.put(reader.read_at(offset))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_serves_in_child_processes(tmp_path: Path, method: str) -> None:
    path = tmp_path / "x.rec"
    path.write_bytes(encode_record(b"one") + encode_record(b"two"))
    reader = RecordReader(path)
    assert reader.read_at(0) == b"one"
    context = multiprocessing.get_context(method)
    out = context.Queue()
    child = context.Process(target=read_in_process, args=(reader, 12, out))
    child.start()
    assert out.get(timeout=60) == b"two"
    child.join()
    assert pickle.loads(pickle.dumps(reader)).read_at(12) == b"two"
