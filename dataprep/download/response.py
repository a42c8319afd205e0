"""HTTP status to reason, and Retry-After to seconds."""

from __future__ import annotations

import email.utils
import time
import zlib
from dataclasses import dataclass, replace

import yarl

from dataprep.imaging.sniff import reject_reason
from dataprep.reasons import Reason

MAX_RETRY_AFTER = 120.0  # seconds; a host with a longer Retry-After is set aside for that time


def status_reason(status: int) -> Reason:
    if status in (404, 410):
        return Reason.HTTP_404
    if status == 429:
        return Reason.HTTP_429
    if 500 <= status < 600:
        return Reason.HTTP_5XX
    return Reason.HTTP_4XX if 400 <= status < 500 else Reason.HTTP_OTHER


def parse_retry_after(value: str) -> float:
    """Return the seconds to wait from a Retry-After header; 0 if it is missing or invalid."""
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
class Response:
    """The result of one request. `data` is the body as received; it is set if and only if `reason` and `moved` are not.

    `moved`: the target of a redirect to another host, the `hops`th redirect. `alive`: something beyond this machine
    responded, if only with a refusal. `reachable`: the URL's host or a proxy responded. `blames_host`: the host gave
    no HTTP response; it is set aside after enough of these in a row. `connected`: the host accepted the connection.
    `final`: a retry in this run would be useless or too early. `received`: bytes of the body. `reserved`: bytes that
    `Client.release` returns to the budget once the data are no longer needed.
    """

    reason: Reason | None
    detail: str = ""
    status: int | None = None
    final_url: str = ""
    data: bytes | None = None
    bytes_received: int | None = None
    retry_after: float = 0.0
    network_alive: bool = True
    host_reachable: bool = True
    host_failed: bool = False
    connected: bool = False
    no_retry: bool = False
    redirect_url: yarl.URL | None = None
    hops: int = 0
    reserved_bytes: int = 0


def unpacked(response: Response, encoding: str, limit: int) -> Response:
    """Decompress a body that was compressed despite our headers. An uncompressed body is kept unchanged."""
    data = response.data or b""
    packed = data[:2] == b"\x1f\x8b" if encoding in ("gzip", "x-gzip") else encoding == "deflate"
    if encoding not in ("gzip", "x-gzip", "deflate"):
        if reject_reason(data) is None:
            return response
        return replace(response, data=None, reason=Reason.WRONG_TYPE, detail=f"Content-Encoding: {encoding[:50]}")
    if not packed:
        return response
    unpacker = zlib.decompressobj(47)  # gzip or zlib, by the header
    try:
        whole = unpacker.decompress(data, limit + 1)
    except zlib.error:
        return (
            response
            if encoding == "deflate"
            else replace(response, data=None, reason=Reason.CORRUPT, detail="invalid gzip")
        )
    if len(whole) > limit:
        return replace(response, data=None, reason=Reason.TOO_LARGE, detail=f"decompresses to more than {limit} bytes")
    if not unpacker.eof:
        return replace(response, data=None, reason=Reason.SHORT_BODY, detail=f"{encoding} data is cut short")
    return replace(response, data=whole)
