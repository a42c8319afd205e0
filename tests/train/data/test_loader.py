"""The loader: the same batches whatever the processes, ranks and formats, and an end to all processes."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command import ROOT, environment
from helpers.small_packs import INPUT, SIDE, Numbers, equal, grid, load, write
from PIL import Image

from dataprep.errors import DataprepError, RecordError, UsageError
from dataprep.models.preprocessing import Preprocessing
from dataprep.train.data.augment import AUGMENT_PRESETS, AugmentConfig
from dataprep.train.data.dataset import PackDataset, open_dataset
from dataprep.train.data.loader import close_workers, iterate_batches, normalise_batch, plan_epoch


@pytest.fixture
def source(tmp_path: Path) -> Iterator[PackDataset]:
    opened = open_dataset([write(tmp_path / "pack", grid())])
    yield opened
    close_workers(opened)


def children() -> set[int]:
    """The loader processes of this process, zombies among them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            tracker = b"resource_tracker" in (stat.parent / "cmdline").read_bytes()  # multiprocessing's own, for spawn
        except OSError:
            continue
        if parent == os.getpid() and not tracker:
            found.add(int(stat.parent.name))
    return found


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before, "a loader process outlives its source"


def test_batches_hold_what_pillow_decodes_flipped_and_normalised(source: PackDataset) -> None:
    for order in ("RGB", "BGR"):
        input = Preprocessing(height=SIDE, width=SIDE, order=order, mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0))
        plan = plan_epoch(source, seed=3, epoch=0)
        assert 5 < plan.mirrored.sum() < 35
        place = 0
        for images, labels in load(source, input):
            assert images.shape == (12, 3, SIDE, SIDE)
            assert images.dtype == torch.float32
            for image, label in zip(images, labels, strict=True):
                data, expected = source[int(plan.positions[place])]
                pixels = np.asarray(Image.open(io.BytesIO(data)))
                pixels = pixels[:, ::-1] if plan.mirrored[place] else pixels
                pixels = pixels if order == "RGB" else pixels[:, :, ::-1]
                normalised = (pixels.astype(np.float32) - np.float32(input.mean)) / np.float32(input.std)
                assert np.array_equal(image.permute(1, 2, 0).numpy(), normalised)
                assert label == expected
                place += 1
        assert place == 36


def test_batches_are_the_same_whatever_the_processes(source: PackDataset) -> None:
    every = AugmentConfig(
        dali=True, compress=0.5, jitter=0.125, cutoff=8, crop=0.5, low_res=0.5, photometric=0.5, gray=0.2
    )
    for settings in ({"dtype": "uint8"}, {"augment": every}):
        for batch_size, workers in ((12, 1), (40, 3)):  # 40: a batch in three jobs
            alone = load(source, batch_size=batch_size, **settings)
            assert equal(alone, load(source, batch_size=batch_size, workers=workers, **settings))


def test_bytes_normalised_afterwards_are_the_floats(source: PackDataset) -> None:
    for input in (
        INPUT,
        Preprocessing(height=SIDE, width=SIDE, order="BGR", mean=(91.5, 103.9, 131.1), std=(1.0, 2.0, 3.0)),
    ):
        floats, raw = load(source, input), load(source, input, dtype="uint8")
        assert raw[0][0].dtype == torch.uint8
        assert equal(floats, [(normalise_batch(images, input), labels) for images, labels in raw])


def test_an_epoch_is_complete_and_another_one_each_time(source: PackDataset) -> None:
    one, other = plan_epoch(source, seed=3, epoch=1), plan_epoch(source, seed=3, epoch=2)
    assert np.array_equal(one.positions, plan_epoch(source, seed=3, epoch=1).positions)
    assert sorted(one.positions) == sorted(other.positions) == list(range(40))
    assert not np.array_equal(one.positions, other.positions)
    assert not np.array_equal(one.mirrored, other.mirrored)
    assert not plan_epoch(source, seed=3, epoch=1, flip=False).mirrored.any()


def test_skipping_goes_on_exactly_where_a_run_stopped(source: PackDataset) -> None:
    augment = AugmentConfig(photometric=1.0)
    whole = load(source, augment=augment)
    assert len(whole) == 3
    for workers in (0, 1):
        assert equal(whole[2:], load(source, skip=2, workers=workers, augment=augment))
    assert load(source, skip=3, workers=1) == []


def test_ranks_share_every_batch_and_together_make_the_same_one(source: PackDataset) -> None:
    augment = AugmentConfig(crop=0.5, jitter=0.125)
    whole = load(source, augment=augment)
    for world in (2, 3):
        ranks = [load(source, rank=rank, world_size=world, augment=augment) for rank in range(world)]
        joined = [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)]
        assert equal(whole, joined)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="multiple of 5"):
        load(source, world_size=5)


def test_an_order_of_ones_own_is_followed(source: PackDataset) -> None:
    order = [39, 0, 0, 7, 8, 16, 17, 3]
    (images, labels), (more, _) = load(source, order=order, batch_size=4, augment=AUGMENT_PRESETS["none"])
    assert labels.tolist() == [4, 0, 0, 0]
    assert torch.equal(images[1], images[2])
    assert not torch.equal(images[0], more[0])
    with pytest.raises(UsageError, match="image 40"):
        load(source, order=[40, 1])


def test_batches_that_are_kept_stay_as_they_were(source: PackDataset) -> None:
    alone = load(source, batch_size=2)
    assert len(alone) == 20
    assert equal(alone, load(source, batch_size=2, workers=2))  # all of them are held at once
    views = [
        images[1:, 0] for images, _ in iterate_batches(source, INPUT, batch_size=2, seed=3, epoch=0, skip=0, workers=2)
    ]
    assert all(torch.equal(view, images[1:, 0]) for view, (images, _) in zip(views, alone, strict=True))


def test_processes_stay_for_the_next_epoch_and_go_with_their_source(source: PackDataset) -> None:
    before = children()
    load(source, workers=2)
    first = children() - before
    assert len(first) == 2
    load(source, workers=2, epoch=1)
    assert children() - before == first
    load(source, workers=1)
    assert len(children() - before) == 1
    for _ in iterate_batches(source, INPUT, batch_size=4, seed=0, epoch=0, skip=0, workers=2):
        break
    assert children() == before


def test_two_epochs_can_be_read_at_once(source: PackDataset) -> None:
    settings = {"batch_size": 12, "seed": 3, "skip": 0, "workers": 1}
    both = zip(
        iterate_batches(source, INPUT, epoch=0, **settings),
        iterate_batches(source, INPUT, epoch=1, **settings),
        strict=True,
    )  # type: ignore[call-overload]
    one, other = zip(*both, strict=True)
    assert equal(list(one), load(source))
    assert equal(list(other), load(source, epoch=1))


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_is_an_error_and_not_the_end_of_all_progress(source: PackDataset, killed: int) -> None:
    before = children()
    loading = iterate_batches(source, INPUT, batch_size=4, seed=0, epoch=0, skip=0, workers=2)
    next(loading)
    os.kill(sorted(children() - before)[killed], signal.SIGKILL)
    with pytest.raises(DataprepError, match="killed by signal 9") as caught:
        list(loading)
    assert "--num-workers" in caught.value.hint
    assert children() == before
    assert len(load(source, workers=2)) == 3


def test_a_signal_that_ends_a_whole_unit_leaves_the_feeder_time_to_save(source: PackDataset) -> None:
    """systemd and Slurm send SIGTERM to every process: the step in flight still gets its images."""
    before = children()
    loading = iterate_batches(source, INPUT, batch_size=4, seed=0, epoch=0, skip=0, workers=2)
    first = [next(loading), next(loading)]  # one of each process
    for process in children() - before:
        os.kill(process, signal.SIGTERM)
    assert equal([*first, *loading], load(source, batch_size=4, seed=0))


_READER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests in the background has it ignored
from pathlib import Path
from dataprep.models.preprocessing import Preprocessing
from dataprep.train.data.loader import iterate_batches
from dataprep.train.data.dataset import open_dataset
source = open_dataset([Path(sys.argv[1])])
INPUT = Preprocessing(height=24, width=24)
while True:
    for batch in iterate_batches(source, INPUT, batch_size=4, seed=0, epoch=0, skip=0, workers=2):
        print("batch", flush=True)
"""


def loader_processes(group: set[int]) -> set[int]:
    found = set()
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            environ = (line.parent / "environ").read_bytes()
        except OSError:
            continue
        if f"LOADER_TEST={os.getpid()}".encode() in environ:
            found.add(int(line.parent.name))
    return found - group


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_one_it_loads_for(tmp_path: Path, ending: int) -> None:
    pack = write(tmp_path / "pack", grid())
    reader = subprocess.Popen(
        [sys.executable, "-c", _READER, pack], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**environment(), "LOADER_TEST": str(os.getpid())}, start_new_session=True,
    )  # fmt: skip
    assert reader.stdout
    assert reader.stdout.readline() == b"batch\n"
    assert len(loader_processes({reader.pid})) == 2
    os.killpg(reader.pid, ending)  # as a terminal does on Ctrl-C
    _, errors = reader.communicate(timeout=30)
    assert reader.returncode == -ending or ending == signal.SIGINT
    assert b"decoding.py" not in errors, errors.decode()
    for _ in range(200):
        if not loader_processes({reader.pid}):
            return
        time.sleep(0.05)
    raise AssertionError("loader processes are still there")


def _in_a_child(source: PackDataset, expected: list[tuple[Numbers, Numbers]]) -> None:
    found = load(source, workers=1)
    if not children():  # it has decoded with processes that are not its own
        sys.exit(2)
    same = all(np.array_equal(a, c) and np.array_equal(b, d) for (a, b), (c, d) in zip(found, expected, strict=True))
    close_workers(source)
    sys.exit(0 if same else 1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_source_works_in_a_forked_and_in_a_spawned_process(source: PackDataset, method: str) -> None:
    expected = load(source, workers=1)  # this process has a crew, which the fork must not touch
    numpy = [(images.numpy().copy(), labels.numpy()) for images, labels in expected]
    process = multiprocessing.get_context(method).Process(target=_in_a_child, args=(source, numpy))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert equal(expected, load(source, workers=1))


def test_a_window_can_be_cut_out_of_larger_faces(source: PackDataset) -> None:
    small = Preprocessing(height=14, width=14)
    with pytest.raises(RecordError, match="the network takes 14x14"):
        load(source, small)
    cut = load(source, small, augment=AUGMENT_PRESETS["vggface2"])
    assert cut[0][0].shape == (12, 3, 14, 14)
    assert equal(cut, load(source, small, augment=AUGMENT_PRESETS["vggface2"]))


def test_colours_are_checked_where_pack_and_network_meet(source: PackDataset) -> None:
    with pytest.raises(RecordError, match="GRB"):
        load(source, Preprocessing(height=SIDE, width=SIDE, order="GRB"))


def test_loader_processes_import_no_torch() -> None:
    code = "import sys, dataprep.train.data.decoding; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=False).returncode == 0
