"""The aligned faces of any .rec pack, to be filtered, merged and packed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dataprep.packs.rec_reader import RecordPack
from dataprep.sources.base import bad_line_sample, named_sample
from dataprep.types import Sample


class PackSource:
    """The images of a pack in order, named by its .lst and labels.tsv, or else by their numbers."""

    def __init__(self, path: str | Path) -> None:
        self._pack = RecordPack(path)
        self.summary = ""
        self._root = self._pack.path.absolute()

    def describe(self) -> dict[str, Any]:
        return {"kind": "rec", "root": str(self._root)}

    def digest(self) -> str:
        """Return a digest of the index, the labels and the names."""
        labels = self._pack.labels()
        names = "\n".join(
            [*(self._pack.identity(label) for label in np.unique(labels).tolist()), *(self._pack.names or ())]
        )
        state = hashlib.sha256(self._pack.index.digest().encode() + labels.tobytes())
        state.update(names.encode("utf-8", "surrogatepass"))
        return state.hexdigest()

    def samples(self) -> Iterator[Sample]:
        for position, label in enumerate(self._pack.labels().tolist()):
            if label < 0:
                yield bad_line_sample(f"image {position}", "the label is -1: no identity", position)
                continue
            identity = self._pack.identity(label)
            path, offset = self._pack.place(position)
            name = str(PurePosixPath(self._pack.name(position, label)).with_suffix("")).removeprefix(f"{identity}/")
            yield named_sample(
                identity, name, f"image {position}", path=str(path.absolute()), offset=offset, aligned=True
            )
