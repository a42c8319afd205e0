"""Loader processes that decode into a ring of batches in shared memory.

They are started anew, not forked: neither locks, threads nor a CUDA context come along, and a process needs a third of a
second and no torch. They live from epoch to epoch, and end when the process that feeds them ends, however it does.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from dataprep.errors import DataprepError, RecordError
from dataprep.train.data.decoding import Batch, BatchDecoder, BatchIndices, DecodeTask

_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from dataprep.train.data.decoding import run_decoder_process as main; main()"
)
_LEAST = 16  # rows of a job: fewer would cost as much to hand over as to decode
_LENT = 2  # batches whose memory may be in the user's hands; more are copied


class WorkerPool:
    """`workers` processes that decode batches of at most `rows` rows."""

    def __init__(self, decoder: BatchDecoder, *, rows: int, workers: int) -> None:
        self.decoder, self._asked, self._owner = decoder, (rows, workers), os.getpid()
        self._share = min(rows, max(_LEAST, -(-rows // workers)))  # rows of a job
        jobs = -(-rows // self._share)
        self._ahead = max(2, -(-2 * workers // jobs))  # batches, so that two jobs wait for each process
        one = decoder.empty(1)
        self._row_size = one.nbytes
        self._slot_size = -(-rows * one.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        slots = self._ahead + _LENT
        with _anonymous(slots * self._slot_size) as descriptor:
            self._memory = mmap.mmap(descriptor, slots * self._slot_size)
            self._free = deque(range(slots))
            self._lent: set[int] = set()
            self._workers: list[_Worker] = []
            self._end = weakref.finalize(self, _end, self._workers, self._owner)
            for _ in range(workers):
                self._workers.append(_Worker(descriptor))
            for worker in self._workers:
                worker.send((decoder, descriptor, slots * self._slot_size))
        self._turn = 0

    def decode_batches(self, batches: Iterable[BatchIndices]) -> Iterator[Batch]:
        """The batches decoded, in order. A batch's memory is used again when nothing refers to it any longer.

        Raises RecordError for an image that cannot be taken, DataprepError for a process that died; then, or if it is left
        before its end, the crew is closed.
        """
        left, waiting = iter(batches), deque[tuple[int, int, list[_Worker]]]()
        try:
            while True:
                while len(waiting) < self._ahead and (rows := next(left, None)) is not None:
                    waiting.append(self._send(rows))
                if not waiting:
                    return
                slot, count, workers = waiting.popleft()
                for worker in workers:
                    worker.receive()
                yield self._handed_over(slot, count)
        except BaseException:
            self.close()
            raise

    def matches(self, decoder: BatchDecoder, *, rows: int, workers: int) -> bool:
        """Whether these processes decode in this way."""
        mine = not self.closed and self._owner == os.getpid()  # and not those of the process this one is a fork of
        return mine and self._asked == (rows, workers) and self.decoder.equals(decoder)

    @property
    def closed(self) -> bool:
        return not self._end.alive

    def close(self) -> None:
        """End the processes. Batches that were handed over stay as they are."""
        self._end()

    def _send(self, rows: BatchIndices) -> tuple[int, int, list[_Worker]]:
        slot, count = self._free.popleft(), len(rows.positions)
        workers = []
        for start in range(0, count, self._share):
            worker = self._workers[self._turn]
            self._turn = (self._turn + 1) % len(self._workers)
            offset = slot * self._slot_size + start * self._row_size
            worker.send(DecodeTask(offset, rows.part(start, min(count, start + self._share))))
            workers.append(worker)
        return slot, count, workers

    def _handed_over(self, slot: int, count: int) -> Batch:
        one = self.decoder.empty(1)
        flat = np.frombuffer(self._memory, one.dtype, count * one.size, slot * self._slot_size)
        shaped: Batch = flat.reshape(count, *one.shape[1:])  # type: ignore[assignment]  # views and tensors keep `flat`
        if len(self._lent) < _LENT:
            self._lent.add(slot)
            weakref.finalize(flat, _taken_back, slot, self._lent, self._free).atexit = False
            return shaped
        copied = shaped.copy()  # somebody keeps them: the processes need the memory
        self._free.append(slot)
        return copied


class _Worker:
    def __init__(self, descriptor: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(descriptor,),
            process_group=0,  # Ctrl-C is for the process that feeds it
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self.send(sys.path)

    def send(self, message: object) -> None:
        assert self._process.stdin
        try:
            pickle.dump(message, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None

    def receive(self) -> None:
        """Wait for a job to be done."""
        assert self._process.stdout
        try:
            answer = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise self._death() from None
        if answer is not None:
            known, what = answer
            raise RecordError(what) if known else DataprepError(f"a loader process failed:\n{what}")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                if stream:
                    stream.close()

    def _death(self) -> DataprepError:
        self._process.kill()
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return DataprepError(
            f"a loader process {how}; if the memory ran out (see dmesg), lower --workers or --batch-size. What is "
            "checkpointed stands: type the same to go on"
        )


@contextlib.contextmanager
def _anonymous(size: int) -> Iterator[int]:
    """A file without a name, in memory where the system has such files (/dev/shm is small in containers)."""
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("dataprep-batches")
            stack.callback(os.close, descriptor)
        else:
            descriptor = stack.enter_context(tempfile.TemporaryFile()).fileno()
        os.ftruncate(descriptor, size)
        yield descriptor


def _end(workers: list[_Worker], owner: int) -> None:
    if os.getpid() == owner:  # and not a fork of it that exits
        for worker in workers:
            worker.end()


def _taken_back(slot: int, lent: set[int], free: deque[int]) -> None:
    lent.discard(slot)
    free.append(slot)
