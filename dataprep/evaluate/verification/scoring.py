"""Scores one model, or one file of features, on one verification set: from files to result.json and plots."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dataprep import __version__
from dataprep.embeddings.embedder import TorchEmbedder, embed_images, embed_pairs, open_model, unusable
from dataprep.embeddings.files import read_features
from dataprep.errors import RecordError, UsageError
from dataprep.evaluate.confidence import METHODS
from dataprep.evaluate.verification.baselines import colour_accuracy, embedding_accuracy, pixel_accuracy
from dataprep.evaluate.verification.kfold import Verification
from dataprep.evaluate.verification.leakage import Leaks, find_leaks
from dataprep.evaluate.verification.pair_set import VerificationSet, features_of_pairs
from dataprep.evaluate.verification.plots import draw_det, draw_roc, draw_scores, draw_wrong
from dataprep.evaluate.verification.protocols import FLIPS, TITLES, Scored, score_pairs
from dataprep.storage import Folder, file_sha256

if TYPE_CHECKING:
    from dataprep.models.preprocessing import Input

Tick = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How to score. `flip` None means the protocol's default; `leaks` is auto, full or off."""

    protocol: str = "insightface"
    flip: str | None = None
    batch: int = 64
    device: str = "auto"
    input: Input | None = None
    skip_missing: bool = False
    baselines: bool = False
    plots: bool = False
    leaks: str = "auto"
    trained_on: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """The scores, and baseline accuracies on the same pairs, by name."""

    verification: Verification
    baselines: dict[str, float] = field(default_factory=dict)
    leaks: Leaks = field(default_factory=Leaks)
    skipped: tuple[str, ...] = ()
    skipped_pairs: int = 0


def score_model(
    model: Path,
    chosen: VerificationSet,
    target: Path,
    how: Scoring | None = None,
    *,
    tick: Tick = lambda what, done, total: None,
) -> TestResult:
    """Score `model` (a .pt of dataprep, or .onnx) on a set and write result.json and roc.png into `target`.

    Images that cannot be embedded raise RecordError; with `skip_missing`, their pairs are left out and recorded.
    """
    how = how or Scoring()
    embedder = open_model(model, how.device, input=how.input)
    flip = how.flip or FLIPS.get(how.protocol, "sum")
    try:
        embedded, bad = embed_images(
            embedder,
            chosen.images,
            flip=flip,
            batch=how.batch,
            tick=lambda done: tick("embed", done, len(chosen.images)),
        )
        bad = {i: reason for i, reason in bad.items() if i in chosen.left or i in chosen.right}
        if bad and not how.skip_missing:
            first, reason = min(bad.items())
            raise RecordError(
                f"{len(bad)} images cannot be scored, first {chosen.names[first]}: {reason}",
                hint="--skip-missing leaves their pairs out and reports them",
            )
        kept = chosen.without(bad) if bad else chosen
        kept.check_folds()
        scored = score_pairs(embedded[kept.left], embedded[kept.right], kept.same, kept.fold, how.protocol)
    except RecordError as error:
        raise error.within(chosen.path) from None
    simple: dict[str, float] = {}
    about: dict[str, Any] = dict(embedder.model.about) if isinstance(embedder, TorchEmbedder) else {}
    if how.baselines:
        simple = _baselines(embedder, kept, how)
    found = Leaks(unknown=("leaks were not checked",))
    if how.leaks != "off":
        found = find_leaks(
            kept,
            about,
            trained_on=how.trained_on,
            hash_all=how.leaks == "full",
            tick=lambda done, total: tick("compare with the pack", done, total),
        )
    described = {
        "model": str(model),
        "model_sha256": file_sha256(model),
        "input": None if how.input is None else asdict(how.input),
    }
    libraries = (
        ("torch", "numpy", "pillow") if isinstance(embedder, TorchEmbedder) else ("onnxruntime", "numpy", "pillow")
    )
    title = (
        model.absolute().parent.name if model.stem == "model" else model.stem
    )  # the folder's name says more than "model"
    return _report(target, title, kept, scored, how, flip, described, libraries, simple, found)


def score_features(features: Path, chosen: VerificationSet, target: Path, how: Scoring | None = None) -> TestResult:
    """Score a file of features, in any format that `features` reads, on a set. Any flip must already be in the file."""
    how = how or Scoring()
    opened = read_features(features)
    try:
        left, right, kept = features_of_pairs(opened, chosen, skip_missing=how.skip_missing)
        bad = unusable(left) | unusable(right)
        if bad.any() and how.skip_missing:
            void = {
                int(i): "no direction: zero or not finite"
                for side, positions in ((left, kept.left), (right, kept.right))
                for i in positions[unusable(side)]
            }
            # by pair, not by image: without names, a photo in several pairs has several rows
            left, right, kept = left[~bad], right[~bad], kept.only(~bad, void)
        kept.check_folds()
        scored = score_pairs(left, right, kept.same, kept.fold, how.protocol)
    except RecordError as error:
        raise error.within(chosen.path) from None
    described = {"features": str(features), "features_sha256": file_sha256(features), **_made_with(features)}
    unknown = Leaks(unknown=("features do not say what their model was trained on",))
    return _report(target, features.stem, kept, scored, how, "as in the file", described, ("numpy",), {}, unknown)


def check_target(target: Path, given: Path, chosen: VerificationSet, how: Scoring) -> None:
    """Raises UsageError if `target` holds the result of another model, file of features, set or way of scoring: files
    with one name must not overwrite each other's results. A new version of the same file may."""
    found = Folder(target).get_json("result.json")
    if not isinstance(found, dict):
        return
    earlier: dict[str, Any] = {
        "model": str(found.get("model") or found.get("features")),
        "set": str(found.get("set")),
        "protocol": found.get("protocol"),
        "flip": found.get("flip"),
        "input": found.get("input"),
    }
    flip = "as in the file" if "model" not in found else how.flip or FLIPS.get(how.protocol)
    now: dict[str, Any] = {
        "model": str(given),
        "set": str(chosen.path),
        "protocol": how.protocol,
        "flip": flip,
        "input": None if how.input is None else json.loads(json.dumps(asdict(how.input))),
    }
    for name in ("model", "set"):
        earlier[name], now[name] = os.path.abspath(earlier[name]), os.path.abspath(now[name])
    changed = [name for name in earlier if earlier[name] != now[name]]
    if changed:
        raise UsageError(
            f"{target}/result.json is from another {' and '.join(changed)} ({earlier[changed[0]]})",
            hint="choose another folder with --out",
        )


def _made_with(features: Path) -> dict[str, Any]:
    """The model and the images according to the .json that `extract` writes beside its output."""
    beside = Folder(features.parent).get_json(f"{features.name}.json")
    identity = beside.get("identity") if isinstance(beside, dict) else None
    if not isinstance(identity, dict):
        return {}
    return {"model_sha256": identity.get("model_sha256"), "extracted": identity}


def _report(
    target: Path,
    title: str,
    kept: VerificationSet,
    scored: Scored,
    how: Scoring,
    flip: str,
    described: dict[str, Any],
    libraries: tuple[str, ...],
    simple: dict[str, float],
    leaks: Leaks,
) -> TestResult:
    found = scored.verification
    result = TestResult(
        verification=found, baselines=simple, leaks=leaks, skipped=kept.skipped, skipped_pairs=kept.skipped_pairs
    )
    folder = Folder(target)
    folder.put_json(
        "result.json",
        {
            "protocol": how.protocol,
            "protocol_rule": TITLES[how.protocol],
            "flip": flip,
            "name": title,
            **described,
            "set": str(kept.path),
            "set_name": kept.name,
            "set_sha256": kept.sha256,
            "interval_methods": METHODS,
            "versions": {"dataprep": __version__, **{name: _version(name) for name in libraries}},
            **asdict(result),
        },
    )
    curves = {f"{title} ({found.accuracy:.2%})": (scored.distance, kept.same)}
    draw_roc(folder / "roc.png", curves)
    if how.plots:
        draw_det(folder / "det.png", curves)
        draw_scores(folder / "scores.png", scored, kept.same)
        draw_wrong(folder / "wrong.png", kept, scored)
    return result


def _version(library: str) -> str:
    """The version of a library from its distribution or, if that has another name (onnxruntime-gpu), its module."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(library), "__version__", "unknown"))


def _baselines(embedder: Any, kept: VerificationSet, how: Scoring) -> dict[str, float]:
    sides = np.stack([kept.left, kept.right], axis=1).ravel()
    images = [kept.images[i] for i in sides.tolist()]
    simple = {
        "mean colour alone": colour_accuracy(images, kept.same),
        "raw-pixel cosine": pixel_accuracy(images, kept.same),
    }
    if isinstance(embedder, TorchEmbedder):
        from dataprep.models.model_files import untrained

        fresh = TorchEmbedder(untrained(embedder.model), device=how.device)
        raw = embed_pairs(fresh, images, batch=how.batch)
        simple["the untrained network"] = embedding_accuracy(raw, kept.same)
    return simple
