"""State dicts of other projects: their parameter names, mapped to those of our networks.

A format is recognised by parameter names, and where those are equal by shapes. Files do not state the channel order and
normalisation, so these are taken from their authors' code, at the place named in `input_source`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from dataprep.models.preprocessing import Preprocessing
from dataprep.models.registry import NETWORKS, VGGFACE2

StateDict = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDictFormat:
    """Recognised by `required_keys` and, where other formats have the same names, by `has_shapes`. `convert` renames the
    parameters; `networks` lists the possible ones. `lookalike` names another format that such weights may be as well: then
    the user has to say which network, or which input, they have."""

    citation: str
    required_keys: tuple[str, ...]
    networks: tuple[str, ...]
    preprocessing: Preprocessing
    input_source: str
    convert: Callable[[StateDict], StateDict] = lambda state: state
    has_shapes: Callable[[Mapping[str, Tensor]], bool] = lambda state: True
    lookalike: str = ""


def find_state_dict_format(state: Mapping[str, Tensor]) -> StateDictFormat | None:
    """The format of a state dict, or None if it is unknown."""
    return next(
        (
            known
            for known in STATE_DICT_FORMATS
            if all(name in state for name in known.required_keys) and known.has_shapes(state)
        ),
        None,
    )


def _has_linear7(height: int, width: int) -> Callable[[Mapping[str, Tensor]], bool]:
    return lambda state: tuple(state["linear7.conv.weight"].shape[-2:]) == (height, width)


def _has_classes(*counts: int) -> Callable[[Mapping[str, Tensor]], bool]:
    """Whether the last layer has one of these numbers of classes."""
    return lambda state: "fc.weight" in state and len(state["fc.weight"]) in counts


def _face_pytorch_ir(state: StateDict) -> StateDict:
    """Face_Pytorch's CBAMResNet: input_layer.N, layer1.0.res_layer.N, layer1.0.shortcut_layer.N, output_layer.N."""
    residual = {"0": "bn1", "1": "conv1", "2": "bn2", "3": "prelu", "4": "conv2", "5": "bn3", "6": "se"}
    ends = {"input_layer.0": "conv1", "input_layer.1": "bn1", "input_layer.2": "prelu",
            "output_layer.0": "bn2", "output_layer.3": "fc", "output_layer.4": "features"}  # fmt: skip

    def name(theirs: str) -> str:
        theirs = re.sub(r"res_layer\.(\d)", lambda found: residual.get(found[1], found[0]), theirs)
        theirs = re.sub(r"^(in|out)put_layer\.\d", lambda found: ends.get(found[0], found[0]), theirs)
        return theirs.replace("shortcut_layer", "downsample")

    return {name(theirs): tensor for theirs, tensor in state.items()}


def _face_pytorch_mobile(state: StateDict) -> StateDict:
    """Face_Pytorch's MobileFaceNet: blocks.N.conv.0 to 7 are three convolutions with norms and activations."""
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
        named["project.weight"] = named["project.weight"].flatten(1)  # a 1x1 convolution there
    return named


def _without_classifier(state: StateDict) -> StateDict:
    """cydonia999's conversion and torchvision have our names, plus a classifier, which is dropped."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def _vggface2_caffe(state: StateDict) -> StateDict:
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
_BGR = Preprocessing(order="BGR")
_ARCFACE_TORCH = "insightface 7fadd420, recognition/arcface_torch: inference.py:18 and 21, dataset.py:144 and 167"
_FACE_PYTORCH = "Face_Pytorch 3afd941: dataset/casia_webface.py:22 (cv2.imread, never swapped), train.py:55-56"
_VGGFACE2_PYTORCH = "VGGFace2-pytorch c6e10f2: datasets/vgg_face2.py:15, 60-65, 80"
_IS_SENET = "layer1.0.conv4.weight"  # senet50 has no lookalike

STATE_DICT_FORMATS = (
    StateDictFormat(
        citation="insightface's arcface_torch", required_keys=("layer1.0.prelu.weight",), networks=_IR + _SE_IR,
        preprocessing=Preprocessing(), input_source=_ARCFACE_TORCH,
    ),
    StateDictFormat(
        citation="insightface's arcface_torch", required_keys=("conv_sep.layers.0.weight",), preprocessing=Preprocessing(),
        networks=("mobilefacenet-0.45", "mobilefacenet-large"), input_source=_ARCFACE_TORCH,
    ),
    StateDictFormat(
        citation="Face_Pytorch", required_keys=("layer1.0.res_layer.0.weight",), networks=_IR + _SE_IR, preprocessing=_BGR,
        convert=_face_pytorch_ir, input_source=_FACE_PYTORCH,
    ),
    StateDictFormat(
        citation="Face_Pytorch", required_keys=("dw_conv1.conv.weight", "linear7.conv.weight"), networks=("mobilefacenet",),
        preprocessing=_BGR, convert=_face_pytorch_mobile, has_shapes=_has_linear7(7, 7), input_source=_FACE_PYTORCH,
    ),
    StateDictFormat(
        citation="Xiaoccer's MobileFaceNet_Pytorch", required_keys=("dw_conv1.conv.weight", "linear7.conv.weight"),
        networks=("mobilefacenet",), preprocessing=Preprocessing(std=(128.0,) * 3), convert=_face_pytorch_mobile,
        has_shapes=_has_linear7(7, 6),
        input_source="MobileFaceNet_Pytorch 26bd8d2: dataloader/LFW_loader.py:12 (scipy.misc.imread: RGB) and 23",
    ),
    StateDictFormat(
        citation="foamliu/MobileFaceNet", required_keys=("dw_conv.depthwise.weight", "gdconv.depthwise.weight"),
        networks=("mobilefacenet-foamliu",), preprocessing=NETWORKS["mobilefacenet-foamliu"].preprocessing,
        input_source="foamliu/MobileFaceNet a6cc903: lfw_eval.py:79 and 81, data_gen.py:17 and 40",
    ),
    StateDictFormat(
        citation="VGGFace2", required_keys=("conv1_7x7_s2.weight",), networks=_VGGFACE2, convert=_vggface2_caffe,
        preprocessing=replace(VGGFACE2, order="RGB", mean=VGGFACE2.mean[::-1]),
        input_source="ox-vgg/vgg_face2 921df0a: standard_evaluation/pytorch_feature_extractor.py:12, 20 and 32 (RGB)",
    ),
    StateDictFormat(
        citation="VGGFace2-pytorch", required_keys=("layer1.0.conv3.weight", _IS_SENET), networks=_VGGFACE2,
        preprocessing=VGGFACE2, convert=_without_classifier, input_source=_VGGFACE2_PYTORCH,
    ),
    StateDictFormat(
        citation="torchvision", required_keys=("layer1.0.conv3.weight", "layer1.0.downsample.0.weight"),
        networks=("resnet50",), preprocessing=NETWORKS["resnet50"].preprocessing, convert=_without_classifier,
        has_shapes=_has_classes(1000), input_source="torchvision's ImageNet transforms",
    ),
    StateDictFormat(
        citation="VGGFace2-pytorch", required_keys=("layer1.0.conv3.weight", "fc.weight"), networks=_VGGFACE2,
        preprocessing=VGGFACE2, convert=_without_classifier, has_shapes=_has_classes(8631),
        input_source=_VGGFACE2_PYTORCH,
    ),
    StateDictFormat(
        citation="VGGFace2-pytorch", required_keys=("layer1.0.conv3.weight", "layer1.0.downsample.0.weight"),
        networks=(*_VGGFACE2, "resnet50"), preprocessing=VGGFACE2, convert=_without_classifier,
        input_source=_VGGFACE2_PYTORCH, lookalike="torchvision's resnet50",
    ),
    StateDictFormat(
        citation="dataprep", required_keys=("features.0.0.weight", "project.weight"), networks=("mobilefacenet",),
        preprocessing=Preprocessing(), input_source="our own",
    ),
)  # fmt: skip
