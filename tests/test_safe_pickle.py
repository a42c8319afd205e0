import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dataprep.errors import RecordError
from dataprep.packs.verification_bin import count_bin_elements, read_bin, write_bin

IMAGES = [b"\xff\xd8one", b"\xff\xd8two", b"\xff\xd8three", b"\xff\xd8four"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("answers", [list, np.array, lambda same: [np.bool_(s) for s in same]])
def test_arrays_are_read_from_every_pickle_protocol(
    tmp_path: Path, protocol: int, column: bool, answers: object
) -> None:
    arrays = [np.frombuffer(image, np.uint8) for image in IMAGES]
    if column:  # as older OpenCV's imencode returns them
        arrays = [array[:, None].copy() for array in arrays]
    assert callable(answers)
    (tmp_path / "x.bin").write_bytes(pickle.dumps((arrays, answers([True, False])), protocol=protocol))
    images, same = read_bin(tmp_path / "x.bin")
    assert images == IMAGES
    assert same.tolist() == [True, False]
    assert count_bin_elements(tmp_path / "x.bin") == {"ndarray": 4}


@pytest.mark.parametrize("protocol", range(6))
def test_bytes_are_read_from_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES, (True, False)), protocol=protocol))
    assert read_bin(tmp_path / "x.bin")[0] == IMAGES


def test_a_python_2_pickle_of_protocol_2_is_read(tmp_path: Path) -> None:
    """Laid out by hand as cPickle.dump((bins, issame), f, 2) of Python 2.7 does: str by SHORT_BINSTRING and BINSTRING."""
    long = b"\xff\xd8" + b"\x80" * 300
    data = (
        b"\x80\x02]q\x01(U\x03\xff\xd8\xe9q\x02T" + struct.pack("<i", len(long)) + long + b"q\x03e]q\x04\x88a\x86q\x05."
    )
    (tmp_path / "x.bin").write_bytes(data)
    images, same = read_bin(tmp_path / "x.bin")
    assert images == [b"\xff\xd8\xe9", long]
    assert same.tolist() == [True]


def test_a_python_2_pickle_of_arrays_is_read(tmp_path: Path) -> None:
    """numpy under Python 2 names its parts with str: `b`, `u1`, `|` and the data itself come as bytes."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        b"(K\x01(K\x03tcnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x03\xff\xd8\xe9tb"
    )
    (tmp_path / "x.bin").write_bytes(b"\x80\x02](" + array + array + b"e]\x89a\x86.")
    images, same = read_bin(tmp_path / "x.bin")
    assert images == [b"\xff\xd8\xe9"] * 2
    assert same.tolist() == [False]


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
HOSTILE = {
    "a shape of a terabyte": (RECONSTRUCT + b"(L1099511627776L\ntC\x01btR.", "not a pair"),
    "an array made by its class": (b"cnumpy\nndarray\n(L1099511627776L\nU\x02u1tR.", "not a pair"),
    "bytes of a number": (b"cbuiltins\nbytes\n(L1099511627776L\ntR.", "not text"),
    "a length beyond the file": (b"\x8e" + struct.pack("<Q", 1 << 62) + b"x.", "cut short"),
    "a bytearray beyond the file": (b"\x96" + struct.pack("<Q", 1 << 40) + b"x.", "cut short"),
    "a memo of gigabytes": (b"]r\xff\xff\xff\x7f.", "memo number"),
    "a memo of gigabytes in text": (b"]p2147483647\n.", "memo number"),
    "sets and mappings, whose hashes recurse": (b"}.", "opcode b'}'"),
    "an object of a class": (b"(cos\nsystem\no.", "opcode b'o'"),
    "an extension code": (b"\x82\x01.", "opcode"),
    "a persistent id": (b"Px\n.", "opcode"),
    "code by its global": (b"cposix\nsystem\n(U\x02idtR.", "refers to posix.system"),
    "code by its global on the stack": (b"\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "refers to builtins.eval"),
    "a method of numpy": (b"cnumpy.core.multiarray\nfromfile\n.", "refers to"),
    "an odd type": (b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR.", "type 'O8'"),
    "a wide type": (b"cnumpy\ndtype\n(U\x0bV2000000000K\x00K\x01tR.", "type 'V2"),
    "text encoded again and again": (
        b"c_codecs\nencode\n(X\x00\x01\x00\x00" + b"a" * 256 + b"q\x01tR" + b"c_codecs\nencode\n(h\x01tR" * 40 + b".",
        "reuses text beyond",
    ),
    "an image that is a number": (b"](K\x01K\x02e]\x88a\x86.", "an image in it is a int"),
    "no end": (b"]", "no end"),
    "an end that never ends a line": (b"S" + b"a" * 1000, "no end"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_before_they_cost_anything(tmp_path: Path, name: str) -> None:
    data, said = HOSTILE[name]
    (tmp_path / "bad.bin").write_bytes(data)
    with pytest.raises(RecordError, match=said) as found:
        read_bin(tmp_path / "bad.bin")
    assert "bad.bin" in str(found.value)


@pytest.mark.parametrize("wrapped", [False, True])
def test_one_array_named_many_times_is_kept_once(tmp_path: Path, wrapped: bool) -> None:
    shared = bytearray(1 << 20)
    image = b"h\x01"
    if wrapped:  # an array of its own each time, of the same bytes
        image = b"cnumpy.core.numeric\n_frombuffer\n(h\x01cnumpy\ndtype\n(U\x02u1tRJ" + struct.pack("<i", 1 << 20)
        image += b"\x85U\x01CtR"
    data = b"\x80\x05](\x96" + struct.pack("<Q", len(shared)) + shared + b"q\x01" + image * 199 + b"e](" + b"\x88" * 100
    (tmp_path / "x.bin").write_bytes(data + b"e\x86.")
    tracemalloc.start()
    try:
        images, _ = read_bin(tmp_path / "x.bin")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(images) == 200
    assert all(image == shared for image in images)
    assert peak < 8 << 20


@pytest.mark.parametrize("order", [">", "<"])
def test_truth_values_of_either_byte_order_are_read(tmp_path: Path, order: str) -> None:
    truth = np.array([1, 0], f"{order}i4")
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES, truth), protocol=2))
    assert read_bin(tmp_path / "x.bin")[1].tolist() == [True, False]


def test_deep_nesting_does_no_harm(tmp_path: Path) -> None:
    for nest in (b"\x85", b"l"):
        data = b"(" * 300_000 + nest * 300_000 if nest == b"l" else b"N" + nest * 300_000
        (tmp_path / "bad.bin").write_bytes(data + b".")
        with pytest.raises(RecordError, match=r"bad\.bin"):
            read_bin(tmp_path / "bad.bin")


def test_an_array_whose_shape_lies_is_refused(tmp_path: Path) -> None:
    good = pickle.dumps(([np.arange(200, dtype=np.uint8)] * 2, [True]), protocol=2)
    assert b"K\xc8\x85" in good
    (tmp_path / "bad.bin").write_bytes(good.replace(b"K\xc8\x85", b"K\xc7\x85"))
    with pytest.raises(RecordError, match="claims the shape"):
        read_bin(tmp_path / "bad.bin")


def test_every_cut_of_a_bin_is_an_error(tmp_path: Path) -> None:
    write_bin(tmp_path / "x.bin", IMAGES, [True, False])
    whole = (tmp_path / "x.bin").read_bytes()
    for end in range(len(whole)):
        (tmp_path / "cut.bin").write_bytes(whole[:end])
        with pytest.raises(RecordError):
            read_bin(tmp_path / "cut.bin")
