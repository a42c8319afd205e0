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


def test_only_our_own_leftovers_are_removed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put("a.json", b"{}")
    names = [".a.json.77-0123abcd.tmp", ".notes.tmp", "a.77-0123abcd.tmp", ".a.json.77.tmp", ".a.json.77-0123abcg.tmp"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    folder.remove_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.json", *names[1:]])
