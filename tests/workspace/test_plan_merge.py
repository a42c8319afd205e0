"""What is new in a list, against the plain way to say it: a dictionary of all that is planned, and a set of all seen."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.names import casefold_name
from dataprep.storage import Folder
from dataprep.types import Sample
from dataprep.workspace import plan_merge as numbering
from dataprep.workspace import plan_table as module
from dataprep.workspace.plan import Plan
from dataprep.workspace.plan_merge import PlannedShard, location_keys, select_new_samples
from dataprep.workspace.plan_table import iterate_tables, samples_to_table, table_to_samples


def plainly(samples: Iterable[Sample], planned: dict[str, str]) -> Iterator[Sample]:
    """The definition: a key that stands for another photo gets the first number that is free, or already its own.

    `planned` has places by keys; cases and forms of accents make no difference between keys.
    """
    known = {casefold_name(key): place for key, place in planned.items()}
    seen: set[str] = set()
    for sample in samples:
        place = place_of(sample)
        for number in itertools.count(1):
            key = sample.key if number == 1 else f"{sample.key}~{number}"
            if casefold_name(key) not in seen and known.get(casefold_name(key), place) == place:
                break
        seen.add(casefold_name(key))
        if casefold_name(key) not in known:
            yield replace(sample, key=key)


def place_of(sample: Sample) -> str:
    (place,) = location_keys(samples_to_table([sample])).to_pylist()
    return str(place)


def columns(planned: dict[str, str]) -> list[PlannedShard]:
    return [PlannedShard(list(planned), list(planned.values()), ["p"])]


# few keys and places, so that they meet; some keys look like numbered ones
SAMPLES = st.builds(
    Sample,
    key=st.sampled_from(
        ["p/a", "p/a~2", "p/a~3", "p/a~2~2", "p/b", "p/B", "p/b~2", "p/\u00e4/\u00f6", "p/A\u0308/\u00f6"]
    ),
    identity=st.just("p"),
    url=st.sampled_from(["", "", "http://x/1", "http://x/2"]),
    path=st.sampled_from(["", "", "1.rec"]),
    offset=st.sampled_from([None, None, 0, 8]),
    detail=st.sampled_from(["", "", "line 3"]),
)


@settings(max_examples=100, deadline=None)
@given(lists=st.lists(st.lists(SAMPLES, max_size=40), min_size=1, max_size=4), chunk=st.sampled_from([1, 3, 1000]))
def test_what_is_new_is_what_the_plain_way_finds(lists: list[list[Sample]], chunk: int) -> None:
    usual = module._CHUNK, numbering._MANY
    module._CHUNK, numbering._MANY = chunk, 2
    try:
        planned: dict[str, str] = {}
        for listed in lists:
            found = [
                sample
                for table in select_new_samples(iterate_tables(listed), columns(planned))
                for sample in table_to_samples(table)
            ]
            assert found == list(plainly(listed, planned))
            planned |= {sample.key: place_of(sample) for sample in found}
    finally:
        module._CHUNK, numbering._MANY = usual


@settings(max_examples=12, deadline=None)
@given(lists=st.lists(st.lists(SAMPLES, max_size=60), min_size=1, max_size=3))
def test_a_plan_on_the_disk_knows_what_it_holds(tmp_path_factory: object, lists: list[list[Sample]]) -> None:
    plan = Plan(Folder(tmp_path_factory.mktemp("plan")))  # type: ignore[attr-defined]
    planned: dict[str, str] = {}
    for number, listed in enumerate(lists):
        expected = list(plainly(listed, planned))
        before = plan.count
        plan.add({}, f"d{number}", listed)
        assert [s for shard in plan.shards for s in plan.samples(shard)][before:] == expected
        planned |= {sample.key: place_of(sample) for sample in expected}


def test_thousands_of_namesakes_are_numbered_without_counting_from_one_each_time() -> None:
    listed = [Sample(key="a/1", identity="a", url=f"http://x/{number}") for number in range(5_000)]
    keys = [key for table in select_new_samples(iterate_tables(listed), []) for key in table["key"].to_pylist()]
    assert keys[0] == "a/1"
    assert keys[1:] == [f"a/1~{number}" for number in range(2, 5_001)]


def test_a_planning_that_was_killed_leaves_nothing_behind_for_good(tmp_path: Path) -> None:
    (tmp_path / ".g0-000000.parquet.99-0123abcd.tmp").write_bytes(b"half a shard")
    Plan(Folder(tmp_path)).add({}, "d", [Sample(key="a/1", identity="a", path="1.jpg")])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "g0-000000.parquet", "g0.json"]
