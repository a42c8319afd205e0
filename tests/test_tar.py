"""Members of tar archives, against the standard library's."""

from __future__ import annotations

import tarfile

import pytest

from dataprep.tar import make_member


@pytest.mark.parametrize("size", [0, 1, 511, 512, 17_001])
@pytest.mark.parametrize(
    "name",
    [
        "a.jpg", "person_0001/0a1b2c3d4e5f6071.jpg", "with a blank/and, more.jpg", f"{'x' * 96}.jpg", f"{'x' * 97}.jpg",
        "Zoë/1.jpg", "\udcff/1.jpg", "x" * 300,
    ],
)  # fmt: skip
def test_a_member_is_what_tarfile_writes(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    data = bytes(range(256)) * 70
    written, start = make_member(name, data[:size])
    assert (written[:start], start) == (header, len(header))
    assert written[start : start + size] == data[:size]
    assert written[start + size :] == b"\0" * (-size % 512)
