"""What several tests share: the command as a process, drawn photos, and the real data if it lies beside the project."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

Run = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dataprep", *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment without proxies or a workspace of the person who runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "DATAPREP_WORKSPACE"}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def dataprep(tmp_path: Path) -> Run:
    """Run the command on a workspace in tmp_path; an unexpected exit code fails the test with its output."""

    def run(*arguments: object, code: int = 0, workspace: object = tmp_path / "ws") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command("-w", workspace, *arguments),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn people with six photos each, as folders."""
    from dataprep.synth.photos import draw_folder

    root = tmp_path_factory.mktemp("drawn")
    draw_folder(root, identities=6, photos=6)
    return root


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real data beside the project; tests that need it are skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"the real data is not there ({SHARED})")
    return SHARED


def pack_bytes(folder: Path) -> dict[str, bytes]:
    """The files of a pack that must not differ between two ways to the same pack."""
    names: Sequence[str] = ("train.rec", "train.idx", "train.lst", "property", "labels.tsv", "holdout.bin")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
