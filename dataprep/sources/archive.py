"""Fetching a release's archive of lists: one file, whole or not at all."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from pathlib import Path

from dataprep import __version__
from dataprep.errors import SourceError
from dataprep.storage import Folder


def fetch_lists(url: str, target: Path) -> Path:
    """The archive at `target`, fetched from `url` if it is not there. SourceError says what to do if that fails."""
    if target.is_file():
        return target
    request = urllib.request.Request(url, headers={"User-Agent": f"dataprep/{__version__}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            if not answer.read(2) == b"\x1f\x8b":
                raise SourceError(_advice(url, "what answered is no .tar.gz"))
            with Folder(target.parent).writing(target.name) as stream:
                stream.write(b"\x1f\x8b")
                shutil.copyfileobj(answer, stream)
    except (urllib.error.URLError, OSError) as error:
        raise SourceError(_advice(url, str(getattr(error, "reason", error)))) from None
    return target


def _advice(url: str, cause: str) -> str:
    return (
        f"the lists could not be fetched from {url} ({cause}): get vgg_face_dataset.tar.gz from there, or from a mirror, "
        "by other means and give it with --lists"
    )
