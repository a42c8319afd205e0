"""status and retry over made-up ledgers: hosts that fail, retries of some shards only."""

from pathlib import Path

import pytest
from helpers.command import Run

from dataprep.errors import UsageError, WorkspaceError
from dataprep.pipeline.maintenance import list_failed_hosts, request_retry
from dataprep.pipeline.pipeline import Pipeline
from dataprep.reasons import Reason
from dataprep.types import Row, Sample
from dataprep.workspace.workspace import Workspace

URLS = [
    ("http://Dead.example/a", Reason.DNS),
    ("http://dead.example:8080/b?u=http://other.example/", Reason.TIMEOUT),
    ("https://user:pw@dead.example/c", Reason.TIMEOUT),
    ("http://half.example/d", Reason.HTTP_404),
    ("http://half.example/e", None),
    ("http://[2001:db8::1]:80/f", Reason.TIMEOUT),
    ("no url at all", Reason.BAD_URL),
    ("http://well.example", None),
]


@pytest.fixture
def workspace(tmp_path: Path) -> str:
    """120 samples in shards of 50, the URLs above again and again."""
    opened = Workspace(tmp_path / "ws", create=True)
    samples = [Sample(key=f"p/{n}", identity="p", url=URLS[n % len(URLS)][0] + f"#{n}") for n in range(120)]
    plan = opened.plan()
    plan.add({"kind": "t"}, "d", samples)
    directory = Pipeline(opened, {}).node("download").store
    for shard in plan.shards:
        rows = [
            Row(key=s.key, identity="p", reason=URLS[int(s.key[2:]) % len(URLS)][1], values={"url": s.url})
            for s in plan.samples(shard)
        ]
        directory.commit(shard.id, rows, upstream=shard.digest, seconds=1.0)
    return str(tmp_path / "ws")


def test_the_hosts_that_failed_most_are_named(workspace: str, dataprep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataprep.pipeline.maintenance._TOGETHER", 2)
    assert list_failed_hosts(workspace, 3) == [
        {"host": "dead.example", "ok": 0, "lost": {"dns": 15, "timeout": 30}},
        {"host": "[2001:db8::1]", "ok": 0, "lost": {"timeout": 15}},
        {"host": "half.example", "ok": 15, "lost": {"http_404": 15}},
    ]
    shown = dataprep("status", "--hosts", "1").stdout
    assert "dead.example: 45 lost (timeout 30, dns 15), 0 ok" in shown
    assert "half.example" not in shown


def test_a_workspace_without_a_download_has_no_hosts(tmp_path: Path) -> None:
    Workspace(tmp_path / "ws", create=True)
    assert list_failed_hosts(str(tmp_path / "ws"), 5) == []


def test_after_a_retry_any_tool_that_reads_along_finds_every_sample_once(dataprep: Run, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "t.csv").write_text("url,name\n" + "".join(f"http://127.0.0.1:2/{n},A\n" for n in range(30)))
    asked = ("download", "urls", tmp_path / "t.csv", "--allow-private", "--retries", "0")
    dataprep(*asked)
    dataprep("retry", "--reason", "connection,host_down")
    dataprep(*asked)
    ledgers = list((tmp_path / "ws" / "stages").glob("download@*/rows/*.parquet"))
    assert sum(pq.read_metadata(path).num_rows for path in ledgers) == 30
    assert dataprep("gc").stdout.startswith("0 files")


def test_a_retry_may_be_of_some_shards_only(workspace: str) -> None:
    directory = Pipeline(Workspace(workspace), {}).node("download").store
    assert request_retry(workspace, ["timeout"], ["g0-000001"]) == {"download": {"timeout": 19}}
    assert directory.retries() == {"g0-000001": ["timeout"]}
    assert request_retry(workspace, ["dns", "timeout"]) == {"download": {"dns": 15, "timeout": 45}}
    assert directory.retries() == {f"g0-00000{n}": ["dns", "timeout"] for n in range(3)}
    with pytest.raises(UsageError, match="unknown shard 'g0-7'"):
        request_retry(workspace, ["timeout"], ["g0-7"])
    with pytest.raises(WorkspaceError, match="lost for html in g0-000001"):
        request_retry(workspace, ["html"], ["g0-000001"])
