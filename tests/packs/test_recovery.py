import struct

import pytest

from dataprep.errors import RecordError
from dataprep.packs.recordio import MAGIC, decode_record, encode_record
from dataprep.packs.recovery import DamagedRange, RecoveredRecord, recover_records

MAGIC_BYTES = struct.pack("<I", MAGIC)
SPLIT = encode_record(b"abcd" + MAGIC_BYTES + b"efgh" + MAGIC_BYTES + b"ij")
GOOD = encode_record(b"good record")


def summary(data: bytes) -> list[tuple[str, int, int]]:
    out = []
    for thing in recover_records(data):
        end = thing.end if isinstance(thing, DamagedRange) else decode_record(data, thing.offset)[1]
        out.append((type(thing).__name__, thing.offset, end))
    return out


def test_whole_records_are_found_with_their_payloads() -> None:
    data = SPLIT + GOOD
    found = list(recover_records(data))
    assert [thing.payload(data) for thing in found if isinstance(thing, RecoveredRecord)] == [
        b"abcd" + MAGIC_BYTES + b"efgh" + MAGIC_BYTES + b"ij",
        b"good record",
    ]


def test_a_split_record_without_its_first_part_is_one_gap() -> None:
    data = GOOD + b"\0\0\0\0" + SPLIT[4:] + GOOD
    first, second = len(GOOD), len(GOOD) + len(SPLIT)
    assert summary(data) == [
        ("RecoveredRecord", 0, first),
        ("DamagedRange", first, second),
        ("RecoveredRecord", second, len(data)),
    ]


def test_a_split_record_without_its_last_part_does_not_take_the_next_record_for_it() -> None:
    cut = SPLIT[:24]  # first and middle part
    assert summary(cut + GOOD + GOOD) == [
        ("DamagedRange", 0, len(cut)),
        ("RecoveredRecord", len(cut), len(cut + GOOD)),
        ("RecoveredRecord", len(cut + GOOD), len(cut + GOOD + GOOD)),
    ]


def test_a_wrong_length_does_not_swallow_the_record_behind() -> None:
    longer = struct.pack("<II", MAGIC, 11 + len(GOOD)) + GOOD[8:]
    data = longer + GOOD + GOOD
    assert summary(data)[-1] == ("RecoveredRecord", len(longer + GOOD), len(data))
    shorter = struct.pack("<II", MAGIC, 3) + GOOD[8:]
    assert summary(shorter + GOOD) == [
        ("RecoveredRecord", 0, 12),
        ("DamagedRange", 12, len(shorter)),
        ("RecoveredRecord", len(shorter), len(shorter + GOOD)),
    ]


def test_bytes_put_in_or_taken_out_cost_one_record() -> None:
    data = GOOD + GOOD[:10] + GOOD[13:] + GOOD + GOOD
    assert [name for name, *_ in summary(data)] == [
        "RecoveredRecord",
        "DamagedRange",
        "RecoveredRecord",
        "RecoveredRecord",
    ]


def test_a_whole_record_between_the_parts_of_a_split_one_is_damage() -> None:
    last = SPLIT[-12:]
    data = SPLIT[:24] + GOOD + last
    with pytest.raises(RecordError, match="without its end"):
        decode_record(data)
    assert summary(data) == [
        ("DamagedRange", 0, 24),
        ("RecoveredRecord", 24, 24 + len(GOOD)),
        ("DamagedRange", 24 + len(GOOD), len(data)),
    ]
