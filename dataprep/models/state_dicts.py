"""The names that others give to the parameters of networks that we have, turned into ours.

A dialect is recognised by parameter names that no other has. What a file of weights does not say, colour order and
normalisation, is what its authors' code does to the pixels, read there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from dataprep.models.preprocessing import Input
from dataprep.models.registry import NETWORKS, VGGFACE2

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Recognised by all of `marks`; `ours` renames. `networks` are those that it has."""

    source: str
    marks: tuple[str, ...]
    networks: tuple[str, ...]
    input: Input
    ours: Callable[[State], State] = lambda state: state


def find_dialect(state: Mapping[str, Tensor]) -> Dialect | None:
    """The dialect of a state dict, if it is one that we know."""
    return next((dialect for dialect in DIALECTS if all(mark in state for mark in dialect.marks)), None)


def _face_pytorch_ir(state: State) -> State:
    """Face_Pytorch's CBAMResNet: input_layer.N, layer1.0.res_layer.N, layer1.0.shortcut_layer.N, output_layer.N."""
    residual = {"0": "bn1", "1": "conv1", "2": "bn2", "3": "prelu", "4": "conv2", "5": "bn3", "6": "se"}
    ends = {"input_layer.0": "conv1", "input_layer.1": "bn1", "input_layer.2": "prelu",
            "output_layer.0": "bn2", "output_layer.3": "fc", "output_layer.4": "features"}  # fmt: skip

    def name(theirs: str) -> str:
        theirs = re.sub(r"res_layer\.(\d)", lambda found: residual.get(found[1], found[0]), theirs)
        theirs = re.sub(r"^(in|out)put_layer\.\d", lambda found: ends.get(found[0], found[0]), theirs)
        return theirs.replace("shortcut_layer", "downsample")

    return {name(theirs): tensor for theirs, tensor in state.items()}


def _face_pytorch_mobile(state: State) -> State:
    """Face_Pytorch's MobileFaceNet: blocks.N.conv.0 to 7 for the three convolutions with their norms and activations."""
    parts = {"conv": "0", "bn": "1", "prelu": "2"}
    ends = {"conv1": "features.0", "dw_conv1": "features.1", "conv2": "features.17", "linear7": "features.18"}

    def name(theirs: str) -> str:
        block = re.fullmatch(r"blocks\.(\d+)\.conv\.(\d)\.(.+)", theirs)
        if block:
            layer, place = divmod(int(block[2]), 3)
            return f"features.{int(block[1]) + 2}.layers.{layer}.{place}.{block[3]}"
        start, part, rest = [*theirs.split(".", 2), ""][:3]
        if start == "linear1":
            return f"{'project' if part == 'conv' else 'norm'}.{rest}"
        return f"{ends[start]}.{parts.get(part, part)}.{rest}" if start in ends else theirs

    named = {name(theirs): tensor for theirs, tensor in state.items()}
    if "project.weight" in named:
        named["project.weight"] = named["project.weight"].flatten(1)  # theirs is a 1x1 convolution
    return named


def _vggface2(state: State) -> State:
    """cydonia999's conversion has our names, and a classifier that an embedding does without."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def _vggface2_caffe(state: State) -> State:
    """Oxford's own conversion keeps Caffe's names: conv2_1_1x1_reduce, conv2_1_1x1_reduce_bn, ..."""
    parts = {"1x1_reduce": "conv1", "3x3": "conv2", "1x1_increase": "conv3", "1x1_down": "conv4", "1x1_up": "conv5",
             "1x1_proj": "downsample.0", "1x1_reduce_bn": "bn1", "3x3_bn": "bn2", "1x1_increase_bn": "bn3",
             "1x1_proj_bn": "downsample.1"}  # fmt: skip

    def name(theirs: str) -> str:
        theirs = re.sub(r"^conv1_7x7_s2(_bn)?", lambda found: "bn1" if found[1] else "conv1", theirs)
        block = re.fullmatch(r"conv(\d)_(\d)_(\w+)\.(\w+)", theirs)
        if block is None or block[3] not in parts:
            return theirs
        return f"layer{int(block[1]) - 1}.{int(block[2]) - 1}.{parts[block[3]]}.{block[4]}"

    renamed = {name(theirs): tensor for theirs, tensor in state.items()}
    return {ours: tensor for ours, tensor in renamed.items() if not ours.startswith("classifier")}


_IR = tuple(name for name in NETWORKS if name.startswith("ir"))
_SE_IR = tuple(name for name in NETWORKS if name.startswith("se-ir"))
_VGGFACE2 = ("vggface2-resnet50", "vggface2-senet50")
# its loaders read with cv2.imread and never turn the channels
_BGR = Input(order="BGR")

DIALECTS = (
    Dialect(
        source="insightface's arcface_torch", marks=("layer1.0.prelu.weight",), networks=_IR + _SE_IR, input=Input()
    ),
    Dialect(
        source="insightface's arcface_torch", marks=("conv_sep.layers.0.weight",), input=Input(),
        networks=("mobilefacenet-0.45", "mobilefacenet-large"),
    ),
    Dialect(
        source="Face_Pytorch", marks=("layer1.0.res_layer.0.weight",), networks=_IR + _SE_IR, input=_BGR,
        ours=_face_pytorch_ir,
    ),
    Dialect(
        source="Face_Pytorch", marks=("dw_conv1.conv.weight", "linear7.conv.weight"), networks=("mobilefacenet",),
        input=_BGR, ours=_face_pytorch_mobile,
    ),
    Dialect(
        source="foamliu/MobileFaceNet", marks=("dw_conv.depthwise.weight", "gdconv.depthwise.weight"),
        networks=("mobilefacenet-foamliu",), input=NETWORKS["mobilefacenet-foamliu"].input,
    ),
    Dialect(
        source="VGGFace2", marks=("conv1_7x7_s2.weight",), networks=_VGGFACE2, ours=_vggface2_caffe,
        # Oxford's pytorch_feature_extractor.py reads RGB, and turns the means
        input=replace(VGGFACE2, order="RGB", mean=VGGFACE2.mean[::-1]),
    ),
    Dialect(
        source="VGGFace2-pytorch", marks=("layer1.0.conv3.weight", "layer1.0.downsample.0.weight"),
        networks=(*_VGGFACE2, "resnet50"), input=VGGFACE2, ours=_vggface2,
    ),
    Dialect(
        source="dataprep", marks=("features.0.0.weight", "project.weight"), networks=("mobilefacenet",), input=Input()
    ),
)  # fmt: skip
