import hashlib
import os
import resource
import tarfile
from pathlib import Path

import pytest

from dataprep.reasons import Reason
from dataprep.storage import Folder
from dataprep.tar import TAR_END
from dataprep.types import Row
from dataprep.workspace.journal import Journal
from dataprep.workspace.stage_store import StageStore

KEYS = [f"p/{i}" for i in range(6)]


def directory(path: Path) -> StageStore:
    return StageStore(Folder(path), name="download", columns={"seconds": "double"}, counted=[])


def row(key: str) -> Row:
    number = int(key[2:])
    if number == 3:
        return Row(key=key, identity="p", reason=Reason.TIMEOUT, values={"seconds": 1.0})
    return Row(key=key, identity="p", payload=bytes([number]) * (700 * number), values={"seconds": 1.0})


def photos(path: Path) -> dict[str, bytes]:
    d = directory(path)
    marker = d.marker("s")
    assert marker is not None
    reader = d.payloads(marker)
    return {r["key"]: reader.read(r["offset"], r["size"]) for r in d.rows(marker) if r["size"] is not None}


EXPECTED = {key: row(key).payload for key in KEYS if row(key).payload is not None}


@pytest.mark.parametrize("cut", [0, 1, 17, 600, 2000])
@pytest.mark.parametrize("torn", ["tar", "jsonl"])
def test_a_torn_journal_costs_the_torn_samples_only(tmp_path: Path, torn: str, cut: int) -> None:
    journal = Journal(directory(tmp_path), "s")
    for key in KEYS[:5]:
        journal.record(row(key))
    journal.close()
    path = tmp_path / f"journal/s.{torn}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    journal = Journal(directory(tmp_path), "s")
    if cut == 0:
        assert list(journal.rows) == KEYS[:5]
    for key in reversed(KEYS):
        if key not in journal.rows:
            journal.record(row(key))
    marker = journal.commit(KEYS, upstream="u", seconds=0)
    assert photos(tmp_path) == EXPECTED
    assert marker.account == {"in": 6, "ok": 5, "dropped": {}, "failed": {"timeout": 1}}
    assert list((tmp_path / "journal").iterdir()) == []


def test_the_digest_does_not_know_the_order_of_arrival(tmp_path: Path) -> None:
    digests = []
    for name, keys in (("a", KEYS), ("b", KEYS[::-1])):
        journal = Journal(directory(tmp_path / name), "s")
        for key in keys:
            journal.record(row(key))
        digests.append(journal.commit(KEYS, upstream="u", seconds=0).digest)
    assert digests[0] == digests[1]


def test_a_retry_keeps_what_is_there_and_asks_for_the_rest(tmp_path: Path) -> None:
    journal = Journal(directory(tmp_path), "s")
    for key in KEYS:
        journal.record(row(key))
    journal.commit(KEYS, upstream="u", seconds=0)
    for _ in range(2):  # the second time, the journal of the first is found
        journal = Journal(directory(tmp_path), "s", redo=["timeout"])
        assert sorted(journal.rows) == [key for key in KEYS if key != "p/3"]
        assert photos(tmp_path) == EXPECTED  # the old commit stands meanwhile
        journal.close()
    journal = Journal(directory(tmp_path), "s", redo=["timeout"])
    journal.record(Row(key="p/3", identity="p", payload=b"at last", values={"seconds": 2.0}))
    journal.commit(KEYS, upstream="u", seconds=0)
    assert photos(tmp_path) == {**EXPECTED, "p/3": b"at last"}


def test_a_kill_before_the_marker_leaves_the_journal_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(directory(tmp_path), "s")
    for key in KEYS:
        journal.record(row(key))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StageStore, "commit_flat", killed)
        with pytest.raises(KeyboardInterrupt):
            journal.commit(KEYS, upstream="u", seconds=0)
    journal.close()
    journal = Journal(directory(tmp_path), "s")
    assert list(journal.rows) == KEYS
    journal.commit(KEYS, upstream="u", seconds=0)
    assert photos(tmp_path) == EXPECTED


@pytest.mark.parametrize("left", ["both", "tar"])
def test_a_kill_right_after_the_commit_does_no_harm_to_a_later_retry(tmp_path: Path, left: str) -> None:
    journal = Journal(directory(tmp_path), "s")
    for key in KEYS:
        journal.record(row(key))
    lines = (tmp_path / "journal/s.jsonl").read_bytes()
    marker = journal.commit(KEYS, upstream="u", seconds=0)
    os.link(tmp_path / f"data/{marker.data}", tmp_path / "journal/s.tar")  # as if the kill came before the removal
    if left == "both":
        (tmp_path / "journal/s.jsonl").write_bytes(lines)
    journal = Journal(directory(tmp_path), "s", redo=["timeout"])
    assert sorted(journal.rows) == [key for key in KEYS if key != "p/3"]
    assert photos(tmp_path) == EXPECTED
    journal.close()


def test_reasons_asked_for_later_reach_a_journal_that_is_open(tmp_path: Path) -> None:
    journal = Journal(directory(tmp_path), "s")
    for key in KEYS:
        journal.record(row(key))
    journal.close()
    journal = Journal(directory(tmp_path), "s", redo=["timeout"])
    assert "p/3" not in journal.rows
    journal.close()


def test_what_a_retry_has_recorded_before_a_kill_is_not_asked_again(tmp_path: Path) -> None:
    keys = [f"p/{i}" for i in range(10)]

    def lost(key: str, reason: Reason = Reason.TIMEOUT) -> Row:
        return Row(key=key, identity="p", reason=reason, values={"seconds": 2.0})

    journal = Journal(directory(tmp_path), "s")
    journal.record(*map(lost, keys))
    journal.commit(keys, upstream="u", seconds=0)
    for done in range(3):  # killed three times, after one more of them was asked in vain
        journal = Journal(directory(tmp_path), "s", redo=["timeout"])
        assert list(journal.rows) == keys[:done]
        journal.record(lost(keys[done]))
        journal.close()
    journal = Journal(directory(tmp_path), "s", redo=["dns", "timeout"])
    journal.record(lost(keys[3], Reason.DNS))  # asked for when this retry was under way
    journal.close()
    journal = Journal(directory(tmp_path), "s", redo=["dns", "timeout"])
    assert list(journal.rows) == keys[:4]
    journal.record(*map(lost, keys[4:]))
    journal.commit(keys, upstream="u", seconds=0)
    journal = Journal(directory(tmp_path), "s", redo=["timeout"])
    assert list(journal.rows) == [keys[3]]  # the next retry begins anew
    journal.close()


def test_a_retry_that_a_kill_left_behind_after_its_commit_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    journal = Journal(directory(tmp_path), "s")
    journal.record(*map(row, KEYS))
    journal.commit(KEYS, upstream="u", seconds=0)
    journal = Journal(directory(tmp_path), "s", redo=["timeout"])
    journal.record(Row(key="p/3", identity="p", payload=b"a placeholder", values={"seconds": 2.0}))
    # takes that one's place, so that the tar is written anew at the commit
    journal.record(Row(key="p/3", identity="p", reason=Reason.TIMEOUT, values={"seconds": 2.0}))
    left = {path: path.read_bytes() for path in (tmp_path / "journal").iterdir()}
    journal.commit(KEYS, upstream="u", seconds=1)
    for path, data in left.items():
        path.write_bytes(data)
    journal = Journal(directory(tmp_path), "s", redo=["timeout"])
    assert sorted(journal.rows) == [key for key in KEYS if key != "p/3"]
    journal.close()


@pytest.mark.parametrize("full", ["tar", "jsonl"])
def test_a_full_disk_leaves_the_journal_as_it_was_and_it_goes_on_when_there_is_room(tmp_path: Path, full: str) -> None:
    """The disk's end is a limit on the size of files: writes fail half-way, again and again, as on a full disk."""
    keys = [f"p/{number:02d}" for number in range(40)]
    rows = [
        Row(key=key, identity="p", payload=key.encode() * 700, values={"seconds": 1.0})
        if full == "tar"
        else Row(key=key, identity="p", reason=Reason.TIMEOUT, detail=key * 350, values={"seconds": 1.0})
        for key in keys
    ]
    journal = Journal(directory(tmp_path), "s")
    failures = 0
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number, one in enumerate(rows):
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000 + 5000 * (number // 4), usual[1]))
        try:
            journal.record(one)
        except OSError:
            failures += 1
            if number % 2:  # the process goes on, or another one takes over
                resource.setrlimit(resource.RLIMIT_FSIZE, usual)
                journal.close()
                journal = Journal(directory(tmp_path), "s")
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
            journal.record(one)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert failures > 5
    assert list(journal.rows) == keys
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "journal/s.tar").stat().st_size + 512, usual[1]))
    try:  # half of the tar's end has room
        with pytest.raises(OSError, match="too large"):
            journal.commit(keys, upstream="u", seconds=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    marker = journal.commit(keys, upstream="u", seconds=0)
    assert photos(tmp_path) == {one.key: one.payload for one in rows if one.payload}
    assert hashlib.sha256((tmp_path / f"data/{marker.data}").read_bytes()).hexdigest() == marker.data_sha256
    assert directory(tmp_path).list_unreferenced() == []


def test_a_commit_that_found_no_room_for_its_ledger_is_made_again(tmp_path: Path) -> None:
    journal = Journal(directory(tmp_path), "s")
    for key in KEYS:
        journal.record(row(key))
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    tar = (tmp_path / "journal/s.tar").stat().st_size
    for key in KEYS:
        journal.rows[key]["detail"] = os.urandom(tar).hex()  # so that the ledger is the larger file
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (tar + 1024, usual[1]))
        with pytest.raises(OSError, match="too large"):
            journal.commit(KEYS, upstream="u", seconds=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert [path.suffix for path in (tmp_path / "rows").iterdir()] == []
    marker = journal.commit(KEYS, upstream="u", seconds=0)
    assert photos(tmp_path) == EXPECTED
    assert hashlib.sha256((tmp_path / f"data/{marker.data}").read_bytes()).hexdigest() == marker.data_sha256
    with tarfile.open(tmp_path / f"data/{marker.data}") as archive:
        assert len(archive.getmembers()) == 5
    assert (tmp_path / f"data/{marker.data}").stat().st_size == tar + len(TAR_END)
