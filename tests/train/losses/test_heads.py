"""Heads against the papers' formulas in float64, numerical gradients, and pytorch-metric-learning."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataprep.errors import ModelError, RecordError, UsageError
from dataprep.train.losses.factory import ClassificationHead, make_loss_head
from dataprep.train.losses.margins import AdaFaceMargin, CombinedMargin, safe_arccos
from dataprep.train.losses.options import LOSS_PRESETS, LossParams

MARGINS = [name for name, loss in LOSS_PRESETS.items() if loss.kind == "margin" and loss.subcenters == 1]
OTHERS = [(1.35, 0.0, 0.0), (1.35, 0.5, 0.1), (1.5, 0.5, 0.0), (4.0, 0.0, 0.0), (1.0, 1.5, 0.0)]
Array = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def batch(n: int = 12, d: int = 8, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embedded = torch.randn(n, d, generator=generator, dtype=torch.float64) * 3
    return embedded, torch.randint(0, classes, (n,), generator=generator)


def head_of(params: LossParams, classes: int = 5, seed: int = 1, **world: int) -> ClassificationHead:
    """In float64 with class centres of unlike lengths."""
    head = make_loss_head(params, 8, classes, seed=seed, **world).double()
    with torch.no_grad():
        for parameter in head.parameters():
            drawn = torch.randn(classes, *parameter.shape[1:], generator=torch.Generator().manual_seed(seed)).double()
            parameter.copy_(drawn[head.own.start : head.own.stop])
    return head


def by_formula(embedded: Array, weight: Array, labels: Array, margins: tuple[float, float, float], s: float) -> float:
    """Mean of -log(exp(s t) / (exp(s t) + sum of exp(s cos))), t = cos(m1 theta + m2) - m3 with the turns of psi."""
    m1, m2, m3 = margins
    losses = []
    for x, y in zip(embedded, labels, strict=True):
        logits = [s * x @ w / np.linalg.norm(x) / np.linalg.norm(w) for w in weight]
        angle = m1 * math.acos(logits[y] / s) + m2
        k = int(angle // math.pi)
        logits[y] = s * ((-1) ** k * math.cos(angle) - 2 * k - m3)
        losses.append(math.log(sum(math.exp(logit - logits[y]) for logit in logits)))
    return float(np.mean(losses))


@pytest.mark.parametrize("name", MARGINS)
def test_margins_are_the_papers_formula(name: str) -> None:
    embedded, labels = batch()
    head = head_of(LossParams(loss=name, scale=16.0))
    weight = head.full_state()["weight"].numpy()
    expected = by_formula(embedded.numpy(), weight, labels.numpy(), LossParams(loss=name).margins(), 16.0)
    assert head(embedded, labels).item() == pytest.approx(expected, abs=1e-10)
    assert head.float()(embedded.float(), labels).item() == pytest.approx(expected, abs=1e-4)


def test_the_table_of_eight_is_insightfaces() -> None:
    table = {loss.margins for loss in LOSS_PRESETS.values() if "table" in loss.source}
    assert table == {
        (1.0, 0.0, 0.0), (1.5, 0.0, 0.0), (1.0, 0.0, 0.35), (1.0, 0.5, 0.0),
        (1.2, 0.4, 0.0), (1.1, 0.0, 0.35), (1.0, 0.3, 0.2), (0.9, 0.4, 0.15),
    }  # fmt: skip


def test_hand_computed_values() -> None:
    # an embedding at 60 degrees from its centre and at right angles to the other
    cosine, other = math.cos(math.pi / 3), 0.0
    embedded = torch.tensor([[2 * cosine, 2 * math.sin(math.pi / 3), 0.0]], dtype=torch.float64)
    expected = {
        "norm-softmax": 0.5,
        "sphereface": 0.0,  # cos(90 degrees)
        "cosface": 0.15,
        "arcface": 0.0235966,  # cos(1.0471976 + 0.5)
        "combined": 0.0217402,  # cos(1.3471976) - 0.2
        "multimargin": -0.0320194,  # cos(1.2471976) - 0.35
    }
    for name, logit in expected.items():
        head = make_loss_head(LossParams(loss=name, scale=10.0), 3, 2).double()
        head.load_full_state(
            {"weight": torch.tensor([[5.0, 0, 0], [0, 0, 0.1]], dtype=torch.float64), "step": torch.tensor(0)}
        )
        loss = math.log(math.exp(10 * logit) + math.exp(10 * other)) - 10 * logit
        assert head(embedded, torch.tensor([0])).item() == pytest.approx(loss, abs=2e-6), name


@pytest.mark.parametrize("margins", [*(LOSS_PRESETS[name].margins for name in MARGINS), *OTHERS])
def test_margins_fall_with_the_angle_over_all_of_it(margins: tuple[float, float, float]) -> None:
    theta = torch.linspace(0, math.pi, 40001, dtype=torch.float64)
    cosine = torch.cos(theta).requires_grad_()
    values = CombinedMargin(margins)(cosine, cosine)
    assert (values.diff() < 0).all()
    assert values.diff().abs().max() <= 1.01 * margins[0] * math.pi / 40000 + 2e-7  # no jump; the ends are clipped
    (slope,) = torch.autograd.grad(values.sum(), cosine)
    assert slope.isfinite().all()
    assert (slope >= -1e-9).all()


@given(st.floats(0.2, 4), st.floats(-1, 2), st.floats(0, 1), st.floats(0, math.pi), st.floats(0, math.pi))
def test_any_margins_fall_with_the_angle(m1: float, m2: float, m3: float, one: float, other: float) -> None:
    near, far = sorted((one, other))
    cosines = torch.cos(torch.tensor([near, far], dtype=torch.float64))
    values = CombinedMargin((m1, m2, m3))(cosines, cosines)
    assert values[0] >= values[1] - 1e-12


def test_the_papers_psi_with_m_4() -> None:
    # Liu et al. 2017: (-1)^k cos(4 theta) - 2k for theta in [k pi/4, (k+1) pi/4]
    theta = torch.tensor([0.1, 0.9, 1.7, 3.0], dtype=torch.float64)
    expected = [(-1) ** k * math.cos(4 * t) - 2 * k for t, k in zip(theta.tolist(), (0, 1, 2, 3), strict=True)]
    values = CombinedMargin((4.0, 0.0, 0.0))(torch.cos(theta), theta)
    np.testing.assert_allclose(values, expected, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*MARGINS, "adaface"])
def test_gradients_are_finite_on_and_opposite_the_own_centre(name: str, dtype: torch.dtype) -> None:
    head = make_loss_head(LossParams(loss=name), 8, 3, seed=2).to(dtype)
    centre = head.full_state()["weight"][1].to(dtype)
    embedded = torch.stack([centre, -centre, 1e3 * centre, -1e-3 * centre]).requires_grad_()
    loss = head(embedded, torch.full((4,), 1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert embedded.grad is not None
    assert embedded.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_angle_has_a_finite_slope_at_the_ends_and_beyond(dtype: torch.dtype) -> None:
    cosine = torch.tensor([1.0, -1.0, 1.000001, -1.000001], dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(safe_arccos(cosine).sum(), cosine)
    assert slope.isfinite().all()
    np.testing.assert_allclose(safe_arccos(cosine).detach(), [0, math.pi, 0, math.pi], atol=1e-3)


@pytest.mark.parametrize("name", LOSS_PRESETS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    embedded, labels = batch(8)
    head = head_of(LossParams(loss=name, scale=4.0, triplet_margin=0.5 if LOSS_PRESETS[name].by_identity else None))
    # without running means, whose change is not differentiated; for triplets, the same draw each time
    head.eval()
    parameters = dict(head.named_parameters())

    def loss(embedded: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        replaced = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(head, replaced, (embedded, labels))

    if name == "adaface":  # the length decides the margin, and is no part of the gradient
        embedded = embedded / embedded.norm(dim=1, keepdim=True)

        def fixed(embedded: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
            return loss(embedded / embedded.norm(dim=1, keepdim=True), *values)

    else:
        fixed = loss
    inputs = (embedded.requires_grad_(), *(p.detach().clone().requires_grad_() for p in parameters.values()))
    assert torch.autograd.gradcheck(fixed, inputs)


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # of its SphereFaceLoss
def test_metric_learning_library_agrees_where_it_has_the_head() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    embedded, labels = batch()
    unit = torch.nn.functional.normalize(embedded)
    degrees = math.degrees(0.5)
    pairs = [
        (LossParams(loss="arcface", scale=16.0), losses.ArcFaceLoss(5, 8, margin=degrees, scale=16), embedded),
        (LossParams(loss="cosface", scale=16.0), losses.CosFaceLoss(5, 8, margin=0.35, scale=16), embedded),
        (LossParams(loss="norm-softmax", scale=16.0), losses.NormalizedSoftmaxLoss(5, 8, temperature=1 / 16), unit),
        # theirs scales by the length of the embedding
        (LossParams(loss="sphereface", m1=4.0, scale=16.0), losses.SphereFaceLoss(5, 8, margin=4, scale=16), unit),
        (
            LossParams(loss="subcenter-arcface", scale=16.0),
            losses.SubCenterArcFaceLoss(num_classes=5, embedding_size=8, margin=degrees, scale=16, sub_centers=3),
            embedded,
        ),
    ]
    for params, theirs, given_ in pairs:
        head = head_of(params)
        theirs.W.data = head.full_state()["weight"].reshape(-1, 8).T.contiguous()
        mine_in, their_in = embedded.clone().requires_grad_(), given_.clone().requires_grad_()
        mine, expected = head(mine_in, labels), theirs(their_in, labels)
        assert mine.item() == pytest.approx(expected.item(), abs=1e-9), params.loss
        mine.backward()  # type: ignore[no-untyped-call]
        expected.backward()
        (weight,) = head.parameters()
        assert weight.grad is not None
        np.testing.assert_allclose(weight.grad.reshape(-1, 8).T, theirs.W.grad, atol=1e-9, err_msg=params.loss)


def test_softmax_is_the_linear_layer() -> None:
    embedded, labels = batch()
    head = head_of(LossParams(loss="softmax"))
    state = head.full_state()
    expected = torch.nn.functional.cross_entropy(embedded @ state["weight"].T + state["bias"], labels)
    assert head(embedded, labels).item() == pytest.approx(expected.item(), abs=1e-12)


def test_adaface_is_its_authors_head() -> None:
    embedded, labels = batch(n=16)
    m, h, alpha, s, eps = 0.4, 0.333, 0.2, 16.0, 1e-3
    head = head_of(LossParams(loss="adaface", scale=s, adaface_t_alpha=alpha))
    weight = head.full_state()["weight"].numpy()
    embedded[0] = torch.tensor(weight[(int(labels[0]) + 1) % 5])  # on the centre of another: their clip shows
    mean, std = 20.0, 100.0
    for factor in (1.0, 9.0):  # blurred, then sharp
        x = embedded.numpy() * factor
        lengths = np.clip(np.linalg.norm(x, axis=1), 0.001, 100)
        mean = alpha * lengths.mean() + (1 - alpha) * mean
        std = alpha * lengths.std(ddof=1) + (1 - alpha) * std
        quality = np.clip((lengths - mean) / (std + eps) * h, -1, 1)
        cosine = x @ weight.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(weight, axis=1)
        cosine = np.clip(cosine, -1 + eps, 1 - eps)
        rows = np.arange(16)
        theta = np.clip(np.arccos(cosine[rows, labels]) - m * quality, eps, math.pi - eps)
        cosine[rows, labels] = np.cos(theta) - (m + m * quality)
        logits = torch.tensor(cosine * s)
        expected = torch.nn.functional.cross_entropy(logits, labels).item()
        assert head(embedded * factor, labels).item() == pytest.approx(expected, abs=1e-9)
    state = head.full_state()
    assert state["margin.mean"].item() == pytest.approx(mean)
    assert state["margin.std"].item() == pytest.approx(std)
    head.eval()
    head(embedded, labels)
    assert head.full_state()["margin.mean"].item() == pytest.approx(mean)


def test_adaface_with_one_image_keeps_its_deviation() -> None:
    margin = AdaFaceMargin(0.4, 0.333, 0.5)
    margin(torch.tensor([0.5]), torch.tensor([10.0]))
    assert margin.std.item() == 100


def test_center_loss_is_wens_rule() -> None:
    embedded, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0, 2])
    head = make_loss_head(LossParams(loss="center", center_weight=0.1, center_rate=0.5), 2, 4)
    plain = make_loss_head(LossParams(loss="softmax"), 2, 4)
    entropy = plain(embedded, labels).item()
    # all centres are at 0 first: (1 + 9 + 16) / 3
    assert head(embedded, labels).item() == pytest.approx(entropy + 0.1 * 26 / 3)
    # 0.5 * (1 + 3) / (1 + 2) and 0.5 * 4 / (1 + 1)
    expected = torch.tensor([[2 / 3, 0], [0, 0], [0, 1], [0, 0]])
    assert torch.allclose(head.full_state()["centers"], expected)
    again = ((1 - 2 / 3) ** 2 + (3 - 2 / 3) ** 2 + 9) / 3
    assert head(embedded, labels).item() == pytest.approx(entropy + 0.1 * again, abs=1e-6)


@pytest.mark.parametrize("name", LOSS_PRESETS)
def test_losses_are_float32_whatever_autocast_says(name: str) -> None:
    embedded, labels = batch(16)
    plain = make_loss_head(LossParams(loss=name), 8, 5)
    under = make_loss_head(LossParams(loss=name), 8, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = under(embedded.float(), labels)
    assert loss.dtype == torch.float32
    assert loss.item() == plain(embedded.float(), labels).item()
    assert under(embedded.bfloat16(), labels).dtype == torch.float32


@pytest.mark.parametrize("name", LOSS_PRESETS)
@pytest.mark.parametrize("label", [-1, 5, 1 << 24])
def test_a_label_of_no_class_is_an_error(name: str, label: int) -> None:
    head = make_loss_head(LossParams(loss=name), 8, 5)
    with pytest.raises(RecordError, match=rf"label {label} is not among 0\.\.4"):
        head(torch.randn(2, 8), torch.tensor([1, label]))


@pytest.mark.parametrize("name", LOSS_PRESETS)
def test_what_a_head_saves_makes_it_again(name: str) -> None:
    params = LossParams(loss=name, sample_rate=0.5)
    embedded, labels = batch()
    one, other = make_loss_head(params, 8, 5, seed=3), make_loss_head(params, 8, 5, seed=3)
    for _ in range(3):
        one(embedded.float(), labels)
    other.load_full_state(one.full_state())
    assert other.step == 3
    assert one(embedded.float(), labels).item() == other(embedded.float(), labels).item()


def test_another_heads_state_is_refused() -> None:
    arcface, softmax = (make_loss_head(LossParams(loss=name), 8, 5) for name in ("arcface", "softmax"))
    with pytest.raises(ModelError, match="is of another loss") as caught:
        arcface.load_full_state(softmax.full_state())
    assert "--overwrite" in caught.value.hint
    with pytest.raises(ModelError, match=r"\(5, 8\), this one of shape \(6, 8\)") as caught:
        make_loss_head(LossParams(), 8, 6).load_full_state(arcface.full_state())
    assert "--overwrite" in caught.value.hint


def test_options_that_a_loss_does_not_take_are_refused() -> None:
    assert LossParams(loss="combined", m3=0.1).margins() == (1.0, 0.3, 0.1)
    with pytest.raises(UsageError, match="m2 does not apply to the loss softmax"):
        LossParams(loss="softmax", m2=0.5)
    with pytest.raises(UsageError, match="m1 does not apply to the loss adaface"):
        LossParams(loss="adaface", m1=1.5)
    with pytest.raises(UsageError, match="triplet-margin does not apply") as caught:
        LossParams(loss="arcface", triplet_margin=0.2)
    assert caught.value.hint == "leave out --triplet-margin"
    with pytest.raises(UsageError, match="is not one of softmax, norm-softmax"):
        LossParams(loss="arc")
