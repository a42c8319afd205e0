"""Damaged models and checkpoints are named as damaged before anything is loaded; equal models are exported as equal
bytes."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from helpers.command import environment

from dataprep.errors import ModelError
from dataprep.models.export import export_model
from dataprep.models.model_files import load_model, save_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.pretrained import load_pretrained
from dataprep.models.registry import create_model
from dataprep.models.zip_checksums import check_archive
from dataprep.storage import Folder
from dataprep.train.checkpoint import read_checkpoint, write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.manual_seed(0)
    module = create_model("mobilefacenet", 64, input_size=(112, 112))
    save_model(
        path, module, network="mobilefacenet", embedding=64, preprocessing=Preprocessing(), about={"licence": "x"}
    )
    return path


def flip_a_weight(path: Path) -> None:
    """One byte of one number of the largest tensor."""
    with zipfile.ZipFile(path) as archive:
        part = max(archive.infolist(), key=lambda part: part.file_size)
        with archive.open(part) as stream:
            content = stream.read()
    data = bytearray(path.read_bytes())
    place = bytes(data).find(content) + part.file_size // 2
    data[place] ^= 0x10
    path.write_bytes(data)


def test_one_flipped_byte_of_a_weight_is_named(model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model.pt"
    damaged.write_bytes(model.read_bytes())
    check_archive(damaged)
    flip_a_weight(damaged)
    assert not torch.equal(*(torch.load(p, weights_only=True)["weights"][_largest(p)] for p in (model, damaged)))
    for load in (
        load_model,
        load_pretrained,
        lambda path: export_model(path, tmp_path / "m.safetensors", "safetensors"),
    ):
        with pytest.raises(ModelError, match=r"model\.pt is damaged: '.*' differs from its checksum"):
            load(damaged)


def _largest(path: Path) -> str:
    weights = torch.load(path, weights_only=True)["weights"]
    return max(weights, key=lambda name: weights[name].numel())


def test_a_file_without_checksums_and_one_of_an_old_pytorch_pass(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    check_archive(tmp_path / "old.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    check_archive(tmp_path / "junk.pt")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path)
    assert read_checkpoint(folder) is None
    for step in (1, 2, 3):
        write_checkpoint(folder, {"step": step, "weights": torch.full((1000,), float(step))})
    content = read_checkpoint(folder)
    assert content is not None
    assert content["step"] == 3
    flip_a_weight(tmp_path / "checkpoint.pt")
    content = read_checkpoint(folder)
    assert content is not None
    assert (content["step"], content["weights"][0].item()) == (2, 2.0)
    assert "checkpoint.pt is damaged" in caplog.text
    assert "goes on from the checkpoint before it, step 2" in caplog.text
    flip_a_weight(tmp_path / "checkpoint-previous.pt")
    with pytest.raises(ModelError, match=r"checkpoint-previous\.pt is damaged") as raised:
        read_checkpoint(folder)
    assert "lr" not in str(raised.value)


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_equal_models_are_exported_as_equal_bytes(model: Path, tmp_path: Path, form: str) -> None:
    made = []
    for number in (1, 2):
        target = tmp_path / str(number) / f"m.{form}"
        target.parent.mkdir()
        code = (
            "import sys; from pathlib import Path; from dataprep.models.export import export_model; "
            "export_model(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
        )
        arguments = [sys.executable, "-c", code, str(model), str(target), form]
        subprocess.run(arguments, check=True, env={**environment(), "PYTHONHASHSEED": str(number)})
        made.append(target.read_bytes())
    assert made[0] == made[1]
    assert str(Path.cwd()).encode() not in made[0], "no paths of this machine"
