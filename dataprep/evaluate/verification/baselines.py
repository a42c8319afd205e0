"""Baseline scores on the same pairs: mean colour, raw pixels, other embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataprep.embeddings.embedder import Embeddings, decode_faces
from dataprep.evaluate.metrics import BoolArray, FloatArray
from dataprep.evaluate.verification.kfold import fold_accuracy, squared_distances
from dataprep.packs.pair_sampling import consecutive_folds


def colour_accuracy(images: Sequence[bytes], issame: BoolArray) -> float:
    """Ten-fold accuracy of the mean colour alone: if this is high, the set says little about faces."""
    colours = np.stack([face.reshape(-1, 3).mean(axis=0) for face in decode_faces(images)])
    return _accuracy(np.linalg.norm(colours[0::2] - colours[1::2], axis=1), issame)


def pixel_accuracy(images: Sequence[bytes], issame: BoolArray) -> float:
    """Ten-fold accuracy of the cosine of raw pixels, centred on 127.5."""
    vectors = np.stack([face.ravel().astype(np.float32) - 127.5 for face in decode_faces(images)])
    return embedding_accuracy(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), issame)


def embedding_accuracy(embedded: Embeddings, issame: BoolArray) -> float:
    """Ten-fold accuracy of unit vectors; rows 2i and 2i + 1 are a pair."""
    return _accuracy(squared_distances(embedded[0::2], embedded[1::2]), issame)


def _accuracy(distance: FloatArray, issame: BoolArray) -> float:
    thresholds = np.quantile(distance, np.linspace(0, 1, 401))
    accuracy, _ = fold_accuracy(
        distance, issame, consecutive_folds(len(issame), max(2, min(10, len(issame) // 4))), thresholds
    )
    return float(accuracy.mean())
