"""Merges several packs into one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataprep.errors import RecordError
from dataprep.packs.base import FaceRecord, PackFormat, PackReader
from dataprep.packs.io import open_pack
from dataprep.packs.tools.convert import CountCallback, pack_image_size, publish_pack


class _Place(NamedTuple):
    """A face to be merged: its label in the new pack, its source pack, and its position there."""

    label: int
    pack: int
    position: int


def merge_packs(
    sources: Sequence[str | os.PathLike[str]],
    target: Path,
    *,
    pack_format: PackFormat,
    merge_labels: bool = False,
    drop_duplicates: bool = False,
    progress: CountCallback = lambda done: None,
) -> dict[str, Any]:
    """Write the faces of all packs into a new one at `target`; return its pack.json.

    Identities are numbered pack by pack. Equal names in two packs are two people (the second gets `~2`), or one person
    with `join_names`. `drop_duplicates` keeps the first of images with equal bytes. Raises RecordError for packs whose
    images differ in size, or were aligned to different templates.
    """
    packs = [open_pack(source) for source in sources]
    size = _common_size(packs)
    names, labels = _identities(packs, merge_labels)
    places = sorted(
        _Place(labels[number][label], number, position)
        for number, pack in enumerate(packs)
        for position, label in enumerate(pack.labels().tolist())
        if label >= 0
    )
    dropped = 0
    if drop_duplicates:
        kept = _without_duplicates(packs, places)
        dropped, places = len(places) - len(kept), kept
    about = {
        "template": _common_template(packs),
        "merged_from": [
            {"pack": os.fspath(source), **_origin(pack)} for source, pack in zip(sources, packs, strict=True)
        ],
        "duplicates_dropped": dropped,
    }
    return publish_pack(
        target, _relabel_faces(packs, places, names, progress), size=size, pack_format=pack_format, about=about
    )


def _origin(pack: PackReader) -> dict[str, Any]:
    return {name: value for name, value in pack.metadata().items() if name in ("recipe", "sources", "licence")}


def _common_size(packs: Sequence[PackReader]) -> tuple[int, int]:
    sizes = [pack_image_size(pack) for pack in packs]
    for pack, size in zip(packs, sizes, strict=True):
        if size != sizes[0]:
            raise RecordError(
                f"{pack.path} holds {size[1]}x{size[0]}, {packs[0].path} {sizes[0][1]}x{sizes[0][0]}: sizes must match"
            )
    return sizes[0]


def _common_template(packs: Sequence[PackReader]) -> Any:
    """The template that all packs were aligned to, if all record it. RecordError if two packs differ."""
    said = [pack.metadata().get("template") for pack in packs]
    stated = [(pack, template) for pack, template in zip(packs, said, strict=True) if template is not None]
    for pack, template in stated:
        if template != stated[0][1]:
            raise RecordError(f"{pack.path} and {stated[0][0].path} were aligned to different templates")
    return said[0] if len(stated) == len(packs) else None


def _identities(packs: Sequence[PackReader], merge_labels: bool) -> tuple[list[str], list[dict[int, int]]]:
    """The new identities in order, and the new number of each label, pack by pack."""
    names: list[str] = []
    numbers: dict[str, int] = {}
    times: dict[str, int] = {}
    labels: list[dict[int, int]] = []
    for pack in packs:
        mine: dict[int, int] = {}
        taken_before = set(numbers)
        for position, label in enumerate(pack.labels().tolist()):
            if label in mine or label < 0:
                continue
            name = pack.face(position).identity
            if not (merge_labels and name in taken_before):
                name = _free(name, numbers, times)
                numbers[name] = len(names)
                names.append(name)
            mine[label] = numbers[name]
        labels.append(mine)
    return names, labels


def _free(name: str, taken: dict[str, int], times: dict[str, int]) -> str:
    """The name, or the first `name~2`, `name~3`, ... that is not taken."""
    free = name
    while free in taken:
        times[name] = times.get(name, 1) + 1
        free = f"{name}~{times[name]}"
    return free


def _without_duplicates(packs: Sequence[PackReader], places: Sequence[_Place]) -> list[_Place]:
    seen: set[bytes] = set()
    kept = []
    for place in places:
        digest = hashlib.sha256(packs[place.pack].face(place.position).image).digest()[:16]
        if digest not in seen:
            seen.add(digest)
            kept.append(place)
    return kept


def _relabel_faces(
    packs: Sequence[PackReader], places: Sequence[_Place], names: Sequence[str], progress: CountCallback
) -> Iterator[FaceRecord]:
    labels = {label: number for number, label in enumerate(sorted({place.label for place in places}))}
    for done, place in enumerate(places, 1):
        face = packs[place.pack].face(place.position)
        identity = names[place.label]
        rest = face.name.removeprefix(f"{face.identity}/")
        yield FaceRecord(name=f"{identity}/{rest}", label=labels[place.label], identity=identity, image=face.image)
        if done % 500 == 0 or done == len(places):
            progress(done)
