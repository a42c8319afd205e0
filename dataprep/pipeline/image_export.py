"""Exports a workspace as folders of images and as lists."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dataprep.errors import DataprepError, UsageError, WorkspaceError
from dataprep.imaging.codec import Pixels, decode_image, encode_jpeg, encode_png
from dataprep.packs.lst_files import format_insightface_line
from dataprep.pipeline.pipeline import Pipeline, PipelineState
from dataprep.stages.base import MERGE_UNIT, read_local_photo
from dataprep.stages.lst import ListingParams, ListStage
from dataprep.stages.order import stage_verb
from dataprep.storage import Folder, file_sha256, lock_directory
from dataprep.tar import make_member_name
from dataprep.workspace.workspace import Workspace

EXPORT_CONTENTS = ("faces", "photos")
_LIST, _PARTIAL = "exported.tsv", ".exported.partial"  # lines `path TAB sha256` of the files that are ours


@dataclass(slots=True, kw_only=True)
class ImageExport:
    """What an export did: images in the folder now, those of them that were there before, files of an earlier export that
    were removed, images renamed because a file or folder of their name exists, and images that could not be written."""

    images: int = 0
    unchanged: int = 0
    removed: int = 0
    renamed: int = 0
    missing: dict[str, str] = field(default_factory=dict)  # why, by key


def export_folder(workspace: str, target: Path, what: str) -> ImageExport:
    """Write the aligned faces, or the photos that passed `validate`, as identity/name.ext.

    exported.tsv in the folder lists the files that are ours. Files of an earlier export that are no longer among the images
    are removed; other files are never touched. Images whose bytes are not those of the ledger are left out and reported. An
    interrupted export can be repeated. Raises UsageError if a file that is not ours is in the way.
    """
    if what not in EXPORT_CONTENTS:
        raise UsageError(f"{what!r} cannot be exported; choose one of {', '.join(EXPORT_CONTENTS)}")
    hash_column = "sha256" if what == "faces" else "photo_sha256"

    def images() -> Iterator[tuple[str, str, Callable[[], bytes]]]:
        for row, load in iterate_images(workspace, "align" if what == "faces" else "validate"):
            yield row["key"], row[hash_column], load

    return _export(target, images(), make_member_name)


def export_crops(workspace: str, target: Path) -> ImageExport:
    """Write the clamped boxes cut from upright photos as identity/name.jpg. A sample without a box is written whole."""

    def cut(row: Mapping[str, Any], load: Callable[[], bytes]) -> bytes:
        pixels, _ = decode_image(load())
        if row["box"]:
            left, top, right, bottom = row["box"]
            pixels = pixels[int(top) : max(int(top) + 1, round(bottom)), int(left) : max(int(left) + 1, round(right))]
        return encode_jpeg(np.ascontiguousarray(pixels))

    crops = ((row["key"], "", functools.partial(cut, row, load)) for row, load in iterate_images(workspace, "crop"))
    return _export(target, crops, lambda key, data: f"{key}.jpg")


def _export(
    target: Path, images: Iterable[tuple[str, str, Callable[[], bytes]]], name_image: Callable[[str, bytes], str]
) -> ImageExport:
    """Write images given as (key, sha256 or empty, function that loads it)."""
    result, names, written = ImageExport(), _Names(), dict[str, str]()
    with lock_directory(target, "the exported folder"):
        before = _read_list(target / _LIST) | _read_list(target / _PARTIAL)
        with open(target / _PARTIAL, "a", encoding="utf-8") as partial:
            for key, sha256, load in images:
                try:
                    data = load()
                except (OSError, DataprepError) as error:
                    result.missing[key] = str(error)
                    continue
                found = hashlib.sha256(data).hexdigest()
                if sha256 and found != sha256:
                    result.missing[key] = "its bytes have changed since they were read"
                    continue
                name = names.place(name_image(key, data))
                result.renamed += name != name_image(key, data)
                result.images += 1
                result.unchanged += _write(target / name, data, found, before.get(name))
                written[name] = found
                partial.write(f"{name}\t{found}\n")
        for name in before.keys() - written.keys():
            result.removed += _remove(target, name, before[name])
        os.sync()
        Folder(target).put(_LIST, "".join(f"{name}\t{found}\n" for name, found in written.items()).encode())
        (target / _PARTIAL).unlink()
    return result


class _Names:
    """Gives images paths under which no other image is a file or a folder, on file systems that ignore case too."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def place(self, name: str) -> str:
        stem, suffix = os.path.splitext(name)
        identity, slash, rest = stem.partition("/")
        for number in itertools.count(1):
            # where a folder of the path is a file, the path is written as one name
            tried = name if number == 1 else f"{identity}{slash}{rest.replace('/', '_')}~{number}{suffix}"
            above = {str(parent).casefold() for parent in PurePosixPath(tried).parents}
            if tried.casefold() not in self._files | self._folders and not above & self._files:
                self._files.add(tried.casefold())
                self._folders |= above
                return tried
        raise AssertionError  # count never ends


def _read_list(path: Path) -> dict[str, str]:
    """The files that an earlier export wrote, with their sha256."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except FileNotFoundError:
        return {}
    fields = (line.split("\t") for line in lines)
    return {parts[0]: parts[1] for parts in fields if len(parts) == 2 and len(parts[1]) == 64}


def _write(path: Path, data: bytes, sha256: str, before: str | None) -> bool:
    """Write a file unless it is there already: returns whether it is. Raises UsageError for a file that is not ours."""
    if path.is_file() and path.stat().st_size == len(data) and file_sha256(path) == sha256:
        return True
    if path.exists() and before is None:
        raise UsageError(f"{path} exists, and no export wrote it", hint="choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.exporting")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return False


def _remove(target: Path, name: str, sha256: str) -> bool:
    """Remove a file that an earlier export wrote, unless somebody has changed it since."""
    path = target / name
    if not path.is_file() or file_sha256(path) != sha256:
        return False
    path.unlink()
    for parent in path.relative_to(target).parents:
        with contextlib.suppress(OSError):  # not empty
            if parent.name:
                (target / parent).rmdir()
    return True


def export_lst(workspace: str, target: Path) -> int:
    """Write the training faces as a .lst in insightface's dialect, with the paths used by `export_folder`."""
    pipeline, state = _open_state(workspace, "lst")
    node = pipeline.node("lst")
    marker = state.marker(node, MERGE_UNIT)
    assert marker is not None
    suffix = pipeline.node("align").stage.params.format
    rows = [r for r in node.store.rows(marker) if r["verdict"] == "ok" and r["split"] == "train"]
    text = "".join(format_insightface_line(f"{row['key']}.{suffix}", row["label"]) for row in rows)
    Folder(target.parent).put(target.name, text.encode())
    return len(rows)


def iterate_images(workspace: str, stage: str) -> Iterator[tuple[Mapping[str, Any], Callable[[], bytes]]]:
    """Yield the ok rows of a stage, without what is excluded, each with a function that loads the stage's image, or the
    photo if the stage has none. It raises OSError, WorkspaceError or ImagingError."""
    pipeline, state = _open_state(workspace, stage)
    excluded = pipeline.workspace.exclusions()
    recipe = pipeline.workspace.recipe().get("lst", {})
    listing = ListStage.in_workspace(ListingParams.from_mapping(recipe), pipeline.workspace)
    if listing.unreadable and excluded.people:  # who is excluded under a new name is not known
        raise listing.unreadable
    node, download = pipeline.node(stage), pipeline.node("download")
    for shard in state.shards.values():
        marker = state.marker(node, shard.id)
        assert marker is not None
        passed = (row for row in node.store.rows(marker) if row["verdict"] == "ok")
        rows = [
            row
            for row in passed
            if not excluded.covers(row["identity"], row["key"]) and not listing.excludes(row["identity"])
        ]
        if marker.data or shard.remote:
            fetched = marker if marker.data else state.marker(download, shard.id)
            assert fetched is not None
            store = node.store if marker.data else download.store
            places = {row["key"]: row for row in (rows if marker.data else store.rows(fetched))}
            reader = store.payloads(fetched)
            for row in rows:
                place = places[row["key"]]
                yield row, functools.partial(reader.read, place["offset"], place["size"])
            reader.close()
        else:
            samples = {sample.key: sample for sample in state.plan.samples(shard)}
            for row in rows:
                yield row, functools.partial(read_local_photo, samples[row["key"]])


def _open_state(workspace: str, stage: str) -> tuple[Pipeline, PipelineState]:
    opened = Workspace(workspace)
    pipeline = Pipeline(opened, opened.recipe(), until=stage)
    state = PipelineState(pipeline, opened.plan())
    if not state.shards or state.pending(pipeline.node(stage)):
        raise WorkspaceError(
            f"{stage} is not complete in {workspace}", hint=f"run `dataprep {stage_verb(stage)}` first"
        )
    return pipeline, state


def draw_contact_sheet(workspace: str, path: Path, *, people: int = 8, faces: int = 12) -> Path:
    """Write a PNG with the first faces of the first identities; returns its path."""
    rows: dict[str, list[Pixels]] = {}
    for row, load in iterate_images(workspace, "align"):
        mine = rows.setdefault(row["identity"], [])
        if len(mine) < faces:
            mine.append(decode_image(load())[0])
        elif len(rows) > people:
            break
    shown = list(rows.values())[:people]
    if not shown:
        raise WorkspaceError(f"{workspace} has no aligned faces yet", hint="run `dataprep align` first")
    height, width = (max(face.shape[axis] for mine in shown for face in mine) for axis in (0, 1))
    sheet = np.full((height * len(shown), width * faces, 3), 255, np.uint8)
    for y, mine in enumerate(shown):
        for x, face in enumerate(mine):
            sheet[y * height : y * height + face.shape[0], x * width : x * width + face.shape[1]] = face
    return Folder(path.parent).put(path.name, encode_png(sheet))
