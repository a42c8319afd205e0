"""What a status that brings no photo means, and when to come again."""

from __future__ import annotations

import email.utils
import time
import zlib
from dataclasses import dataclass, replace

import yarl

from dataprep.imaging.sniff import suspicion
from dataprep.reasons import Reason

LONGEST_REST = 120.0  # seconds; a host that wants more (Retry-After) is put aside for them


def status_reason(status: int) -> Reason:
    if status in (404, 410):
        return Reason.HTTP_404
    if status == 429:
        return Reason.HTTP_429
    if 500 <= status < 600:
        return Reason.HTTP_5XX
    return Reason.HTTP_4XX if 400 <= status < 500 else Reason.HTTP_OTHER


def retry_after(value: str) -> float:
    """Seconds that a server asks us to wait; 0 if it does not say so in a way we know."""
    if not value:
        return 0.0
    try:
        wanted = float(value)
    except ValueError:
        try:
            wanted = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(wanted, 0.0) if wanted == wanted else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one request. `data`, as it came, is there exactly if neither `reason` nor `moved` is.

    `moved`: a redirect leads to this URL, on another host; it was the `hops`th. `alive`: something beyond this machine
    was heard from, if only a refusal; `reachable`: and it was the URL's host, or a proxy. `blames_host`: the host gave
    no HTTP answer; enough of those in a row, and it is put aside. `connected`: it took the connection, though. `final`:
    asking again in this run would be in vain, or too early. `received` counts the body's bytes, `reserved` those to be
    given back by `Client.release` when the data are no longer needed.
    """

    reason: Reason | None
    detail: str = ""
    status: int | None = None
    final_url: str = ""
    data: bytes | None = None
    received: int | None = None
    retry_after: float = 0.0
    alive: bool = True
    reachable: bool = True
    blames_host: bool = False
    connected: bool = False
    final: bool = False
    moved: yarl.URL | None = None
    hops: int = 0
    reserved: int = 0


def unpacked(answer: Answer, encoding: str, most: int) -> Answer:
    """An answer whose server compressed it though we asked it not to; what is not compressed in fact stays."""
    data = answer.data or b""
    packed = data[:2] == b"\x1f\x8b" if encoding in ("gzip", "x-gzip") else encoding == "deflate"
    if encoding not in ("gzip", "x-gzip", "deflate"):
        if suspicion(data) is None:
            return answer
        return replace(answer, data=None, reason=Reason.WRONG_TYPE, detail=f"Content-Encoding: {encoding[:50]}")
    if not packed:
        return answer
    unpacker = zlib.decompressobj(47)  # gzip or zlib, as its first bytes say
    try:
        whole = unpacker.decompress(data, most + 1)
    except zlib.error:
        return answer if encoding == "deflate" else replace(answer, data=None, reason=Reason.CORRUPT, detail="bad gzip")
    if len(whole) > most:
        return replace(answer, data=None, reason=Reason.TOO_LARGE, detail=f"unpacks to over {most} bytes")
    if not unpacker.eof:
        return replace(answer, data=None, reason=Reason.SHORT_BODY, detail=f"{encoding} without its end")
    return replace(answer, data=whole)
