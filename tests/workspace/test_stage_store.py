import tarfile
from pathlib import Path

import pytest

from dataprep.errors import DamagedFileError
from dataprep.reasons import Reason
from dataprep.storage import Folder
from dataprep.types import Row
from dataprep.workspace.stage_store import StageStore


def stage_dir(path: Path) -> StageStore:
    return StageStore(Folder(path), name="x", columns={"n": "int32", "note": "string"}, counted=["n"])


def row(key: str, n: int, payload: bytes | None = b"data", reason: Reason | None = None, note: str = "") -> Row:
    return Row(key=key, identity="p", values={"n": n, "note": note}, payload=payload, reason=reason)


def test_a_commit_is_read_back_and_its_tar_is_any_tars(tmp_path: Path) -> None:
    directory = stage_dir(tmp_path)
    rows = [row("p/1", 1, b"\xff\xd8\xff one"), row("p/2", 2, None, Reason.HTML), row("p/3 é", 3, b"three")]
    marker = directory.commit("g0-0", rows, upstream="u", seconds=1.0)
    assert marker.account == {"in": 3, "ok": 2, "dropped": {"html": 1}, "failed": {}}
    found = directory.rows(marker)
    assert [(r["key"], r["verdict"], r["n"]) for r in found] == [
        ("p/1", "ok", 1),
        ("p/2", "dropped", 2),
        ("p/3 é", "ok", 3),
    ]
    reader = directory.payloads(marker)
    assert reader.read(found[0]["offset"], found[0]["size"]) == b"\xff\xd8\xff one"
    with tarfile.open(tmp_path / "data" / str(marker.data)) as archive:
        assert archive.getnames() == ["p/1.jpg", "p/3 é.bin"]
        member = archive.extractfile("p/3 é.bin")
        assert member is not None
        assert member.read() == b"three"


def test_the_same_rows_give_the_same_files_and_digest(tmp_path: Path) -> None:
    rows = [row("p/1", 1), row("p/2", 2)]
    one = stage_dir(tmp_path / "1").commit("s", rows, upstream="u", seconds=1.0)
    two = stage_dir(tmp_path / "2").commit("s", rows, upstream="u", seconds=9.0)
    assert (one.rows, one.data, one.digest) == (two.rows, two.data, two.digest)


def digest(tmp_path: Path, rows: list[Row], upstream: str = "u") -> str:
    return stage_dir(tmp_path).commit("s", rows, upstream=upstream, seconds=0).digest


def test_the_digest_follows_what_later_stages_see_and_nothing_else(tmp_path: Path) -> None:
    base = digest(tmp_path, [row("p/1", 1)])
    assert digest(tmp_path, [row("p/1", 1, note="slow")]) == base
    assert digest(tmp_path, [row("p/1", 2)]) != base
    assert digest(tmp_path, [row("p/1", 1, b"other")]) != base
    assert digest(tmp_path, [row("p/2", 1)]) != base
    assert digest(tmp_path, [row("p/1", 1)], upstream="v") != base
    lost = [digest(tmp_path, [row("p/1", 1, None, reason)]) for reason in (Reason.TIMEOUT, Reason.HTTP_404)]
    assert lost[0] == lost[1] != base


def test_only_the_marker_commits(tmp_path: Path) -> None:
    directory = stage_dir(tmp_path)
    directory.commit("s", [row("p/1", 1)], upstream="u", seconds=0)
    (tmp_path / "done/s.json").unlink()
    assert directory.markers() == {}
    garbage = {path.suffix for path in directory.list_unreferenced()}
    assert garbage == {".tar", ".parquet"}
    directory.commit("s", [row("p/1", 1)], upstream="u", seconds=0)
    assert directory.list_unreferenced() == []


def test_a_second_commit_replaces_the_first_and_ends_the_retry(tmp_path: Path) -> None:
    directory = stage_dir(tmp_path)
    directory.commit("s", [row("p/1", 1)], upstream="u", seconds=0)
    directory.request_retry("s", ["timeout"])
    assert directory.retries() == {"s": ["timeout"]}
    directory.commit("s", [row("p/1", 2)], upstream="u", seconds=0)
    assert directory.retries() == {}
    assert len(directory.list_unreferenced()) == 1  # the tar is the same; the first ledger is nobody's now


def test_a_damaged_ledger_is_named_and_a_damaged_marker_is_told_and_keeps_its_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = stage_dir(tmp_path)
    marker = directory.commit("s", [row("p/1", 1)], upstream="u", seconds=0)
    before = directory.rows_path(marker).read_bytes()
    directory.rows_path(marker).write_bytes(b"")
    with pytest.raises(DamagedFileError, match="is damaged: its content has the sha256") as raised:
        directory.rows(marker)
    assert raised.value.path == directory.rows_path(marker)
    directory.rows_path(marker).write_bytes(before)
    for damage in ('{"shard": "s"}', "{", "[]", '{"shard": 1}'):
        (tmp_path / "done/s.json").write_text(damage)
        assert directory.markers() == {}
    assert "done/s.json is not a marker" in caplog.text
    assert "the shard is done again" in caplog.text
    assert directory.list_unreferenced() == []


def test_a_second_retry_adds_to_the_first(tmp_path: Path) -> None:
    directory = stage_dir(tmp_path)
    directory.request_retry("s", ["timeout"])
    directory.request_retry("s", ["http_5xx", "timeout"])
    assert directory.retries() == {"s": ["http_5xx", "timeout"]}
