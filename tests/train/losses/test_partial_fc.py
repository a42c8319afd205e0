"""Class centres that are sampled and spread over processes; with real processes that talk through gloo."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.command import environment

from dataprep.train.distributed.collectives import class_range
from dataprep.train.losses.factory import ClassificationHead, make_loss_head
from dataprep.train.losses.head import init_rows
from dataprep.train.losses.options import LOSS_PRESETS, LossParams
from dataprep.train.losses.partial_fc import sample_classes

EMBEDDING, IMAGES = 6, 8
State = dict[str, torch.Tensor]
Case = tuple[LossParams, int, State | None]  # classes, and where to go on from
Found = tuple[list[Case], list[list[State]], list[str]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def batches(classes: int, steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [
        (
            torch.randn(IMAGES, EMBEDDING, generator=generator, dtype=torch.float64) * 2,
            torch.arange(IMAGES) % min(classes, 3) if step == 0 else torch.randint(classes, (IMAGES,), generator=generator),
        )
        for step in range(steps)
    ]  # fmt: skip


def trained(
    params: LossParams, classes: int, *, rank: int = 0, world: int = 1, start: State | None = None, steps: int = 3
) -> State:
    """Some steps of SGD with momentum in float64: losses, gradients of the whole batch's embeddings, head, momentum."""
    head = make_loss_head(params, EMBEDDING, classes, rank=rank, world_size=world, seed=5).double()
    parameters = list(head.parameters()) or [torch.nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9, weight_decay=1e-3)
    done = 0
    if start is not None:
        head.load_full_state({name[5:]: value for name, value in start.items() if name.startswith("head.")})
        slots: dict[str, State] = {}
        for name, value in start.items():
            if name.startswith("slot."):
                slots.setdefault(name.split(".", 2)[2], {})[name.split(".", 2)[1]] = value
        head.load_full_optimizer_state(optimizer, slots)
        done = head.step
    found: State = {}
    part = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world)
    for step, (embedded, labels) in enumerate(batches(classes, done + steps)):
        if step < done:
            continue
        own = embedded[part].clone().requires_grad_()
        loss = head(own, labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert own.grad is not None
        found[f"loss.{step}"], found[f"gradient.{step}"] = loss.detach(), own.grad / world
    found |= {f"head.{name}": value for name, value in head.full_state().items()}
    for name, slots_of in head.full_optimizer_state(optimizer).items():
        found |= {f"slot.{slot}.{name}": value for slot, value in slots_of.items()}
    return found


WORKER = """
import sys
import torch
from torch import distributed
sys.path[:0] = [{tests!r}, {here!r}]
from test_partial_fc import LossParams, trained
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{{folder}}/rendezvous", rank=rank, world_size=world)
for number, (params, classes, start) in enumerate(torch.load(f"{{folder}}/cases.pt", weights_only=False)):
    found = trained(LossParams(**params), classes, rank=rank, world=world, start=start)
    torch.save(found, f"{{folder}}/{{number}}.{{rank}}.pt")
try:
    from dataprep.train.losses.factory import make_loss_head
    head = make_loss_head(LossParams(), 6, 5, rank=rank, world_size=world)
    head(torch.zeros(2, 6), torch.tensor([1, 5 if rank == 1 else 2]))
except Exception as error:
    print(type(error).__name__, error)
distributed.destroy_process_group()
"""


def in_processes(folder: Path, cases: list[Case], world: int) -> tuple[list[list[State]], list[str]]:
    """What each process found in each case, and what each said about a label out of range."""
    folder.mkdir()
    torch.save([(params.as_dict(), classes, start) for params, classes, start in cases], folder / "cases.pt")
    here = Path(__file__).resolve().parent
    code = WORKER.format(tests=str(here.parents[1]), here=str(here))
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(rank), str(world), str(folder)],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    said = []
    for process in running:
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        said.append(out)
    return [
        [torch.load(folder / f"{number}.{rank}.pt") for rank in range(world)] for number in range(len(cases))
    ], said  # fmt: skip


def assert_equal_states(one: State, other: State, what: str) -> None:
    assert set(one) == set(other), what
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-11, msg=lambda m, n=name: f"{what} {n}: {m}")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Found:
    torch.set_num_threads(1)
    cases: list[Case] = [(LossParams(loss=name), 5, None) for name in LOSS_PRESETS]
    cases.append((LossParams(loss="arcface"), 1, None))  # the second process has no class
    cases.append((LossParams(loss="center"), 1, None))
    cases.append((LossParams(loss="adaface"), 1, None))
    cases.append((LossParams(loss="arcface"), 8, None))
    cases.append((LossParams(loss="arcface"), 5, trained(LossParams(loss="arcface"), 5)))
    cases.append((LossParams(loss="center"), 5, trained(LossParams(loss="center"), 5)))
    found, said = in_processes(tmp_path_factory.mktemp("two") / "run", cases, 2)
    return cases, found, said


def test_two_processes_give_the_dense_result(two_processes: Found) -> None:
    for (params, classes, start), parts in zip(*two_processes[:2], strict=True):
        dense = trained(params, classes, start=start)
        what = f"{params.loss}, {classes} classes"
        if params.loss != "norm-softmax" and classes > 1:
            assert dense["loss.0" if start is None else "loss.3"] > 0, what
        for step in (0, 1, 2) if start is None else (3, 4, 5):
            whole = torch.cat([part.pop(f"gradient.{step}") for part in parts])
            torch.testing.assert_close(whole, dense.pop(f"gradient.{step}"), rtol=0, atol=1e-11, msg=f"{what} {step}")
        for part in parts:
            assert_equal_states(part, dense, what)


def test_every_process_names_a_label_out_of_range(two_processes: Found) -> None:
    for said in two_processes[2]:
        assert "RecordError label 5 is not among 0..4" in said


def test_one_process_gives_the_plain_cross_entropy() -> None:
    head = make_loss_head(LossParams(loss="arcface", scale=8.0), EMBEDDING, 5, seed=5).double()
    (weight,) = head.parameters()
    (embedded, labels), *_ = batches(5, 1)
    mine, plain = embedded.clone().requires_grad_(), embedded.clone().requires_grad_()
    centres = weight.detach().clone().requires_grad_()
    cosine = torch.nn.functional.normalize(plain) @ torch.nn.functional.normalize(centres).T
    own = torch.nn.functional.one_hot(labels, 5).bool()
    expected = torch.nn.functional.cross_entropy(
        8 * torch.where(own, torch.cos(torch.acos(cosine) + 0.5), cosine), labels
    )
    loss = head(mine, labels)
    loss.backward()
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(mine.grad, plain.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(weight.grad, centres.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("classes", "world", "sizes"), [(10, 3, [4, 3, 3]), (2, 4, [1, 1, 0, 0]), (8, 2, [4, 4])])
def test_shards_follow_arcface_torch_and_cover_every_class(classes: int, world: int, sizes: list[int]) -> None:
    shards = [class_range(classes, rank, world) for rank in range(world)]
    assert [len(part) for part in shards] == sizes
    assert [label for part in shards for label in part] == list(range(classes))


def test_initial_centres_do_not_depend_on_the_processes() -> None:
    whole = init_rows(range(5000), 3, seed=1)
    parts = [init_rows(class_range(5000, rank, 7), 3, seed=1) for rank in range(7)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.std().item() == pytest.approx(0.01, rel=0.05)
    assert not torch.equal(whole[:1024], whole[1024:2048])
    assert not torch.equal(whole, init_rows(range(5000), 3, seed=2))


def test_samples_hold_every_positive_and_fill_up_with_others() -> None:
    targets = torch.tensor([3, 90, -1, 3, 41])
    kept = sample_classes(targets, 100, 0.2, torch.Generator().manual_seed(0))
    assert len(kept) == 20
    assert torch.equal(kept, kept.unique())
    assert {3, 41, 90} <= set(kept.tolist())
    assert not torch.equal(kept, sample_classes(targets, 100, 0.2, torch.Generator().manual_seed(1)))
    assert sample_classes(targets, 100, 0.0, torch.Generator()).tolist() == [3, 41, 90]
    assert sample_classes(torch.tensor([-1]), 0, 0.5, torch.Generator()).tolist() == []
    drawn = torch.cat([sample_classes(targets, 100, 0.2, torch.Generator().manual_seed(seed)) for seed in range(400)])
    counts = torch.bincount(drawn, minlength=100)
    others = counts[torch.tensor([c for c in range(100) if c not in (3, 41, 90)])]
    assert others.min() > 0.5 * others.float().mean()  # none is favoured
    assert others.max() < 1.6 * others.float().mean()


@pytest.mark.parametrize("name", [name for name, loss in LOSS_PRESETS.items() if not loss.by_identity])
def test_a_sampled_loss_is_that_of_the_sample(name: str) -> None:
    params = LossParams(loss=name, sample_rate=0.3)
    head = make_loss_head(params, EMBEDDING, 50, seed=5).double()
    embedded, labels = torch.randn(4, EMBEDDING).double(), torch.tensor([3, 17, 17, 48])
    loss = head(embedded, labels)
    loss.backward()
    gradient = dict(head.named_parameters())["weight"].grad
    assert gradient is not None
    kept = gradient.flatten(1).abs().sum(1).nonzero()[:, 0]
    assert len(kept) == 15
    assert {3, 17, 48} <= set(kept.tolist())
    # the same head with these classes alone
    state = make_loss_head(params, EMBEDDING, 50, seed=5).full_state()
    small = make_loss_head(replace(params, sample_rate=1.0), EMBEDDING, 15).double()
    small.load_full_state({n: v[kept] if v.ndim and len(v) == 50 else v for n, v in state.items()})
    assert loss.item() == pytest.approx(small(embedded, torch.searchsorted(kept, labels)).item(), abs=1e-9)


def test_samples_are_drawn_from_seed_and_step() -> None:
    def losses(head: ClassificationHead, steps: int) -> list[float]:
        embedded, labels = torch.randn(4, EMBEDDING, generator=torch.Generator().manual_seed(0)), torch.arange(4)
        return [head(embedded, labels).item() for _ in range(steps)]

    params = LossParams(loss="arcface", sample_rate=0.2)
    whole = losses(make_loss_head(params, EMBEDDING, 100, seed=1), 6)
    assert len(set(whole)) == 6
    first = make_loss_head(params, EMBEDDING, 100, seed=1)
    assert losses(first, 3) == whole[:3]
    torch.rand(5)  # the global generator has no part in it
    second = make_loss_head(params, EMBEDDING, 100, seed=1)
    second.load_full_state(first.full_state())
    assert losses(second, 3) == whole[3:]
    assert losses(make_loss_head(params, EMBEDDING, 100, seed=2), 6) != whole
    second.eval()
    assert len(set(losses(second, 2))) == 1  # all classes, nothing is drawn
