import json
from pathlib import Path

import pytest

from dataprep.errors import WorkspaceError
from dataprep.workspace.workspace import Workspace


def test_a_workspace_of_another_schema_is_refused_with_a_remedy(tmp_path: Path) -> None:
    Workspace(tmp_path / "ws", create=True)
    path = tmp_path / "ws/dataprep.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 1}))
    with pytest.raises(WorkspaceError, match="has workspace schema 1; this version reads 2") as raised:
        Workspace(tmp_path / "ws")
    assert "name a new workspace with -w" in raised.value.hint
