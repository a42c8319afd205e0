"""PyTorch's files are zip archives with a CRC-32 of each part, which torch.load does not look at."""

from __future__ import annotations

import zipfile
from pathlib import Path

from dataprep.errors import ModelError

_BLOCK = 1 << 22


def check_archive(path: Path) -> None:
    """Raise ModelError if a part of a PyTorch file differs from its checksum: bits have flipped, or the file is cut off.

    Files of PyTorch before 1.6 are no archives, and others may be written without checksums: they pass.
    """
    if not zipfile.is_zipfile(path):
        return
    hint = "fetch or make the file again; a copy on another disk may be whole"
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            damaged = [part.filename for part in parts if not _is_whole(archive, part)]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is damaged ({error})", hint=hint) from None
    if damaged and len(damaged) < len(parts):
        shown = f"{damaged[0]!r}" + (f" and {len(damaged) - 1} other parts" if len(damaged) > 1 else "")
        raise ModelError(f"{path} is damaged: {shown} differs from its checksum", hint=hint)


def _is_whole(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(part) as stream:
            while stream.read(_BLOCK):
                pass
    except zipfile.BadZipFile:
        return False
    return True
