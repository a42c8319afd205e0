"""Imported at the start of every Python that has this folder on its path: names under .test, and no network but loopback.

BENCHMARK_NAMES is a file of JSON, name to address. What is not in it does not exist. The first question for a name takes
as long as it would with a resolver of one's own on this machine, `BENCHMARK_LOOKUP` seconds; later ones are free.
"""

import json
import os
import socket
import time
from typing import Any

_ask = socket.getaddrinfo
_LOOKUP = float(os.environ["BENCHMARK_LOOKUP"])
with open(os.environ["BENCHMARK_NAMES"]) as _stream:
    _NAMES = json.load(_stream)
_known = set()


def _getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name.replace(".", "").isdecimal():
        return _ask(host, port, family, type, proto, flags)
    if name not in _known:
        time.sleep(_LOOKUP)
        _known.add(name)
    if name not in _NAMES:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _ask(_NAMES[name], port, family, type, proto, flags)


socket.getaddrinfo = _getaddrinfo
