"""Names from strangers: never a file outside, never two samples in one file, whatever disk it is."""

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.names import casefold_name, is_safe, plain_name
from dataprep.reasons import Reason
from dataprep.sources.base import bad_line_sample, is_identity_name, named_sample
from dataprep.types import Sample
from dataprep.workspace.plan_merge import PlannedShard, location_keys, select_new_samples
from dataprep.workspace.plan_table import samples_to_table, table_to_samples

# what names are made of that do harm, beside any text
NASTY = st.sampled_from(
    ["..", ".", "/", "\\", "\0", "con", "NUL", "aux.txt", "COM¹", "~", "-", " ", ":", "\u202e", "\u200b", "\ufeff", "\u2028",
     "\ud800", "／", "．", "…", "e\u0301", "é", "ß", "SS", "İ", "ﬁ", "A", "a", "1",
     "x" * 90, "好" * 40, "_unusable", "\x85", "\ufffd"]
)  # fmt: skip
NAMES = st.lists(st.one_of(NASTY, st.text(max_size=3)), max_size=4).map("".join)


def harmless(key: str) -> bool:
    """Written without is_safe: what must hold of a path under a root on any disk."""
    parts = key.split("/")
    return len(parts) >= 2 and all(
        part not in ("", ".", "..")
        and len(f"{part}~1000000.bin.tmp".encode()) <= 255
        and part == unicodedata.normalize("NFC", part)
        and part.rstrip(". ") == part
        and not set("\\:*?\"<>|\0\n\r\t") & set(part)
        and not {unicodedata.category(c) for c in part} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        and part.split(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}
        for part in parts
    )  # fmt: skip


@settings(max_examples=80)
@given(NAMES, NAMES)
def test_no_name_of_a_list_yields_an_unsafe_key(identity: str, name: str) -> None:
    sample = named_sample(identity, name, "line 7")
    assert harmless(sample.key)
    assert sample.key.startswith(f"{sample.identity}/")
    (sample.key + sample.detail).encode()
    if sample.error:
        assert (sample.identity, sample.error) == ("_unusable", Reason.BAD_NAME)
        assert "line 7" in sample.detail
    else:
        assert sample.key == f"{plain_name(identity)}/{plain_name(name)}"


@settings(max_examples=80)
@given(NAMES)
def test_what_is_safe_stays_so_when_a_disk_or_a_program_folds_it(name: str) -> None:
    if is_safe(name):
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            assert harmless(f"a/{unicodedata.normalize('NFC', unicodedata.normalize(form, name))}")
        assert casefold_name(name) == casefold_name(name.upper().lower()) or not name.isascii()
        assert (
            casefold_name(unicodedata.normalize("NFD", name))
            == casefold_name(name)
            == casefold_name(casefold_name(name))
        )


def as_planned(samples: list[Sample]) -> list[PlannedShard]:
    table = samples_to_table(samples)
    return [
        PlannedShard(table["key"].to_pylist(), location_keys(table).to_pylist(), table["identity"].unique().to_pylist())
    ]


def what_is_new(samples: list[Sample], planned: list[PlannedShard]) -> list[Sample]:
    return [
        sample
        for table in select_new_samples([samples_to_table(samples)], planned)
        for sample in table_to_samples(table)
    ]


SIMILAR = st.sampled_from(["Anna", "anna", "ANNA", "Zoë", "ZOË", "A", "a", "Straße", "STRASSE"])
PEOPLE = st.one_of(SIMILAR, st.sampled_from(["a~2", "a~1", "anna~2", "A~2"]))


@settings(max_examples=80)
@given(st.lists(st.tuples(PEOPLE, SIMILAR, st.integers(0, 3)), max_size=12), st.randoms(use_true_random=False))
def test_people_and_photos_that_differ_in_case_only_stay_apart_and_keep_their_names(rows: list, random: object) -> None:
    samples = [Sample(key=f"{who}/{name}", identity=who, url=f"http://x/{photo}") for who, name, photo in rows]
    planned = what_is_new(samples, [])
    assert len(planned) == len(samples)
    assert len({casefold_name(s.key) for s in planned}) == len(planned)
    origin = {s.identity: given.identity for s, given in zip(planned, samples, strict=True)}
    assert len(origin) == len({s.identity for s in samples})
    assert all(s.key.startswith(f"{s.identity}/") for s in planned)
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert what_is_new(shuffled, as_planned(planned)) == []


def test_names_that_real_lists_have() -> None:
    assert named_sample("Robert_Downey_Jr.", "1", "").key == "Robert_Downey_Jr/1"
    assert named_sample("Zoe\u0308", "1", "").identity == "Zoë"
    assert named_sample("_Unusable", "1", "").error is Reason.BAD_NAME
    assert not is_identity_name("DJ_Clue?")


def test_a_name_that_is_repeated_a_lot_costs_no_more_each_time() -> None:
    many = [Sample(key="a/1", identity="a", url=str(number)) for number in range(3_000)]
    planned = what_is_new(many, [])
    assert planned[-1].key == "a/1~3000"
    assert what_is_new(many, as_planned(planned)) == []


def test_a_bad_line_is_the_same_sample_when_lines_move() -> None:
    one, two, three = (
        bad_line_sample("t line 1", "x", "a,b"),
        bad_line_sample("t line 9", "x", "a,b"),
        bad_line_sample("t line 9", "x", "a,c"),
    )
    assert one.key == two.key != three.key
