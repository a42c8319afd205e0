"""pack (face2rec): write the listed faces as .rec, .idx, .lst and property or another format, and holdout.bin."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError, UsageError
from dataprep.imaging.codec import read_header
from dataprep.imaging.geometry import scale_template
from dataprep.packs.base import FaceRecord, PackFormat, read_pack_json
from dataprep.packs.io import PACK_FORMATS, write_pack
from dataprep.packs.pair_sampling import level_folds, make_pairs
from dataprep.packs.rec_writer import RECORD_LAYOUTS
from dataprep.packs.verification_bin import write_bin
from dataprep.params import StageParams, counted_field, runtime_field
from dataprep.stages.align import AlignParams
from dataprep.stages.base import MergeContext, MergeInput, MergeResult, MergeStage, Prospect
from dataprep.storage import lock_directory, publish_directory, staged_directory
from dataprep.tar import make_member_name
from dataprep.workspace.payload import PayloadReader

IntArray = npt.NDArray[np.int64]

_BATCH = 1000  # rows held as Python objects
_OPEN = 64  # tars open at a time


@dataclass(frozen=True, kw_only=True)
class PackParams(StageParams):
    """Format and layout of the pack."""

    format: str = counted_field(
        "rec", "format of the pack: RecordIO, WebDataset shards, or a folder of images", choices=PACK_FORMATS
    )
    layout: str = counted_field("insightface", "layout of a .rec: insightface's (face2rec2), or im2rec's flat layout, "
                       "which DALI reads", choices=RECORD_LAYOUTS)  # fmt: skip
    shuffle: int | None = counted_field(None, "shuffle the faces with this seed (flat and webdataset)", minimum=0)
    max_part_size: int | None = counted_field(None, "split the pack into parts of at most this many MiB", minimum=1)
    max_pairs: int = counted_field(6000, "maximum number of pairs in holdout.bin", minimum=20)
    pairs_seed: int = counted_field(0, "seed for choosing the pairs")
    name: str = runtime_field("train", "the folder under packs/")
    overwrite: bool = runtime_field(False, "replace a pack of another image size")
    licence: str = counted_field("", "licence of the photos, recorded in pack.json")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in ("", ".", "..") or "/" in self.name or self.name.startswith("."):
            raise UsageError(f"the pack name {self.name!r} is not a plain folder name", hint="give another --name")
        if self.shuffle is not None and self.pack_format.layout in ("insightface", "folder"):
            raise UsageError(
                f"a {self.pack_format.layout} pack is grouped by identity and cannot be shuffled",
                hint="leave out --shuffle, or use --layout flat or --format webdataset",
            )

    @property
    def pack_format(self) -> PackFormat:
        size = None if self.max_part_size is None else self.max_part_size << 20
        return PackFormat(container=self.format, record_layout=self.layout, max_part=size)


class PackStage(MergeStage[PackParams]):
    name = "pack"
    version = 2
    needs = "lst"
    columns = {"record_key": "int64"}  # key in the .rec; null for held-out faces
    Params = PackParams

    def merge(self, parts: Sequence[MergeInput], context: MergeContext) -> MergeResult:
        faces = _ListedFaces(parts, context)
        target = self._target(context.workspace)
        if not len(faces.train):
            raise RecordError(
                "no face is left to pack",
                hint="`dataprep status` shows why faces were dropped; an identity needs --min-images aligned faces",
            )
        _check_space(target, faces.bytes, self.params.format)
        try:
            # two runs with other parameters have other stage folders, but one target
            with lock_directory(target.parent, "a pack"), staged_directory(target) as staged:
                manifest = self._write(staged, faces, context)
                publish_directory(staged, target)
        finally:
            faces.close()
        return MergeResult(
            table=faces.numbered(
                self._in_order(faces.train), 1 if self.params.pack_format.layout == "insightface" else 0
            ),
            extra={
                "files": manifest["files"],
                "counts": {**manifest["counts"], "pairs": manifest["pairs"], "folds": manifest["folds"]},
            },
        )

    def check(self, prospect: Prospect) -> None:
        target = self._target(prospect.workspace)
        align = AlignParams.from_mapping(prospect.recipe["align"])
        if (
            self.params.overwrite
            or align.keeps_size
            or align.resolved_fit == "none"
            or not (target / "pack.json").is_file()
        ):
            return
        try:
            about = read_pack_json(target)
        except RecordError:  # damaged: it is made again
            return
        size = about.get("width"), about.get("height")
        if size != align.width_height and None not in size:
            raise UsageError(
                f"{target} holds faces of {size[0]}x{size[1]}, and these are {align.size}",
                hint=f"give this pack a name, such as --name {self.params.name}-{align.size}, or add --overwrite",
            )

    def output_exists(self, extra: Mapping[str, Any], workspace: Path) -> bool:
        try:
            found = json.loads((self._target(workspace) / "pack.json").read_bytes())
        except (OSError, ValueError):
            return False
        files = found.get("files") if isinstance(found, dict) else None
        if files is None or files != extra.get("files"):
            return False
        return all((self._target(workspace) / name).is_file() for name in files)

    def _target(self, workspace: Path) -> Path:
        return workspace / "packs" / self.params.name

    def _write(self, folder: Path, faces: _ListedFaces, context: MergeContext) -> dict[str, Any]:
        align = AlignParams.from_mapping(context.recipe["align"])
        if align.fit == "none":
            raise UsageError(
                "the faces were aligned with fit 'none' and differ in size; a pack needs one size",
                hint="align with another --fit, or write the faces with `dataprep export`",
            )
        width, height = faces.common_size() if align.keeps_size else align.width_height
        # the template of faces aligned elsewhere is unknown
        aligned_here = not (align.crops or align.keeps_size) and not any(
            s.get("aligned") or s.get("kind") == "rec" for s in context.sources
        )
        holdout = (
            self._write_holdout(folder / "holdout.bin", faces) if len(faces.held_out) else {"pairs": 0, "folds": 0}
        )
        return write_pack(
            folder,
            faces.read_all(self._in_order(faces.train)),
            pack_format=self.params.pack_format,
            height=height,
            width=width,
            about={
                **holdout,
                "template": scale_template(height, width).tolist() if aligned_here else None,
                "recipe": {name: dict(values) for name, values in context.recipe.items()},
                "sources": list(context.sources),
                "licence": self.params.licence,
            },
        )

    def _in_order(self, train: IntArray) -> IntArray:
        """Return the training rows in the order of the pack."""
        if self.params.shuffle is None:
            return train
        return train[np.random.default_rng(self.params.shuffle).permutation(len(train))]

    def _write_holdout(self, path: Path, faces: _ListedFaces) -> dict[str, int]:
        """Write the verification set; how many pairs and folds it has."""
        photos = faces.by_identity(faces.held_out)
        try:
            every = make_pairs(photos, seed=self.params.pairs_seed, at_most=self.params.max_pairs)
        except RecordError as error:
            raise RecordError(
                f"the held-out identities cannot be paired: {error}",
                hint="hold out more identities with --holdout, or none",
            ) from None
        pairs = level_folds(every, at_most=self.params.max_pairs, seed=self.params.pairs_seed)
        names = [name for two in zip(pairs.left, pairs.right, strict=True) for name in two]
        write_bin(path, faces.read_named(names, faces.held_out), pairs.issame.tolist())
        return {"pairs": len(pairs), "folds": int(pairs.fold.max()) + 1}


class _ListedFaces:
    """The listed faces: Arrow columns of the listing, row positions, and images from the tars of the align stage.

    There may be thousands of shards, so rows become Python objects a thousand at a time and few tars are open at once.
    """

    def __init__(self, parts: Sequence[MergeInput], context: MergeContext) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        columns = ["key", "identity", "label", "split", "shard", "face_offset", "face_size"]
        repeated = ["identity", "split", "shard"]
        tables = [part.read_passed("lst", columns, repeated=repeated) for part in parts]
        self._table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        self._context = context
        self._open: dict[str, PayloadReader] = {}
        self._read = 0
        train = pc.equal(self._table["split"].cast("string"), "train").to_numpy()
        self.train: IntArray = np.flatnonzero(train)
        self.held_out: IntArray = np.flatnonzero(~train)
        self.bytes: int = pc.sum(self._table["face_size"]).as_py() or 0

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def read_all(self, positions: IntArray) -> Iterator[FaceRecord]:
        for begin in range(0, len(positions), _BATCH):
            for row in self._table.take(positions[begin : begin + _BATCH]).to_pylist():
                image = self._image(row)
                key, person = row["key"], row["identity"]
                if not key.startswith(f"{person}/"):  # renamed by --map
                    key = f"{person}/{key.replace('/', '_')}"
                name = make_member_name(key, image)
                yield FaceRecord(name=name, label=row["label"], identity=row["identity"], image=image)

    def common_size(self) -> tuple[int, int]:
        """The (width, height) of all listed faces. Raises RecordError if there are several."""
        found: dict[tuple[int, int], list[str]] = {}
        for begin in range(0, len(self._table), _BATCH):
            for row in self._table.slice(begin, _BATCH).to_pylist():
                header = read_header(self._image(row))
                found.setdefault((header.width, header.height), []).append(row["key"])
        if len(found) > 1:
            most, *others = sorted(found, key=lambda size: len(found[size]), reverse=True)
            named = ", ".join(
                f"{len(found[size])} of {size[0]}x{size[1]} ({found[size][0]})" for size in [most, *others]
            )
            raise RecordError(
                f"the faces have several sizes, and a pack has one: {named[:300]}",
                hint=f"`dataprep align --size {most[0]}x{most[1]} --margin 0` drops the others; `dataprep export` "
                "writes all",
            )
        return next(iter(found))

    def by_identity(self, positions: IntArray) -> dict[str, list[str]]:
        """Return keys grouped by identity."""
        chosen = self._table.select(["key", "identity"]).take(positions)
        found: dict[str, list[str]] = {}
        for key, identity in zip(chosen["key"].to_pylist(), chosen["identity"].to_pylist(), strict=True):
            found.setdefault(identity, []).append(key)
        return found

    def read_named(self, names: Sequence[str], positions: IntArray) -> list[bytes]:
        """Return the images of these keys, which are among the positions."""
        import pyarrow as pa
        import pyarrow.compute as pc

        chosen = self._table.take(positions)
        wanted = pc.index_in(pa.array(sorted(set(names))), chosen["key"].combine_chunks())
        rows = {row["key"]: row for row in chosen.take(wanted).to_pylist()}
        return [self._image(rows[name]) for name in names]

    def numbered(self, order: IntArray, first: int) -> Any:
        """Return the pack's ledger: the record number of each face, in `order` from `first`; null if held out."""
        import pyarrow as pa

        record = np.full(len(self._table), -1, np.int64)
        record[order] = np.arange(first, first + len(order))
        return pa.table(
            {
                "key": self._table["key"],
                "identity": self._table["identity"],
                "verdict": pa.repeat("ok", len(record)),
                "detail": pa.repeat("", len(record)),
                "record_key": pa.array(record, mask=record < 0),
            }
        )

    def _image(self, row: Mapping[str, Any]) -> bytes:
        self._read += 1
        if self._read % 500 == 0:
            self._context.progress(self._read)
        return self._reader(row["shard"]).read(row["face_offset"], row["face_size"])

    def _reader(self, shard: str) -> PayloadReader:
        if shard not in self._open:
            if len(self._open) == _OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[shard] = PayloadReader(self._context.payloads[shard])
        return self._open[shard]


def _check_space(target: Path, payload: int, format: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    needed = int(payload * (1.05 if format == "rec" else 1.6)) + (16 << 20)  # overhead of tar and file system blocks
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise RecordError(
            f"{target}: the pack needs about {needed >> 20} MiB, but only {free >> 20} MiB are free on the disk"
        )
