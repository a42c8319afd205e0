"""The ROC as a picture, and what simpler looks at the same pairs would score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataprep.evaluate.embed import Embeddings, decode_faces
from dataprep.evaluate.verification import Bools, Floats, consecutive_folds, distances, fold_accuracy, roc
from dataprep.storage import Folder


def colour_accuracy(images: Sequence[bytes], same: Bools) -> float:
    """Ten-fold accuracy of the mean colour alone: a set on which this is good says little about faces."""
    colours = np.stack([face.reshape(-1, 3).mean(axis=0) for face in decode_faces(images)])
    return _accuracy(np.linalg.norm(colours[0::2] - colours[1::2], axis=1), same)


def pixel_accuracy(images: Sequence[bytes], same: Bools) -> float:
    """Ten-fold accuracy of the cosine of raw pixels, centred on 127.5."""
    vectors = np.stack([face.ravel().astype(np.float32) - 127.5 for face in decode_faces(images)])
    return embedding_accuracy(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), same)


def embedding_accuracy(embedded: Embeddings, same: Bools) -> float:
    """Ten-fold accuracy of unit vectors, in pairs."""
    return _accuracy(distances(embedded[0::2], embedded[1::2]), same)


def draw_roc(path: Path, curves: dict[str, tuple[Floats, Bools]]) -> None:
    """A PNG of true against false accept rate, the latter logarithmic; one curve per name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lowest = 1.0
    for name, (distance, same) in curves.items():
        fpr, tpr = roc(distance, same)
        lowest = min(lowest, 1 / max(1, int((~same).sum())))
        axes.step(np.maximum(fpr, lowest / 2), tpr, where="post", label=name)
    axes.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.01), xlabel="false accept rate", ylabel="true accept rate")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with Folder(path.parent).writing(path.name) as stream:
        figure.savefig(stream, format="png", dpi=120)


def _accuracy(distance: Floats, same: Bools) -> float:
    thresholds = np.quantile(distance, np.linspace(0, 1, 401))
    accuracy, _ = fold_accuracy(distance, same, consecutive_folds(len(same)), thresholds)
    return float(accuracy.mean())
