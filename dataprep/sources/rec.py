"""The aligned faces of any pack (.rec, WebDataset, Parquet), to be filtered, merged and packed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dataprep.errors import SourceError
from dataprep.packs.image_folder import FolderPack
from dataprep.packs.io import open_pack, pack_digest
from dataprep.packs.parquet import ParquetPack
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.webdataset import WebDatasetPack
from dataprep.sources.base import bad_line_sample, named_sample
from dataprep.types import Sample


class PackSource:
    """The images of a pack in order, under the names that it has for them, or else numbers."""

    def __init__(self, path: str | Path) -> None:
        opened = open_pack(path)
        if isinstance(opened, FolderPack):
            raise SourceError(
                f"{path}: a folder of images, not a pack",
                hint=f"take it in with: dataprep import folder {path} --aligned",
            )
        assert isinstance(opened, (RecordPack, WebDatasetPack, ParquetPack))
        self._pack = opened
        self.summary = ""
        self._root = self._pack.path.absolute()

    def describe(self) -> dict[str, Any]:
        return {"kind": "rec", "root": str(self._root)}

    def digest(self) -> str:
        """Return a digest of the content, the labels and the names."""
        if not isinstance(self._pack, RecordPack):
            return pack_digest(self._pack)
        labels = self._pack.labels()
        names = "\n".join(
            [*(self._pack.identity(label) for label in np.unique(labels).tolist()), *(self._pack.names or ())]
        )
        state = hashlib.sha256(pack_digest(self._pack).encode() + labels.tobytes())
        state.update(names.encode("utf-8", "surrogatepass"))
        return state.hexdigest()

    def samples(self) -> Iterator[Sample]:
        for position, label in enumerate(self._pack.labels().tolist()):
            if label < 0:
                yield bad_line_sample(f"image {position}", "the label is -1: no identity", position)
                continue
            path, offset = self._pack.place(position)
            if isinstance(self._pack, RecordPack):
                identity = self._pack.identity(label)
                listed = self._pack.name(position, label)
            else:
                identity, listed = self._pack.named(position)
            name = str(PurePosixPath(listed or f"{position:08d}").with_suffix("")).removeprefix(f"{identity}/")
            yield named_sample(
                identity, name, f"image {position}", path=str(path.absolute()), offset=offset, aligned=True
            )
