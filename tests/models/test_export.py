"""Models given away: what others read in the files gives the same embeddings, and says what it needs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataprep.cli.main import main
from dataprep.embeddings.embedder import OnnxEmbedder, open_model
from dataprep.errors import ModelError
from dataprep.models import export
from dataprep.models.model_files import save_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.pretrained import load_pretrained
from dataprep.models.registry import create_model

ODD = Preprocessing(height=48, width=32, order="BGR", mean=(90.0, 100.0, 130.0), std=(1.0, 50.0, 127.5))
FACES = np.random.default_rng(5).integers(0, 256, (5, 48, 32, 3), dtype=np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network whose colour order and normalisation nobody would guess, trained on a pack in a private place."""
    torch.manual_seed(0)
    pack = tmp_path / "private" / "faces_of_friends"
    pack.mkdir(parents=True)
    (pack / "pack.json").write_text(json.dumps({"template": [[1.5, 2.5], [3.0, 4.0]]}))
    about = {"pack": str(pack), "identities": 12, "images": 345, "steps": 6, "pack_index_sha256": "ab" * 32,
             "metrics": {"lfw": 0.9938}}  # fmt: skip
    save_model(
        tmp_path / "model.pt", create_model("mobilefacenet", 16, input_size=(48, 32)), network="mobilefacenet", embedding=16,
        preprocessing=ODD, about=about,
    )  # fmt: skip
    return tmp_path / "model.pt"


def test_onnx_embeds_as_torch_whatever_the_batch_and_says_its_input(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(SystemExit) as left:
        main(["export-model", str(model), "--format", "onnx", "--licence", "CC0-1.0"])
    assert not left.value.code, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "differ from PyTorch's by" in out
    assert "model.onnx.md" in out
    expected = open_model(model)(FACES)
    found = open_model(model.with_suffix(".onnx"))
    assert isinstance(found, OnnxEmbedder)
    assert found.described == ODD
    for count in (1, 5):
        assert np.abs(found(FACES[:count]) - expected[:count]).max() < 1e-4 * np.abs(expected).max()
    with pytest.raises(ModelError, match=r"model\.onnx describes its own input"):
        open_model(model.with_suffix(".onnx"), preprocessing=Preprocessing())

    import onnx

    props = {prop.key: prop.value for prop in onnx.load(model.with_suffix(".onnx")).metadata_props}
    facts = json.loads(props["dataprep"])
    assert props["licence"] == facts["licence"] == "CC0-1.0"
    assert (facts["about"]["pack"], facts["about"]["images"]) == ("faces_of_friends", 345)
    assert "private" not in props["dataprep"]
    card = model.with_suffix(".onnx.md").read_text()
    trained = "345 images of 12 identities (pack faces_of_friends)"
    for words in ("mean 90 100 130, std 1 50 127.5, by channel in BGR", trained, "[[1.5, 2.5], [3.0, 4.0]]", "CC0-1.0",
                  '"lfw": 0.9938', "(n, 3, 48, 32)"):  # fmt: skip
        assert words in card
    assert "private" not in card


def test_safetensors_come_back_to_the_bit(model: Path) -> None:
    pytest.importorskip("safetensors")
    made = export.export_model(model, model.with_name("given.safetensors"), "safetensors", licence="MIT")
    assert made.difference == 0
    assert np.array_equal(open_model(made.path)(FACES), open_model(model)(FACES))
    back = load_pretrained(made.path)
    assert (back.preprocessing, back.embedding, back.about["images"]) == (ODD, 16, 345)
    # and again, from there
    again = export.export_model(made.path, model.with_name("again.safetensors"), "safetensors")
    assert "345 images of 12 identities (pack faces_of_friends)" in again.card.read_text()


def test_safetensors_may_begin_like_a_pickle(model: Path) -> None:
    """Its first byte is the low one of the header's length: 0x80 begins a pickle, `P` a zip file."""
    pytest.importorskip("safetensors")
    made = export.export_model(model, model.with_name("given.safetensors"), "safetensors").path
    data = made.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for low in (0x80, 0x50):
        padding = (low - length) % 256
        header = (length + padding).to_bytes(8, "little") + data[8 : 8 + length] + b" " * padding
        made.write_bytes(header + data[8 + length :])
        assert load_pretrained(made).embedding == 16


def test_safetensors_of_others_are_known_by_their_shapes(tmp_path: Path) -> None:
    torch_files = pytest.importorskip("safetensors.torch")
    module = create_model("mobilefacenet-0.45", 8).eval()
    torch_files.save_file(module.state_dict(), tmp_path / "model.safetensors")
    found = load_pretrained(tmp_path / "model.safetensors")
    assert (found.network, found.embedding) == ("mobilefacenet-0.45", 8)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_pretrained(tmp_path / "cut.safetensors")


def test_nothing_is_written_when_the_file_does_not_embed_as_torch(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.setattr(export, "EXPORT_TOLERANCE", -1.0)
    target = model.with_suffix(".safetensors")
    with pytest.raises(
        ModelError, match=r"the safetensors model's embeddings differ from torch's by .*; nothing was written"
    ):
        export.export_model(model, target, "safetensors")
    assert not list(model.parent.glob("*.safetensors*"))


def test_an_export_never_takes_the_models_place(model: Path) -> None:
    pytest.importorskip("safetensors")
    with pytest.raises(ModelError, match=r"in safetensors format must end in \.safetensors"):
        export.export_model(model, model, "safetensors")
    made = export.export_model(model, model.with_suffix(".safetensors"), "safetensors").path
    with pytest.raises(ModelError, match="is the model to be exported"):
        export.export_model(made, made, "safetensors")


def test_foamlius_weights_are_tested_as_they_are_published(shared: Path, tmp_path: Path) -> None:
    """A foreign state dict opens in evaluation with its own normalisation, or with the one that is said."""
    faces = np.random.default_rng(1).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    imagenet = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    expected = OnnxEmbedder(shared / "weights/mobilefacenet_foamliu.onnx", **imagenet)(faces)
    weights = shared / "weights/mobilefacenet_foamliu.pt"
    assert np.abs(open_model(weights, "cpu")(faces) - expected).max() < 1e-4
    other = open_model(weights, "cpu", preprocessing=Preprocessing())(faces)
    assert np.abs(other - expected).max() > 0.1
