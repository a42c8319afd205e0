"""Photos enough for three shards, drawn once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from helpers.downloads import PHOTO


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """150 photos of three people: three shards."""
    for person, number in itertools.product("abc", range(50)):
        path = tmp_path / f"photos/{person}/{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTO + path.name.encode())  # what follows a JPEG's end is no fault
    return tmp_path / "photos"
