"""Connections and the limit of open files, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

_ASK = """
import resource, sys
from dataprep.download.limits import raise_descriptor_limit
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(raise_descriptor_limit(wanted), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "possible", "raised"),
    [
        (256, 900, 1000, 350, 900),  # as far as the hard limit goes
        (256, 900, 100, 100, 400),  # no further than is needed
        (500, 900, 100, 100, 500),  # not at all
        (64, 64, 1000, 1, 64),  # one at least
    ],
)
def test_the_soft_limit_is_raised_as_far_as_the_connections_need(
    soft: int, hard: int, wanted: int, possible: int, raised: int
) -> None:
    command = [sys.executable, "-c", _ASK, str(soft), str(hard), str(wanted)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(possible), str(raised), str(hard)]
