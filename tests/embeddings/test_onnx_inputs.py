"""ONNX files as people export them: other number types, channels last, a reshape to one row; and never a traceback."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dataprep.embeddings.embedder import OnnxEmbedder
from dataprep.errors import ModelError

WEIGHTS = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
IMAGES = np.random.default_rng(1).integers(0, 256, (5, 112, 112, 3), np.uint8)
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def save(path: Path, kind: int, shape: list[Any], nodes: list[Any], weights: npt.NDArray[Any], **more: Any) -> Path:
    """A network of a few nodes: means of the channels, times WEIGHTS."""
    out = TensorProto.FLOAT if kind == TensorProto.UINT8 else kind
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], [helper.make_tensor_value_info("y", out, ["n", 16])],
        [numpy_helper.from_array(weights, "w"), *(numpy_helper.from_array(value, name) for name, value in more.items())],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def pool(source: str) -> list[Any]:
    return [
        helper.make_node("GlobalAveragePool", [source], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]


@pytest.fixture
def expected(tmp_path: Path) -> npt.NDArray[np.float32]:
    path = save(tmp_path / "ok.onnx", TensorProto.FLOAT, ["n", 3, 112, 112], pool("x"), WEIGHTS)
    found = OnnxEmbedder(path, **PLAIN)(IMAGES)
    np.testing.assert_allclose(found, IMAGES.reshape(5, -1, 3).mean(1) @ WEIGHTS, rtol=1e-3)
    return found


def test_types_layouts_and_fixed_rows_give_the_embeddings_of_the_plain_model(
    tmp_path: Path, expected: npt.NDArray[np.float32]
) -> None:
    transpose = helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
    cast = helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT)
    one_row = [pool("x")[0], helper.make_node("Reshape", ["p", "s"], ["f"]), pool("x")[2]]
    square, last = ["n", 3, 112, 112], ["n", 112, 112, 3]
    files = [
        save(tmp_path / "nhwc.onnx", TensorProto.FLOAT, last, [transpose, *pool("t")], WEIGHTS),
        save(tmp_path / "uint8.onnx", TensorProto.UINT8, square, [cast, *pool("c")], WEIGHTS),
        save(tmp_path / "one.onnx", TensorProto.FLOAT, square, one_row, WEIGHTS, s=np.array([1, -1])),
        save(tmp_path / "fixed.onnx", TensorProto.FLOAT, [2, 3, 112, 112], pool("x"), WEIGHTS),
    ]
    for path in files:
        np.testing.assert_allclose(OnnxEmbedder(path, **PLAIN)(IMAGES), expected, rtol=1e-5, err_msg=path.name)
    half = save(tmp_path / "half.onnx", TensorProto.FLOAT16, square, pool("x"), WEIGHTS.astype(np.float16))
    np.testing.assert_allclose(OnnxEmbedder(half, **PLAIN)(IMAGES), expected, rtol=0.02)


def test_a_model_that_cannot_be_run_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    wrong = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    path = save(tmp_path / "wrong.onnx", TensorProto.FLOAT, ["n", 3, "h", "w"], wrong, WEIGHTS)
    with pytest.raises(ModelError, match=r"wrong\.onnx: the model cannot be run on images of 112x112") as caught:
        OnnxEmbedder(path)(IMAGES)
    assert "export it" in caught.value.hint
    path = save(tmp_path / "double.onnx", TensorProto.DOUBLE, ["n", 3, 112, 112], pool("x"), WEIGHTS.astype(np.float64))
    with pytest.raises(ModelError, match=r"double\.onnx"):
        OnnxEmbedder(path)
