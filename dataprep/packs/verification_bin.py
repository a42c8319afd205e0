"""Verification sets: pairs of faces that show the same person or not, and the .bin file the field keeps them in."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError
from dataprep.safe_pickle import PickledArray, load_plain
from dataprep.storage import Folder


def write_bin(path: Path, images: Sequence[bytes], issame: Sequence[bool]) -> None:
    """insightface's verification file: a pickle of (images, issame), pair i being images 2i and 2i + 1."""
    if len(images) != 2 * len(issame):
        raise RecordError(f"{len(issame)} pairs need {2 * len(issame)} images; {len(images)} were given")
    with Folder(path.parent).writing(path.name) as stream:
        pickle.dump((list(images), [bool(s) for s in issame]), stream, protocol=4)


def read_bin(path: str | Path) -> tuple[list[bytes], npt.NDArray[np.bool_]]:
    """Images (as file bytes) and the pairs' truth from a .bin, Python 2 ones and ndarray elements included.

    Nothing in the file is run (see safe_pickle.py). Raises RecordError.
    """
    images, same = _open_bin(path)
    try:
        copies: dict[int, bytes] = {}  # a few bytes of pickle can name one large array again and again
        found = [_image(image, copies) for image in images]
        truth = _truth(same)
    except RecordError as error:
        raise error.within(path) from None
    if len(found) != 2 * len(truth):
        raise RecordError(f"{path}: {len(truth)} pairs need {2 * len(truth)} images, it holds {len(found)}")
    return found, truth


def count_bin_elements(path: str | Path) -> dict[str, int]:
    """How many of a .bin's images are kept as `bytes` and how many as `ndarray`: both kinds are about."""
    images, _ = _open_bin(path)
    return dict(Counter("ndarray" if isinstance(image, PickledArray) else "bytes" for image in images))


def _open_bin(path: str | Path) -> tuple[list[Any], Any]:
    try:
        loaded = load_plain(Path(path).read_bytes())
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from None
    except RecordError as error:
        raise error.within(path) from None
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2 or not isinstance(loaded[0], list | tuple):
        raise RecordError(f"{path}: not a pair (images, issame), as a verification set's .bin is")
    return list(loaded[0]), loaded[1]


def _image(element: Any, copies: dict[int, bytes]) -> bytes:
    if isinstance(element, PickledArray) and sum(side > 1 for side in element.shape) > 1:
        shape = "x".join(map(str, element.shape))
        raise RecordError(
            f"an image in it is an array of {shape} pixels; images are encoded files, such as JPEGs",
            hint="write them as PNG files into a folder with a list of pairs, and `dataprep bins build` makes the .bin",
        )
    data = element.data if isinstance(element, PickledArray) else element
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray):
        if id(data) not in copies:
            copies[id(data)] = bytes(data)
        return copies[id(data)]
    raise RecordError(f"an image in it is a {type(element).__name__}; images are bytes or arrays of bytes")


def _truth(issame: Any) -> npt.NDArray[np.bool_]:
    values = issame.values().tolist() if isinstance(issame, PickledArray) else issame
    if not isinstance(values, list | tuple) or not all(
        isinstance(s, bool | int | float) and s in (0, 1) for s in values
    ):
        raise RecordError("issame is not a list of truth values")
    return np.array(values, bool)


def is_bin(path: Path) -> bool:
    """Whether a file is a pickle rather than text, judged by suffix or first byte."""
    if path.suffix.lower() in (".bin", ".pkl"):
        return True
    with open(path, "rb") as stream:
        return stream.read(1) in (b"\x80", b"(")


def bin_image_names(count: int) -> list[str]:
    """The names of a .bin's images: 00001, 00002, ..., as in Face_Pytorch's load_image_from_bin."""
    return [f"{number:05d}" for number in range(1, count + 1)]
