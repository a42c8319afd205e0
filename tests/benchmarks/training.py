"""That training learns: from scratch on drawn people with five losses, and from published weights on real photos.

python tests/benchmarks/training.py                      # both; about ten minutes on two cores
python tests/benchmarks/training.py synth --losses arcface
python tests/benchmarks/training.py lfw --data ../shared/data

synth: drawn faces of 56x56 pixels; other people than those trained on, all pairs of their photos. Every loss must lift TAR
at FAR 1e-2 above the untrained network's by MARGIN at least. lfw: the photos are aligned and packed, a fifth of the people
held out; a MobileFaceNet is fine-tuned from foamliu's weights: the loss must fall, and the accuracy on the held-out pairs
may fall by SLACK at most. Exits with 1 if one of them does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataprep.embeddings.embedder import TorchEmbedder, embed_batch
from dataprep.evaluate.metrics import roc, tar_at_far
from dataprep.evaluate.verification.in_training import Validator
from dataprep.imaging.codec import Pixels, encode_jpeg
from dataprep.imaging.geometry import estimate_similarity, scale_template, warp_image
from dataprep.models.model_files import FaceModel, load_model, reinitialise
from dataprep.models.pretrained import load_pretrained
from dataprep.packs.base import FaceRecord
from dataprep.packs.rec_writer import write_insightface
from dataprep.synth.photos import draw_photo
from dataprep.train.config import TrainParams
from dataprep.train.trainer import train

ROOT = Path(__file__).resolve().parents[2]
LOSSES = ("softmax", "sphereface", "cosface", "arcface", "combined")
SIDE = 56
MARGIN = 0.15  # of TAR at FAR 1e-2
SLACK = 0.02  # of accuracy; the held-out pairs are some hundreds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="synth, lfw; both if none is named")
    parser.add_argument("--losses", nargs="+", default=LOSSES)
    parser.add_argument("--people", type=int, default=40, help="drawn, and trained on")
    parser.add_argument("--photos", type=int, default=12, help="of each")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="with lfw/ and weights/")
    parser.add_argument("--folder", type=Path, help="where to work, and to go on when stopped; default: a new one")
    given = parser.parse_args()
    parts = given.parts or ("synth", "lfw")
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        good = [synth(given, folder / "synth")] if "synth" in parts else []
        if "lfw" in parts:
            if not (given.data / "lfw").is_dir():
                sys.exit(f"{given.data} has no lfw/: --data names the folder of the real photos")
            good.append(lfw(given, folder / "lfw"))
    sys.exit(0 if all(good) else 1)


def synth(given: argparse.Namespace, folder: Path) -> bool:
    pack = folder / "pack"
    pack.mkdir(parents=True, exist_ok=True)
    faces = (
        FaceRecord(name=f"{who}/{photo}.jpg", label=who, identity=str(who), image=encode_jpeg(drawn_face(who, photo)))
        for who in range(given.people)
        for photo in range(given.photos)
    )
    write_insightface(pack, faces, height=SIDE, width=SIDE)
    others = [(who, drawn_face(given.people + who, photo)) for who in range(30) for photo in range(8)]
    good = True
    print(f"synth: {given.people} people x {given.photos} photos of {SIDE}x{SIDE}, {given.epochs} epochs", flush=True)
    for loss in given.losses:
        began = time.monotonic()
        params = TrainParams(
            loss=loss, epochs=given.epochs, batch_size=32, lr=0.4, device="cpu", num_workers=0, checkpoint_every=10_000
        )
        train([pack], folder / loss, params)
        model = load_model(folder / loss / "model.pt")
        before, after = tar(reinitialise(model), others), tar(model, others)
        good = good and after >= before + MARGIN
        print(
            f"  {loss:12} loss {ends(folder / loss)}   TAR@FAR=1e-2 of 30 others {before:.1%} -> {after:.1%}"
            f"   {time.monotonic() - began:.0f} s{'' if after >= before + MARGIN else '   TOO LITTLE'}",
            flush=True,
        )
    return good


def lfw(given: argparse.Namespace, folder: Path) -> bool:
    weights = given.data / "weights" / "mobilefacenet_foamliu.pt"
    for arguments in (
        ["import", "folder", str(given.data / "lfw")],
        ["align", "--size", "112"],
        ["pack", "--holdout", "0.2"],
    ):
        command = [sys.executable, "-m", "dataprep", "-w", str(folder), *arguments]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    pack = folder / "packs/train"
    score = Validator([str(pack / "holdout.bin")], folder)
    began = time.monotonic()
    model = load_pretrained(weights)
    score.check(model.preprocessing)
    (before,) = score(model.module.eval(), model.preprocessing).values()
    params = TrainParams(epochs=3, batch_size=32, lr=0.02, warmup=0.2, device="cpu", checkpoint_every=10_000)
    train([pack], folder / "model", params, pretrained=weights)
    tuned = load_model(folder / "model/model.pt")
    (after,) = score(tuned.module, tuned.preprocessing).values()
    first, last = ends(folder / "model")
    good = last < first and after >= before - SLACK
    print(
        f"lfw: loss {first:.3f} -> {last:.3f}, accuracy on held-out pairs {before:.2%} -> {after:.2%}, "
        f"{time.monotonic() - began:.0f} s{'' if good else '   NOT GOOD'}",
        flush=True,
    )
    return good


def drawn_face(person: int, photo: int) -> Pixels:
    drawn = draw_photo(person, photo)
    return warp_image(
        drawn.pixels, estimate_similarity(drawn.landmarks, scale_template(112, 112) * (SIDE / 112)), SIDE, SIDE
    )


def tar(model: FaceModel, faces: list[tuple[int, Pixels]]) -> float:
    """At FAR 1e-2, over all pairs."""
    embedded = embed_batch(TorchEmbedder(model, device="cpu"), np.stack([face for _, face in faces]), "sum")
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    left, right = np.array(list(combinations(range(len(faces)), 2))).T
    people = np.array([person for person, _ in faces])
    distance = ((unit[left] - unit[right]).astype(np.float64) ** 2).sum(1)
    return tar_at_far(*roc(distance, people[left] == people[right]), 1e-2)


class Ends(tuple[float, float]):
    def __str__(self) -> str:
        return f"{self[0]:6.3f} -> {self[1]:6.3f}"


def ends(folder: Path) -> Ends:
    """The mean loss of the first epoch and of the last one."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last = lines[-1]["epoch"]
    return Ends(float(np.mean([one["loss"] for one in lines if one["epoch"] == epoch])) for epoch in (0, last))


if __name__ == "__main__":
    main()
