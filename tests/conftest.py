"""What several tests share: the command as a process, drawn photos, and the real data if it lies beside the project."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helpers.command import SHARED, Run, command, environment


@pytest.fixture
def dataprep(tmp_path: Path) -> Run:
    """Run the command on a workspace in tmp_path; an unexpected exit code fails the test with its output (None: any)."""

    def run(
        *arguments: object, code: int | None = 0, workspace: object = tmp_path / "ws"
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command("-w", workspace, *arguments),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=300,
            check=False,
        )
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
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
