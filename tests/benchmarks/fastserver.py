"""A web server on loopback that costs less than those it answers: one process, one epoll loop, bodies ready in memory.

    python tests/benchmarks/fastserver.py FOLDER close|keep

FOLDER holds the photos that all others are made of (`photo`). It listens on ADDRESSES, on a port of its choice, which it
prints, and ends when its standard input does. What a path asks for is what it gets, after so many milliseconds:
/photo/120/17/x.jpg is photo 17 after 120 ms; `html` is a web page that says it is a JPEG, `gone` a 404, and `stall` no
answer at all. With `close` every answer ends its connection.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ADDRESSES = [f"127.0.1.{number}" for number in range(1, 17)]
_ROOM = 1 << 18  # bytes of a socket's buffer: a whole photo is sent in one call
_HTML = b"<!DOCTYPE html><html><head><title>Moved</title></head><body>This photo is no longer here.</body></html>" * 20


def photo(bases: Sequence[bytes], number: int) -> bytes:
    """A JPEG like no other: one of the bases with its number in a comment."""
    base = bases[number % len(bases)]
    comment = b"photo %012d" % number
    return base[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + base[2:]


def main() -> None:
    folder, connections = sys.argv[1:]
    bases = [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))]
    _Server(bases, close=connections == "close").serve()


class _Server:
    def __init__(self, bases: Sequence[bytes], *, close: bool) -> None:
        self._bases, self._close = bases, close
        self._epoll = select.epoll()
        self._listening: dict[int, socket.socket] = {}
        self._open: dict[int, socket.socket] = {}
        self._due: list[tuple[float, int, int, socket.socket, bytes]] = []
        self._order = itertools.count()
        port = 0
        for address in ADDRESSES:
            listener = socket.create_server((address, port), backlog=4096)
            port = listener.getsockname()[1]
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)  # those it accepts inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)  # accepted with the request there
            self._listening[listener.fileno()] = listener
            self._epoll.register(listener, select.EPOLLIN)
        print(port, flush=True)

    def serve(self) -> None:
        self._epoll.register(sys.stdin, select.EPOLLIN)
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1
            for descriptor, _ in self._epoll.poll(wait, 256):
                if descriptor in self._listening:
                    self._accept(self._listening[descriptor])
                elif descriptor in self._open:
                    self._read(descriptor, self._open[descriptor])
                else:
                    return
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, descriptor, client, answer = heapq.heappop(self._due)
                if self._open.get(descriptor) is client:
                    self._send(descriptor, client, answer)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                return
            client.setblocking(False)
            self._open[client.fileno()] = client
            self._epoll.register(client, select.EPOLLIN)
            self._read(client.fileno(), client)

    def _read(self, descriptor: int, client: socket.socket) -> None:
        try:
            request = client.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            request = b""
        if not request:
            self._end(descriptor, client)
            return
        assert request.endswith(b"\r\n\r\n"), "a request that came in pieces"
        _, kind, milliseconds, number, _ = request.split(b" ", 2)[1].split(b"/")
        if kind == b"stall":
            return
        answer, after = self._answer(kind, int(number)), int(milliseconds) / 1000
        if after:
            due = (time.monotonic() + after, next(self._order), descriptor, client, answer)
            heapq.heappush(self._due, due)
        else:
            self._send(descriptor, client, answer)

    def _answer(self, kind: bytes, number: int) -> bytes:
        status, body = b"200 OK", _HTML
        if kind == b"photo":
            body = photo(self._bases, number)
        elif kind == b"gone":
            status = b"404 Not Found"
        connection = b"close" if self._close else b"keep-alive"
        head = b"HTTP/1.1 %b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\nConnection: %b\r\n\r\n"
        return head % (status, len(body), connection) + body

    def _send(self, descriptor: int, client: socket.socket, answer: bytes) -> None:
        try:
            sent = client.send(answer)
            if sent < len(answer):
                client.settimeout(1)
                client.sendall(answer[sent:])
                client.setblocking(False)
        except OSError:
            self._end(descriptor, client)
            return
        if self._close:
            self._end(descriptor, client)

    def _end(self, descriptor: int, client: socket.socket) -> None:
        del self._open[descriptor]
        client.close()  # which takes it out of epoll


if __name__ == "__main__":
    main()
