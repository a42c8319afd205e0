"""Servers that flood a connection with framing end as malformed, after a bounded number of bytes, and starve nobody."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from helpers.downloads import PHOTO, download
from helpers.webserver import serving_raw

from dataprep.download.bounded import _MOST
from dataprep.reasons import Reason

BODY = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 4096),
    "hints": (b"", (b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 3000 + b"\r\n\r\n") * 64),
    "chunks": (BODY, b"1\r\n\xff\r\n" * 8192),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 8192),
    "blank": (b"", b"\r\n" * 30_000),
    "extensions": (BODY, b"1;" + b"e" * 65536),
}
sent: Counter[str] = Counter()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    kind = head.split(b" ")[1].decode().split("/")[1]
    if kind == "photo":
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(PHOTO) + PHOTO)
        return
    if kind == "small":  # an honest server with small chunks, as some frameworks send them
        pieces = [PHOTO[at : at + 512] for at in range(0, len(PHOTO), 512)]
        writer.write(BODY + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")
        return
    start, flood = FLOODS[kind]
    writer.write(start)
    while not writer.transport.is_closing():
        writer.write(flood)
        sent[kind] += len(flood)
        await writer.drain()


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_ends_after_a_bounded_number_of_bytes(tmp_path: Path, kind: str) -> None:
    sent.clear()
    with serving_raw(answer) as url:
        _, rows = download(tmp_path, [f"{url}/{kind}"], retries=0, placeholders=0, timeout=20.0, idle_timeout=10.0)
    (row,) = rows.values()
    assert row["reason"] in (Reason.MALFORMED_RESPONSE.code, Reason.SHORT_BODY.code, Reason.CONNECTION.code), row
    assert sent[kind] < 40 * _MOST, "most of it lies in the buffers of the sockets"


def test_whoever_shares_the_loop_with_floods_gets_their_photos(tmp_path: Path) -> None:
    with serving_raw(answer) as url:
        wanted = [f"{url}/{kind}/{n}" for n in range(2) for kind in FLOODS] + [f"{url}/photo/{n}" for n in range(20)]
        _, rows = download(
            tmp_path, [*wanted, f"{url}/small"], retries=0, placeholders=0, host_failures=1000, timeout=20.0,
            idle_timeout=10.0,
        )  # fmt: skip
    lost = {row["url"].split("/")[3] for row in rows.values() if row["reason"]}
    assert lost == set(FLOODS)
    assert sum(row["reason"] is None for row in rows.values()) == 21
