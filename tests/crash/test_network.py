"""The network goes away in the middle of a download, and comes back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import environment


def test_while_the_network_is_gone_nothing_counts_and_all_photos_arrive(tmp_path: Path) -> None:
    script = Path(__file__).with_name("outage.py")
    namespace = ["unshare", "-Urn"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")
    done = subprocess.run(
        [*namespace, sys.executable, script, tmp_path], env=environment(), capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["exit"] == 0, found["said"]
    assert found["verdicts"] == {"ok": 300}
    assert found["attempts"] == {"1": 300}
    assert "nothing answers: paused" in found["said"]
    assert "the network responds after" in found["said"]
    assert found["asked"] <= 300 + 12  # those in flight when it went away
