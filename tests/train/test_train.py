import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command import Run, command, environment

from dataprep.errors import Interrupted, ModelError, RecordError, UsageError
from dataprep.imaging.codec import encode_jpeg
from dataprep.imaging.crops import resize
from dataprep.imaging.geometry import estimate_similarity, scale_template, warp_image
from dataprep.models.model_files import load_model
from dataprep.models.preprocessing import Preprocessing
from dataprep.packs.base import FaceRecord
from dataprep.packs.rec_writer import write_insightface
from dataprep.synth.photos import draw_photo
from dataprep.train.config import TrainParams
from dataprep.train.data.dataset import open_dataset
from dataprep.train.trainer import TrainingProgress, train

SIDE = 56  # a quarter of the work of 112
SMALL = TrainParams(epochs=3, batch_size=4, checkpoint_every=1, lr=0.05, seed=1)


def faces(identities: int, photos: int) -> list[FaceRecord]:
    made = []
    for identity in range(identities):
        for photo in range(photos):
            drawn = draw_photo(identity, photo)
            face = warp_image(drawn.pixels, estimate_similarity(drawn.landmarks, scale_template(112, 112)), 112, 112)
            face = resize(face, SIDE, SIDE)
            made.append(
                FaceRecord(
                    name=f"{identity}/{photo}.jpg", label=identity, identity=str(identity), image=encode_jpeg(face)
                )
            )
    return made


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    write_insightface(folder, faces(3, 4), height=SIDE, width=SIDE)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder / "model.pt").module.state_dict())


def test_killed_at_any_step_and_resumed_the_losses_are_equal_to_the_bit(pack: Path, tmp_path: Path) -> None:
    arguments = ["train", "--pack", pack, "--epochs", 5, "--batch-size", 4, "--checkpoint-every", 2, "--lr", "0.05"]
    quiet, harried = tmp_path / "quiet", tmp_path / "harried"
    params = TrainParams(epochs=5, batch_size=4, checkpoint_every=2, lr=0.05)
    train([pack], quiet / "models/default", params)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(
            command("-w", harried, *arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        log = harried / "models/default/log.jsonl"
        before = len(log.read_text().splitlines()) if log.exists() else 0
        while process.poll() is None and (len(log.read_text().splitlines()) if log.exists() else 0) < before + 3:
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    train([pack], harried / "models/default", params)
    assert kills >= 2
    one, two = quiet / "models/default", harried / "models/default"
    assert losses(one) == losses(two)
    assert len(losses(one)) == 15
    assert all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(two).values(), strict=True))


def test_all_that_is_drawn_and_kept_survives_an_interruption(pack: Path, tmp_path: Path) -> None:
    """Dropout, sampled centres, AdamW's moments, the running mean of AdaFace, the average of the weights."""
    params = TrainParams(
        epochs=2, batch_size=4, seed=5, lr=0.01, embedding_head="e", optimizer="adamw", ema=0.5, loss="adaface",
        sample_rate=0.4, accumulate=2,
    )  # fmt: skip

    def stop(progress: TrainingProgress) -> None:
        if progress.step in (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train([pack], whole, params)
    for _ in range(2):
        with pytest.raises(Interrupted):
            train([pack], parts, params, report=stop)
    train([pack], parts, params)
    assert len(losses(parts)) == 6
    assert losses(parts) == losses(whole)
    assert all(torch.equal(a, b) for a, b in zip(weights(parts).values(), weights(whole).values(), strict=True))


def test_sigterm_saves_and_exits_130(pack: Path, tmp_path: Path, dataprep: Run) -> None:
    process = subprocess.Popen(
        command("-w", tmp_path, "train", "--pack", pack, "--epochs", 500, "--batch-size", 4, "--checkpoint-every", 1000),
        env=environment(), stderr=subprocess.PIPE,
    )  # fmt: skip
    log = tmp_path / "models/default/log.jsonl"
    while not log.exists() or not log.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    assert "another run" in dataprep("train", "--pack", pack, workspace=tmp_path, code=4).stderr
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert b"run the same command again to resume" in errors
    checkpoint = torch.load(tmp_path / "models/default/checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == len(log.read_text().splitlines())


def test_training_learns_and_typing_it_again_changes_nothing(pack: Path, tmp_path: Path) -> None:
    params = TrainParams(epochs=12, batch_size=12, lr=0.4, seed=1, loss="norm-softmax", scale=16.0)
    train([pack], tmp_path, params)
    assert losses(tmp_path)[-1] < 0.5 * losses(tmp_path)[0]
    before = weights(tmp_path)
    train([pack], tmp_path, params)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), weights(tmp_path).values(), strict=True))


def test_other_settings_are_not_mixed_into_a_run(pack: Path, tmp_path: Path) -> None:
    train([pack], tmp_path, SMALL)
    with pytest.raises(ModelError, match=r"seed 1 -> 2") as caught:
        train([pack], tmp_path, TrainParams(**{**SMALL.as_dict(), "seed": 2}))
    assert "--overwrite" in caught.value.hint
    train([pack], tmp_path, TrainParams(**{**SMALL.as_dict(), "seed": 2}), overwrite=True)


def test_packs_that_cannot_be_trained_on_are_named(pack: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("train.rec", "train.idx"):
        (broken / name).write_bytes((pack / name).read_bytes())
    (broken / "property").write_text(f"2,{SIDE},{SIDE}\n")
    with pytest.raises(RecordError, match=r"label 2 is not among 0\.\.1"):
        open_dataset([broken])
    (broken / "property").write_text(f"9,{SIDE},{SIDE}\n")
    with pytest.raises(RecordError, match="6 labels have no image"):
        open_dataset([broken])
    (broken / "property").write_text("3,224,224\n")
    with pytest.raises(RecordError, match=r"image \d+ is 56x56.*224x224"):
        train([broken], tmp_path / "m", SMALL)
    (broken / "property").write_text(f"3,{SIDE},{SIDE}\n")
    with pytest.raises(ModelError, match="do not fill a batch of 64") as caught:
        train([broken], tmp_path / "n", TrainParams(batch_size=64))
    assert caught.value.hint == "lower --batch-size"
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="finds no CUDA device") as caught:
            train([broken], tmp_path / "o", TrainParams(**{**SMALL.as_dict(), "device": "cuda"}))
        assert caught.value.hint == "use --device cpu"
    (broken / "train.rec").write_bytes((pack / "train.rec").read_bytes()[:-300])
    with pytest.raises(RecordError, match=r"train\.idx, line 13: offset") as caught:
        train([broken], tmp_path / "p", SMALL)
    assert "dataprep repair" in caught.value.hint


def test_damaged_checkpoints_and_models_are_named(pack: Path, tmp_path: Path) -> None:
    train([pack], tmp_path, SMALL)
    (tmp_path / "model.pt").write_bytes(b"junk")
    with pytest.raises(ModelError, match="not a dataprep model"):
        load_model(tmp_path / "model.pt")
    (tmp_path / "checkpoint.pt").write_bytes(b"junk")
    (tmp_path / "checkpoint-previous.pt").write_bytes(b"junk")
    with pytest.raises(ModelError, match="cannot be resumed") as caught:
        train([pack], tmp_path, SMALL)
    assert "--overwrite" in caught.value.hint


def test_a_checkpoint_of_another_network_is_refused(pack: Path, tmp_path: Path) -> None:
    train([pack], tmp_path / "a", TrainParams(**{**SMALL.as_dict(), "epochs": 1}))
    train([pack], tmp_path / "b", TrainParams(**{**SMALL.as_dict(), "epochs": 1, "embedding": 64}))
    os.replace(tmp_path / "b/checkpoint.pt", tmp_path / "a/checkpoint.pt")
    before = losses(tmp_path / "a")
    with pytest.raises(ModelError, match="cannot be resumed") as caught:
        train([pack], tmp_path / "a", TrainParams(**{**SMALL.as_dict(), "epochs": 1}))
    assert "--overwrite" in caught.value.hint
    assert losses(tmp_path / "a") == before


def test_a_trained_model_is_tuned_with_triplets(pack: Path, tmp_path: Path) -> None:
    train([pack], tmp_path / "first", TrainParams(**{**SMALL.as_dict(), "epochs": 1, "embedding": 64}))
    asked = TrainParams(loss="triplet", identities_per_batch=3, images_per_identity=2, epochs=2, lr=0.01, ema=0.9)
    about = train([pack], tmp_path / "second", asked, pretrained=tmp_path / "first/model.pt")
    assert about is not None
    assert about["params"]["batch_size"] == 6
    assert len(losses(tmp_path / "second")) == 4
    assert load_model(tmp_path / "second/model.pt").embedding == 64
    single = tmp_path / "single"
    single.mkdir()
    write_insightface(single, faces(3, 1), height=SIDE, width=SIDE)
    with pytest.raises(RecordError, match="only one image") as caught:
        train([single], tmp_path / "third", asked)
    assert "--min-images 2" in caught.value.hint
    with pytest.raises(UsageError, match="nothing to train"):
        train(
            [pack],
            tmp_path / "third",
            TrainParams(**{**asked.as_dict(), "train": "head"}),
            pretrained=tmp_path / "first/model.pt",
        )
    with pytest.raises(ModelError, match="holds the network mobilefacenet, not ir18"):
        train(
            [pack],
            tmp_path / "third",
            TrainParams(network="ir18", batch_size=4),
            pretrained=tmp_path / "first/model.pt",
        )
    assert not (tmp_path / "third/config.json").exists()


class Scores:
    """Accuracies that somebody else found, one after the other; it notes what it was asked."""

    def __init__(self, *found: float | BaseException) -> None:
        self.found, self.asked = list(found), 0

    def check(self, input: Preprocessing) -> None:
        assert (input.height, input.width) == (SIDE, SIDE)

    def __call__(self, module: torch.nn.Module, input: Preprocessing) -> dict[str, float]:
        assert not module.training
        self.asked += 1
        score = self.found.pop(0)
        if isinstance(score, BaseException):
            raise score
        return {"set": score}


def test_the_best_model_is_kept_over_an_interruption(pack: Path, tmp_path: Path) -> None:
    params = TrainParams(**{**SMALL.as_dict(), "validate_every": 2})

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train([pack], tmp_path, params, validate=Scores(0.7, 0.9), report=stop)
    rest = Scores(0.8, 0.85, 0.6)
    train([pack], tmp_path, params, validate=rest)
    assert rest.asked == 3  # at 6 and 8, and at the end
    assert load_model(tmp_path / "best.pt").about["steps"] == 4
    scored = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert [(one["step"], one["accuracy"]["set"]) for one in scored] == [
        (2, 0.7), (4, 0.9), (6, 0.8), (8, 0.85), (9, 0.6),
    ]  # fmt: skip


def test_a_diverging_run_says_so(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the loss is") as caught:
        train([pack], tmp_path, TrainParams(epochs=50, batch_size=4, lr=1e30, clip=0.0, warmup=0.0))
    assert "lower --lr" in caught.value.hint


def test_weights_that_ran_away_at_the_last_step_are_not_saved(pack: Path, tmp_path: Path) -> None:
    params = TrainParams(epochs=1, batch_size=12, lr=1e38, weight_decay=1e38, clip=0.0, warmup=0.0)
    with pytest.raises(ModelError, match="not finite after step 1") as caught:
        train([pack], tmp_path, params)
    assert "lower --lr" in caught.value.hint
    assert not (tmp_path / "checkpoint.pt").exists()
    assert not (tmp_path / "model.pt").exists()
    train(
        [pack], tmp_path, TrainParams(epochs=1, batch_size=12)
    )  # nothing was made that --overwrite would have to remove


def test_a_checkpoint_of_other_settings_is_known_by_itself(pack: Path, tmp_path: Path) -> None:
    once = TrainParams(epochs=1, batch_size=12)
    train([pack], tmp_path, once)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"checkpoint\.pt cannot be resumed \(it belongs to a run with other settings"):
        train([pack], tmp_path, TrainParams(epochs=1, batch_size=12, seed=2))
    train([pack], tmp_path, once)


def test_a_run_that_ends_within_its_last_verification_verifies_when_typed_again(pack: Path, tmp_path: Path) -> None:
    params = TrainParams(epochs=1, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        train([pack], tmp_path, params, validate=Scores(KeyboardInterrupt()))
    rest = Scores(0.9)
    train([pack], tmp_path, params, validate=rest)
    assert len(losses(tmp_path)) == 3
    assert rest.asked == 1
    assert load_model(tmp_path / "best.pt").about["accuracy"] == {"set": 0.9}
    train([pack], tmp_path, params, validate=rest)
    assert rest.asked == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"m2": float("nan")}, "m2"),
        ({"lr": float("inf")}, "lr"),
        ({"num_workers": 10**6}, "num-workers"),
        ({"device": "meta"}, "cpu and cuda"),
        ({"device": "cpu0"}, "no such device"),
        ({"accumulate": 4}, "one image at a time"),
        ({"train": "head"}, "the backbone is frozen"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(
    pack: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises((UsageError, ModelError), match=words):
        train([pack], tmp_path / "new", TrainParams(**{**SMALL.as_dict(), **settings}))
    assert not list(tmp_path.rglob("*.*t*"))


def test_normalisation_is_the_fields() -> None:
    images = np.zeros((1, 112, 112, 3), np.uint8)
    images[..., 0] = 255
    normalised = Preprocessing().normalise(images)
    assert normalised.shape == (1, 3, 112, 112)
    assert (normalised[0, 0] == 1).all()
    assert (normalised[0, 1] == -1).all()
    assert (Preprocessing(order="BGR").normalise(images)[0, 2] == 1).all()


def test_the_command_says_what_is_missing(dataprep: Run) -> None:
    assert "dataprep pack" in dataprep("train", code=1).stderr
    assert "choose one with --benchmark" in dataprep("test", code=1).stderr
