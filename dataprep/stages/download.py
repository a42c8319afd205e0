"""download: photos behind URLs, many hosts at once, each treated politely; nothing is kept that is plainly no photo."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataprep.errors import Reason
from dataprep.manifest.journal import Journal
from dataprep.params import StageParams, param, runtime
from dataprep.samples import Row, Sample
from dataprep.stages.base import Stage

if TYPE_CHECKING:
    from dataprep.stages.http import Answer, Client
    from dataprep.stages.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class DownloadParams(StageParams):
    """How the web is asked. Only what may change the photos counts."""

    max_bytes: int = param(20_000_000, "drop photos larger than this", minimum=1000)
    ignore_opt_out: bool = param(False, "also keep photos whose server says X-Robots-Tag: noai or noimageai")
    allow_private: bool = param(False, "also ask private and loopback addresses")
    redirects: int = param(5, "follow at most this many redirects", minimum=0)
    connections: int = runtime(128, "requests in flight", minimum=1)
    per_host: int = runtime(4, "requests in flight to one host", minimum=1)
    spacing: float = runtime(0.0, "seconds between requests to one host", minimum=0.0)
    connect_timeout: float = runtime(10.0, "seconds to wait for a connection", minimum=0.05)
    idle_timeout: float = runtime(15.0, "seconds to wait for more bytes", minimum=0.05)
    timeout: float = runtime(60.0, "seconds for one request in all", minimum=0.05)
    retries: int = runtime(2, "ask again this often after a transient failure", minimum=0)
    backoff: float = runtime(1.0, "seconds before the first retry; doubles, with jitter", minimum=0.0)


@dataclass(slots=True)
class OpenShard:
    """A shard that is being downloaded."""

    id: str
    upstream: str
    samples: Sequence[Sample]
    journal: Journal
    left: int
    started: float


@dataclass(slots=True)
class _Job:
    shard: OpenShard
    sample: Sample
    attempts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """How the download tells the run what happens: one sample finished (not seen before), one shard committed."""

    sample: Callable[[Row], None]
    shard: Callable[[str], None]


class Download(Stage[DownloadParams]):
    name = "download"
    version = 1
    needs = None
    columns = {
        "url": "string",
        "status": "int32",
        "final_url": "string",
        "attempts": "int32",
        "seconds": "double",
    }
    volatile = frozenset(columns)
    Params = DownloadParams

    async def process(self, shards: Iterator[OpenShard], hooks: Hooks, stop: threading.Event) -> None:
        """Download a stream of shards until all are committed or `stop` is set; journals survive either way."""
        await _Engine(self.params, shards, hooks).run(stop)


class _Engine:
    """The state of one run: a schedule of jobs, the workers that ask, one thread that hashes and writes."""

    def __init__(self, params: DownloadParams, shards: Iterator[OpenShard], hooks: Hooks) -> None:
        self._params, self._shards, self._hooks = params, shards, hooks
        self._writer = ThreadPoolExecutor(1, "dataprep-writer")
        self._open: dict[str, OpenShard] = {}
        self._room = asyncio.Event()

    async def run(self, stop: threading.Event) -> None:
        from dataprep.stages.http import Client, Limits
        from dataprep.stages.schedule import Schedule

        p = self._params
        self._schedule: Schedule[_Job] = Schedule(per_host=p.per_host, spacing=p.spacing)
        limits = Limits(
            connect=p.connect_timeout, idle=p.idle_timeout, total=p.timeout, max_bytes=p.max_bytes,
            redirects=p.redirects, allow_private=p.allow_private, ignore_opt_out=p.ignore_opt_out,
        )  # fmt: skip
        try:
            async with Client(limits, connections=p.connections) as client:
                feeder = asyncio.create_task(self._feed())
                workers = [asyncio.create_task(self._work(client)) for _ in range(p.connections)]
                watcher = asyncio.create_task(_watch(stop))
                everything = [feeder, watcher, *workers]
                try:
                    pending = {feeder, watcher, *workers}
                    while not (feeder.done() and not self._open) and not watcher.done():
                        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED, timeout=0.1)
                        for task in done:
                            task.result()
                finally:
                    for task in everything:
                        task.cancel()
                    await asyncio.gather(*everything, return_exceptions=True)
        finally:
            self._writer.shutdown()
            for shard in self._open.values():
                shard.journal.close()

    async def _feed(self) -> None:
        """Open shards while fewer URLs wait than there are connections, so that a stalled host holds up no shard."""
        loop = asyncio.get_running_loop()
        while True:
            shard = await loop.run_in_executor(self._writer, next, self._shards, None)
            if shard is None:
                return
            self._open[shard.id] = shard
            await self._start(shard)
            while self._schedule.waiting > 2 * self._params.connections:
                self._room.clear()
                await self._room.wait()

    async def _start(self, shard: OpenShard) -> None:
        from dataprep.stages.http import host_of

        todo = [sample for sample in shard.samples if sample.key not in shard.journal.rows]
        shard.left = len(todo)
        if not todo:
            await self._commit(shard)
            return
        for sample in todo:
            if sample.trouble:
                await self._record(shard, _row(sample, sample.trouble, sample.detail))
            else:
                self._schedule.add(host_of(sample.url), _Job(shard, sample))

    async def _work(self, client: Client) -> None:
        while True:
            host, job = await self._schedule.take()
            self._room.set()
            rest = 0.0
            try:
                began = time.monotonic()
                answer = await client.fetch(job.sample.url)
                job.attempts += 1
                job.seconds += time.monotonic() - began
                rest = answer.retry_after
                if answer.reason and answer.reason.transient and job.attempts <= self._params.retries:
                    backoff = self._params.backoff * 2 ** (job.attempts - 1) * random.uniform(0.5, 1.5)
                    self._schedule.add(host, job, delay=max(rest, backoff))
                    continue
                await self._record(job.shard, _row_of(job, answer))
            finally:
                self._schedule.done(host, rest=rest)

    async def _record(self, shard: OpenShard, row: Row) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, shard.journal.record, row)
        self._hooks.sample(row)
        shard.left -= 1
        if shard.left == 0:
            await self._commit(shard)

    async def _commit(self, shard: OpenShard) -> None:
        def commit() -> None:
            order = [sample.key for sample in shard.samples]
            shard.journal.commit(order, upstream=shard.upstream, seconds=time.monotonic() - shard.started)

        await asyncio.get_running_loop().run_in_executor(self._writer, commit)
        del self._open[shard.id]
        self._hooks.shard(shard.id)


async def _watch(stop: threading.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.05)


def _row(sample: Sample, reason: Reason, detail: str) -> Row:
    return Row(key=sample.key, identity=sample.identity, reason=reason, detail=detail, values={"url": sample.url})


def _row_of(job: _Job, answer: Answer) -> Row:
    return Row(
        key=job.sample.key,
        identity=job.sample.identity,
        reason=answer.reason,
        detail=answer.detail,
        payload=answer.data,
        values={
            "url": job.sample.url,
            "status": answer.status,
            "final_url": answer.final_url if answer.final_url != job.sample.url else "",
            "attempts": job.attempts,
            "seconds": round(job.seconds, 3),
        },
    )
