"""lst (dir2lst): select the aligned faces for the pack and assign consecutive labels from 0."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dataprep.errors import SourceError
from dataprep.packs.pair_sampling import FEWEST
from dataprep.params import StageParams, counted_field, runtime_field
from dataprep.reasons import Reason
from dataprep.stages.base import MergeContext, MergeInput, MergeResult, MergeStage, Prospect
from dataprep.stages.duplicates import DUPLICATE_POLICIES, Duplicates, Int32Array, find_duplicates, read_photo_hashes
from dataprep.workspace.exclusions import Exclusions
from dataprep.workspace.renames import Renames
from dataprep.workspace.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class ListingParams(StageParams):
    """Which identities are listed, and which are held out for verification."""

    min_images: int = counted_field(2, "drop identities with fewer aligned images than this", minimum=1)
    holdout: float = counted_field(
        0.0, "share of the identities held out of training as a verification set", minimum=0.0, maximum=0.9
    )
    seed: int = counted_field(0, "seed for choosing the held-out identities")
    duplicates: str = counted_field(
        "keep", "the same face in photos of equal bytes: keep and record all; within: keep only a person's first; "
        "across: drop all if the people differ, since one is mislabelled; both", choices=DUPLICATE_POLICIES
    )  # fmt: skip
    map: str = runtime_field("", "file of lines `name TAB new name`: rename people, and merge those who get one name")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.map:  # its content counts, see ListStage.resources
            object.__setattr__(self, "map", os.path.abspath(self.map))


class ListStage(MergeStage[ListingParams]):
    name = "lst"
    version = 2
    needs = "align"
    columns = {
        "label": "int64",  # -1 for held-out identities
        "split": "string",
        "shard": "string",  # the shard whose aligned tar holds the face, at `face_offset`
        "face_offset": "int64",
        "face_size": "int64",
        "duplicate_of": "string",  # key of the first row in listing order with the same face in the same photo
    }
    Params = ListingParams

    def __init__(
        self, params: ListingParams, exclusions: Exclusions | None = None, renames: Renames | None = None
    ) -> None:
        super().__init__(params)
        self.exclusions, self.renames = exclusions or Exclusions(), renames or Renames()
        self.unreadable: SourceError | None = None  # why the file of names cannot be used

    @classmethod
    def in_workspace(cls, params: ListingParams, workspace: Workspace) -> Self:
        stage = cls(params, workspace.exclusions())
        try:
            stage.renames = Renames.read(Path(params.map)) if params.map else Renames()
        except SourceError as error:  # verbs that list nothing need not know the names
            stage.unreadable = error
        return stage

    def resources(self) -> dict[str, str]:
        names = "unreadable" if self.unreadable else self.renames.digest()
        given = {"exclusions": self.exclusions.digest(), "map": names}
        return {name: digest for name, digest in given.items() if digest}

    def check(self, prospect: Prospect) -> None:
        if self.unreadable:
            raise self.unreadable
        if self.renames.names:
            self.renames.report_unknown(prospect.photos().keys())
        if self.params.holdout:
            photos = Counter[str]()
            for name, count in prospect.photos().items():
                if not self.excludes(name):
                    photos[self.renames.names.get(name, name)] += count
            _check_holdout({n: count for n, count in photos.items() if count >= self.params.min_images}, self.params)

    def merge(self, parts: Sequence[MergeInput], context: MergeContext) -> MergeResult:
        """Sort rows by identity and key. There may be millions, so they stay Arrow columns and NumPy arrays."""
        import pyarrow as pa
        import pyarrow.compute as pc

        p, rows = self.params, _gather_rows(parts, self.renames.names)
        out = np.array(list(map(self.excludes, rows.listed)), np.bool_)[rows.listed_person]
        if self.exclusions.keys:
            out |= pc.is_in(rows.table["key"], pa.array(sorted(self.exclusions.keys))).to_numpy()
        found = find_duplicates(rows.table["key"], rows.person, rows.photos, rows.source, parts, ~out)
        losses = _Losses(len(out))
        losses.add(Reason.EXCLUDED, out)
        if p.duplicates in ("across", "both"):
            losses.add(Reason.IDENTITY_CONFLICT, found.contested >= 0, _same_as(rows.table["key"], found.contested))
        if p.duplicates in ("within", "both"):
            losses.add(Reason.DUPLICATE, found.repeated >= 0, _same_as(rows.table["key"], found.repeated))
        images = np.bincount(rows.person[~losses.any], minlength=len(rows.names))
        few = [f"{count} of {name}" for count, name in zip(images.tolist(), rows.names, strict=True)]
        losses.add(
            Reason.TOO_FEW_IMAGES,
            (images < p.min_images)[rows.person],
            lambda positions: _texts(few).take(rows.person[positions]),
        )
        kept = {name: n for name, n in zip(rows.names, images.tolist(), strict=True) if n >= max(1, p.min_images)}
        _check_holdout(kept, p)
        held_out = choose_held_out(kept, p.holdout, p.seed)
        labels = {name: label for label, name in enumerate(name for name in kept if name not in held_out)}
        context.progress(len(out))
        return MergeResult(
            table=_make_listing(rows, [part.shard for part in parts], labels, losses, found),
            extra={
                "identities": len(labels),
                "held_out": len(held_out),
                "duplicates": {"within": int((found.repeated >= 0).sum()), "across": int((found.contested >= 0).sum())},
            },
        )

    def excludes(self, name: str) -> bool:
        """Whether a person is excluded, under the name in the plan or the new one."""
        return any(map(self.exclusions.covers_person, {name, self.renames.names.get(name, name)}))


def _check_holdout(images: Mapping[str, int], params: ListingParams) -> None:
    """Raises SourceError where holding people out would leave none to make pairs of, or none to train on."""
    several = sum(count > 1 for count in images.values())
    if params.holdout and several < FEWEST:
        raise SourceError(
            f"a hold-out set takes {FEWEST} people with two images each, half of them to train on; {several} of "
            f"{len(images)} people have two",
            hint="leave out --holdout, or add photos",
        )


def choose_held_out(images: Mapping[str, int], share: float, seed: int) -> frozenset[str]:
    """The share of the names with the smallest seeded hashes: a name's fate hardly depends on who else is there.

    `images` counts each name's images. Where the share is smaller than what pairs take, four people with two images (two,
    if half of them is not more), those come in its place.
    """
    if not share:
        return frozenset()
    ranked = sorted(images, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    several = [name for name in ranked if images[name] > 1]
    first = several[: min(FEWEST, len(several) // 2)]
    rest = [name for name in ranked if name not in first]
    wanted = min(round(len(ranked) * share), len(ranked) - 2)  # two at least are trained on
    return frozenset(first + rest[: max(0, wanted - len(first))])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """All aligned faces, by identity and key. `person` is the index of a face's identity in the sorted `names`,
    `listed_person` that of its identity in the plan in `listed`."""

    table: Any  # key, offset, size
    person: npt.NDArray[np.int64]
    names: list[str]
    listed_person: npt.NDArray[np.int64]
    listed: list[str]
    photos: npt.NDArray[np.uint64]
    source: npt.NDArray[np.int64]  # index of the row's part


def _gather_rows(parts: Sequence[MergeInput], renames: Mapping[str, str]) -> _Rows:
    import pyarrow as pa
    import pyarrow.compute as pc

    tables, photos = [], []
    for part in parts:
        tables.append(part.read_passed("align", ["key", "identity", "offset", "size"], repeated=["identity"]))
        photos.append(read_photo_hashes(part, tables[-1]["key"]))
    source = np.repeat(np.arange(len(parts)), [len(table) for table in tables])
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    tables.clear()  # `table` holds a combined copy
    pa.default_memory_pool().release_unused()
    identity = table["identity"].combine_chunks()
    listed = identity.dictionary.to_pylist()
    listed_person = identity.indices.to_numpy().astype(np.int64) if len(table) else np.empty(0, np.int64)
    renamed = [renames.get(name, name) for name in listed]
    names = sorted(set(renamed))
    rank = {name: place for place, name in enumerate(names)}
    person = np.array([rank[name] for name in renamed], np.int64)[listed_person]
    by = pa.table({"person": person, "key": table["key"]})  # UTF-8 sorts like code points
    order = pc.sort_indices(by, sort_keys=[("person", "ascending"), ("key", "ascending")]).to_numpy()
    return _Rows(
        table=table.select(["key", "offset", "size"]).take(order),
        person=person[order],
        names=names,
        listed_person=listed_person[order],
        listed=listed,
        photos=np.concatenate(photos)[order],
        source=source[order],
    )


class _Losses:
    """Which rows are rejected, and why. The first reason counts."""

    def __init__(self, rows: int) -> None:
        self.any = np.zeros(rows, np.bool_)
        self._reasons: list[Reason] = []
        self._number = np.zeros(rows, np.int8)  # index of the reason, from 1
        self._details = [_texts([""])]
        self._detail = np.zeros(rows, np.int64)

    def add(
        self,
        reason: Reason,
        lost: npt.NDArray[np.bool_],
        details: Callable[[npt.NDArray[np.int64]], Any] | None = None,
    ) -> None:
        """Mark rows as rejected. `details` returns the texts for the given positions."""
        positions = np.flatnonzero(lost & ~self.any)
        self.any[positions] = True
        self._reasons.append(reason)
        self._number[positions] = len(self._reasons)
        if details is not None:
            self._detail[positions] = sum(map(len, self._details)) + np.arange(len(positions))
            self._details.append(details(positions))

    def columns(self) -> dict[str, Any]:
        import pyarrow as pa

        return {
            "verdict": _texts(["ok", *(reason.verdict for reason in self._reasons)]).take(self._number),
            "reason": _texts([None, *(reason.code for reason in self._reasons)]).take(self._number),
            "detail": pa.chunked_array(self._details).combine_chunks().take(self._detail),
        }


def _same_as(keys: Any, others: Int32Array) -> Callable[[npt.NDArray[np.int64]], Any]:
    def details(positions: npt.NDArray[np.int64]) -> Any:
        import pyarrow.compute as pc

        named = keys.take(others[positions]).combine_chunks()
        return pc.binary_join_element_wise("the same photo and face as", named, " ")

    return details


def _make_listing(rows: _Rows, shards: list[str], labels: Mapping[str, int], losses: _Losses, found: Duplicates) -> Any:
    import pyarrow as pa

    label = np.array([labels.get(name, -1) for name in rows.names], np.int64)[rows.person]
    lost, first = losses.any, found.duplicate_of

    def kept(values: Any) -> Any:
        return pa.array(values, mask=lost)

    return pa.table(
        {
            "key": rows.table["key"],
            "identity": pa.DictionaryArray.from_arrays(rows.person, _texts(rows.names)),
            **losses.columns(),
            "label": kept(label),
            "split": _texts(["train", "holdout"]).take(kept((label < 0).astype(np.int8))),
            "shard": _texts(shards).take(kept(rows.source)),
            "face_offset": kept(rows.table["offset"].to_numpy()),
            "face_size": kept(rows.table["size"].to_numpy()),
            "duplicate_of": rows.table["key"].take(pa.array(first, mask=first < 0)),
        }
    )


def _texts(values: Sequence[str | None]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())
