import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command import Run

from dataprep.imaging.codec import encode_png
from dataprep.models.model_files import save_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.models.registry import create_model
from dataprep.packs.verification_bin import write_bin


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Photos of two people with a list, names, a set of pairs, options in YAML, and a network that nobody trained."""
    generator = np.random.default_rng(0)
    for person in ("n000001", "n000002"):
        (tmp_path / "photos" / person).mkdir(parents=True)
        for number in range(4):
            face = generator.integers(0, 256, (112, 112, 3), dtype=np.uint8)
            (tmp_path / "photos" / person / f"{number}.png").write_bytes(encode_png(face))
    paths = sorted((tmp_path / "photos").rglob("*.png"))
    (tmp_path / "list.txt").write_text("".join(f"{path.relative_to(tmp_path / 'photos')}\n" for path in paths))
    (tmp_path / "meta.csv").write_text(
        'Class_ID, Name, Sample_Num, Flag, Gender\nn000001, "Ann", 4, 1, f\nn000002, "Bo", 4, 1, m\n'
    )
    images = [paths[i].read_bytes() for i in (0, 1, 0, 4) * 10]
    write_bin(tmp_path / "pairs.bin", images, np.array([True, False] * 10))
    (tmp_path / "run.yaml").write_text(
        "epochs: 1\nbatch-size: 4\nlr: 0.01\nbenchmark: [pairs.bin]\ntensorboard: true\n"
    )
    torch.manual_seed(0)
    save_model(
        tmp_path / "old.pt", create_model("mobilefacenet", 64), network="mobilefacenet", embedding=64,
        preprocessing=Preprocessing(mean=(120.0, 110.0, 100.0)), about={},
    )  # fmt: skip
    return tmp_path


def test_the_switches_of_vggface2_under_todays_names(
    site: Path, dataprep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(site)
    arguments = [
        "train", "--image-list", "list.txt", "--root", "photos", "--names", "meta.csv", "--pretrained", "old.pt",
        "--train", "head", "--config", "run.yaml", "--epochs", 2, "--no-random-flip", "--num-workers", 1, "--device", "cpu",
        "--log", "logs/train.log", "--name", "tuned",
    ]  # fmt: skip
    done = dataprep(*arguments)
    folder = site / "ws/models/tuned"
    assert "trained on 8 images of 2 identities" in done.stdout
    assert (folder / "images/labels.tsv").read_text().split() == ["0", "Ann", "4", "1", "Bo", "4"]
    said = json.loads((folder / "config.json").read_text())["params"]
    assert (said["epochs"], said["batch_size"], said["train"], said["random_flip"]) == (2, 4, "head", False)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    scored = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    assert [(one["step"], set(one["accuracy"])) for one in scored] == [(4, {"pairs"})]
    assert list((folder / "tensorboard").glob("events*"))
    log = (site / "logs/train.log").read_text()
    assert "step 4: pairs " in log
    assert "step 4/4 epoch 2 loss " in log
    old, new, best = (torch.load(path, weights_only=True) for path in (
        site / "old.pt", folder / "model.pt", folder / "best.pt"
    ))  # fmt: skip
    assert new["input"] == old["input"]
    assert all(torch.equal(value, new["weights"][name]) for name, value in old["weights"].items())
    assert best["about"]["accuracy"] == scored[0]["accuracy"]
    assert best["about"]["steps"] == 4
    again = dataprep(*arguments)
    assert "trained on 8 images" in again.stdout
    assert len((folder / "validation.jsonl").read_text().splitlines()) == 1


def test_what_cannot_be_is_said_before_anything_is_written(site: Path, dataprep: Run) -> None:
    listed = ["--image-list", site / "list.txt", "--root", site / "photos"]
    assert "exclude each other" in dataprep("train", *listed, "--pack", site, code=2).stderr
    assert "require --image-list" in dataprep("train", "--names", site / "meta.csv", code=2).stderr
    (site / "bad.yaml").write_text("netwrok: ir50\n")
    assert "similar: network" in dataprep("train", "--config", site / "bad.yaml", code=2).stderr
    (site / "bad.yaml").write_text("epochs: many\n")
    assert "--epochs" in dataprep("train", "--config", site / "bad.yaml", code=2).stderr
    other = dataprep("train", *listed, "--pretrained", site / "old.pt", "--network", "ir18", code=1).stderr
    assert "holds the network mobilefacenet" in other
    assert not (site / "ws/models/default/config.json").exists()


def test_the_networks_are_listed(dataprep: Run) -> None:
    listed = dataprep("train", "--list-networks").stdout
    assert "mobilefacenet " in listed
    assert "GFLOPs" in listed


def test_help_groups_the_options(dataprep: Run) -> None:
    text = dataprep("train", "--help").stdout
    for title in ("Data:", "Network:", "Loss:", "Optimiser:", "Learning rate:", "Machine:"):
        assert f"\n{title}\n" in text
