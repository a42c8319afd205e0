"""The runner on its own: photos that kill workers, versions that changed, shards that cannot be done."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor

from dataprep.errors import WorkspaceError
from dataprep.pipeline import runner
from dataprep.pipeline.executors import SerialExecutor
from dataprep.pipeline.pipeline import Pipeline, PipelineState
from dataprep.pipeline.progress import StageProgress
from dataprep.pipeline.worker import ProgressBoard, Task, TaskResult, run_task
from dataprep.sources.folder import FolderSource
from dataprep.workspace.workspace import Workspace


class Silent:
    def refresh(self, gauges: Mapping[str, StageProgress]) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self, gauges: Mapping[str, StageProgress]) -> None: ...


@pytest.fixture
def chain(drawn: Path, tmp_path: Path) -> Pipeline:
    workspace = Workspace(tmp_path / "ws", create=True)
    source = FolderSource(drawn)
    workspace.plan().add(source.describe(), source.digest(), source.samples())
    return Pipeline(workspace, {}, until="crop")


class Deadly(SerialExecutor):
    """Workers that die at one photo, as of a codec that crashes: the board shows where, once they go one by one."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.deaths = 0

    def run(self, tasks: Iterable[Task | None]) -> Iterator[TaskResult | None]:
        for task in tasks:
            yield self.run_isolated(task) if task else None

    def run_isolated(self, task: Task) -> TaskResult:
        plan = Workspace(task.workspace).plan()
        keys = [s.key for s in plan.samples(next(s for s in plan.shards if s.id == task.shard))]
        if self._key in keys and self._key not in task.skip:
            self.deaths += 1
            ProgressBoard(Path(task.board_path), task.slots).set(
                task.slot, keys.index(self._key) if task.one_by_one else 0
            )
            return TaskResult(task=task, died=True)
        return run_task(task)


def test_a_photo_that_kills_workers_is_left_out_and_the_rest_is_done(
    chain: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = Deadly("Person_00002/0003")
    monkeypatch.setattr(runner, "make_executor", lambda jobs: deadly)
    report = runner.run_pipeline(chain, jobs=1, display=Silent())
    assert report.errors == {}
    assert report.accounts["validate"]["failed"] == {"worker_died": 1}
    assert report.accounts["validate"]["ok"] == 35
    assert report.accounts["crop"]["in"] == 35
    assert deadly.deaths == 5  # once among others, once alone, three times photo by photo


def test_a_shard_that_raises_is_reported_and_the_others_are_done(chain: Pipeline) -> None:
    state = PipelineState(chain, chain.workspace.plan())
    (chain.workspace.path / "plan" / f"{next(iter(state.shards))}.parquet").write_bytes(b"damaged")
    report = runner.run_pipeline(chain, jobs=0, display=Silent())
    assert len(report.errors) == 1
    assert "it is not what was planned" in next(iter(report.errors.values()))


def test_loky_gives_every_result(chain: Pipeline) -> None:
    try:
        report = runner.run_pipeline(chain, jobs=2, display=Silent())
    finally:
        get_reusable_executor(max_workers=2).shutdown(wait=True, kill_workers=True)
    assert report.accounts["crop"]["ok"] == 36
    assert report.committed == {"validate": 1, "crop": 1}


def test_other_library_versions_stop_a_begun_stage_until_accepted(chain: Pipeline) -> None:
    runner.run_pipeline(chain, jobs=0, display=Silent())
    link = chain.node("validate")
    described = link.store.read_description()
    assert described is not None
    link.store.write_description({**described, "versions": {"pillow": "1.0"}})
    runner.run_pipeline(chain, jobs=0, display=Silent())  # nothing is pending: nothing to object to
    shard = next(iter(chain.workspace.plan().shards)).id
    link.store.request_retry(shard, ["internal_error"])
    with pytest.raises(WorkspaceError, match=r"pillow 1\.0 -> ") as raised:
        runner.run_pipeline(chain, jobs=0, display=Silent())
    assert "--accept-versions" in raised.value.hint
    runner.run_pipeline(chain, jobs=0, display=Silent(), accept_versions=True)
    assert link.store.read_description() == described


def test_a_photo_that_changed_behind_validates_back_is_noticed(drawn: Path, tmp_path: Path) -> None:
    import shutil

    photos = tmp_path / "photos"
    shutil.copytree(drawn, photos)
    (photos / "truth.csv").unlink()
    workspace = Workspace(tmp_path / "ws", create=True)
    source = FolderSource(photos)
    workspace.plan().add(source.describe(), source.digest(), source.samples())
    runner.run_pipeline(Pipeline(workspace, {}, until="crop"), jobs=0, display=Silent())
    (photos / "Person_00000/0001.jpg").write_bytes((photos / "Person_00001/0001.jpg").read_bytes())
    (photos / "Person_00000/0002.jpg").unlink()
    report = runner.run_pipeline(Pipeline(workspace, {}, until="align"), jobs=0, display=Silent())
    assert report.accounts["detect"]["failed"] == {"photo_changed": 1, "io_error": 1}


def test_runs_leave_a_log_of_events(chain: Pipeline) -> None:
    runner.run_pipeline(chain, jobs=0, display=Silent())
    (log,) = (chain.workspace.path / "runs").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [e["event"] for e in events] == ["pending", "pending", "commit", "commit", "end"]
    assert events[2]["ok"] == 36
