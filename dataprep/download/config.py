"""The parameters of a download, and the callbacks through which it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataprep.params import StageParams, param, runtime
from dataprep.types import Row

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class DownloadParams(StageParams):
    """How the web is asked. Only what may change the photos counts."""

    max_bytes: int = param(20_000_000, "drop photos larger than this", minimum=1000)
    max_pixels: int = param(178_956_970, "drop photos with more pixels, by their header: bombs", minimum=1)
    placeholders: int = param(
        5, "drop photos that one host gave for this many URLs, of two people at least; 0 keeps them", minimum=0
    )
    ignore_opt_out: bool = param(False, "also keep photos whose server says X-Robots-Tag: noai or noimageai")
    robots: bool = param(False, "ask every host for robots.txt first, and obey it")
    allow_private: bool = param(False, "also ask private and loopback addresses")
    redirects: int = param(5, "follow at most this many redirects", minimum=0)
    connections: int = runtime(1000, "requests in flight, as far as the limit of open files allows", minimum=1)
    per_host: int = runtime(6, "requests in flight to one host; browsers send six", minimum=1)
    spacing: float = runtime(0.0, "seconds between requests to one host", minimum=0.0)
    connect_timeout: float = runtime(10.0, "seconds to wait for a connection", minimum=0.05)
    idle_timeout: float = runtime(15.0, "seconds to wait for more bytes", minimum=0.05)
    timeout: float = runtime(60.0, "seconds for one request in all", minimum=0.05)
    retries: int = runtime(2, "ask again this often after a transient failure", minimum=0)
    backoff: float = runtime(1.0, "seconds before the first retry; doubles, with jitter", minimum=0.0)
    host_failures: int = runtime(5, "put a host aside after this many URLs in a row without an answer", minimum=1)
    host_rest: float = runtime(300.0, "seconds before a host put aside is tried again", minimum=0.0)
    outage_after: float = runtime(5.0, "seconds without any answer from anybody before a pause", minimum=0.0)
    outage_patience: float = runtime(3600.0, "give up after a pause of this many seconds; 0: never pause", minimum=0.0)
    contact: str = runtime("", "a URL or e-mail address for the User-Agent: whom to complain to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """How the download tells the run what happens.

    `sample`: one finished, not seen before. `shard`: one committed; a second time if placeholders were found in it
    later. `lost`: so many photos that had been counted as ok are placeholders. `note`: a line for people.
    """

    sample: Callable[[Row], None]
    shard: Callable[[str], None]
    lost: Callable[[int], None] = lambda count: None
    note: Callable[[str], None] = lambda text: None
