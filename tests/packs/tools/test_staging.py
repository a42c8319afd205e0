"""Folders are built beside their target under names that are ours: nobody else's are touched, and nobody takes ours."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.command import Run, command, environment
from helpers.small_faces import people

from dataprep.packs.base import PackFormat
from dataprep.packs.io import open_pack
from dataprep.packs.tools.convert import convert_pack
from dataprep.storage import abandoned_directories, staged_directory


def age(folder: Path) -> None:
    os.utime(folder, (time.time() - 3600,) * 2)


def test_only_what_killed_processes_left_under_our_names_is_removed(
    packed: Callable[..., Path], tmp_path: Path
) -> None:
    pack, out = packed(people(2, 2)), tmp_path / "out"
    mine = [
        tmp_path / name for name in (".out.my-notes.tmp", ".out.99999999.tmp", ".out.dataprep-notes", ".out.retired")
    ]
    others = [tmp_path / ".out2.dataprep-abcdefgh", tmp_path / ".out.v2.dataprep-abcdefgh"]
    left = tmp_path / ".out.dataprep-abc_ef12"
    for folder in (*mine, *others, left):
        folder.mkdir()
        (folder / "notes.txt").write_text("precious")
        age(folder)
    assert abandoned_directories(tmp_path, "out") == [left]
    convert_pack(pack, out, pack_format=PackFormat(container="folder"))
    assert not left.exists()
    assert all((folder / "notes.txt").read_text() == "precious" for folder in (*mine, *others))
    assert len(open_pack(out)) == 4


def test_a_staged_folder_is_nobodys_garbage_while_it_is_built(tmp_path: Path) -> None:
    with staged_directory(tmp_path / "out") as staged:
        age(staged)
        assert abandoned_directories(tmp_path) == []
        with staged_directory(tmp_path / "out") as second:  # a second writer of the same target
            assert staged.exists()
            assert second != staged
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stopped(packed: Callable[..., Path], tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that is stopped while it writes ws/packs/ours, and the folder that it writes into."""
    pack = packed(people(30, 40), name="big")
    (tmp_path / "ws/packs").mkdir(parents=True)
    process = subprocess.Popen(
        command("unpack", pack, "--format", "folder", "--out", tmp_path / "ws/packs/ours"), env=environment()
    )
    while process.poll() is None and not (found := list((tmp_path / "ws/packs").glob(".ours.dataprep-*/*"))):
        time.sleep(0.002)  # until it is locked, and something lies in it
    process.send_signal(signal.SIGSTOP)
    yield process, found[0].parent
    process.kill()
    process.wait()


def test_gc_leaves_alone_what_another_process_is_writing(
    stopped: tuple[subprocess.Popen[bytes], Path], tmp_path: Path, dataprep: Run
) -> None:
    process, staged = stopped
    dataprep("import", "synth", "--identities", 2, "--photos", 1)
    age(staged)
    dataprep("gc")
    assert staged.exists()
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 0
    assert len(open_pack(tmp_path / "ws/packs/ours")) == 1200
    assert [path.name for path in (tmp_path / "ws/packs").iterdir()] == ["ours"]


def test_gc_removes_what_a_killed_process_left(stopped: tuple[subprocess.Popen[bytes], Path], dataprep: Run) -> None:
    process, staged = stopped
    process.kill()
    process.wait()
    dataprep("import", "synth", "--identities", 2, "--photos", 1)
    age(staged)
    dataprep("gc")
    assert not staged.exists()


def test_two_packs_of_one_name_at_once_do_not_mix(tmp_path: Path, dataprep: Run) -> None:
    dataprep("import", "synth", "--identities", 4, "--photos", 3)
    dataprep("lst")
    both = [
        subprocess.Popen(
            command("-w", tmp_path / "ws", "pack", "--layout", layout, "-j", 0), env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for layout in ("flat", "insightface")
    ]  # fmt: skip
    told = [process.communicate()[1] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes
    for code, text in zip(codes, told, strict=True):
        assert code == 0 or (code == 4 and "is being written by another run" in text), text
    assert "whole" in dataprep("verify", tmp_path / "ws/packs/train").stdout
