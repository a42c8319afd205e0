"""A pack of the images of a plain list, as VGGFace2-pytorch and Face_Pytorch train from: paths, with labels or not."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import decode, encode_jpeg
from dataprep.imaging.crops import resize
from dataprep.packs.base import Face, Form, read_manifest, tidied
from dataprep.packs.tools.convert import publish
from dataprep.storage import file_sha256

_LABELLED = re.compile(r"(.+?\.[A-Za-z]{3,4})[\s,]+(-?\d{1,18})")
_MARGIN = 256 / 224  # the short side is resized to this share of the network's before the centre is cut out: VGGFace2's
_AHEAD = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line: the image's path as it stands, and whose it is."""

    path: str
    label: int
    identity: str


def pack_list(
    listed: Path,
    root: Path,
    target: Path,
    *,
    height: int,
    width: int,
    names: Mapping[str, str] | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Make a pack at `target` of the images that `listed` names under `root`, unless it is there; `target`.

    Images of that size are taken byte for byte; others as VGGFace2 does it: the short side is resized to 256/224 of it, the
    centre cut out, and a JPEG of quality 95 made. `names` are the people's, by folder. Raises RecordError.
    """
    about = {
        "list": str(listed),
        "list_sha256": _checked_sha256(listed),
        "root": str(root.absolute()),
        "named": dict(sorted((names or {}).items())),
    }
    if target.exists():
        said = read_manifest(target)
        if all(said.get(name) == value for name, value in about.items()) and (height, width) == (
            said.get("height"), said.get("width"),
        ):  # fmt: skip
            return target
        raise RecordError(f"{target} was made of another list, root or size: remove it, or name another place")
    lines = read_image_list(listed)
    faces = _faces(lines, root, names or {}, height, width, tick)
    publish(target, faces, size=(height, width), form=Form(), about=about)
    return target


def read_image_list(path: Path) -> list[Listed]:
    """The lines `path label`, or `path` where the folder is the identity and labels follow the sorted folders; by label.

    Raises RecordError for lines of both kinds, labels with gaps, and paths that lead out of the root.
    """
    found: list[tuple[str, int | None]] = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        match = _LABELLED.fullmatch(line)
        name = match[1] if match else line
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise RecordError(f"{path}, line {number}: {name[:80]!r} leads out of --root; paths are relative to it")
        found.append((name, int(match[2]) if match else None))
        if (found[0][1] is None) != (match is None):
            raise RecordError(f"{path}, line {number}: some lines have a label and some have none: {line[:80]!r}")
    if not found:
        raise RecordError(
            f"{path} lists no image: expected a line such as `n000002/0001_01.jpg` or `n000002/0001_01.jpg 0`"
        )
    folders = [PurePosixPath(name).parent.name for name, _ in found]
    if found[0][1] is None:
        if not all(folders):
            name = found[folders.index("")][0]
            raise RecordError(f"{path}: {name} is in no folder, and no label follows it: whose face is it?")
        labels = np.unique(np.array(folders), return_inverse=True)[1].tolist()
    else:
        labels = [label for _, label in found]
        _check_labels(path, labels)
    rows = zip(found, labels, folders, strict=True)
    identities: dict[int, str] = {}
    listed = [
        Listed(path=name, label=label, identity=identities.setdefault(label, folder or f"{label:06d}"))
        for (name, _), label, folder in rows
    ]
    return sorted(listed, key=lambda one: one.label)


def _check_labels(path: Path, labels: list[int]) -> None:
    present = set(labels)
    if min(present) < 0:
        raise RecordError(f"{path}: label {min(present)}; labels count up from 0")
    if max(present) >= len(present):
        gap = next(label for label in range(len(present) + 1) if label not in present)
        raise RecordError(
            f"{path}: no image has label {gap}, though labels go up to {max(present)}: number the people from 0 without "
            "gaps, or leave the labels out where the folders tell people apart"
        )


def _faces(
    lines: list[Listed], root: Path, names: Mapping[str, str], height: int, width: int, tick: Callable[[int, int], None]
) -> Iterator[Face]:
    """In the order of `lines`; threads decode ahead (Pillow and OpenCV let go of the interpreter)."""
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor() as pool:
        try:
            for done, one in enumerate(lines):
                for ahead in lines[done + len(waiting) : done + _AHEAD]:
                    waiting.append(pool.submit(_fitted, root / ahead.path, height, width))
                image = waiting.popleft().result()
                identity = names.get(one.identity, one.identity)
                yield Face(name=tidied(one.path), label=one.label, identity=identity, image=image)
                tick(done + 1, len(lines))
        finally:
            pool.shutdown(cancel_futures=True)


def _fitted(path: Path, height: int, width: int) -> bytes:
    try:
        data = path.read_bytes()
        pixels, header = decode(data)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; --root is what the list's paths are relative to") from None
    except ImagingError as error:
        raise RecordError(f"{path}: {error}; take it off the list") from None
    if pixels.shape[:2] == (height, width) and header.orientation == 1:
        return data
    scale = max(height / pixels.shape[0], width / pixels.shape[1]) * _MARGIN
    tall, wide = (max(side, round(old * scale)) for side, old in zip((height, width), pixels.shape[:2], strict=True))
    resized = resize(pixels, wide, tall)
    y, x = (tall - height) // 2, (wide - width) // 2
    return encode_jpeg(np.ascontiguousarray(resized[y : y + height, x : x + width]))


def _checked_sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise RecordError(f"--images {path}: {error.strerror}") from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"--images {path}: not a readable list ({error})") from None
