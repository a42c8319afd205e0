"""The command as a process, and the files that two ways to one pack must share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"

Run = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dataprep", *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment without proxies or a workspace of the person who runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "DATAPREP_WORKSPACE"}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def pack_bytes(folder: Path) -> dict[str, bytes]:
    """The files of a pack that must not differ between two ways to the same pack."""
    names: Sequence[str] = ("train.rec", "train.idx", "train.lst", "property", "labels.tsv", "holdout.bin")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
