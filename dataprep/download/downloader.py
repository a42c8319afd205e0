"""The download's engine: a schedule of URLs, requests in flight, shards opened and committed beside them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yarl

from dataprep.download.addresses import RefusedURLError, host_of, parse_url
from dataprep.download.client import Client
from dataprep.download.host_queue import CircuitBreaker, HostQueue
from dataprep.download.limits import ClientLimits, raise_descriptor_limit
from dataprep.download.outage import OutageCallbacks, OutageDetector
from dataprep.download.placeholders import find_missed_placeholders, make_placeholder_row
from dataprep.download.resolver import Lookup, system_lookup
from dataprep.download.response import MAX_RETRY_AFTER, Response
from dataprep.download.writer import DownloadShard, JournalEntry, JournalWriter, explain_disk_error, is_known_hash
from dataprep.reasons import Reason
from dataprep.types import Row, Sample
from dataprep.workspace.journal import Journal

if TYPE_CHECKING:
    from dataprep.download.settings import DownloadCallbacks, DownloadParams


_OPEN = 40_000  # samples in open shards: some 100 MB of waiting URLs and finished rows


class Downloader:
    """The state of one run, all of it in one event loop.

    The hot path of a URL: `_start` parses it, the schedule gives it out, `_ask` is a task of its own, `Client.fetch`
    does the request, the writer's thread judges and stores. A redirect to another host goes back to the schedule, where
    that host is treated as any other. Disks are waited for in threads only: one opens and commits shards, one writes.
    After a kill those URLs are asked for again whose request was in flight, which it is until its row is in the journal,
    and those that were waiting for a retry, or for their turn at a host that a redirect leads to.
    """

    def __init__(
        self, params: DownloadParams, shards: Iterator[DownloadShard], hooks: DownloadCallbacks, lookup: Lookup | None
    ) -> None:
        self._params, self._shards, self._hooks, self._lookup = params, shards, hooks, lookup
        self._breaker = CircuitBreaker(failures=params.host_failures, rest=params.host_rest)
        self._disk = ThreadPoolExecutor(1, "dataprep-disk")
        self._open: dict[str, DownloadShard] = {}
        self._samples = 0  # in open shards
        self._asking: set[asyncio.Task[None]] = set()

    async def run(self, stop: threading.Event) -> None:
        p = self._params
        loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = loop.create_future()
        self._queue: HostQueue[Request] = HostQueue(per_host=p.per_host, delay=p.spacing)
        self._news: asyncio.Queue[DownloadShard | None] = (
            asyncio.Queue()
        )  # complete shards; None: something else changed
        self._connections = raise_descriptor_limit(p.connections)
        self._slots = asyncio.Semaphore(self._connections)
        self._more, self._fed = asyncio.Event(), False
        self._writer = JournalWriter(
            placeholders=p.placeholders, max_pixels=p.max_pixels, stored=self._stored, failed=self._fail
        )
        try:
            client = Client(
                _limits(p),
                connections=self._connections,
                lookup=self._lookup or system_lookup,
                on_resolved=lambda name: self._names.record_response(name, name),
            )
            self._guard(client)
            async with client, _collecting_seldom():
                tasks = [
                    asyncio.create_task(work)
                    for work in (
                        self._commit_all(), self._feed(), self._dispatch(client), self._net.watch(), self._names.watch(),
                        _watch(stop),
                    )
                ]  # fmt: skip
                ends = {tasks[0], tasks[-1], self._failure}  # all is committed, or it is enough
                pending: set[asyncio.Future[None]] = {*tasks, self._failure}
                try:
                    while not any(end.done() for end in ends):
                        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                        for task in done:
                            task.result()
                finally:
                    for task in [*tasks, *self._asking]:
                        task.cancel()
                    await asyncio.gather(*tasks, *self._asking, return_exceptions=True)
        finally:
            self._failure.cancel()
            self._writer.close()
            self._disk.shutdown()
            for shard in self._open.values():
                with contextlib.suppress(OSError):  # a full disk has been told of
                    shard.journal.close()

    def _guard(self, client: Client) -> None:
        """Two things can be away: the network, and the name servers, while what is cached still answers."""
        p, schedule = self._params, self._queue
        shared: dict[str, Any] = {
            "has_other_hosts": schedule.has_eligible_host, "pause": schedule.pause, "resume": schedule.resume,
            "allow_probes": schedule.allow_probes, "count_failure": self._count_failure, "requeue": self._requeue,
            "log_message": self._hooks.on_message, "is_network_up": client.is_dns_up,
        }  # fmt: skip
        patience = {"offline_after": p.outage_after, "offline_timeout": p.outage_patience}
        self._net: OutageDetector[Request, yarl.URL] = OutageDetector(
            "nothing answers", OutageCallbacks(probe_canary=client.reaches, **shared), **patience
        )
        self._names: OutageDetector[Request, str] = OutageDetector(
            "no name server answers", OutageCallbacks(probe_canary=client.resolves, **shared), **patience
        )

    # shards ---------------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Open shards while fewer hosts are ready than there are connections, so that slow hosts hold up no shard."""
        loop = asyncio.get_running_loop()
        while True:
            shard = await loop.run_in_executor(self._disk, next, self._shards, None)
            if shard is None:
                self._fed = True
                self._news.put_nowait(None)
                return
            self._open[shard.id] = shard
            self._samples += len(shard.samples)
            self._news.put_nowait(None)
            await self._start(shard)
            while len(self._open) > 1 and (self._samples >= _OPEN or self._queue.ready >= self._connections):
                self._more.clear()
                try:
                    async with asyncio.timeout(1.0):
                        await self._more.wait()
                except TimeoutError:
                    if (
                        not self._queue.has_eligible_host()
                    ):  # all memory is held by hosts that rest: the others go first
                        for host in self._queue.resting():
                            self._give_up_all(host)

    async def _start(self, shard: DownloadShard) -> None:
        todo = self._todo(shard)
        shard.remaining = len(todo)
        if not todo:
            self._news.put_nowait(shard)
        for position, sample in enumerate(todo):
            if position % 100 == 99:
                await asyncio.sleep(0)  # requests in flight go first
            if sample.error:
                self._end(shard, sample, sample.error, sample.detail)
                continue
            if not is_known_hash(sample.hash):
                self._end(shard, sample, Reason.BAD_LINE, f"the hash {sample.hash[:80]!r} is no md5, sha1 or sha256")
                continue
            try:
                url = parse_url(sample.url)
            except RefusedURLError as refused:
                self._end(shard, sample, refused.reason, refused.detail)
                continue
            self._plan(host_of(url), Request(shard, sample, url, url))

    def _todo(self, shard: DownloadShard) -> list[Sample]:
        """The samples to ask for. What hung before goes last: those that timed out, and those that a stopped run passed
        over while it finished later ones of their host. What answered before tells that its host does."""
        rows = shard.journal.rows
        todo = [sample for sample in shard.samples if sample.key not in rows]
        if not rows and not shard.journal.timed_out:
            return todo
        finished: dict[str, int] = {}
        for position, sample in enumerate(shard.samples):
            row = rows.get(sample.key)
            if row is not None and row.get("url"):
                host = _host(sample.url)
                finished[host] = position
                if row.get("status") is not None and not row["final_url"]:
                    self._breaker.record_answer(host)
        places = {sample.key: position for position, sample in enumerate(shard.samples)}
        hung = {
            sample.key
            for sample in todo
            if sample.key in shard.journal.timed_out or places[sample.key] < finished.get(_host(sample.url), -1)
        }
        return sorted(todo, key=lambda sample: sample.key in hung)

    async def _commit_all(self) -> None:
        """Commit shards as they are complete; the last one when the placeholders in all of them are known.

        As long as that is not so a shard is pending, and so a killed run comes back to it.
        """
        complete: deque[DownloadShard] = deque()
        while self._open or not self._fed:
            shard = await self._news.get()
            if shard is not None:
                complete.append(shard)
            while complete and (self._fed or len(self._open) > 1):
                shard = complete.popleft()
                if len(self._open) == 1:
                    await self._settle(shard)
                await self._on_disk(shard, self._commit, shard)
                del self._open[shard.id]
                self._samples -= len(shard.samples)
                self._hooks.on_shard(shard.id)
            self._more.set()

    async def _settle(self, last: DownloadShard) -> None:
        """Drop the placeholders that were stored before anybody could know, in committed shards and in the last one."""
        rows = {last.id: list(last.journal.rows.values())}
        lost = await self._on_disk(
            last, find_missed_placeholders, last.journal.directory, rows, self._params.placeholders
        )
        for shard, found in lost.items():
            if shard == last.id:
                await self._on_disk(last, last.journal.record, *map(make_placeholder_row, found))
            else:
                await self._on_disk(last, _amend, last, shard, found)
                self._hooks.on_shard(shard)
            self._hooks.on_reclassified(len(found))

    def _commit(self, shard: DownloadShard) -> None:
        order = [sample.key for sample in shard.samples]
        shard.journal.commit(order, upstream=shard.upstream, seconds=time.monotonic() - shard.started)

    async def _on_disk(self, shard: DownloadShard, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)
        except OSError as error:
            raise explain_disk_error(error, shard.journal) from None

    # requests -------------------------------------------------------------------------------------------------------

    async def _dispatch(self, client: Client) -> None:
        while True:
            await self._slots.acquire()
            host, job = await self._queue.take()
            if self._queue.ready < self._connections:
                self._more.set()
            task = asyncio.create_task(self._ask(client, host, job))
            self._asking.add(task)
            task.add_done_callback(self._request_done)

    def _request_done(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        self._slots.release()
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception())

    async def _ask(self, client: Client, host: str, request: Request) -> None:
        rest = 0.0
        entry = None
        try:
            began = time.monotonic()
            if self._breaker.is_open(host, began):
                self._plan(host, request)
                return
            last = not self._queue.has_turn_soon(host, self._connections)
            answer = await client.fetch(
                request.current_url, hops=request.hops, elapsed=request.elapsed, close_connection=last
            )
            took = time.monotonic() - began
            request.seconds += took
            rest = min(answer.retry_after, MAX_RETRY_AFTER)
            if answer.network_alive:
                self._net.record_response(host, request.current_url if answer.host_reachable else None)
            if answer.redirect_url:
                self._answered(host)
                request.current_url, request.hops, request.elapsed = (
                    answer.redirect_url,
                    answer.hops,
                    request.elapsed + took,
                )
                self._plan(host_of(request.current_url), request)
                return
            request.response = answer
            if answer.network_alive:
                entry = self._count(host, request)
            else:
                self._queue.hold(host)
                (self._names if answer.reason is Reason.DNS else self._net).record_no_response(host, request, began)
        finally:
            self._queue.done(host, rest=rest)
        if entry is not None:
            entry.stored = asyncio.get_running_loop().create_future()
            await entry.stored  # only then is the slot free: nothing but the requests in flight can be lost
            if answer.reserved_bytes:
                client.release(answer)

    def _count_failure(self, host: str, request: Request) -> None:
        self._queue.unhold(host)
        self._count(host, request)

    def _requeue(self, host: str, request: Request) -> None:
        """Ask for a URL whose last request does not count."""
        self._queue.unhold(host)
        self._restart(request)

    def _restart(self, request: Request, *, delay: float = 0.0) -> None:
        request.current_url, request.hops, request.elapsed = request.url, 0, 0.0
        self._queue.add(host_of(request.url), request, delay=delay)

    def _count(self, host: str, request: Request) -> JournalEntry | None:
        """Take an answer for what it is: a retry to come (None), or the end of this URL."""
        answer = request.response
        assert answer is not None
        request.attempts += 1
        now = time.monotonic()
        if answer.host_failed:
            # a URL that is asked again says nothing new: two that stall must not put a living host aside
            if request.attempts == 1:
                self._breaker.record_failure(host, now, connected=answer.connected)
        elif answer.retry_after > MAX_RETRY_AFTER:
            self._breaker.trip(host, now + answer.retry_after)
        elif answer.status is not None:
            self._answered(host)
        aside = self._breaker.is_open(host, now)
        if aside and self._breaker.is_recoverable(host):
            self._queue.rest(host, self._breaker.remaining(host, now))
            aside = False
        elif aside:
            self._give_up_all(host)
        elif self._breaker.is_probing(host):
            self._queue.narrow(host)
        again = answer.reason is not None and answer.reason.transient and not answer.no_retry and not aside
        if again and request.attempts <= self._params.retries:
            backoff = self._params.backoff * 2 ** (request.attempts - 1) * random.uniform(0.5, 1.5)
            self._restart(request, delay=max(answer.retry_after, backoff))
            return None
        return self._put(request.shard, request.sample, response_to_row(request, answer))

    def _answered(self, host: str) -> None:
        self._breaker.record_answer(host)
        self._queue.widen(host)

    def _plan(self, host: str, request: Request) -> None:
        now = time.monotonic()
        if self._breaker.is_open(host, now):
            if not self._breaker.is_recoverable(host):
                self._give_up(request)
                return
            self._queue.add(host, request, narrow=True)
            self._queue.rest(host, self._breaker.remaining(host, now))
        else:
            self._queue.add(host, request, narrow=self._breaker.is_probing(host))

    def _give_up_all(self, host: str) -> None:
        for job in self._queue.drain(host):
            self._give_up(job)

    def _give_up(self, request: Request) -> None:
        """End a URL of a host that is put aside: as it last ended itself, if it was asked before."""
        if request.hops:
            request.attempts += 1
            request.response = Response(
                reason=Reason.HOST_DOWN,
                detail="leads to a host that does not answer",
                final_url=str(request.current_url),
            )
        if request.response is not None and request.attempts:
            self._put(request.shard, request.sample, response_to_row(request, request.response))
        else:
            self._end(
                request.shard,
                request.sample,
                Reason.HOST_DOWN,
                "its host did not answer for other URLs, or wants a rest",
            )

    # rows -----------------------------------------------------------------------------------------------------------

    def _end(self, shard: DownloadShard, sample: Sample, reason: Reason, detail: str) -> None:
        values = {"url": sample.url, "attempts": 0}
        row = Row(key=sample.key, identity=sample.identity, reason=reason, detail=detail, values=values)
        self._put(shard, sample, row)

    def _put(self, shard: DownloadShard, sample: Sample, row: Row) -> JournalEntry:
        entry = JournalEntry(shard, sample, row)
        self._writer.put(entry)
        return entry

    def _stored(self, entries: Sequence[JournalEntry]) -> None:
        for entry in entries:
            if entry.stored is not None and not entry.stored.done():
                entry.stored.set_result(None)
            self._hooks.on_sample(entry.row)
            entry.shard.remaining -= 1
            if entry.shard.remaining == 0:
                self._news.put_nowait(entry.shard)

    def _fail(self, error: BaseException | None) -> None:
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)


def _host(url: str) -> str:
    try:
        return host_of(parse_url(url))
    except RefusedURLError:
        return ""


def _amend(last: DownloadShard, shard: str, found: Iterable[dict[str, Any]]) -> None:
    """Commit a shard again with some of its photos as placeholders."""
    directory = last.journal.directory
    marker = directory.marker(shard)
    assert marker is not None
    order = [row["key"] for row in directory.rows(marker, ["key"])]
    keys = {row["key"] for row in found}
    journal = Journal(directory, shard)
    try:
        journal.record(*(make_placeholder_row(row) for key, row in list(journal.rows.items()) if key in keys))
        journal.commit(order, upstream=marker.upstream, seconds=marker.seconds)
    finally:
        journal.close()


@contextlib.asynccontextmanager
async def _collecting_seldom() -> AsyncIterator[None]:
    """Thousands of live requests are not worth walking every 700 objects: that took a tenth of a URL's CPU."""
    before = gc.get_threshold()
    gc.set_threshold(20_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _watch(stop: threading.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.05)


def _limits(p: DownloadParams) -> ClientLimits:
    return ClientLimits(
        connect=p.connect_timeout, idle=p.idle_timeout, total=p.timeout, max_bytes=p.max_bytes, redirects=p.redirects,
        allow_private=p.allow_private, ignore_opt_out=p.ignore_opt_out, robots=p.robots, contact=p.contact,
    )  # fmt: skip


@dataclass(slots=True)
class Request:
    """A URL to request. `at` is the current URL after cross-host redirects in this attempt; `hops` is their number and
    `spent` the seconds used."""

    shard: DownloadShard
    sample: Sample
    url: yarl.URL
    current_url: yarl.URL
    hops: int = 0
    elapsed: float = 0.0
    attempts: int = 0
    seconds: float = 0.0
    response: Response | None = field(default=None)


def response_to_row(request: Request, response: Response) -> Row:
    return Row(
        key=request.sample.key,
        identity=request.sample.identity,
        reason=response.reason,
        detail="".join(c if c.isprintable() else "?" for c in response.detail),  # control characters from the server
        payload=response.data,
        values={
            "url": request.sample.url,
            "status": response.status,
            "final_url": response.final_url if response.final_url != request.sample.url else "",
            "attempts": request.attempts,
            "seconds": round(request.seconds, 3),
            "bytes": response.bytes_received,
        },
    )
