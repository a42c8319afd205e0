"""Files that carry the hash of their content in their name, as payloads and ledgers do, are checked when they are opened."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from dataprep.errors import DamagedFileError
from dataprep.storage import FileIdentity, file_sha256

HINT = "`dataprep check --redo` marks what is damaged, and the next run makes it anew"
_NAMED = re.compile(r".+-([0-9a-f]{12})\.(tar|parquet)")


def check_content(path: Path) -> None:
    """Raise DamagedFileError unless the content's sha256 begins with the digits in the file's name.

    A file is read once per process, unless it changes. At 1.5 GB/s that is less than one part in a hundred of what a stage
    does with the content. Files without such a name are not checked.
    """
    named = _NAMED.fullmatch(path.name)
    if named is None:
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            identity = FileIdentity.of(descriptor)
        finally:
            os.close(descriptor)
        found = _content_digits(path, identity)
    except OSError as error:
        raise DamagedFileError(f"{path}: {error.strerror}", path=path, hint=HINT) from None
    if found != named[1]:
        raise DamagedFileError(
            f"{path} is damaged: its content has the sha256 {found}..., not {named[1]}...", path=path, hint=HINT
        )


@functools.lru_cache(maxsize=1 << 14)
def _content_digits(path: Path, identity: FileIdentity) -> str:
    del identity  # of the file that the digits are for
    return file_sha256(path)[:12]
