"""Weights of others and ours: whose they are, what their pixels look like, and that nothing in a file is run."""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dataprep
from dataprep.errors import ModelError
from dataprep.models.model_files import load_model, save_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.pretrained import load_pretrained
from dataprep.models.registry import NETWORKS, create_meta_model, create_model
from dataprep.models.state_dicts import STATE_DICT_FORMATS, find_state_dict_format

State = dict[str, Tensor]


IMAGENET = NETWORKS["resnet50"].preprocessing


def lively(module: nn.Module) -> nn.Module:
    """Norms as a training leaves them, so that a swap of two shows."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() == 1 and not name.startswith("features.weight"):
            tensor.copy_(torch.empty_like(tensor).uniform_(0.5, 1.5, generator=generator))
    return module.eval()


def embed(module: nn.Module, size: tuple[int, int] = (112, 112)) -> Tensor:
    with torch.inference_mode():
        return torch.Tensor(module(torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))))


@pytest.fixture(scope="module")
def mobile() -> nn.Module:
    torch.manual_seed(0)
    return lively(create_model("mobilefacenet", 24))


def test_foamlius_weights_embed_as_the_onnx_file_beside_them(shared: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = load_pretrained(shared / "weights/mobilefacenet_foamliu.pt")
    assert (model.network, model.embedding, model.preprocessing.order) == ("mobilefacenet-foamliu", 128, "RGB")
    assert model.preprocessing.mean == pytest.approx([255 * m for m in (0.485, 0.456, 0.406)])
    assert model.preprocessing.std == pytest.approx([255 * s for s in (0.229, 0.224, 0.225)])
    faces = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    batch = model.preprocessing.normalise(faces)
    session = onnxruntime.InferenceSession(str(shared / "weights/mobilefacenet_foamliu.onnx"))
    expected = np.concatenate([session.run(None, {"input0": one[None].numpy()})[0] for one in batch])
    with torch.inference_mode():
        assert np.abs(model.module(batch).numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("network", "size"), [("ir18", (112, 112)), ("mobilefacenet-0.45", (128, 128))])
def test_insightfaces_backbone_is_known_by_its_shapes(
    tmp_path: Path, network: str, size: tuple[int, int], legacy: bool
) -> None:
    module = lively(create_model(network, 12, input_size=size))
    path = tmp_path / "backbone.pth"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    model = load_pretrained(path)
    assert (model.network, model.embedding, model.about["weights"]) == (network, 12, "backbone.pth")
    assert model.preprocessing == Preprocessing(height=size[0], width=size[1])
    assert torch.equal(embed(model.module, size), embed(module, size))


def test_faces_that_are_not_square_are_told_by_the_first_layer_behind_the_map(tmp_path: Path) -> None:
    save = create_model("mobilefacenet-0.45", 8, input_size=(112, 96)).state_dict()
    torch.save(save, tmp_path / "backbone.pth")
    found = load_pretrained(tmp_path / "backbone.pth").preprocessing
    assert (found.height, found.width) == (112, 96)


def face_pytorch_mobile(state: State) -> State:
    """Our names to theirs, by hand from Face_Pytorch's mobilefacenet.py."""
    theirs = {}
    for name, tensor in state.items():
        name = re.sub(r"^project", "linear1.conv", re.sub(r"^norm", "linear1.bn", name))
        block = re.match(r"features\.(\d+)\.layers\.(\d)\.(\d)", name)
        if block:
            place, layer, part = (int(block[i]) for i in (1, 2, 3))
            name = f"blocks.{place - 2}.conv.{3 * layer + part}" + name[block.end() :]
        for place, (start, parts) in {
            0: ("conv1", 3),
            1: ("dw_conv1", 3),
            17: ("conv2", 3),
            18: ("linear7", 2),
        }.items():
            for part in range(parts):
                name = name.replace(f"features.{place}.{part}.", f"{start}.{('conv', 'bn', 'prelu')[part]}.")
        theirs[name] = tensor[:, :, None, None] if name == "linear1.conv.weight" else tensor
    return theirs


def test_face_pytorchs_mobileface_is_read_with_its_wrappers(tmp_path: Path, mobile: nn.Module) -> None:
    theirs = face_pytorch_mobile(mobile.state_dict())
    assert {
        "conv1.conv.weight",
        "blocks.0.conv.7.running_var",
        "linear1.conv.weight",
        "linear7.bn.bias",
    } <= theirs.keys()
    wrapped = OrderedDict((f"module.{name}", tensor) for name, tensor in theirs.items())
    torch.save({"iters": 3000, "net_state_dict": wrapped}, tmp_path / "Iter_003000_net.ckpt")
    model = load_pretrained(tmp_path / "Iter_003000_net.ckpt")
    assert (model.network, model.embedding, model.preprocessing.order) == ("mobilefacenet", 24, "BGR")
    assert model.about["source"] == "Face_Pytorch"
    assert torch.equal(embed(model.module), embed(mobile))


@pytest.mark.parametrize("squeeze", [False, True])
def test_face_pytorchs_ir_networks_have_all_their_parameters_renamed(squeeze: bool) -> None:
    """By hand from Face_Pytorch's cbam.py, Res50_IR and SERes50_IR."""
    parts = ["0", "1", "2", "3", "4", "5"]
    theirs = {"input_layer.0", "input_layer.1", "input_layer.2", "output_layer.0", "output_layer.3", "output_layer.4"}
    for stage, count in enumerate((3, 4, 14, 3), start=1):
        for index in range(count):
            theirs |= {f"layer{stage}.{index}.res_layer.{part}" for part in parts}
            theirs |= {f"layer{stage}.{index}.res_layer.6.{fc}" for fc in ("fc1", "fc2") if squeeze}
        theirs |= {f"layer{stage}.0.shortcut_layer.0", f"layer{stage}.0.shortcut_layer.1"}
    state = {f"{name}.weight": torch.empty(0) for name in theirs}
    dialect = find_state_dict_format(state)
    assert dialect is not None
    name = "se-ir50" if squeeze else "ir50"
    assert name in dialect.networks
    assert dialect.preprocessing.order == "BGR"
    ours = {key for key in create_meta_model(name).state_dict() if key.endswith(".weight")}
    assert set(dialect.convert(state)) == ours


@pytest.fixture(scope="module")
def vggface2() -> State:
    torch.manual_seed(0)
    module = lively(create_model("vggface2-resnet50"))
    return {name: tensor for name, tensor in module.state_dict().items() if not name.endswith("tracked")}


def test_vggface2s_pickle_of_arrays_is_read(tmp_path: Path, vggface2: State) -> None:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in vggface2.items()}
    arrays["fc.weight"] = np.zeros((2048, 8631), np.float16).T  # transposed, as conversions leave it
    arrays["fc.bias"] = np.zeros(8631, np.float32)
    (tmp_path / "resnet50_ft_weight.pkl").write_bytes(pickle.dumps(arrays, protocol=3))
    model = load_pretrained(tmp_path / "resnet50_ft_weight.pkl")
    assert (model.network, model.embedding) == ("vggface2-resnet50", 2048)
    assert model.preprocessing == Preprocessing(
        height=224, width=224, order="BGR", mean=(91.4953, 103.8827, 131.0912), std=(1.0, 1.0, 1.0)
    )
    state = model.module.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in vggface2.items())
    with pytest.raises(ModelError, match="holds the network vggface2-resnet50, not resnet50"):
        load_pretrained(tmp_path / "resnet50_ft_weight.pkl", network="resnet50")


def test_a_resnet50_that_may_be_torchvisions_is_not_guessed(tmp_path: Path, vggface2: State) -> None:
    torch.save(vggface2, tmp_path / "bare.pth")
    with pytest.raises(ModelError, match="torchvision's resnet50 cannot be told apart") as caught:
        load_pretrained(tmp_path / "bare.pth")
    assert "--network vggface2-resnet50 or resnet50" in caught.value.hint
    assert load_pretrained(tmp_path / "bare.pth", network="vggface2-resnet50").preprocessing.order == "BGR"
    assert load_pretrained(tmp_path / "bare.pth", network="resnet50").preprocessing == IMAGENET
    torch.save({**vggface2, "fc.weight": torch.zeros(1000, 2048)}, tmp_path / "imagenet.pth")
    model = load_pretrained(tmp_path / "imagenet.pth")
    assert (model.network, model.preprocessing, model.about["source"]) == ("resnet50", IMAGENET, "torchvision")


@pytest.mark.parametrize(
    ("size", "order", "std", "source"),
    [((112, 112), "BGR", 127.5, "Face_Pytorch"), ((112, 96), "RGB", 128.0, "Xiaoccer's MobileFaceNet_Pytorch")],
)
def test_two_mobilefacenets_of_the_same_names_are_told_apart_by_their_last_map(
    tmp_path: Path, size: tuple[int, int], order: str, std: float, source: str
) -> None:
    module = lively(create_model("mobilefacenet", 16, input_size=size))
    torch.save({"net_state_dict": face_pytorch_mobile(module.state_dict())}, tmp_path / "068.ckpt")
    model = load_pretrained(tmp_path / "068.ckpt")
    found = model.preprocessing
    assert (found.height, found.width, found.order, found.std) == (*size, order, (std,) * 3)
    assert (found.mean, model.about["source"]) == ((127.5,) * 3, source)


def test_the_page_on_checkpoints_has_the_input_and_source_of_every_format() -> None:
    page = (Path(dataprep.__file__).parent / "docs/checkpoints.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    by_source = {row[4]: row for row in rows}
    for known in STATE_DICT_FORMATS:
        if known.citation == "dataprep":
            continue
        row, p = by_source[known.input_source], known.preprocessing
        mean, std = (
            ",".join(f"{v:g}" if v == round(v, 3) else f"{v}" for v in dict.fromkeys(values))
            for values in (p.mean, p.std)
        )
        assert row[1:3] == [p.order, f"{mean} / {std}"], known.citation


def test_a_pickle_of_python_2_is_read_and_arrays_by_columns_keep_their_shape(tmp_path: Path) -> None:
    """By hand, as cPickle.dump(dict, f, 2) under Python 2.7 writes it: every str by SHORT_BINSTRING."""
    from dataprep.models.pretrained import _read_weights

    def array(shape: bytes, columns: bytes, data: bytes) -> bytes:
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape
            + b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            + columns + b"U" + bytes([len(data)]) + data + b"tb"
        )  # fmt: skip

    numbers = struct.pack("<6f", 1, 4, 2, 5, 3, 6)
    data = (
        b"\x80\x02}(U\x0bconv1.shape" + array(b"K\x02K\x03\x86", b"\x88", numbers)
        + b"U\x07fc.bias" + array(b"K\x06\x85", b"\x89", numbers) + b"u."
    )  # fmt: skip
    (tmp_path / "w.pkl").write_bytes(data)
    found = _read_weights(tmp_path / "w.pkl")
    assert found["conv1.shape"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found["fc.bias"].tolist() == [1, 4, 2, 5, 3, 6]


def test_oxfords_own_conversion_has_all_its_parameters_renamed() -> None:
    """By hand from senet50_256.py: Caffe's names, and RGB for BGR."""
    theirs = {"conv1_7x7_s2", "conv1_7x7_s2_bn", "feat_extract"}
    for stage, count in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        for index in range(1, count + 1):
            parts = ["1x1_reduce", "3x3", "1x1_increase"]
            theirs |= {f"conv{stage}_{index}_{part}{norm}" for part in parts for norm in ("", "_bn")}
            theirs |= {f"conv{stage}_{index}_1x1_{part}" for part in ("down", "up")}
        theirs |= {f"conv{stage}_1_1x1_proj", f"conv{stage}_1_1x1_proj_bn"}
    dialect = find_state_dict_format(state := {f"{name}.weight": torch.empty(0) for name in theirs})
    assert dialect is not None
    assert (dialect.preprocessing.order, dialect.preprocessing.mean) == ("RGB", (131.0912, 103.8827, 91.4953))
    ours = {key for key in create_meta_model("vggface2-senet50", 256).state_dict() if key.endswith(".weight")}
    assert set(dialect.convert(state)) == ours


def test_our_models_come_back_with_their_head_size_and_input(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = lively(create_model("mobilefacenet-0.45", 8, input_size=(96, 80), head="e"))
    input = Preprocessing(height=96, width=80, order="BGR", mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    save_model(
        tmp_path / "m.pt",
        module,
        network="mobilefacenet-0.45",
        embedding=8,
        preprocessing=input,
        about={"images": 7},
        head="e",
    )
    for model in (load_model(tmp_path / "m.pt"), load_pretrained(tmp_path / "m.pt")):
        assert (model.preprocessing, model.head, model.about["images"]) == (input, "e", 7)
        assert torch.equal(embed(model.module, (96, 80)), embed(module, (96, 80)))
    with pytest.raises(ModelError, match="describes its own input"):
        load_pretrained(tmp_path / "m.pt", preprocessing=Preprocessing())
    with pytest.raises(ModelError, match=r"m\.pt holds the network mobilefacenet-0\.45, not ir50"):
        load_pretrained(tmp_path / "m.pt", network="ir50")


def test_a_model_of_before_there_were_heads_still_loads(tmp_path: Path, mobile: nn.Module) -> None:
    """The content of a model.pt as save_model wrote it then."""
    content = {"network": "mobilefacenet", "embedding": 24, "input": asdict(Preprocessing()), "about": {"steps": 1},
               "weights": mobile.state_dict()}  # fmt: skip
    torch.save(content, tmp_path / "model.pt")
    assert torch.equal(embed(load_model(tmp_path / "model.pt").module), embed(mobile))


def test_checkpoints_of_a_training_are_read(tmp_path: Path, mobile: nn.Module) -> None:
    identity = {"params": {"network": "mobilefacenet", "embedding": 24}, "pack_property": "10,112,112"}
    old = {"identity": json.dumps(identity), "step": 4, "backbone": mobile.state_dict(), "head": {}}
    new = {"network": "mobilefacenet", "embedding": 24, "input": asdict(Preprocessing(order="BGR")), "step": 4,
           "backbone": {f"_orig_mod.{name}": tensor for name, tensor in mobile.state_dict().items()}}  # fmt: skip
    for content, order in ((old, "RGB"), (new, "BGR")):
        torch.save(content, tmp_path / "checkpoint.pt")
        model = load_pretrained(tmp_path / "checkpoint.pt")
        assert model.preprocessing.order == order
        assert torch.equal(embed(model.module), embed(mobile))


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path: Path, form: str) -> None:
    trap, path = tmp_path / "it-ran", tmp_path / "backbone.pth"
    content = {"conv1.weight": Hostile(trap)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ModelError, match=r"backbone\.pth: its pickle refers to posix\.system; .*no code is run"):
        load_pretrained(path)
    assert not trap.exists()


def test_weights_that_fit_no_network_are_told_what_keeps_them_apart(tmp_path: Path, mobile: nn.Module) -> None:
    theirs = face_pytorch_mobile(mobile.state_dict())
    del theirs["conv2.bn.weight"]
    theirs |= {"extra.bias": torch.zeros(1), "conv1.conv.weight": torch.zeros(64, 1, 3, 3)}
    torch.save(theirs, tmp_path / "w.ckpt")
    with pytest.raises(ModelError) as told:
        load_pretrained(tmp_path / "w.ckpt")
    assert "names from Face_Pytorch, but fit none of its networks; the nearest is mobilefacenet" in str(told.value)
    assert "missing: features.17.1.weight; unexpected: extra.bias; of another shape: features.0.0.weight (64, 1, 3, 3) " \
           "instead of (64, 3, 3, 3)" in str(told.value)  # fmt: skip


def test_files_that_are_no_weights_are_refused_with_a_remedy(tmp_path: Path, mobile: nn.Module) -> None:
    def refused(name: str, content: bytes | None, words: str) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=words):
            load_pretrained(tmp_path / name)

    refused("none.pth", None, "no such weight file")
    refused("text.pth", b"hello, this is no file of weights", "weights do not need|not a readable pickle")
    refused("model.onnx", b"\x08\x08\x12\x07pytorch", "ONNX file can be tested, but not trained")
    refused("list.pkl", pickle.dumps([1, 2]), "not a weight file")
    refused("numbers.pkl", pickle.dumps({"epoch": 3}), "holds no state dict")
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "a.pth")
    refused("a.pth", None, r"\(a\.weight, \.\.\.\) match no supported network")
    whole = (tmp_path / "a.pth").read_bytes()
    refused("cut.pth", whole[: len(whole) // 2], "not a readable PyTorch file")
    state = face_pytorch_mobile(mobile.state_dict())
    torch.save({**state, "conv2.bn.bias": torch.full((512,), float("nan"))}, tmp_path / "nan.ckpt")
    refused("nan.ckpt", None, "conv2.bn.bias has values that are not finite")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_is_a_program_and_is_not_opened(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(tmp_path / "scripted.pt"))
    with pytest.raises(ModelError, match="TorchScript, a program") as caught:
        load_pretrained(tmp_path / "scripted.pt")
    assert "state_dict" in caught.value.hint
