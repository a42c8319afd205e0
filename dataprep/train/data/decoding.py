"""Decoding of faces into rows of a batch, which is the work of a loader process. torch is not imported: it would double
the start-up time of such a process."""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import IO, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dataprep.errors import DataprepError, ImagingError, RecordError
from dataprep.imaging.codec import Pixels, decode_face
from dataprep.interrupts import ignore_terminal
from dataprep.train.data.augment import AugmentConfig
from dataprep.train.data.dataset import PackImages

Batch = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


class BatchIndices(NamedTuple):
    """Consecutive rows of an epoch and their images in the source. `first` is the first row's place in the epoch."""

    positions: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]
    seed: int
    epoch: int
    first: int

    def part(self, start: int, end: int) -> BatchIndices:
        return BatchIndices(
            self.positions[start:end], self.mirrored[start:end], self.seed, self.epoch, self.first + start
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchDecoder:
    """Decodes positions to pixels. `table` (1, 256, 3) float32 has the normalised values of 0..255; None keeps uint8."""

    images: PackImages
    height: int
    width: int
    order: str
    table: npt.NDArray[np.float32] | None
    augment: AugmentConfig

    def equals(self, other: BatchDecoder) -> bool:
        """Whether both decode the same images in the same way."""
        tables = [None if each.table is None else each.table.tobytes() for each in (self, other)]
        fields = ("images", "height", "width", "order", "augment")
        return tables[0] == tables[1] and all(getattr(self, name) == getattr(other, name) for name in fields)

    def empty(self, rows: int) -> Batch:
        shape = (rows, self.height, self.width, 3)
        return np.empty(shape, np.uint8) if self.table is None else np.empty(shape, np.float32)

    def fill(self, out: Batch, rows: BatchIndices) -> None:
        """Decode into `out` (n, height, width, 3). Raises RecordError, which names the pack and the image."""
        for row, position in enumerate(rows.positions.tolist()):
            pixels = self._pixels(position, rows, row)
            if rows.mirrored[row]:
                pixels = np.asarray(cv2.flip(pixels, 1), np.uint8)
            if self.table is None:
                out[row] = pixels
            else:
                cv2.LUT(pixels, self.table, dst=out[row])

    def _pixels(self, position: int, rows: BatchIndices, row: int) -> Pixels:
        data = self.images[position]
        try:
            pixels = decode_face(data, order="RGB" if self.augment.is_random else self.order)
        except ImagingError as error:
            name = self.images.name(position)
            hint = "run `dataprep repair` to leave out files that are not images"
            raise RecordError(f"{name}: {error}", hint=hint) from None
        if pixels.shape != (self.height, self.width, 3) and not self.augment.resize_crop:
            raise RecordError(
                f"{self.images.name(position)} is {pixels.shape[1]}x{pixels.shape[0]}, but the network takes "
                f"{self.width}x{self.height}",
                hint="align the faces to that size, or run `dataprep repair` to leave this image out",
            )
        if self.augment.is_random:
            generator = np.random.default_rng((rows.seed, rows.epoch, rows.first + row, 2))
            pixels = self.augment.apply(pixels, generator, height=self.height, width=self.width)
            pixels = pixels if self.order == "RGB" else np.ascontiguousarray(pixels[:, :, ::-1])
        return pixels


class DecodeTask(NamedTuple):
    """Rows to decode into the shared memory, starting at byte `offset`."""

    offset: int
    rows: BatchIndices


def run_decoder_process() -> None:
    """A loader process. It reads from stdin a decoder with the descriptor and size of the shared memory, then jobs. For
    each job it writes None or (whether the data is at fault, message, hint) to stdout. It exits with its parent."""
    ignore_terminal()
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # systemd and Slurm tell every process, but the parent must still save
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep libraries from printing to stdout
    cv2.setNumThreads(0)
    try:
        opened = _open_decoder(jobs)
        while True:
            job: DecodeTask = pickle.load(jobs)
            answer = (True, str(opened), opened.hint) if isinstance(opened, DataprepError) else _answer(*opened, job)
            pickle.dump(answer, answers)
            answers.flush()
    except (EOFError, BrokenPipeError):
        pass


def _open_decoder(jobs: IO[bytes]) -> tuple[BatchDecoder, mmap.mmap] | DataprepError:
    """The decoder and the shared memory; or the error if a pack is no longer the one that the parent opened."""
    try:
        decoder, descriptor, size = pickle.load(jobs)
    except DataprepError as error:
        error.hint = error.hint or "leave the pack alone while it is trained on, and run the same command again"
        return error
    return decoder, mmap.mmap(descriptor, size)


def _answer(decoder: BatchDecoder, memory: mmap.mmap, job: DecodeTask) -> tuple[bool, str, str] | None:
    empty = decoder.empty(0)
    shape = (len(job.rows.positions), *empty.shape[1:])
    out = np.frombuffer(memory, empty.dtype, int(np.prod(shape)), job.offset).reshape(shape)
    try:
        decoder.fill(out, job.rows)
    except DataprepError as error:
        return True, str(error), error.hint
    except Exception:
        return False, traceback.format_exc(), ""
    return None
