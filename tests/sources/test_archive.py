"""Archives of lists from strangers: nothing followed, nothing unpacked, nothing without bounds."""

import asyncio
import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.webserver import serving_raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataprep.errors import SourceError
from dataprep.sources import archive
from dataprep.sources.archive import Archive

PATTERN = r"(^|/)files/[^/]+\.txt$"


def tar(*members: tuple[str, bytes | None], pax: str = "") -> bytes:
    """A tar of files; a member without content is a link to /etc/passwd."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers={"comment": pax} if pax else {}) as stream:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(data)
            stream.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_lists_come_out_sorted_whatever_their_order(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    files = [("v/files/C.txt", b"3" * 3000), ("v/README", b"x"), ("v/files/A.txt", b"1"), ("v/files/B.txt", None)]
    (tmp_path / "a").write_bytes(pack(tar(*files, ("v/files/sub/D.txt", b"4"), ("v/files/A.A._Z.txt", b"2"))))
    lists = Archive(tmp_path / "a", PATTERN)
    assert list(lists.lists()) == list(lists.lists()) == [("A", b"1"), ("A.A._Z", b"2"), ("C", b"3" * 3000)]


@pytest.mark.parametrize("name", ["../files/A.txt", "/files/A.txt", "x/../../files/A.txt"])
def test_a_name_that_would_leave_its_place_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.tar").write_bytes(tar((name, b"1")))
    with pytest.raises(SourceError, match="the member name"):
        Archive(tmp_path / "a.tar", PATTERN)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_passed_over(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as stream:
        info = tarfile.TarInfo("files/A.txt")
        info.type, info.linkname = kind, "/etc/passwd"
        stream.addfile(info)
    assert len(Archive(tmp_path / "a.tar", PATTERN)) == 0


def test_sizes_and_counts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(data: bytes, said: str) -> None:
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data, 1))
        with pytest.raises(SourceError, match=said):
            Archive(tmp_path / "a.tar.gz", PATTERN)

    refused(tar(("files/A.txt", b"0" * ((16 << 20) + 1))), "A.txt has 16777217 bytes")
    refused(tar(("files/A.txt", b"1"), pax="0" * (17 << 20)), "larger than any list")
    monkeypatch.setattr(archive, "_LARGEST_ARCHIVE", 1 << 20)
    refused(tar(("README", b"0" * (2 << 20)), ("files/A.txt", b"1")), "when decompressed")
    monkeypatch.setattr(archive, "_MOST_MEMBERS", 3)
    refused(tar(*[(f"files/{i}.txt", b"1") for i in range(4)]), "more than 3 members")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8), st.integers(0, 4000), st.booleans())
def test_damaged_archives_raise_nothing_but_our_error(
    tmp_path: Path, flips: list[tuple[int, int]], keep: int, zipped: bool
) -> None:
    whole = tar(("files/A.txt", b"1" * 700), ("files/B.txt", b"2"))
    data = bytearray(gzip.compress(whole, 0) if zipped else whole)[:keep]
    for place, value in flips:
        if place < len(data):
            data[place] = value
    (tmp_path / "a.tar").write_bytes(data)
    with contextlib.suppress(SourceError):
        assert {name for name, _ in Archive(tmp_path / "a.tar", PATTERN).lists()}.isdisjoint({"", ".", ".."})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n\x1f\x8b" + bytes(700), "702 of 5000 bytes received"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<html>moved away</ht", "is not a .tar.gz"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "Not Found"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\x1f\x8b\x08", "IncompleteRead"),
        (b"", "could not be fetched"),
    ],
)
def test_half_an_archive_is_none_and_every_failure_says_what_to_do(tmp_path: Path, answer: bytes, said: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    with serving_raw(serve) as base, pytest.raises(SourceError, match=said) as raised:
        archive.fetch_lists(f"{base}/lists.tar.gz", tmp_path / "lists.tar.gz")
    assert "--lists" in raised.value.hint
    assert list(tmp_path.iterdir()) == []
