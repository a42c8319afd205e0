"""test, extract, compare and bins as they are typed."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataprep.cli.main import main
from dataprep.imaging.codec import encode_jpeg
from dataprep.models.model_files import save_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.registry import create_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pairs of plain patterns as files with a list, and a network that nobody trained."""
    import torch

    root = tmp_path_factory.mktemp("made")
    generator = np.random.default_rng(0)
    people = [generator.integers(0, 256, (7, 7, 3), dtype=np.uint8) for _ in range(30)]
    lines = []
    for i in range(60):
        for side, person in (("l", i % 30), ("r", i % 30 if i % 2 == 0 else (i + 7) % 30)):
            pixels = np.kron(people[person], np.ones((16, 16, 1))) + generator.normal(0, 5, (112, 112, 3))
            path = root / f"faces/p{person}/{i}{side}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8)))
            lines.append(str(path.relative_to(root / "faces")))
    listed = [f"{lines[2 * i]} {lines[2 * i + 1]} {1 if i % 2 == 0 else -1}\n" for i in range(60)]
    (root / "pairs.txt").write_text("".join(listed))
    torch.manual_seed(0)
    save_model(
        root / "m.pt",
        create_model("mobilefacenet", 32),
        network="mobilefacenet",
        embedding=32,
        preprocessing=Preprocessing(),
        about={},
    )
    return root


Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    """The command in this process (loading torch takes longer than the rest): exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["-w", str(tmp_path / "ws"), *map(str, arguments)])
        return int(left.value.code or 0), *capsys.readouterr()

    return run


def test_a_set_is_built_scored_extracted_and_compared(made: Path, typed: Typed, tmp_path: Path) -> None:
    def dataprep(*arguments: object) -> str:
        code, out, err = typed(*arguments)
        assert code == 0, err
        return out

    ws, images = tmp_path / "ws", ("--image-dir", made / "faces")
    said = dataprep("bins", "build", made / "pairs.txt", *images, "--out", ws / "bins/lfw.bin")
    assert "60 pairs, 30 of the same person" in said
    assert "120 of 112x112 jpeg" in dataprep("bins", "show", ws / "bins/lfw.bin")
    assert "lists the pairs" in dataprep("bins", "unpack", ws / "bins/lfw.bin", tmp_path / "lfw")
    model = ("--model", made / "m.pt")
    out = dataprep("test", *model, "--benchmark", "lfw")
    assert "TAR at FAR 1e-02 and below is not measurable: it needs 100 negatives, the set has 30" in out
    assert "leaks: not known: the model does not name" in out
    dataprep("test", *model, "--benchmark", made / "pairs.txt", *images, "--protocol", "face_pytorch", "--plots")
    folder = ws / "models/m/test/pairs-face_pytorch"
    assert {path.name for path in folder.iterdir()} == {"result.json", "roc.png", "det.png", "scores.png", "wrong.png"}
    assert json.loads((folder / "result.json").read_text())["flip"] == "concat"
    dataprep("extract", ws / "bins/lfw.bin", *model, "--flip", "sum", "--out", tmp_path / "f.parquet")
    dataprep("test", "--features", tmp_path / "f.parquet", "--benchmark", "lfw")
    of_model, of_features = (
        json.loads((ws / f"models/{name}/test/lfw/result.json").read_text())["verification"] for name in ("m", "f")
    )
    assert of_features == of_model
    saved = json.loads((ws / "models/f/test/lfw/result.json").read_text())
    assert saved["model_sha256"] == json.loads((ws / "models/m/test/lfw/result.json").read_text())["model_sha256"]
    assert saved["extracted"]["flip"] == "sum"
    dataprep("test", "--features", tmp_path / "f.parquet", "--benchmark", "lfw")  # the same again
    (tmp_path / "b").mkdir()
    (tmp_path / "f.parquet").rename(tmp_path / "b/f.parquet")
    code, _, err = typed("test", "--features", tmp_path / "b/f.parquet", "--benchmark", "lfw")
    assert code == 2
    assert "result.json is from another model" in err
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").symlink_to(made / "m.pt")
        typed_of = ("--model", tmp_path / name / "model.pt", "--benchmark", "lfw")
        for flip in ((), ("--flip", "none")):
            dataprep("test", *typed_of, *flip)
    assert {str(path.relative_to(ws / "models")) for path in ws.glob("models/*/test/lfw*")} >= {
        "one/test/lfw", "two/test/lfw", "one/test/lfw-none", "two/test/lfw-none",
    }  # fmt: skip
    table = dataprep("compare", ws / "models")
    assert table.startswith("model ")
    assert {"lfw (sum)", "lfw (none)"} <= set(re.split(r" {2,}", table.splitlines()[0]))
    assert {"m", "one", "two"} <= {line.split("  ")[0] for line in table.splitlines()}
    assert dataprep("compare", ws / "models", "--markdown").startswith("| model |")


PAIRS = ["test", "--benchmark", "{made}/pairs.txt", "--image-dir", "{made}/faces"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["test", "--benchmark", "agedb_30"], 1, "bins/agedb_30.bin"),
        (["test", "--benchmark", "{made}/pairs.txt"], 1, "choose another folder with --image-dir"),
        ([*PAIRS, "--model", "/no.pt"], 1, "no such model"),
        ([*PAIRS, "--model", "{made}/m.pt", "--mean", "1"],
         1, "describes its own input"),
        ([*PAIRS, "--mean", "1,2"], 2, "one number or three"),
        ([*PAIRS, "--std", "0"], 2, "above 0"),
        (["test", "--features", "/no.npy", "--model", "x.pt"], 2, "exclude each other"),
        ([*PAIRS, "--std", "inf"], 2, "must be finite"),
        ([*PAIRS, "--mean", "1,nan,1"], 2, "must be finite"),
        (["test", "--features", "/no.npy", "--flip", "sum"], 2, "--flip does not apply to --features"),
        (["test", "--features", "/no.npy", "--baselines"], 2, "--baselines does not apply"),
        (["test", "--features", "/no.npy", "--leaks", "off"], 2, "--leaks does not apply"),
        (["test", "--features", "/no.npy", "--mean", "1"], 2, "--mean does not apply"),
        (["test", "--features", "/no.npy", "--benchmark", "{made}/pairs.txt"], 1, "/no.npy"),
        (["extract", "/no", "--out", "x.npy", "--model", "{made}/m.pt"], 1, "no such folder, list, pack or .bin"),
        (["bins", "show", "{made}/m.pt"], 1, "m.pt"),
        (["compare", "{made}/faces"], 1, "holds no result.json"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_in_a_line(made: Path, typed: Typed, arguments: list[str], code: int, said: str) -> None:
    found, _, err = typed(*(argument.format(made=made) for argument in arguments))
    assert found == code
    assert said in err
    assert len(err.splitlines()) <= 2
