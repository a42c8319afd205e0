from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_faces import pack_writer


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Path]:
    """Write faces as a pack into a new folder."""
    return pack_writer(tmp_path)
