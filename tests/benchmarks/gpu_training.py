"""Images/s of training on a GPU, side by side with insightface's recipe in plain PyTorch, on the same faces.

python tests/benchmarks/gpu_training.py                  # IR-50 and MobileFaceNet at batch 128 and 512
python tests/benchmarks/gpu_training.py --networks ir50 --batches 512 --workers 16 --compile

Ours is this project's loop: its loader, bytes normalised on the device, channels-last, bf16. Theirs is arcface_torch's
train_v2.py without mxnet: MXFaceDataset's pattern (one seek, one JPEG decoded and normalised by a DataLoader's worker per
item), fp16 autocast with a GradScaler, contiguous images, a clip of 5, the loss read each 10 steps; the networks and the
margin head are ours in both. "feed" is the loader alone, "step" the steps alone on a batch that stays on the device:
the slower of the two is where the time goes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataprep.imaging.codec import decode_image, encode_jpeg
from dataprep.models.registry import create_model
from dataprep.packs.base import FaceRecord
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.rec_writer import write_insightface
from dataprep.synth.photos import draw_photo
from dataprep.train.config import TrainParams
from dataprep.train.distributed.process_group import World
from dataprep.train.losses.factory import make_loss_head
from dataprep.train.losses.options import LossParams
from dataprep.train.session import build_trainer_state
from dataprep.train.trainer import prefetch_to_device

Batches = Iterator[tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=("ir50", "mobilefacenet"))
    parser.add_argument("--batches", nargs="+", type=int, default=(128, 512))
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--identities", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--compile", action="store_true", help="torch.compile in ours")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(f"this benchmark needs a GPU, and torch {torch.__version__} sees none")
    device = torch.device("cuda", 0)
    torch.backends.cudnn.benchmark = True  # as train_v2.py; for both
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {given.workers} workers", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        pack = make_pack(Path(scratch), given.images, given.identities)
        for network in given.networks:
            for batch in given.batches:
                compare(pack, network, batch, given, device)


def compare(pack: Path, network: str, batch: int, given: argparse.Namespace, device: torch.device) -> None:
    ours, our_feed, our_step = measure_ours(pack, network, batch, given, device)
    torch.cuda.empty_cache()
    theirs, their_feed, their_step = measure_theirs(pack, network, batch, given, device)
    torch.cuda.empty_cache()
    print(
        f"{network} batch {batch}: ours {ours:.0f} images/s (feed {our_feed:.0f}, step {our_step:.0f}), "
        f"theirs {theirs:.0f} (feed {their_feed:.0f}, step {their_step:.0f}): {ours / theirs:.2f} times",
        flush=True,
    )


def make_pack(folder: Path, images: int, identities: int) -> Path:
    """Two hundred drawn faces again and again: a decoder does not care."""
    drawn = [encode_jpeg(draw_photo(number, 0, width=112, height=112).pixels) for number in range(200)]
    faces = (
        FaceRecord(
            name=f"{number}.jpg",
            label=number * identities // images,
            identity=str(number * identities // images),
            image=drawn[number % 200],
        )
        for number in range(images)
    )
    write_insightface(folder, faces, height=112, width=112)
    return folder


def measure_ours(
    pack: Path, network: str, batch: int, given: argparse.Namespace, device: torch.device
) -> tuple[float, float, float]:
    params = TrainParams(
        network=network, embedding=512, batch_size=batch, num_workers=given.workers, precision="bf16", scale=64.0,
        compile=given.compile,
    )  # fmt: skip
    session = build_trainer_state([pack], params, pretrained=None, world=World(), device=device)
    session.train_mode()

    def step(images: Tensor, labels: Tensor) -> Tensor:
        return session.take_step(images, labels, 0.01)

    def endless() -> Batches:
        for epoch in count():
            yield from prefetch_to_device(session, epoch=epoch, skip=0)

    return three(endless, step, batch, given.seconds)


class OneByOne(Dataset[tuple[Tensor, int]]):
    """MXFaceDataset: one record read, decoded, flipped and normalised per item."""

    def __init__(self, pack: Path) -> None:
        self._pack = RecordPack(pack)

    def __len__(self) -> int:
        return len(self._pack)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        data, label = self._pack[position]
        pixels, _ = decode_image(data, codec="opencv")
        if np.random.random() < 0.5:
            pixels = pixels[:, ::-1]
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous().float()
        return image.div_(255).sub_(0.5).div_(0.5), label


def measure_theirs(
    pack: Path, network: str, batch: int, given: argparse.Namespace, device: torch.device
) -> tuple[float, float, float]:
    backbone = create_model(network, 512).to(device).train()
    head = make_loss_head(LossParams(scale=64.0), 512, given.identities).to(device)
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)
    scaler = torch.amp.GradScaler("cuda", growth_interval=100)
    loader = DataLoader(
        OneByOne(pack), batch_size=batch, shuffle=True, drop_last=True, num_workers=given.workers, pin_memory=True,
        persistent_workers=given.workers > 0,
    )  # fmt: skip

    def step(images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.float16):
            embedded = backbone(images)
        loss: Tensor = head(embedded.float(), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(backbone.parameters(), 5)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss.detach()

    def endless() -> Batches:
        while True:
            for images, labels in loader:
                yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    return three(endless, step, batch, given.seconds)


def three(
    endless: Callable[[], Batches], step: Callable[[Tensor, Tensor], Tensor], batch: int, seconds: float
) -> tuple[float, float, float]:
    """Images/s of the training, of the loader alone, and of the steps alone."""
    stream = endless()
    images, labels = next(stream)

    def fed() -> None:
        next(stream)

    def stepped() -> None:
        step(images, labels)

    def both() -> None:
        step(*next(stream))

    return rate(both, batch, seconds), rate(fed, batch, seconds / 2), rate(stepped, batch, seconds / 2)


def rate(act: Callable[[], object], batch: int, seconds: float) -> float:
    for _ in range(10):  # cuDNN chooses, workers start
        act()
    torch.cuda.synchronize()
    began, done = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for _ in range(10):
            act()
        torch.cuda.synchronize()
        done += 10
    return done * batch / (time.monotonic() - began)


if __name__ == "__main__":
    main()
