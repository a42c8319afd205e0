"""download: photos behind URLs, many hosts at once, each treated politely; nothing is kept that is plainly no photo."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dataprep.download.config import DownloadParams, Hooks
from dataprep.download.writer import OpenShard
from dataprep.stages.base import Stage

if TYPE_CHECKING:
    from dataprep.download.resolver import Lookup


class Download(Stage[DownloadParams]):
    """Set `lookup` of an instance to resolve names otherwise than this machine does: for tests and benchmarks.

    On the class it must be a staticmethod. It is called in threads, and gives addresses or raises socket.gaierror.
    """

    name = "download"
    version = 2
    needs = None
    columns = {
        "url": "string",
        "status": "int32",
        "final_url": "string",
        "attempts": "int32",
        "seconds": "double",
        "bytes": "int64",  # of the body that came, kept or not
        "body_sha256": "string",  # of a whole body that was not kept
    }
    volatile = frozenset(columns)
    Params = DownloadParams
    lookup: Lookup | None = None

    async def process(self, shards: Iterator[OpenShard], hooks: Hooks, stop: threading.Event) -> None:
        """Download a stream of shards until all are committed or `stop` is set; journals survive either way."""
        from dataprep.download.downloader import Engine  # and with it aiohttp

        await Engine(self.params, shards, hooks, self.lookup).run(stop)
