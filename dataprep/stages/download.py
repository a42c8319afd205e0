"""download: fetch photos from many hosts at once, politely. Responses that are clearly not images are discarded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from dataprep.download.settings import DownloadCallbacks, DownloadParams
from dataprep.download.writer import DownloadShard
from dataprep.stages.base import Stage
from dataprep.workspace.plan import Shard

if TYPE_CHECKING:
    from dataprep.download.resolver import Lookup


class DownloadStage(Stage[DownloadParams]):
    """The download stage. Tests and benchmarks set `lookup` on an instance to override DNS.

    On the class, `lookup` must be a staticmethod. It is called in threads; it returns addresses or raises
    socket.gaierror.
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
        "bytes": "int64",  # size of the received body, kept or not
        "body_sha256": "string",  # of a complete body that was discarded
    }
    volatile = frozenset(columns)
    Params = DownloadParams
    lookup: Lookup | None = None

    @classmethod
    def units(cls, shards: Mapping[str, Shard]) -> list[str]:
        return [shard.id for shard in shards.values() if shard.remote]

    async def process(self, shards: Iterator[DownloadShard], hooks: DownloadCallbacks, stop: threading.Event) -> None:
        """Download shards until all are committed or `stop` is set. Journals are kept in both cases."""
        from dataprep.download.downloader import Downloader  # imports aiohttp

        await Downloader(self.params, shards, hooks, self.lookup).run(stop)
