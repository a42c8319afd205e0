"""The command, in a world of its own names: all lead to loopback, but for `dead-*`, which exist no more."""

from __future__ import annotations

import socket
import sys


def lookup(host: str) -> list[str]:
    if host.startswith("dead-"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return ["127.0.0.1"]


if __name__ == "__main__":
    from dataprep.cli.main import main
    from dataprep.stages.download import DownloadStage

    DownloadStage.lookup = staticmethod(lookup)
    main(sys.argv[1:])
