"""Plots of a verification: ROC, DET, the two score histograms, and the worst errors among the pairs."""

from __future__ import annotations

import io
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from dataprep.embeddings.embedder import decode_faces
from dataprep.errors import RecordError
from dataprep.evaluate.metrics import BoolArray, FloatArray, equal_error_rate, roc
from dataprep.evaluate.verification.pair_set import VerificationSet
from dataprep.evaluate.verification.protocols import PairScores
from dataprep.storage import Folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SAME, _OTHER = "#1f77b4", "#d62728"
_PAIRS, _ROW = 8, 1.9  # pairs of each kind on the sheet; row height in inches


def draw_roc(path: Path, curves: dict[str, tuple[FloatArray, BoolArray]]) -> None:
    """Draw a PNG of true against false accept rate (log scale); one curve per name."""
    figure = _figure(6, 5)
    axes = figure.add_subplot()
    lowest, least = 1.0, 1.0
    for name, (distance, same) in curves.items():
        fpr, tpr = _thinned(*roc(distance, same))
        lowest = min(lowest, 1 / max(1, int((~same).sum())))
        least = min(least, float(tpr[np.searchsorted(fpr, lowest, side="right") - 1]))
        axes.step(np.maximum(fpr, lowest / 2), tpr, where="post", label=name)
    floor = max(0.0, np.floor(least * 10 - 1) / 10)
    axes.set(
        xscale="log",
        xlim=(lowest, 1),
        ylim=(floor, 1 + (1 - floor) / 50),
        xlabel="false accept rate",
        ylabel="true accept rate",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    _save(figure, path)


def draw_det(path: Path, curves: dict[str, tuple[FloatArray, BoolArray]]) -> None:
    """Draw a PNG of false reject against false accept rate, both on the normal deviate scale (Martin et al. 1997):
    normally distributed scores give a straight line. A circle marks the equal error rate."""
    deviate = NormalDist().inv_cdf
    ticks = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95]
    figure = _figure(6, 5.5)
    axes = figure.add_subplot()
    edges, crossings = [], []
    for name, (distance, same) in curves.items():
        full = roc(distance, same)
        fpr, tpr = _thinned(*full)
        rates = [1 / (2 * max(1, int(kind.sum()))) for kind in (~same, same)]
        edges.append(min(rates) * 2)
        x = [deviate(min(max(float(f), rates[0]), 1 - rates[0])) for f in fpr]
        y = [deviate(min(max(1 - float(t), rates[1]), 1 - rates[1])) for t in tpr]
        line = axes.step(x, y, where="post", label=name)[0]
        eer = equal_error_rate(*full)
        crossings.append(eer)
        if 0 < eer < 1:
            axes.plot([deviate(eer)], [deviate(eer)], "o", color=line.get_color(), fillstyle="none")
    low = max(1e-6, min(edges))
    high = 0.5 if max(crossings) < 0.2 else 0.95
    shown = [tick for tick in ticks if low * 0.99 <= tick <= high]
    axes.plot([deviate(low), deviate(high)], [deviate(low), deviate(high)], color="0.8", linewidth=0.8, zorder=0)
    labels = [f"{tick:.4g}" if tick >= 1e-3 else f"{tick:.0e}" for tick in shown]
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks([deviate(tick) for tick in shown], labels)
    limits = (deviate(low * 0.8), deviate(high * 1.02))
    axes.set(xlim=limits, ylim=limits, xlabel="false accept rate", ylabel="false reject rate", aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    _save(figure, path)


def draw_scores(path: Path, scored: PairScores, issame: BoolArray) -> None:
    """Draw a PNG with histograms of the distances (or cosines) of positive and negative pairs, each normalised to its
    kind, and the mean threshold."""
    values, label, sign = _shown_scores(scored)
    bins = np.linspace(float(values.min()), float(values.max()), 61).tolist()
    figure = _figure(6.5, 4)
    axes = figure.add_subplot()
    for kind, name, colour in ((issame, "same person", _SAME), (~issame, "different people", _OTHER)):
        weights = np.full(int(kind.sum()), 1 / max(1, int(kind.sum())))
        axes.hist(
            values[kind], bins=bins, weights=weights, alpha=0.55, label=f"{name} ({int(kind.sum())})", color=colour
        )
    axes.axvline(scored.verification.threshold, color="black", linewidth=1, linestyle="--", label="threshold")
    axes.set(xlabel=f"{label} ({'higher' if sign < 0 else 'lower'} is more alike)", ylabel="share of the pairs")
    axes.legend()
    _save(figure, path)


def draw_wrong(path: Path, verification_set: VerificationSet, scored: PairScores) -> None:
    """Draw a PNG of the worst errors: different people accepted as one, and one person rejected."""
    kinds = (
        ("different people, accepted as one", np.flatnonzero(scored.wrong & ~verification_set.issame), 1),
        ("the same person, not recognised", np.flatnonzero(scored.wrong & verification_set.issame), -1),
    )
    ranked = [(title, pairs[np.argsort(sign * scored.distance[pairs], kind="stable")]) for title, pairs, sign in kinds]
    rows = max(1, min(_PAIRS, max(len(pairs) for _, pairs in ranked)))
    figure = _figure(10.4, 0.5 + _ROW * rows, layout=None)
    for column, (title, pairs) in enumerate(ranked):
        left, top = 0.2 + 5.2 * column, 0.5 + _ROW * rows
        figure.text(
            *_share(figure, left, top - 0.3),
            f"{title}: {len(pairs)} of {len(verification_set)} pairs",
            fontweight="bold",
        )
        for row, pair in enumerate(pairs[:rows].tolist()):
            _draw_pair(figure, verification_set, scored, pair, left, top - 0.5 - _ROW * (row + 1))
    _save(figure, path)


def _draw_pair(
    figure: Figure, verification_set: VerificationSet, scored: PairScores, pair: int, left: float, bottom: float
) -> None:
    """Two faces with their names below and the score above, at (left, bottom) in inches."""
    values, label, _ = _shown_scores(scored)
    sides = int(verification_set.left[pair]), int(verification_set.right[pair])
    figure.text(*_share(figure, left, bottom + _ROW - 0.2), f"pair {pair + 1}: {label} {values[pair]:.3f}", fontsize=8)
    for place, i in enumerate(sides):
        x = left + 2.4 * place
        width, height = _share(figure, 1.4, 1.4)
        axes = figure.add_axes((*_share(figure, x, bottom + 0.25), width, height))
        try:
            axes.imshow(decode_faces([verification_set.images[i]])[0], interpolation="antialiased")
        except RecordError:  # when features are scored, images may be missing: not worth an error
            axes.imshow(np.full((1, 1, 3), 0.85))
            axes.text(0, 0, "cannot\nbe read", ha="center", va="center", fontsize=7)
        axes.axis("off")
        axes.set_anchor("W")
        figure.text(*_share(figure, x, bottom + 0.09), _short_name(verification_set.names[i]), fontsize=7)


def _share(figure: Figure, x: float, y: float) -> tuple[float, float]:
    """Inches as fractions of the figure's size."""
    width, height = figure.get_size_inches()
    return float(x / width), float(y / height)


def _short_name(name: str, limit: int = 40) -> str:
    """folder/file, or the file alone if it begins with the folder's name; long names keep their end."""
    folder, _, file = name.rpartition("/")
    parent = folder.rpartition("/")[2]
    text = file if not parent or file.startswith(parent) else f"{parent}/{file}"
    return text if len(text) <= limit else "..." + text[3 - limit :]


def _shown_scores(scored: PairScores) -> tuple[FloatArray, str, int]:
    """The values to show: squared distances unchanged, cosines with their sign restored."""
    if scored.is_cosine:
        return -scored.distance, "cosine", -1
    return scored.distance, "squared distance", 1


def _thinned(fpr: FloatArray, tpr: FloatArray, points: int = 4000) -> tuple[FloatArray, FloatArray]:
    """At most about `points` points of a curve, spaced evenly along it and along the log of the false accept rate."""
    if len(fpr) <= points:
        return fpr, tpr
    first = max(float(fpr[fpr > 0].min(initial=1.0)), 1e-9)
    by_rate = np.searchsorted(fpr, np.geomspace(first, 1, points // 2))
    even = np.linspace(0, len(fpr) - 1, points // 2).astype(int)
    keep = np.unique(np.clip(np.concatenate([[0], by_rate, even, [len(fpr) - 1]]), 0, len(fpr) - 1))
    return fpr[keep], tpr[keep]


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    Folder(path.parent).put(path.name, stream.getvalue())
