"""Connections that end when a server floods them with framing: interim responses, endless headers, chunks of one byte.

Each of these costs the event loop time for which other hosts wait, and no timeout sees it, because data keeps coming.
"""

from __future__ import annotations

import functools
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

_MOST = 256_000  # bytes of framing before and around the content of one response, beyond as many as there is content


class FramingFloodError(aiohttp.ClientError):
    """The server sends far more framing than content."""


class _BoundedHandler(ResponseHandler):
    """aiohttp's protocol of a connection, which counts what comes over the wire and what of it is content."""

    _wire = 0
    _before: Any = None

    def set_response_params(self, **params: Any) -> None:
        """Called by aiohttp at the start of each request."""
        self._wire, self._before = 0, self._payload
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wire += len(data)
        payload = self._payload
        content = getattr(payload, "total_bytes", 0) if payload is not self._before else 0
        if self._wire - 2 * content <= _MOST:
            return
        error = FramingFloodError(f"{self._wire} bytes for {content} of content")
        if content and payload is not None:
            payload.set_exception(error)
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


def bound_connections(connector: aiohttp.TCPConnector) -> None:
    """Let a connector make connections of this kind. aiohttp has no public way to name the protocol; a version that keeps it
    elsewhere leaves its connections unbounded, which the tests would notice."""
    if hasattr(connector, "_factory"):
        connector._factory = functools.partial(_BoundedHandler, loop=connector._loop)  # type: ignore[assignment]
