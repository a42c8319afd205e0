"""Scores verification sets during training by insightface's protocol: accuracies only, images embedded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataprep.embeddings.embedder import TorchEmbedder, decode_faces, embed_images
from dataprep.errors import RecordError, UsageError
from dataprep.evaluate.verification.kfold import check_pairs, fold_by_distance, squared_distances
from dataprep.evaluate.verification.pair_set import VerificationSet, find_verification_set, open_verification_set

if TYPE_CHECKING:
    from torch import nn

    from dataprep.models.preprocessing import Preprocessing


class Validator:
    """Called with a network and its input description, returns the ten-fold accuracy of each set, in order.

    `texts` are files or names of sets, as in `--benchmark` of `dataprep test`; `check` opens them.
    """

    def __init__(self, texts: Sequence[str], workspace: Path, *, batch: int = 64) -> None:
        self._texts, self._workspace, self._batch = texts, workspace, batch
        self._sets: list[VerificationSet] = []

    def check(self, preprocessing: Preprocessing) -> None:
        """Raises RecordError for sets that cannot be opened or scored, or whose images do not have the network's input
        size: better now than after the first thousand steps."""
        if not self._texts:
            raise UsageError("no verification set is named", hint="leave out --benchmark, or name sets: lfw,agedb_30")
        self._sets = [open_verification_set(find_verification_set(text, self._workspace)) for text in self._texts]
        names = [chosen.name for chosen in self._sets]
        for chosen in self._sets:
            if names.count(chosen.name) > 1:
                raise RecordError(f"two sets are called {chosen.name}: rename one, since curves are labelled by name")
            try:
                check_pairs(np.zeros(len(chosen)), chosen.issame, chosen.fold)
            except RecordError as error:
                raise error.within(chosen.path) from None
            height, width = decode_faces(chosen.images[:1])[0].shape[:2]
            if (height, width) != (preprocessing.height, preprocessing.width):
                raise RecordError(
                    f"{chosen.path} holds {width}x{height} faces, but the network takes "
                    f"{preprocessing.width}x{preprocessing.height}",
                    hint="align them to that size",
                )

    def __call__(self, module: nn.Module, preprocessing: Preprocessing) -> Mapping[str, float]:
        from dataprep.models.model_files import FaceModel

        device = str(next(module.parameters()).device)
        embedder = TorchEmbedder(
            FaceModel(module=module, preprocessing=preprocessing, network="", embedding=0, about={}), device=device
        )
        return {chosen.name: self._accuracy(embedder, chosen) for chosen in self._sets}

    def _accuracy(self, embedder: TorchEmbedder, verification_set: VerificationSet) -> float:
        embedded, bad = embed_images(embedder, verification_set.images, batch=self._batch)
        if bad:
            first, reason = min(bad.items())
            raise RecordError(f"{verification_set.path}: {verification_set.names[first]} {reason}")
        unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
        folded = fold_by_distance(
            squared_distances(unit[verification_set.left], unit[verification_set.right]),
            verification_set.issame,
            verification_set.fold,
        )
        return float(folded.accuracy.mean())
