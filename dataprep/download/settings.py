"""The parameters of a download, and the callbacks through which it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataprep.params import StageParams, counted_field, runtime_field
from dataprep.types import Row

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class DownloadParams(StageParams):
    """Download settings. Only those that may change the photos are part of the fingerprint."""

    max_bytes: int = counted_field(20_000_000, "drop files of more bytes than this", minimum=1000)
    max_pixels: int = counted_field(
        178_956_970, "drop photos with more pixels in their header (decompression bombs)", minimum=1
    )
    placeholders: int = counted_field(
        5, "drop images that one host returned for this many URLs of two or more people; 0 keeps them", minimum=0
    )
    ignore_opt_out: bool = counted_field(False, "also keep photos sent with X-Robots-Tag: noai or noimageai")
    robots: bool = counted_field(False, "fetch each host's robots.txt first, and obey it")
    allow_private: bool = counted_field(False, "also allow private and loopback addresses")
    redirects: int = counted_field(5, "maximum number of redirects to follow", minimum=0)
    connections: int = runtime_field(1000, "requests in flight, within the limit of open files", minimum=1)
    per_host: int = runtime_field(6, "requests in flight per host; browsers use six", minimum=1)
    spacing: float = runtime_field(0.0, "seconds between requests to the same host", minimum=0.0)
    connect_timeout: float = runtime_field(10.0, "seconds to wait for a connection", minimum=0.05)
    idle_timeout: float = runtime_field(15.0, "seconds to wait for more bytes", minimum=0.05)
    timeout: float = runtime_field(60.0, "total seconds for one request", minimum=0.05)
    retries: int = runtime_field(2, "number of retries after a transient failure", minimum=0)
    backoff: float = runtime_field(1.0, "seconds before the first retry; doubles, with jitter", minimum=0.0)
    host_failures: int = runtime_field(
        5, "suspend a host after this many consecutive URLs without a response", minimum=1
    )
    host_rest: float = runtime_field(300.0, "seconds before a suspended host is tried again", minimum=0.0)
    outage_after: float = runtime_field(
        5.0, "pause after this many seconds without a response from any host", minimum=0.0
    )
    outage_patience: float = runtime_field(
        3600.0, "stop after a pause of this many seconds; 0: never pause", minimum=0.0
    )
    contact: str = runtime_field("", "a contact URL or e-mail address, sent in the User-Agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadCallbacks:
    """Callbacks from the download to the run.

    `sample`: a sample finished for the first time. `shard`: a shard was committed, possibly again because placeholders
    were found in it later. `lost`: this many photos counted as ok are placeholders. `note`: a message for the user.
    """

    on_sample: Callable[[Row], None]
    on_shard: Callable[[str], None]
    on_reclassified: Callable[[int], None] = lambda count: None
    on_message: Callable[[str], None] = lambda text: None
