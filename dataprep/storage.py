"""Folders that are written so that a reader, or a run after a power cut, sees a file whole or not at all.

This is the seam for object stores: everything else names files relative to a `Folder`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dataprep.errors import WorkspaceError


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

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """A stream whose content appears under `name` only if the block ends without an exception."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
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

    def get_json(self, name: str) -> Any:
        """The JSON under `name`, or None if there is no such file; damaged JSON raises WorkspaceError."""
        path = self.path / name
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise WorkspaceError(f"{path} is damaged ({error}); remove it to redo the work it stands for") from None

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names of the files here that match, leftovers of interrupted writes not among them."""
        if not self.path.is_dir():
            return []
        return sorted(p.name for p in self.path.glob(pattern) if not p.name.startswith("."))


def sync_directory(path: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def publish_directory(staged: Path, target: Path) -> None:
    """Put a finished directory in the place of `target`; the one that was there stays until the new one is complete.

    Between the two renames neither stands under its name; `staged` then lies beside it in full, and running the same
    command again makes it anew.
    """
    retired = target.with_name(f".{target.name}.retired")
    shutil.rmtree(retired, ignore_errors=True)
    for entry in staged.iterdir():
        if entry.is_file():
            with open(entry, "rb") as stream:
                os.fsync(stream.fileno())
    sync_directory(staged)
    if target.exists():
        os.replace(target, retired)
    os.replace(staged, target)
    sync_directory(target.parent)
    shutil.rmtree(retired, ignore_errors=True)
