"""Verification sets scored while a network trains, by insightface's protocol: accuracies only, the images embedded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataprep.errors import RecordError
from dataprep.evaluate.embed import TorchEmbedder, embed_images, fitting_face
from dataprep.evaluate.sets import VerificationSet, find_set, open_set
from dataprep.evaluate.verification import distances, fold_by_distance

if TYPE_CHECKING:
    from torch import nn

    from dataprep.models.files import Input


class Validator:
    """Called with a network and what its input looks like, it gives the ten-fold accuracy of each set, in order."""

    def __init__(self, sets: Sequence[VerificationSet], *, batch: int = 64) -> None:
        self._sets, self._batch = sets, batch

    def check(self, input: Input) -> None:
        """Raises RecordError if the sets hold images of another size: better now than after the first thousand steps."""
        for chosen in self._sets:
            try:
                fitting_face(chosen.images[0], input)
            except RecordError as error:
                raise RecordError(f"{chosen.path}: {chosen.names[0]} {error}") from None

    def __call__(self, module: nn.Module, input: Input) -> Mapping[str, float]:
        from dataprep.models.files import Model

        device = str(next(module.parameters()).device)
        embedder = TorchEmbedder(Model(module=module, input=input, network="", embedding=0, about={}), device=device)
        return {chosen.name: self._accuracy(embedder, chosen) for chosen in self._sets}

    def _accuracy(self, embedder: TorchEmbedder, chosen: VerificationSet) -> float:
        embedded, bad = embed_images(embedder, chosen.images, batch=self._batch)
        if bad:
            first, reason = min(bad.items())
            raise RecordError(f"{chosen.path}: {chosen.names[first]} {reason}")
        unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
        folded = fold_by_distance(distances(unit[chosen.left], unit[chosen.right]), chosen.same, chosen.fold)
        return float(folded.accuracy.mean())


def open_validator(texts: Sequence[str], workspace: Path, *, batch: int = 64) -> Validator:
    """Of files or names of sets, as `--set` of `dataprep test` takes them. Raises RecordError."""
    sets = [open_set(find_set(text, workspace)) for text in texts]
    names = [chosen.name for chosen in sets]
    for name in names:
        if names.count(name) > 1:
            raise RecordError(f"two verification sets are called {name}: rename one, the curves go by their names")
    return Validator(sets, batch=batch)
