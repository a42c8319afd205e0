"""A real HTTP server in a thread of the test, on loopback, with handlers made for the occasion."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.contextmanager
def serving(handler: Handler) -> Iterator[str]:
    """The base URL of a server that answers every GET with `handler`."""

    async def start() -> tuple[int, Callable[[], Awaitable[None]]]:
        app = web.Application()
        app.router.add_get("/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner.addresses[0][1], runner.cleanup

    with _in_a_thread(start) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def serving_raw(handler: Raw, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The base URL of a server that says whatever `handler` writes, HTTP or not."""

    async def start() -> tuple[int, Callable[[], Awaitable[None]]]:
        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await handler(reader, writer)
                    await writer.drain()
            finally:
                writer.close()

        server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls)

        async def stop() -> None:
            server.close()

        return server.sockets[0].getsockname()[1], stop

    with _in_a_thread(start) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _in_a_thread(start: Callable[[], Awaitable[tuple[int, Callable[[], Awaitable[None]]]]]) -> Iterator[int]:
    loop = asyncio.new_event_loop()
    started = threading.Event()
    state: dict[str, object] = {}

    async def main() -> None:
        state["port"], stop = await start()
        state["stop"] = stopped = asyncio.Event()
        started.set()
        await stopped.wait()
        await stop()
        stalled = asyncio.all_tasks() - {asyncio.current_task()}  # handlers that sleep on for a client long gone
        for task in stalled:
            task.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)
        await asyncio.sleep(0.01)  # what they closed is closed in the loop's next rounds

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert started.wait(10)
    try:
        yield int(str(state["port"]))
    finally:
        loop.call_soon_threadsafe(state["stop"].set)  # type: ignore[attr-defined]
        thread.join()
        loop.close()
