"""The two commands that download.py compares, run and measured: clock, CPU of all processes, memory, photos at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PSS_EVERY = 0.5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command: seconds of the clock and of all its processes' work, bytes of memory at most, URL -> sha256."""

    wall: float
    cpu: float
    memory: int
    photos: dict[str, str]

    def since(self, start: Run) -> Run:
        """Less what it took to start."""
        return replace(self, wall=self.wall - start.wall, cpu=self.cpu - start.cpu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where to run what."""

    scratch: Path
    python: str  # the peer's
    timeout: float
    lookup: float
    table: Path
    names: Path
    extra: Sequence[str]  # dataprep's further options
    made: list[Path] = field(default_factory=list)  # the outputs, in order

    @property
    def newest(self) -> Path:
        return self.made[-1]

    def dataprep(self, table: Path | None = None) -> Run:
        workspace = self._fresh("dataprep")
        seconds = str(self.timeout)
        command = [sys.executable, "-m", "dataprep", "-w", str(workspace), "download", "urls", str(table or self.table)]
        command += ["--allow-private", "--connect-timeout", seconds, "--idle-timeout", seconds, "--timeout", seconds]
        command += ["--retries", "0", *self.extra]
        return self._measured(command, workspace, "stages/download@*/rows/*.parquet", "reason", None)

    def img2dataset(self, setting: Setting, table: Path | None = None, urls: int = 1) -> Run:
        folder = self._fresh("img2dataset")
        options = {
            "url_list": table or self.table, "input_format": "csv", "output_folder": folder,
            "output_format": setting.output, "resize_mode": "no", "disable_all_reencoding": True, "extract_exif": False,
            "compute_hash": "sha256", "timeout": f"{self.timeout:g}", "retries": 0, "thread_count": setting.threads,
            "processes_count": setting.processes, "number_sample_per_shard": max(2, -(-urls // setting.processes)),
        }  # fmt: skip
        command = [self.python, "-m", "img2dataset.main", *(f"--{name}={value}" for name, value in options.items())]
        return self._measured(command, folder, "*.parquet", "status", "success")

    def _fresh(self, tool: str) -> Path:
        self.made.append(self.scratch / f"{tool}-{len(self.made)}")
        return self.newest

    def _measured(self, command: Sequence[str], made: Path, ledgers: str, column: str, ok: str | None) -> Run:
        environment = {
            **os.environ, "PYTHONPATH": str(HERE / "names"), "BENCHMARK_NAMES": str(self.names),
            "BENCHMARK_LOOKUP": str(self.lookup), "NO_ALBUMENTATIONS_UPDATE": "1",
        }  # fmt: skip
        os.sync()
        with open(made.with_suffix(".log"), "w") as log:
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            peak = _Peak(process.pid)
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            peak.stop.set()
            peak.join()
        if process.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(map(str, command))} failed: {made.with_suffix('.log').read_text()[-2000:]}")
        photos = {}
        for path in made.glob(ledgers):
            found = pq.read_table(path, columns=["url", "sha256", column]).to_pylist()
            photos.update({row["url"]: row["sha256"] for row in found if row[column] == ok})
        return Run(wall=wall, cpu=used.ru_utime + used.ru_stime, memory=peak.bytes, photos=photos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How img2dataset is run."""

    output: str
    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.output}, {self.processes} x {self.threads} threads"


class _Peak(threading.Thread):
    """The most memory that a process and its descendants had together, looked at now and then."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self.stop, self.bytes = pid, threading.Event(), 0
        self.start()

    def run(self) -> None:
        while not self.stop.wait(PSS_EVERY):
            self.bytes = max(self.bytes, sum(map(_pss, _descendants(self._pid))))


def shards_seconds(folder: Path) -> float:
    """From the start of the first shard to the end of the last one, as img2dataset says."""
    stats = [json.loads(path.read_text()) for path in folder.glob("*_stats.json")]
    return float(max(shard["end_time"] for shard in stats) - min(shard["start_time"] for shard in stats))


def spent(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0
