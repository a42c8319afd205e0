"""Exports a workspace as folders of images and as lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.errors import UsageError, WorkspaceError
from dataprep.imaging.codec import Pixels, decode_image, encode_jpeg, encode_png
from dataprep.packs.lst_files import format_insightface_line
from dataprep.pipeline.pipeline import Pipeline, PipelineState
from dataprep.stages.base import MERGE_UNIT, read_local_photo
from dataprep.stages.order import stage_verb
from dataprep.storage import Folder
from dataprep.tar import make_member_name
from dataprep.types import Sample
from dataprep.workspace.workspace import Workspace

EXPORT_CONTENTS = ("faces", "photos")


def export_folder(workspace: str, target: Path, what: str) -> int:
    """Write the aligned faces, or the photos that passed `validate`, as identity/name.ext. Returns their number.

    Existing files of the same size are skipped, so an interrupted export can be resumed.
    """
    if what not in EXPORT_CONTENTS:
        raise UsageError(f"{what!r} cannot be exported; choose one of {', '.join(EXPORT_CONTENTS)}")
    stage = "align" if what == "faces" else "validate"
    written = 0
    for row, data in iterate_images(workspace, stage):
        _put(target, make_member_name(row["key"], data), data)
        written += 1
    return written


def export_crops(workspace: str, target: Path) -> int:
    """Write the clamped boxes cut from upright photos as identity/name.jpg. A sample without a box is written whole."""
    written = 0
    for row, data in iterate_images(workspace, "crop"):
        pixels, _ = decode_image(data)
        if row["box"]:
            left, top, right, bottom = row["box"]
            pixels = pixels[int(top) : max(int(top) + 1, round(bottom)), int(left) : max(int(left) + 1, round(right))]
        _put(target, f"{row['key']}.jpg", encode_jpeg(np.ascontiguousarray(pixels)))
        written += 1
    return written


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


def iterate_images(workspace: str, stage: str) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Yield the ok rows of a stage, without what is excluded, with the stage's image, or the photo if it has none."""
    pipeline, state = _open_state(workspace, stage)
    excluded = pipeline.workspace.exclusions()
    node, download = pipeline.node(stage), pipeline.node("download")
    for shard in state.shards.values():
        marker = state.marker(node, shard.id)
        assert marker is not None
        passed = (row for row in node.store.rows(marker) if row["verdict"] == "ok")
        rows = [row for row in passed if not excluded.covers(row["identity"], row["key"])]
        if marker.data:
            reader = node.store.payloads(marker)
            yield from ((row, reader.read(row["offset"], row["size"])) for row in rows)
            reader.close()
        elif shard.remote:
            fetched = state.marker(download, shard.id)
            assert fetched is not None
            places = {row["key"]: row for row in download.store.rows(fetched)}
            reader = download.store.payloads(fetched)
            for row in rows:
                yield row, reader.read(places[row["key"]]["offset"], places[row["key"]]["size"])
            reader.close()
        else:
            samples: dict[str, Sample] = {sample.key: sample for sample in state.plan.samples(shard)}
            yield from ((row, read_local_photo(samples[row["key"]])) for row in rows)


def _open_state(workspace: str, stage: str) -> tuple[Pipeline, PipelineState]:
    opened = Workspace(workspace)
    pipeline = Pipeline(opened, opened.recipe(), until=stage)
    state = PipelineState(pipeline, opened.plan())
    if not state.shards or state.pending(pipeline.node(stage)):
        raise WorkspaceError(
            f"{stage} is not complete in {workspace}", hint=f"run `dataprep {stage_verb(stage)}` first"
        )
    return pipeline, state


def _put(target: Path, name: str, data: bytes) -> None:
    path = target / name
    if path.is_file() and path.stat().st_size == len(data):
        return
    Folder(path.parent).put(path.name, data)


def draw_contact_sheet(workspace: str, path: Path, *, people: int = 8, faces: int = 12) -> Path:
    """Write a PNG with the first faces of the first identities; returns its path."""
    rows: dict[str, list[Pixels]] = {}
    for row, data in iterate_images(workspace, "align"):
        mine = rows.setdefault(row["identity"], [])
        if len(mine) < faces:
            mine.append(decode_image(data)[0])
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
