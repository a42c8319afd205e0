"""The structures: parameters as the published implementations name them, published sizes and costs, any size of face."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dataprep.errors import ModelError
from dataprep.models.registry import (
    NETWORKS,
    create_meta_model,
    create_model,
    find_network,
    format_networks,
    list_networks,
)

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
SIZES = [(112, 112), (112, 96), (128, 128), (224, 224)]


def norm(name: str) -> set[str]:
    return {f"{name}.{part}" for part in NORM}


def iresnet_names(blocks: tuple[int, ...], squeeze: bool) -> set[str]:
    """Written down from arcface_torch's iresnet.py; `se` is ours."""
    names = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"} | norm("bn1") | norm("bn2") | norm("features")
    for stage, count in enumerate(blocks, start=1):
        for index in range(count):
            block = f"layer{stage}.{index}"
            names |= norm(f"{block}.bn1") | norm(f"{block}.bn2") | norm(f"{block}.bn3")
            names |= {f"{block}.conv1.weight", f"{block}.conv2.weight", f"{block}.prelu.weight"}
            if squeeze:
                names |= {f"{block}.se.fc1.weight", f"{block}.se.fc2.weight"}
        names |= {f"layer{stage}.0.downsample.0.weight"} | norm(f"layer{stage}.0.downsample.1")
    return names


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(18, (2, 2, 2, 2)), (34, (3, 4, 6, 3)), (50, (3, 4, 14, 3)), (100, (3, 13, 30, 3)), (200, (6, 26, 60, 6))],
)
def test_ir_networks_have_the_parameters_of_arcface_torch(depth: int, blocks: tuple[int, ...], squeeze: bool) -> None:
    state = create_meta_model(f"{'se-' * squeeze}ir{depth}").state_dict()
    assert set(state) == iresnet_names(blocks, squeeze)
    assert state["conv1.weight"].shape == (64, 3, 3, 3)
    assert state["fc.weight"].shape == (512, 512 * 7 * 7)
    assert [state[f"layer{i}.0.conv1.weight"].shape[:2] for i in (1, 2, 3, 4)] == [
        (64, 64), (128, 64), (256, 128), (512, 256),
    ]  # fmt: skip
    assert state["layer4.0.downsample.0.weight"].shape == (512, 256, 1, 1)


def test_the_last_norm_of_an_ir_network_keeps_its_weight_of_one() -> None:
    features = create_model("ir18", 8).get_submodule("features")
    assert isinstance(features.weight, nn.Parameter)
    assert not features.weight.requires_grad
    assert features.weight.tolist() == [1.0] * 8


def resnet_names(squeeze: bool) -> set[str]:
    """Written down from cydonia999/VGGFace2-pytorch, without its classifier `fc`."""
    names = {"conv1.weight"} | norm("bn1")
    for stage, count in enumerate((3, 4, 6, 3), start=1):
        for index in range(count):
            block = f"layer{stage}.{index}"
            for part in "123":
                names |= {f"{block}.conv{part}.weight"} | norm(f"{block}.bn{part}")
            if squeeze:
                names |= {f"{block}.conv{part}.{what}" for part in "45" for what in ("weight", "bias")}
        names |= {f"layer{stage}.0.downsample.0.weight"} | norm(f"layer{stage}.0.downsample.1")
    return names


@pytest.mark.parametrize("squeeze", [False, True])
def test_vggface2_networks_have_the_parameters_of_their_published_weights(squeeze: bool) -> None:
    name = "vggface2-senet50" if squeeze else "vggface2-resnet50"
    state = create_meta_model(name).state_dict()
    assert set(state) == resnet_names(squeeze)
    assert set(create_meta_model(name, 256).state_dict()) == resnet_names(squeeze) | {"feat_extract.weight"}
    assert create_meta_model(name, 128).state_dict()["feat_extract.weight"].shape == (128, 2048, 1, 1)
    if squeeze:
        assert state["layer1.0.conv4.weight"].shape == (16, 256, 1, 1)
        assert state["layer4.2.conv5.weight"].shape == (2048, 128, 1, 1)


def mbf_names(blocks: tuple[int, int, int, int]) -> set[str]:
    """Written down from arcface_torch's mobilefacenet.py."""

    def conv(name: str, activation: bool = True) -> set[str]:
        prelu = {f"{name}.layers.2.weight"} if activation else set()
        return {f"{name}.layers.0.weight"} | norm(f"{name}.layers.1") | prelu

    def depthwise(name: str) -> set[str]:
        return conv(f"{name}.layers.0") | conv(f"{name}.layers.1") | conv(f"{name}.layers.2", activation=False)

    def residual(name: str, count: int) -> set[str]:
        return set().union(*(depthwise(f"{name}.layers.{i}") for i in range(count)))

    names = conv("layers.0") | (conv("layers.1") if blocks[0] == 1 else residual("layers.1", blocks[0]))
    for place, count in zip((2, 4, 6), blocks[1:], strict=True):
        names |= depthwise(f"layers.{place}") | residual(f"layers.{place + 1}", count)
    gdc = conv("features.layers.0", activation=False) | {"features.layers.2.weight"} | norm("features.layers.3")
    return names | conv("conv_sep") | gdc


@pytest.mark.parametrize(
    ("name", "blocks"), [("mobilefacenet-0.45", (1, 4, 6, 2)), ("mobilefacenet-large", (2, 8, 12, 4))]
)
def test_wide_mobilefacenets_have_the_parameters_of_arcface_torch(name: str, blocks: tuple[int, int, int, int]) -> None:
    state = create_meta_model(name).state_dict()
    assert set(state) == mbf_names(blocks)
    width = 128 if name.endswith("0.45") else 256
    assert state["layers.0.layers.0.weight"].shape == (width, 3, 3, 3)
    if blocks[0] == 1:
        assert state["layers.1.layers.0.weight"].shape == (width, 2, 3, 3)  # 64 groups, whatever the width
    assert state["layers.6.layers.1.layers.0.weight"].shape == (512, 1, 3, 3)
    assert state["features.layers.0.layers.0.weight"].shape == (512, 1, 7, 7)


def test_sizes_and_costs_are_the_published_ones() -> None:
    """Parameters and multiply-adds from arcface_torch's README; VGGFace2's with the classifier of its 8,631 people."""
    published = {"ir18": (24.02, 2.6), "ir50": (43.59, 6.3), "ir100": (65.15, 12.1), "mobilefacenet-0.45": (2.06, 0.45)}
    rows = {row.name: row for row in list_networks((*published, "mobilefacenet", "vggface2-resnet50"))}
    for name, (millions, gflops) in published.items():
        assert rows[name].parameters / 1e6 == pytest.approx(millions, abs=0.011), name
        assert rows[name].gflops == pytest.approx(gflops, rel=0.03), name  # theirs counts norms too
    assert rows["mobilefacenet"].parameters / 1e6 == pytest.approx(0.99, abs=0.02)  # table 2 of the paper
    classifier = 2048 * 8631 + 8631
    assert (rows["vggface2-resnet50"].parameters + classifier) / 1e6 == pytest.approx(41.2, abs=0.05)
    assert rows["vggface2-resnet50"].gflops == pytest.approx(3.86, abs=0.01)  # He et al. 2016: 3.8
    table = format_networks(list(rows.values()))
    assert re.search(r"^ir50 +43.59 M +6.31  112x112 +512  arcface_torch's r50", table, re.M), table


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["mobilefacenet", "mobilefacenet-foamliu", "mobilefacenet-0.45", "ir18",
                                  "vggface2-senet50"])  # fmt: skip
def test_any_size_that_the_structure_permits_is_taken(name: str, size: tuple[int, int]) -> None:
    module = create_meta_model(name, 48, input_size=size).eval()
    assert module(torch.empty(2, 3, *size, device="meta")).shape == (2, 48)


@pytest.mark.parametrize("head", ["e", "gdc", "pool"])
@pytest.mark.parametrize("name", ["mobilefacenet", "mobilefacenet-0.45", "ir18", "resnet50"])
def test_every_head_goes_on_every_backbone(name: str, head: str) -> None:
    module = create_meta_model(name, 16, input_size=(64, 48), head=head).eval()
    assert module(torch.empty(1, 3, 64, 48, device="meta")).shape == (1, 16)
    last = module.get_submodule("features" if name == "mobilefacenet-0.45" else "head").get_submodule("features")
    assert isinstance(last, nn.BatchNorm1d)
    if head == "e":
        drops = [m.p for m in module.modules() if isinstance(m, nn.Dropout)]
        assert drops == [0.4]


def test_the_dry_run_leaves_no_trace_in_the_weights() -> None:
    """Weights follow from the seed alone, as they did before heads were sized by a dry run."""
    torch.manual_seed(3)
    first = create_model("mobilefacenet", 16)
    torch.manual_seed(3)
    torch.empty(64, 3, 3, 3).uniform_()  # what nn.Conv2d draws for the first layer
    expected = torch.empty(1).uniform_()
    torch.manual_seed(3)
    nn.Conv2d(3, 64, 3, bias=False)
    assert torch.empty(1).uniform_() == expected
    torch.manual_seed(3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.parameters(), create_model("mobilefacenet", 16).parameters(), strict=True)
    )
    assert first.training
    assert first.state_dict()["features.0.1.num_batches_tracked"] == 0


def test_an_ir_block_computes_what_the_paper_says() -> None:
    """BN, 3x3, BN, PReLU, 3x3 with the stride, BN; the shortcut a strided 1x1 with BN; SE on the residual."""
    torch.manual_seed(0)
    block = create_model("se-ir18", 4, input_size=(32, 32)).get_submodule("layer2.0").eval()
    for name, buffer in block.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.5, 1.5)
    state = block.state_dict()
    x = torch.randn(2, 64, 8, 8)

    def bn(y: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return functional.batch_norm(y, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    y = functional.conv2d(bn(x, "bn1"), state["conv1.weight"], padding=1)
    y = functional.prelu(bn(y, "bn2"), state["prelu.weight"])
    y = bn(functional.conv2d(y, state["conv2.weight"], stride=2, padding=1), "bn3")
    weights = functional.adaptive_avg_pool2d(y, 1)
    weights = functional.conv2d(
        functional.relu(functional.conv2d(weights, state["se.fc1.weight"])), state["se.fc2.weight"]
    )
    shortcut = bn(functional.conv2d(x, state["downsample.0.weight"], stride=2), "downsample.1")
    with torch.inference_mode():
        assert torch.allclose(block(x), y * weights.sigmoid() + shortcut, atol=1e-5)


def test_vggface2_strides_in_the_first_convolution_and_pools_without_padding() -> None:
    ours, plain = create_meta_model("vggface2-resnet50"), create_meta_model("resnet50")
    for module, strides in ((ours, ((2, 2), (1, 1))), (plain, ((1, 1), (2, 2)))):
        block = module.get_submodule("layer3.0")
        assert (block.conv1.stride, block.conv2.stride) == strides
    ramp = torch.arange(16.0).reshape(1, 1, 4, 4)
    # windows begin at 0 and run over the right edge, where padding would begin them at -1
    assert ours.get_submodule("maxpool")(ramp).flatten().tolist() == [10, 11, 14, 15]
    assert plain.get_submodule("maxpool")(ramp).flatten().tolist() == [5, 7, 13, 15]


def test_the_plain_resnet50_is_torchvisions() -> None:
    try:
        from torchvision.models import resnet50
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    torch.manual_seed(0)
    theirs = resnet50(weights=None)
    theirs.fc = nn.Identity()
    ours = create_model("resnet50")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenetv2_050", "densenet121", "densenet169", "densenet201", "dpn68",
                                  "inception_resnet_v2", "vit_tiny_patch16_224"])  # fmt: skip
def test_timms_backbones_come_under_our_heads(name: str) -> None:
    try:
        import timm  # noqa: F401
    except Exception as error:
        pytest.skip(f"timm cannot be imported: {error}")
    size = (80, 80)
    if name.startswith(("mobilenet", "vit")):
        module = create_model(f"timm:{name}", 12, input_size=size).eval()
        with torch.inference_mode():
            embedded = module(torch.randn(2, 3, *size))
        assert torch.isfinite(embedded).all()
    else:
        embedded = create_meta_model(f"timm:{name}", 12, input_size=size).eval()(
            torch.empty(2, 3, *size, device="meta")
        )
    assert embedded.shape == (2, 12)


def test_what_cannot_be_built_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"unknown network 'ir51'; choose from mobilefacenet, .*ir50, .*timm:NAME"):
        create_model("ir51", 128)
    with pytest.raises(ModelError, match="does not support the embedding head 'gdc'; supported: its own only"):
        create_model("mobilefacenet-foamliu", 128, head="gdc")
    with pytest.raises(ModelError, match="ir18 does not support the embedding head 'mlp'; supported: e, gdc, pool"):
        create_model("ir18", 128, head="mlp")
    with pytest.raises(ModelError, match="cannot be built for images of 0x112"):
        create_model("ir18", 128, input_size=(112, 0))
    with pytest.raises(ModelError, match=r"timm:nonsense_9|timm has no model 'nonsense_9'"):
        create_model("timm:nonsense_9", 128)
    assert find_network("timm:resnet18").embedding == 512


@pytest.mark.parametrize("name", [name for name in NETWORKS if not re.search("34|ir50|100|200", name)])
def test_the_length_of_the_embedding_is_that_of_the_last_parameter(name: str) -> None:
    assert create_meta_model(name, 7).state_dict()[find_network(name).embedding_parameter].shape[0] == 7
