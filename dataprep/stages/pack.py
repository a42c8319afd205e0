"""pack (face2rec): the listed faces as .rec, .idx, .lst and property, or another format, and the held-out as holdout.bin."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.errors import RecordError, UsageError
from dataprep.imaging.geometry import template
from dataprep.manifest.payload import PayloadReader
from dataprep.params import StageParams, param, runtime
from dataprep.records.faces import Face, Form
from dataprep.records.formats import FORMATS, write_pack
from dataprep.records.pairs import level, make_pairs, write_bin
from dataprep.records.rec import STYLES
from dataprep.samples import Row
from dataprep.stages.align import AlignParams
from dataprep.stages.base import MergeContext, Merged, MergeStage, Part
from dataprep.storage import publish_directory
from dataprep.tars import member_name


@dataclass(frozen=True, kw_only=True)
class PackParams(StageParams):
    """The form of the pack."""

    format: str = param("rec", "RecordIO, WebDataset shards, or a folder of images", choices=FORMATS)
    style: str = param("insightface", "the layout of a .rec: insightface's (face2rec2), or im2rec's flat one, "
                       "which DALI reads", choices=STYLES)  # fmt: skip
    shuffle: int | None = param(None, "shuffle the faces with this seed (flat and webdataset)", minimum=0)
    max_part_size: int | None = param(None, "split the pack into parts of at most this many MiB", minimum=1)
    pairs: int = param(6000, "at most this many pairs in holdout.bin", minimum=20)
    pairs_seed: int = param(0, "which pairs")
    name: str = runtime("train", "the folder under packs/")
    licence: str = param("", "what pack.json says about the licence of the photos")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in ("", ".", "..") or "/" in self.name or self.name.startswith("."):
            raise UsageError(f"--name {self.name!r}: a plain folder name is needed")
        if self.shuffle is not None and self.form.layout in ("insightface", "folder"):
            raise UsageError(
                f"--shuffle: a {self.form.layout} pack is grouped by identity; use --style flat or --format webdataset"
            )

    @property
    def form(self) -> Form:
        size = None if self.max_part_size is None else self.max_part_size << 20
        return Form(format=self.format, style=self.style, max_part=size)


class Pack(MergeStage[PackParams]):
    name = "pack"
    version = 1
    needs = "lst"
    columns = {"record": "int64"}  # the key in the .rec; null for held-out faces
    Params = PackParams

    def merge(self, parts: Sequence[Part], context: MergeContext) -> Merged:
        rows = [row for part in parts for row in part.rows]
        target = self._target(context)
        if not any(row["split"] == "train" for row in rows):
            raise RecordError(
                "no face is left to pack: `dataprep status` shows where they went "
                "(an identity needs --min-images aligned faces)"
            )
        _check_space(target, sum(row["face_size"] for row in rows), self.params.format)
        staged = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        try:
            manifest = self._write(staged, rows, context)
            publish_directory(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return Merged(
            rows=self._records(rows),
            extra={"files": manifest["files"], "counts": {**manifest["counts"], "pairs": manifest["pairs"]}},
        )

    def still_there(self, extra: Mapping[str, Any], context: MergeContext) -> bool:
        try:
            found = json.loads((self._target(context) / "pack.json").read_bytes())
        except (OSError, ValueError):
            return False
        files = found.get("files") if isinstance(found, dict) else None
        if files is None or files != extra.get("files"):
            return False
        return all((self._target(context) / name).is_file() for name in files)

    def _target(self, context: MergeContext) -> Path:
        return context.workspace / "packs" / self.params.name

    def _write(self, folder: Path, rows: Sequence[Mapping[str, Any]], context: MergeContext) -> dict[str, Any]:
        align = AlignParams.from_mapping(context.recipe["align"])
        if align.fit == "none":
            raise UsageError(
                "align --fit none leaves every face its own size, and a pack has one: align with another --fit, or "
                "take the faces with `dataprep export`"
            )
        width, height = align.width_height
        store = _FaceStore(context)
        held_out = [row for row in rows if row["split"] == "holdout"]
        # faces that somebody else aligned fit a template that only he knows
        aligned_here = not align.crops and not any(s.get("aligned") or s.get("kind") == "rec" for s in context.sources)
        pairs = self._write_holdout(folder / "holdout.bin", held_out, store) if held_out else 0
        return write_pack(
            folder,
            store.faces(self._in_order(rows)),
            form=self.params.form,
            height=height,
            width=width,
            about={
                "pairs": pairs,
                "template": template(height, width).tolist() if aligned_here else None,
                "recipe": {name: dict(values) for name, values in context.recipe.items()},
                "sources": list(context.sources),
                "licence": self.params.licence,
            },
        )

    def _in_order(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The rows to train on, as they go into the pack."""
        train = [row for row in rows if row["split"] == "train"]
        if self.params.shuffle is None:
            return train
        return [train[i] for i in np.random.default_rng(self.params.shuffle).permutation(len(train))]

    def _records(self, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
        first = 1 if self.params.form.layout == "insightface" else 0
        keys = {row["key"]: key for key, row in enumerate(self._in_order(rows), first)}
        return [Row(key=r["key"], identity=r["identity"], values={"record": keys.get(r["key"])}) for r in rows]

    def _write_holdout(self, path: Path, rows: Sequence[Mapping[str, Any]], store: _FaceStore) -> int:
        photos: dict[str, list[str]] = {}
        for row in rows:
            photos.setdefault(row["identity"], []).append(row["key"])
        try:
            every = make_pairs(photos, seed=self.params.pairs_seed, at_most=self.params.pairs)
        except RecordError as error:
            raise RecordError(f"the held-out identities cannot be paired: {error}; hold out more, or none") from None
        pairs = level(every, at_most=self.params.pairs, seed=self.params.pairs_seed)
        place = {row["key"]: row for row in rows}
        names = [name for two in zip(pairs.left, pairs.right, strict=True) for name in two]
        write_bin(path, [store.read(place[name]) for name in names], pairs.same.tolist())
        return len(pairs)


class _FaceStore:
    """Aligned faces by ledger row, from the tars of the align stage."""

    def __init__(self, context: MergeContext) -> None:
        self._context = context
        self._readers: dict[str, PayloadReader] = {}
        self._read = 0

    def read(self, row: Mapping[str, Any]) -> bytes:
        shard = row["source"]
        if shard not in self._readers:
            self._readers[shard] = PayloadReader(self._context.payloads[shard])
        self._read += 1
        if self._read % 500 == 0:
            self._context.tick(self._read)
        return self._readers[shard].read(row["face_offset"], row["face_size"])

    def faces(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Face]:
        for row in rows:
            image = self.read(row)
            yield Face(name=member_name(row["key"], image), label=row["label"], identity=row["identity"], image=image)


def _check_space(target: Path, payload: int, format: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    needed = int(payload * (1.05 if format == "rec" else 1.6)) + (16 << 20)  # blocks of tars and of disks
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise RecordError(f"{target}: the pack needs about {needed >> 20} MiB, {free >> 20} MiB are free on that disk")
