"""Finds the image files in a folder: by content, so that names and suffixes play no part, and the same for every
verb."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from dataprep.imaging.sniff import identify_format, is_photo_format

_log = logging.getLogger(__name__)

# suffixes that images have, the commonest first; tried for names in lists that lack one or have another
IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".jp2")
SUFFIX_SPELLINGS = tuple(spelt for one in IMAGE_SUFFIXES for spelt in (one, one.upper(), f".{one[1:].title()}"))
# what operating systems, archivers and photo programs leave among photos
_LITTER = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
LITTER_FOLDERS = frozenset(
    {"@eadir", "__macosx", "$recycle.bin", "lost+found", "#recycle", "system volume information"}
)
_HEAD = 2048  # bytes that are read of a file


def is_litter(name: str) -> bool:
    """Whether a file's name is hidden, or one that a system writes beside photos."""
    return name[:1] == "." or name.lower() in _LITTER


def has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """The image files below a folder, sorted by path. Raises OSError.

    A file is an image by its first bytes; one that is not but has the suffix of images is listed too, so that whoever
    reads it says what is wrong. Other files are left out, which a log message says."""
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(_walk(folder)):
        (images if has_image_suffix(path.name) or is_image_file(path) else others).append(path)
    strangers = [path for path in others if path.suffix.lower() not in (".tsv", ".json", ".lst", ".idx")]
    if images and strangers:
        _log.info("%s: left out %d files that are no images, such as %s", folder, len(strangers), strangers[0])
    return images


def is_image_file(path: Path) -> bool:
    """Whether the first bytes are those of an image that can be decoded. False for what cannot be read."""
    try:
        with open(path, "rb") as stream:
            return is_photo_format(identify_format(stream.read(_HEAD)))
    except OSError:
        return False


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if name[0] != "." and name.lower() not in LITTER_FOLDERS]
        for name in names:
            path = Path(place, name)
            if not is_litter(name) and path.is_file():
                yield path
