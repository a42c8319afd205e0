import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.command import environment

from dataprep.errors import Interrupted
from dataprep.imaging.codec import encode_jpeg
from dataprep.imaging.crops import resize
from dataprep.imaging.geometry import estimate_similarity, scale_template, warp_image
from dataprep.packs.base import FaceRecord
from dataprep.packs.rec_writer import write_insightface
from dataprep.synth.photos import draw_photo
from dataprep.train.config import TrainParams
from dataprep.train.trainer import TrainingProgress, train

# batch norm over all processes, so that the losses are those of one; a rate at which rounding stays rounding
PARAMS = TrainParams(epochs=4, batch_size=4, lr=0.001, seed=3, sync_bn=True, checkpoint_every=1000)


def write_faces(folder: Path, *, broken: int | None = None) -> Path:
    folder.mkdir()
    faces = []
    for number in range(12):
        drawn = draw_photo(number // 4, number % 4)
        face = encode_jpeg(
            resize(
                warp_image(drawn.pixels, estimate_similarity(drawn.landmarks, scale_template(112, 112)), 112, 112),
                56,
                56,
            )
        )
        image = b"no image" if number == broken else face
        faces.append(FaceRecord(name=f"{number}.jpg", label=number // 4, identity=str(number // 4), image=image))
    write_insightface(folder, faces, height=56, width=56)
    return folder


def torchrun(workspace: Path, pack: Path, **settings: object) -> subprocess.Popen[str]:
    """`dataprep train` in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = {**{k: v for k, v in PARAMS.as_dict().items() if k in ("epochs", "batch_size", "lr", "seed")}, **settings}
    options = [part for name, value in asked.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port),
            "-m", "dataprep", "-w", str(workspace), "train", "--pack", str(pack), "--sync-bn",
            "--checkpoint-every", "1000", *options,
        ],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def losses(folder: Path) -> list[float]:
    path = folder / "log.jsonl"
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()] if path.exists() else []


def test_one_process_two_and_one_again_train_as_one_alone(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    pack = write_faces(tmp_path / "pack")
    train([pack], tmp_path / "whole", PARAMS)
    parts = tmp_path / "ws/models/default"

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"step 3 of 12"):
        train([pack], parts, PARAMS, report=stop)
    process = torchrun(tmp_path / "ws", pack)
    while process.poll() is None and len(losses(parts)) < 6:
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert errors.count("run the same command again to resume") == 1, errors
    stopped = torch.load(parts / "checkpoint.pt", weights_only=True)["step"]
    assert 6 <= stopped == len(losses(parts)) < 12
    train([pack], parts, PARAMS)
    assert losses(parts) == pytest.approx(losses(tmp_path / "whole"), rel=2e-3)
    assert losses(parts)[:3] == losses(tmp_path / "whole")[:3]


def test_an_error_of_one_process_ends_all_with_one_message(tmp_path: Path) -> None:
    process = torchrun(tmp_path / "ws", write_faces(tmp_path / "pack", broken=5), epochs=2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    said = [line for line in errors.splitlines() if line.startswith("dataprep: ")]
    assert len(said) == 1, errors
    assert "image 5" in said[0]
    assert not (tmp_path / "ws/models/default/model.pt").exists()
