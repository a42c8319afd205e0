"""A pack from a plain list of image paths, with or without labels, as VGGFace2-pytorch and Face_Pytorch use."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dataprep.errors import ImagingError, RecordError
from dataprep.imaging.codec import decode_image, encode_jpeg
from dataprep.imaging.crops import resize
from dataprep.packs.base import FaceRecord, PackFormat, read_pack_json, safe_path
from dataprep.packs.tools.convert import publish_pack
from dataprep.storage import file_sha256
from dataprep.text import forward_slashes, iterate_lines

_LABELLED = re.compile(r"(.+?\.[A-Za-z]{3,4})[\s,;]+(-?\d{1,18})")
_MARGIN = 256 / 224  # VGGFace2: the short side is resized to this multiple of the target before the centre crop
_AHEAD = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One line: the image's path as written, and its identity."""

    path: str
    label: int
    identity: str


def pack_image_list(
    listed: Path,
    root: Path,
    target: Path,
    *,
    height: int,
    width: int,
    names: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Make a pack at `target` of the images that `listed` names under `root`, unless it exists; return `target`.

    Images of the target size are copied byte for byte. Others follow VGGFace2: resize the short side to 256/224 of the
    target, crop the centre, save as JPEG of quality 95. `names` maps folders to people. Raises RecordError.
    """
    about = {
        "list": str(listed),
        "list_sha256": _checked_sha256(listed),
        "root": str(root.absolute()),
        "named": dict(sorted((names or {}).items())),
    }
    if target.exists():
        said = read_pack_json(target)
        if all(said.get(name) == value for name, value in about.items()) and (height, width) == (
            said.get("height"), said.get("width"),
        ):  # fmt: skip
            return target
        raise RecordError(
            f"{target} was made from another list, root or size", hint="remove it or choose another place"
        )
    lines = read_image_list(listed, root)
    faces = _decode_listed_faces(lines, root, names or {}, height, width, progress)
    publish_pack(target, faces, size=(height, width), pack_format=PackFormat(), about=about)
    return target


def read_image_list(path: Path, root: Path | None = None) -> list[LabelledImage]:
    """The lines `path label`, sorted by label; or lines `path`, labelled by their sorted folders, the identities.

    Labels may be any whole numbers of 0 or more: they are numbered from 0 in their order. Absolute paths may lie under
    `root`. Raises RecordError for lists that mix both kinds, negative labels, and paths that lead out of the root.
    """
    found: list[tuple[str, int | None]] = []
    for number, line in iterate_lines(path, error=RecordError):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LABELLED.fullmatch(line)
        name = forward_slashes(match[1] if match else line)
        if root is not None and PurePosixPath(name).is_relative_to(root.absolute()):
            name = str(PurePosixPath(name).relative_to(root.absolute()))
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise RecordError(
                f"{path}, line {number}: {name[:80]!r} leads out of the root", hint="paths are relative to --root"
            )
        found.append((name, int(match[2]) if match else None))
        if (found[0][1] is None) != (match is None):
            raise RecordError(f"{path}, line {number}: some lines have a label and some have none: {line[:80]!r}")
    if not found:
        raise RecordError(
            f"{path} lists no image: expected a line such as `n000002/0001_01.jpg` or `n000002/0001_01.jpg 0`"
        )
    folders = [PurePosixPath(name).parent.name for name, _ in found]
    named: dict[int, str] = {}
    if found[0][1] is None:
        if not all(folders):
            name = found[folders.index("")][0]
            raise RecordError(f"{path}: {name} has neither a folder nor a label, so its identity is unknown")
        labels = np.unique(np.array(folders), return_inverse=True)[1].tolist()
    else:
        given = [label for _, label in found if label is not None]
        if min(given) < 0:
            raise RecordError(f"{path}: label {min(given)}; labels count up from 0")
        numbers = {label: number for number, label in enumerate(sorted(set(given)))}
        labels = [numbers[label] for label in given]
        named = {numbers[label]: f"{label:06d}" for label in numbers}
    rows = zip(found, labels, folders, strict=True)
    identities: dict[int, str] = {}
    listed = [
        LabelledImage(path=name, label=label, identity=identities.setdefault(label, folder or named[label]))
        for (name, _), label, folder in rows
    ]
    return sorted(listed, key=lambda one: one.label)


def _decode_listed_faces(
    lines: list[LabelledImage],
    root: Path,
    names: Mapping[str, str],
    height: int,
    width: int,
    progress: Callable[[int, int], None],
) -> Iterator[FaceRecord]:
    """In the order of `lines`; threads decode ahead (Pillow and OpenCV release the GIL)."""
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor() as pool:
        try:
            for done, one in enumerate(lines):
                for ahead in lines[done + len(waiting) : done + _AHEAD]:
                    waiting.append(pool.submit(_resize_image, root / ahead.path, height, width))
                image = waiting.popleft().result()
                identity = names.get(one.identity, one.identity)
                yield FaceRecord(name=safe_path(one.path), label=one.label, identity=identity, image=image)
                progress(done + 1, len(lines))
        finally:
            pool.shutdown(cancel_futures=True)


def _resize_image(path: Path, height: int, width: int) -> bytes:
    try:
        data = path.read_bytes()
        pixels, header = decode_image(data)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}", hint="the list's paths are relative to --root") from None
    except ImagingError as error:
        raise RecordError(f"{path}: {error}", hint="remove it from the list") from None
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
        raise RecordError(f"{path}: {error.strerror}") from None
