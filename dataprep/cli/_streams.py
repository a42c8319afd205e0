"""What is printed is plain text: names, details and metadata of strangers can neither steer a terminal nor turn text
round."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from dataprep.names import printable

_LAYOUT = re.compile(r"([\n\r\t]+)")


class _PlainStream:
    """A text stream that escapes control, invisible and direction-changing characters."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if text.isascii() and text.isprintable():
            self._stream.write(text)
        else:
            parts = _LAYOUT.split(text)
            self._stream.write("".join(part if place % 2 else printable(part) for place, part in enumerate(parts)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def plain_streams() -> Iterator[None]:
    """Let stdout and stderr pass plain text only while the block runs. Progress bars write to the stream beneath."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _PlainStream(before[0]), _PlainStream(before[1])
    try:
        yield
    finally:
        if isinstance(sys.stderr, _PlainStream):  # else the terminal is gone, and so are they
            sys.stdout, sys.stderr = before
