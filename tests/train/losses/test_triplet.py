"""Triplets and the batches they need."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.errors import RecordError
from dataprep.train.data.sampler import pk_order
from dataprep.train.losses.factory import make_loss_head
from dataprep.train.losses.head import seeded_generator
from dataprep.train.losses.options import LossParams
from dataprep.train.losses.triplet import find_semi_hard_triplets, pairwise_distances


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(6).repeat_interleave(4)
    centres = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    return centres[labels] + torch.randn(24, 8, generator=generator, dtype=torch.float64), labels


@pytest.mark.parametrize(("loss", "margin"), [("triplet", 0.3), ("angular-triplet", 0.35)])
def test_a_triplet_by_hand(loss: str, margin: float) -> None:
    # on a circle: anchor at 0, positive at 40, negative at 45 degrees; only (0, 40, 45) is semi-hard
    degrees = torch.tensor([0.0, 40.0, 45.0], dtype=torch.float64).deg2rad()
    embedded = torch.stack([degrees.cos(), degrees.sin()], 1) * torch.tensor([[1.0], [5.0], [0.2]])
    near, far = math.radians(40), math.radians(45)
    expected = near - far
    if loss == "triplet":
        expected = (2 - 2 * math.cos(near)) - (2 - 2 * math.cos(far))
    head = make_loss_head(LossParams(loss=loss), 2, 2)
    assert head(embedded, torch.tensor([0, 0, 1])).item() == pytest.approx(expected + margin, abs=1e-9)


def test_without_semi_hard_triplets_the_loss_is_zero_and_has_a_gradient() -> None:
    embedded = torch.eye(4).requires_grad_()
    loss = make_loss_head(LossParams(loss="triplet"), 4, 4)(embedded, torch.arange(4))
    loss.backward()
    assert loss.item() == 0
    assert embedded.grad is not None
    assert (embedded.grad == 0).all()


def test_every_pair_with_semi_hard_negatives_gets_one_of_them() -> None:
    embedded, labels = batch()
    apart = pairwise_distances(embedded, angular=False)
    found = {
        (int(a), int(p)): int(n)
        for a, p, n in zip(*find_semi_hard_triplets(apart, labels, 0.3, torch.Generator()), strict=True)
    }
    for a in range(24):
        for p in range(24):
            negatives = [
                n for n in range(24) if labels[n] != labels[a] and apart[a, p] < apart[a, n] < apart[a, p] + 0.3
            ]
            if a != p and labels[a] == labels[p] and negatives:
                assert found.pop((a, p)) in negatives
    assert not found


def test_negatives_are_drawn_from_the_seed_and_all_have_a_chance() -> None:
    embedded, labels = batch()
    apart = pairwise_distances(embedded, angular=False)
    drawn = [find_semi_hard_triplets(apart, labels, 2.0, torch.Generator().manual_seed(seed))[2] for seed in range(200)]
    again = find_semi_hard_triplets(apart, labels, 2.0, torch.Generator().manual_seed(7))[2]
    assert torch.equal(drawn[7], again)
    assert not torch.equal(drawn[7], drawn[8])
    candidates = (labels != labels[0]) & (apart[0] > apart[0, 1]) & (apart[0] < apart[0, 1] + 2.0)
    assert {int(negatives[0]) for negatives in drawn} == set(candidates.nonzero()[:, 0].tolist())


def test_metric_learning_library_agrees_on_miner_and_loss() -> None:
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import TripletMarginMiner
    from pytorch_metric_learning.reducers import MeanReducer

    embedded, labels = batch()
    squared = LpDistance(normalize_embeddings=True, p=2, power=2)
    mined = TripletMarginMiner(margin=0.3, type_of_triplets="semihard", distance=squared)(embedded, labels)
    triplets = find_semi_hard_triplets(
        pairwise_distances(embedded, angular=False), labels, 0.3, torch.Generator().manual_seed(1)
    )
    theirs = {tuple(map(int, triplet)) for triplet in zip(*mined, strict=True)}
    mine = {tuple(map(int, triplet)) for triplet in zip(*triplets, strict=True)}
    assert mine <= theirs
    assert {(a, p) for a, p, _ in mine} == {(a, p) for a, p, _ in theirs}
    head = make_loss_head(LossParams(loss="triplet"), 8, 6, seed=3)
    drawn = find_semi_hard_triplets(pairwise_distances(embedded, angular=False), labels, 0.3, seeded_generator(3, 0))
    expected = TripletMarginLoss(margin=0.3, distance=squared, reducer=MeanReducer())(embedded, labels, drawn)
    assert head(embedded, labels).item() == pytest.approx(expected.item(), abs=1e-9)


def together(labels: npt.NDArray[np.int64], epoch: int) -> list[list[int]]:
    """The identities of each batch."""
    order = pk_order(labels, identities=4, images=3, seed=1, epoch=epoch)
    return [sorted(set(batch)) for batch in labels[order].reshape(-1, 12).tolist()]


def test_batches_are_p_identities_of_k_images() -> None:
    labels = np.repeat(np.arange(20), np.random.default_rng(0).integers(2, 12, 20))
    order = pk_order(labels, identities=4, images=3, seed=1, epoch=0)
    batches = labels[order].reshape(-1, 4, 3)
    assert (batches == batches[:, :, :1]).all()
    assert all(len(set(chosen)) == 4 for chosen in batches[:, :, 0].tolist())
    assert np.array_equal(order, pk_order(labels, identities=4, images=3, seed=1, epoch=0))
    assert not np.array_equal(order, pk_order(labels, identities=4, images=3, seed=1, epoch=1))
    company = {frozenset(chosen) for epoch in range(6) for chosen in together(labels, epoch)}
    assert len(company) > 15  # identities meet others every time
    seen = np.concatenate([pk_order(labels, identities=4, images=3, seed=1, epoch=epoch) for epoch in range(6)])
    assert set(seen.tolist()) == set(range(len(labels)))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(2, 9), min_size=2, max_size=12), st.integers(2, 6), st.integers(2, 5), st.randoms())
def test_images_repeat_only_where_an_identity_has_too_few(
    counts: list[int], images: int, identities: int, random: object
) -> None:
    if len(counts) < identities:
        return
    labels = np.repeat(np.arange(len(counts)) * 3, counts)  # any numbers
    np.random.default_rng(0).shuffle(labels)  # in any order
    order = pk_order(labels, identities=identities, images=images, seed=0, epoch=0)
    for group in order.reshape(-1, images):
        (label,) = set(labels[group].tolist())
        assert len(set(group.tolist())) == min(images, counts[label // 3])


def test_packs_that_triplets_cannot_use_are_named() -> None:
    with pytest.raises(RecordError, match=r"2 of 4 identities have only one image \(for example label 1\)") as caught:
        pk_order(np.array([0, 0, 1, 2, 2, 3]), identities=2, images=2, seed=0, epoch=0)
    assert "--min-images 2" in caught.value.hint
    with pytest.raises(RecordError, match="needs 3 identities, but there are only 2") as caught:
        pk_order(np.array([0, 0, 1, 1]), identities=3, images=2, seed=0, epoch=0)
    assert caught.value.hint == "lower --identities-per-batch"


def test_distances_are_those_of_unit_embeddings() -> None:
    embedded, _ = batch()
    unit = embedded / embedded.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        pairwise_distances(embedded, angular=False), torch.cdist(unit, unit) ** 2, rtol=0, atol=1e-7
    )
    angles = pairwise_distances(embedded, angular=True)
    assert angles[0, 5].item() == pytest.approx(math.acos(float(unit[0] @ unit[5])))


@pytest.mark.parametrize("loss", ["triplet", "angular-triplet"])
def test_training_on_triplets_parts_the_identities(loss: str) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(8).repeat_interleave(5)
    images = torch.randn(8, 32, generator=generator)[labels] + 2 * torch.randn(40, 32, generator=generator)
    network = torch.nn.Linear(32, 8)
    head = make_loss_head(LossParams(loss=loss), 8, 8)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9)

    def gap() -> float:
        apart = pairwise_distances(network(images).detach(), angular=True)
        same = labels[:, None] == labels
        return float(apart[~same].mean() - apart[same].mean())

    before = gap()
    for _ in range(60):
        optimizer.zero_grad()
        head(network(images), labels).backward()
        optimizer.step()
    assert gap() > before + 0.2
