from pathlib import Path

import pytest

from dataprep.errors import WorkspaceError
from dataprep.storage import Folder
from dataprep.workspace.workspace import Workspace


def test_a_workspace_of_another_schema_is_refused_with_a_remedy(tmp_path: Path) -> None:
    Workspace(tmp_path / "ws", create=True)
    Folder(tmp_path / "ws").put_record("dataprep.json", {"schema": 1})
    with pytest.raises(WorkspaceError, match="has workspace schema 1; this version reads 2") as raised:
        Workspace(tmp_path / "ws")
    assert "name a new workspace with -w" in raised.value.hint
