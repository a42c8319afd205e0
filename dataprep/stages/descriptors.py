"""How many connections this process has room for."""

from __future__ import annotations

import resource

_OTHERS = 200  # files of open shards, pipes, libraries
_EACH = 2  # a connection in use, and one that is kept open for a while


def connections_possible(wanted: int) -> int:
    """As many of the `wanted` connections as the limit of open files allows; the soft limit is raised as far as need be.

    Many systems start processes with a soft limit of 1,024 for the sake of select(2), which nothing here uses.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    need = _EACH * wanted + _OTHERS
    if soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, (soft - _OTHERS) // _EACH))
