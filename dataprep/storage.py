"""Folders with atomic writes: a reader, or a run after a power cut, sees a complete file or none.

Support for object stores would go here: all other code names files relative to a `Folder`.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import queue
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from dataprep.errors import DamagedFileError, LockedError, WorkspaceError

_TOKEN = secrets.token_hex(4)  # two containers may have processes of one number
_STAGED, _FRESH = "dataprep-", 10.0  # seconds in which a staged folder may be not locked yet
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s?#'\"]*@", re.IGNORECASE)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#'\"]*)\?[^\s'\"]*", re.IGNORECASE)
_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")
_CHECKSUM = "checksum"
_SAMPLES, _SAMPLE = 1024, 16 << 10


class Folder:
    """A POSIX directory with atomic writes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def folder(self, name: str) -> Folder:
        return Folder(self.path / name)

    def put(self, name: str, data: bytes) -> Path:
        """Write `data` under `name`: temporary file, fsync, rename, fsync of the directory."""
        with self.writing(name) as stream:
            stream.write(data)
        return self.path / name

    def put_json(self, name: str, value: Any) -> Path:
        return self.put(name, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())

    def put_all(self, files: Iterable[tuple[str, bytes]]) -> list[str]:
        """`put` many files of this directory: all or none, unless the process dies. Returns their names.

        The files are synced and renamed together at the end, which is several times as fast.
        """
        names: list[str] = []
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            for name, data in files:
                names.append(name)
                self._temporary(name).write_bytes(data)
            for name in names:
                _sync(self._temporary(name))
            for name in names:
                os.replace(self._temporary(name), self.path / name)
        except BaseException:
            for name in names:
                self._temporary(name).unlink(missing_ok=True)
            raise
        sync_directory(self.path)
        return names

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A stream whose content appears as `name` only if the block ends without an exception."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._temporary(name)
        try:
            with open(temporary, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(target.parent)

    def put_record(self, name: str, values: Mapping[str, Any]) -> Path:
        """Write a mapping of ours, with a checksum that `get_record` compares."""
        return self.put(name, encode_mapping(values))

    def get_record(self, name: str) -> dict[str, Any] | None:
        """The mapping in the file `name`, or None if it does not exist. Raises DamagedFileError if it is none, or if
        its content does not fit the checksum in it. (A file without a checksum is from an earlier version.)"""
        path = self.path / name
        try:
            values = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(f"{path} is damaged ({error})", path=path) from None
        if not isinstance(values, dict):
            raise DamagedFileError(f"{path} is damaged: it holds no mapping", path=path)
        checksum = values.pop(_CHECKSUM, None)
        if checksum is not None and checksum != _checksum(values):
            raise DamagedFileError(f"{path} was changed or damaged: its checksum does not fit", path=path)
        return values

    def get_json(self, name: str) -> Any:
        """The JSON in the file `name`, or None if it does not exist. Damaged JSON raises WorkspaceError."""
        path = self.path / name
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            hint = f"remove {path} to redo the work that it records"
            raise WorkspaceError(f"{path} is damaged ({error})", hint=hint) from None

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names of the matching files, without leftovers of interrupted writes."""
        if not self.path.is_dir():
            return []
        return sorted(p.name for p in self.path.glob(pattern) if not p.name.startswith("."))

    def remove_leftovers(self) -> None:
        """Remove the unfinished files that killed processes left here. The caller must hold the folder's lock."""
        for path in self.path.glob(".*.tmp"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _temporary(self, name: str) -> Path:
        target = self.path / name
        return target.with_name(f".{target.name}.{os.getpid()}-{_TOKEN}.tmp")


def encode_mapping(values: Mapping[str, Any]) -> bytes:
    """The content of a file for `Folder.get_record`."""
    text = json.dumps({**values, _CHECKSUM: _checksum(values)}, indent=1, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode()


def _checksum(values: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(values))  # as it is read back: tuples are lists
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def sync_directory(path: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sampled_sha256(path: str | os.PathLike[str]) -> str:
    """A hash of a file's size and of 1,024 blocks of 16 KiB spread over it, or of all of a file with fewer: two files
    that were made apart differ in it, and it costs 16 MiB of reading, whatever the size."""
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= _SAMPLES * _SAMPLE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        state = hashlib.sha256(size.to_bytes(8))
        for number in range(_SAMPLES):
            state.update(os.pread(stream.fileno(), _SAMPLE, (size - _SAMPLE) * number // (_SAMPLES - 1)))
        return state.hexdigest()


class FileIdentity(NamedTuple):
    """Which file was opened: a file of that name that was put in its place, or written to, has another one."""

    device: int
    number: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> FileIdentity:
        found = os.fstat(descriptor)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class HashedFile:
    """A new file whose sha256 is computed in a thread while it is written."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._stream = open(path, "wb", buffering=0)  # noqa: SIM115
        self._state = hashlib.sha256()
        self._waiting: queue.Queue[bytes | None] = queue.Queue(maxsize=8)
        self._thread = threading.Thread(target=self._hash, daemon=True)
        self._thread.start()

    def write(self, data: bytes | memoryview, /) -> int:
        block = bytes(data)
        self._waiting.put(block)
        left = memoryview(block)
        while left:
            left = left[self._stream.write(left) :]
        return len(block)

    def close(self) -> str:
        """Close the file and return the sha256 of its content."""
        self._waiting.put(None)
        self._thread.join()
        self._stream.close()
        return self._state.hexdigest()

    def abandon(self) -> None:
        """Close the file if it is open, and discard the sha256."""
        if not self._stream.closed:
            self.close()

    def _hash(self) -> None:
        while (block := self._waiting.get()) is not None:
            self._state.update(block)


def is_url(path: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path)


def local_copy(path: str | os.PathLike[str]) -> Path:
    """The local file or folder itself, or a local copy of an fsspec URL (s3://, gs://, https://, ...).

    A URL is copied once per process, to a temporary folder that is removed at exit. Raises WorkspaceError if it cannot
    be read.
    """
    return _fetched(os.fspath(path)) if is_url(path) else Path(path)


@functools.cache
def local_copy_with(url: str, siblings: tuple[str, ...]) -> Path:
    """A local copy of the file at an fsspec URL, with the files of these names beside it, as far as they exist."""
    place = _fetched(url)
    before, mark, query = url.partition("?")
    for name in siblings:
        with contextlib.suppress(WorkspaceError):
            _fetch(f"{before.rpartition('/')[0]}/{name}{mark}{query}", place.with_name(name))
    return place


def redact(text: str) -> str:
    """The text with all URLs in it as they may be told to others: without user and password, and without their query,
    in which presigned ones have their signature."""
    return _QUERY.sub(r"\1?...", _USER.sub(r"\1", text))


@functools.cache
def _fetched(url: str) -> Path:
    target = Path(tempfile.mkdtemp(prefix="dataprep-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    place = target / (url.partition("?")[0].rstrip("/").rpartition("/")[2] or "file")
    _fetch(url, place)
    return place


def _fetch(url: str, place: Path) -> None:
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
        if not url.startswith(("http:", "https:")) and system.isdir(root):
            system.get(root, str(place), recursive=True)
        else:  # not `get`, for which a query's `?` is a pattern
            system.get_file(root, str(place))
    except Exception as error:  # each file system has its own
        words = " ".join(str(error).split())[:300] or type(error).__name__
        raise WorkspaceError(
            redact(f"{url} cannot be read: {words}"), hint="check the address, and that its permission has not expired"
        ) from None


def publish_directory(staged: Path, target: Path) -> None:
    """Replace `target` with a finished directory; the old one is kept until the new one is complete.

    Between the two renames `target` does not exist. If the process dies then, running the same command again rebuilds
    `target`.
    """
    for entry in staged.iterdir():
        if entry.is_file():
            with open(entry, "rb") as stream:
                os.fsync(stream.fileno())
    os.sync()  # includes the files in sub-folders
    retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.{_STAGED}", dir=target.parent)) if target.exists() else None
    if retired is not None:
        os.replace(target, retired)
    os.replace(staged, target)
    sync_directory(target.parent)
    if retired is not None:
        shutil.rmtree(retired, ignore_errors=True)


@contextlib.contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """A new folder beside `target` to build it in, and to rename to it. It is locked as long as the block runs, and removed
    after it if it is still there; what a killed process left for the same `target` is removed first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in abandoned_directories(target.parent, target.name):
        shutil.rmtree(stale, ignore_errors=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.{_STAGED}", dir=target.parent))
    descriptor = os.open(staged, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks; then nobody removes what seems abandoned
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        staged.chmod(0o777 & ~_umask())
        yield staged
    finally:
        os.close(descriptor)
        shutil.rmtree(staged, ignore_errors=True)


def abandoned_directories(folder: Path, name: str | None = None) -> list[Path]:
    """The folders that killed processes left while building the folder `name`, or any: of our name and not locked."""
    pattern = re.compile(rf"\.{re.escape(name) if name else '.+'}\.{_STAGED}[a-z0-9_]{{8}}")
    found = []
    for path in sorted(folder.glob(f".*.{_STAGED}*")):
        if not pattern.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(OSError):  # locked, gone, or on a file system without locks
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(descriptor).st_mtime > _FRESH:
                    found.append(path)
            finally:
                os.close(descriptor)
    return found


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def lock_holder(folder: Path) -> str:
    """The process that holds `lock_directory(folder)` now; empty if none does, or the system does not tell."""
    try:
        number = (folder / ".lock").stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    # proc(5): `1: FLOCK ADVISORY WRITE pid major:minor:inode start end`; a waiting one has `->` after the number
    fields = [line.split() for line in locks if " FLOCK " in line and "->" not in line]
    return next((words[4] for words in fields if words[5].rpartition(":")[2] == str(number)), "")


@contextlib.contextmanager
def lock_directory(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder/.lock` for the block. Raises LockedError at once if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip() or "unknown"
            raise LockedError(f"{what} is being written by another run (process {holder}): {folder}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
