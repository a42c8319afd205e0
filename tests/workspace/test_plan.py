from dataclasses import replace
from pathlib import Path

import pytest

from dataprep.errors import WorkspaceError
from dataprep.reasons import Reason
from dataprep.storage import Folder
from dataprep.types import Box, Sample
from dataprep.workspace.plan import Plan
from dataprep.workspace.plan_table import samples_to_table, table_digest


def samples(count: int, start: int = 0) -> list[Sample]:
    return [
        Sample(key=f"p{i // 10}/{i}", identity=f"p{i // 10}", url=f"http://x/{i}", box=Box(0, 1.5, 2, 3.25))
        for i in range(start, start + count)
    ]


def test_a_plan_is_read_back_as_it_was_frozen(tmp_path: Path) -> None:
    given = [*samples(120), Sample(key="odd/é 'x", identity="odd", error=Reason.BAD_LINE, detail="why")]
    Plan(Folder(tmp_path)).add({"kind": "t"}, "d1", given)
    plan = Plan(Folder(tmp_path))
    assert [s for shard in plan.shards for s in plan.samples(shard)] == given
    assert plan.count == 121
    assert plan.contains_source({"kind": "t"}, "d1")
    assert not plan.contains_source({"kind": "t"}, "d2")


def test_a_grown_list_appends_a_generation_and_renumbers_nothing(tmp_path: Path) -> None:
    plan = Plan(Folder(tmp_path))
    plan.add({}, "d1", samples(100))
    before = list(plan.shards)
    added = plan.add({}, "d2", samples(130))
    assert added is not None
    assert added.count == 30
    assert Plan(Folder(tmp_path)).shards[: len(before)] == before
    assert plan.add({}, "d3", samples(130)) is None


def test_a_repeated_key_is_kept_under_another_name(tmp_path: Path) -> None:
    plan = Plan(Folder(tmp_path))
    twice = samples(1) * 3
    plan.add({}, "d", twice)
    assert [s.key for shard in plan.shards for s in plan.samples(shard)] == ["p0/0", "p0/0~2", "p0/0~3"]


def test_shards_hold_a_thousand_and_split_small_sets(tmp_path: Path) -> None:
    large, small = Plan(Folder(tmp_path / "large")), Plan(Folder(tmp_path / "small"))
    large.add({}, "d", samples(20_500))
    small.add({}, "d", samples(400))
    assert {shard.size for shard in large.shards[:-1]} == {1000}
    assert [shard.size for shard in small.shards] == [50] * 8


def test_a_plan_is_the_same_whether_samples_come_one_by_one_or_in_tables(tmp_path: Path) -> None:
    local = [Sample(key=f"l/{i}", identity="l", path=f"/l/{i}.jpg", offset=i) for i in range(130)]
    given = [*samples(70), *local, *samples(40, start=70), Sample(key="u/1", identity="u", error=Reason.BAD_LINE)]
    plans = []
    for number, step in enumerate((0, 1, 7, 75, 1000)):
        chunks = [samples_to_table(given[at : at + step]) for at in range(0, len(given), step)] if step else given
        plans.append(Plan(Folder(tmp_path / str(number))))
        plans[-1].add({}, "d", [*chunks, given[0]])  # the first one once more
    shards = plans[0].shards
    counts = [(50, True), (20, True), (50, False), (50, False), (30, False), (42, True)]
    assert [(shard.size, shard.remote) for shard in shards] == counts
    assert len({shard.digest for shard in shards}) == len(shards)
    assert all(plan.shards == shards for plan in plans)


def test_every_value_of_a_sample_is_in_its_shards_digest() -> None:
    sample = Sample(key="a/1", identity="a", url="http://x/1", box=Box(0, 1, 2, 3), landmarks=((1.0, 2.0),) * 5)
    other = [
        {"key": "a/2"}, {"identity": "b"}, {"url": "http://x/2"}, {"path": "1"}, {"offset": 0}, {"aligned": True},
        {"box": Box(0, 1, 2, 3.5)}, {"box": None}, {"box_frame": "upright"}, {"landmarks": ((1.0, 2.5),) * 5},
        {"landmarks": None}, {"hash": "md5:0"}, {"error": Reason.BAD_LINE}, {"detail": "x"},
        {"key": "a/1http://", "url": "x/1"},
    ]  # fmt: skip
    digests = [
        table_digest(samples_to_table([each])) for each in [sample, *(replace(sample, **values) for values in other)]
    ]
    assert len(set(digests)) == len(other) + 1
    assert table_digest(samples_to_table([sample] * 3).slice(1, 1)) == digests[0]


def test_a_kill_while_planning_leaves_no_half_plan(tmp_path: Path) -> None:
    def dying() -> object:
        yield from samples(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Plan(Folder(tmp_path)).add({}, "d", dying())  # type: ignore[arg-type]
    plan = Plan(Folder(tmp_path))
    assert plan.generations == []
    plan.add({}, "d", samples(60))
    assert plan.count == 60


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    plan = Plan(Folder(tmp_path))
    plan.add({}, "d", samples(10))
    (tmp_path / "g0-000000.parquet").write_bytes(b"junk")
    with pytest.raises(WorkspaceError, match=r"g0-000000\.parquet cannot be read"):
        plan.samples(plan.shards[0])
    (tmp_path / "g0.json").write_text("{")
    with pytest.raises(WorkspaceError, match=r"g0-000000\.parquet cannot be read"):
        Plan(Folder(tmp_path))  # and it cannot be read again from its shards


def keys(plan: Plan) -> list[str]:
    return [s.key for shard in plan.shards for s in plan.samples(shard)]


def test_another_sources_photo_of_the_same_name_is_kept(tmp_path: Path) -> None:
    plan = Plan(Folder(tmp_path))
    batches = [[Sample(key="alice/1", identity="alice", path=f"/batch{n}/alice/1.jpg")] for n in (1, 2)]
    plan.add({"n": 1}, "d1", batches[0])
    plan.add({"n": 2}, "d2", batches[1])
    assert keys(plan) == ["alice/1", "alice/1~2"]
    assert plan.add({"n": 2}, "d3", batches[1]) is None


def test_repeated_keys_are_not_planned_again_when_the_list_grows(tmp_path: Path) -> None:
    plan = Plan(Folder(tmp_path))
    listed = [Sample(key="a/1", identity="a", path=f"/x/a/1.{suffix}") for suffix in ("jpg", "png")]
    plan.add({}, "d1", listed)
    plan.add({}, "d2", [*listed, Sample(key="a/2", identity="a", path="/x/a/2.jpg")])
    assert keys(plan) == ["a/1", "a/1~2", "a/2"]


def test_two_processes_that_plan_lose_nothing(tmp_path: Path) -> None:
    one, two = Plan(Folder(tmp_path)), Plan(Folder(tmp_path))  # both opened before either has planned
    one.add({"n": 1}, "d1", samples(5))
    two.add({"n": 2}, "d2", samples(5, start=100))
    assert len(keys(Plan(Folder(tmp_path)))) == 10


def test_landmarks_are_kept_and_a_plan_from_before_them_is_read(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    points = ((1.5, 2.0), (3.0, 4.0), (float("nan"), 6.0), (7.0, 8.0), (9.0, 10.0))
    given = [Sample(key="a/1", identity="a", path="1.jpg", landmarks=points), *samples(3)]
    plan = Plan(Folder(tmp_path))
    plan.add({}, "d", given)
    first = plan.samples(plan.shards[0])[0]
    assert first.landmarks is not None
    assert str(first.landmarks) == str(points)
    for path in tmp_path.glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["landmarks"]), path)
    old = [s for shard in plan.shards for s in plan.samples(shard)]
    assert [s.landmarks for s in old] == [None] * 4
    assert old[1:] == samples(3)


def test_a_generation_whose_file_is_damaged_or_gone_is_read_again_from_its_shards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def plan() -> Plan:
        return Plan(Folder(tmp_path))

    def samples(start: int) -> list[Sample]:
        return [Sample(key=f"a/{n}", identity="a", path=f"/p/{n}.jpg") for n in range(start, start + 120)]

    plan().add({"kind": "folder", "root": "/p"}, "d0", samples(0))
    plan().add({"kind": "folder", "root": "/q"}, "d1", samples(120))
    before = plan().generations
    for damage in (b"{", b"\xff", b'{"source": 1}', None):
        path = tmp_path / "g0.json"
        path.write_bytes(damage) if damage is not None else path.unlink()
        assert plan().generations == before
        assert plan().generations == before  # and it is written again
        assert plan().contains_source({"kind": "folder", "root": "/p"}, "d0")
    assert "read again from its shards" in caplog.text
    (tmp_path / "g0.json").unlink()
    added = plan().add({"kind": "folder", "root": "/r"}, "d2", samples(240))
    assert added is not None
    assert added.number == 2
    assert plan().count == 360
    for shard in tmp_path.glob("g0*"):
        shard.unlink()
    with pytest.raises(WorkspaceError, match="is damaged or gone, and so are its shards"):
        plan()
