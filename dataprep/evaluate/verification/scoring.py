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
from dataprep.embeddings.embedder import TorchEmbedder, embed_images, embed_pairs, find_unusable_rows, open_model
from dataprep.embeddings.files import read_features
from dataprep.errors import RecordError, UsageError
from dataprep.evaluate.confidence import INTERVAL_METHODS
from dataprep.evaluate.verification.baselines import colour_accuracy, embedding_accuracy, pixel_accuracy
from dataprep.evaluate.verification.kfold import VerificationResult
from dataprep.evaluate.verification.leakage import LeakReport, find_leaks
from dataprep.evaluate.verification.pair_set import VerificationSet, select_pair_features
from dataprep.evaluate.verification.plots import draw_det, draw_roc, draw_scores, draw_wrong
from dataprep.evaluate.verification.protocols import PROTOCOL_FLIPS, PROTOCOL_TITLES, PairScores, score_pairs
from dataprep.storage import Folder, file_sha256

if TYPE_CHECKING:
    from dataprep.models.preprocessing import Preprocessing

ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringOptions:
    """How to score. `flip` None means the protocol's default; `leaks` is auto, full or off."""

    protocol: str = "insightface"
    flip: str | None = None
    batch: int = 64
    device: str = "auto"
    preprocessing: Preprocessing | None = None
    skip_missing: bool = False
    baselines: bool = False
    plots: bool = False
    leaks: str = "auto"
    trained_on: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """The scores, and baseline accuracies on the same pairs, by name."""

    verification: VerificationResult
    baselines: dict[str, float] = field(default_factory=dict)
    leaks: LeakReport = field(default_factory=LeakReport)
    skipped: tuple[str, ...] = ()
    skipped_pairs: int = 0


def score_model(
    model: Path,
    verification_set: VerificationSet,
    target: Path,
    options: ScoringOptions | None = None,
    *,
    progress: ProgressCallback = lambda what, done, total: None,
) -> TestResult:
    """Score `model` (a .pt of dataprep, or .onnx) on a set and write result.json and roc.png into `target`.

    Images that cannot be embedded raise RecordError; with `skip_missing`, their pairs are left out and recorded.
    """
    options = options or ScoringOptions()
    embedder = open_model(model, options.device, preprocessing=options.preprocessing)
    flip = options.flip or PROTOCOL_FLIPS.get(options.protocol, "sum")
    try:
        embedded, bad = embed_images(
            embedder,
            verification_set.images,
            flip=flip,
            batch=options.batch,
            progress=lambda done: progress("embed", done, len(verification_set.images)),
        )
        bad = {i: reason for i, reason in bad.items() if i in verification_set.left or i in verification_set.right}
        if bad and not options.skip_missing:
            first, reason = min(bad.items())
            raise RecordError(
                f"{len(bad)} images cannot be scored, first {verification_set.names[first]}: {reason}",
                hint="--skip-missing leaves their pairs out and reports them",
            )
        kept = verification_set.without_images(bad) if bad else verification_set
        kept.check_folds()
        scored = score_pairs(embedded[kept.left], embedded[kept.right], kept.issame, kept.fold, options.protocol)
    except RecordError as error:
        raise error.within(verification_set.path) from None
    simple: dict[str, float] = {}
    about: dict[str, Any] = dict(embedder.model.about) if isinstance(embedder, TorchEmbedder) else {}
    if options.baselines:
        simple = _baselines(embedder, kept, options)
    found = LeakReport(unknown=("leaks were not checked",))
    if options.leaks != "off":
        found = find_leaks(
            kept,
            about,
            trained_on=options.trained_on,
            hash_all=options.leaks == "full",
            progress=lambda done, total: progress("compare with the pack", done, total),
        )
    described = {
        "model": str(model),
        "model_sha256": file_sha256(model),
        "input": None if options.preprocessing is None else asdict(options.preprocessing),
    }
    libraries = (
        ("torch", "numpy", "pillow") if isinstance(embedder, TorchEmbedder) else ("onnxruntime", "numpy", "pillow")
    )
    title = (
        model.absolute().parent.name if model.stem == "model" else model.stem
    )  # the folder's name says more than "model"
    return _report(target, title, kept, scored, options, flip, described, libraries, simple, found)


def score_features(
    features: Path, verification_set: VerificationSet, target: Path, options: ScoringOptions | None = None
) -> TestResult:
    """Score a file of features, in any format that `features` reads, on a set. Any flip must already be in the file."""
    options = options or ScoringOptions()
    opened = read_features(features)
    try:
        left, right, kept = select_pair_features(opened, verification_set, skip_missing=options.skip_missing)
        bad = find_unusable_rows(left) | find_unusable_rows(right)
        if bad.any() and options.skip_missing:
            void = {
                int(i): "no direction: zero or not finite"
                for side, positions in ((left, kept.left), (right, kept.right))
                for i in positions[find_unusable_rows(side)]
            }
            # by pair, not by image: without names, a photo in several pairs has several rows
            left, right, kept = left[~bad], right[~bad], kept.select_pairs(~bad, void)
        kept.check_folds()
        scored = score_pairs(left, right, kept.issame, kept.fold, options.protocol)
    except RecordError as error:
        raise error.within(verification_set.path) from None
    described = {"features": str(features), "features_sha256": file_sha256(features), **_made_with(features)}
    unknown = LeakReport(unknown=("features do not say what their model was trained on",))
    return _report(target, features.stem, kept, scored, options, "as in the file", described, ("numpy",), {}, unknown)


def check_verification_target(
    target: Path, given: Path, verification_set: VerificationSet, options: ScoringOptions
) -> None:
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
    flip = "as in the file" if "model" not in found else options.flip or PROTOCOL_FLIPS.get(options.protocol)
    now: dict[str, Any] = {
        "model": str(given),
        "set": str(verification_set.path),
        "protocol": options.protocol,
        "flip": flip,
        "input": None if options.preprocessing is None else json.loads(json.dumps(asdict(options.preprocessing))),
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
    verification_set: VerificationSet,
    scored: PairScores,
    options: ScoringOptions,
    flip: str,
    described: dict[str, Any],
    libraries: tuple[str, ...],
    baselines: dict[str, float],
    leaks: LeakReport,
) -> TestResult:
    found = scored.verification
    result = TestResult(
        verification=found,
        baselines=baselines,
        leaks=leaks,
        skipped=verification_set.skipped,
        skipped_pairs=verification_set.skipped_pairs,
    )
    folder = Folder(target)
    folder.put_json(
        "result.json",
        {
            "protocol": options.protocol,
            "protocol_rule": PROTOCOL_TITLES[options.protocol],
            "flip": flip,
            "name": title,
            **described,
            "set": str(verification_set.path),
            "set_name": verification_set.name,
            "set_sha256": verification_set.sha256,
            "interval_methods": INTERVAL_METHODS,
            "versions": {"dataprep": __version__, **{name: _version(name) for name in libraries}},
            **asdict(result),
        },
    )
    curves = {f"{title} ({found.accuracy:.2%})": (scored.distance, verification_set.issame)}
    draw_roc(folder / "roc.png", curves)
    if options.plots:
        draw_det(folder / "det.png", curves)
        draw_scores(folder / "scores.png", scored, verification_set.issame)
        draw_wrong(folder / "wrong.png", verification_set, scored)
    return result


def _version(library: str) -> str:
    """The version of a library from its distribution or, if that has another name (onnxruntime-gpu), its module."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(library), "__version__", "unknown"))


def _baselines(embedder: Any, verification_set: VerificationSet, options: ScoringOptions) -> dict[str, float]:
    sides = np.stack([verification_set.left, verification_set.right], axis=1).ravel()
    images = [verification_set.images[i] for i in sides.tolist()]
    simple = {
        "mean colour alone": colour_accuracy(images, verification_set.issame),
        "raw-pixel cosine": pixel_accuracy(images, verification_set.issame),
    }
    if isinstance(embedder, TorchEmbedder):
        from dataprep.models.model_files import reinitialise

        fresh = TorchEmbedder(reinitialise(embedder.model), device=options.device)
        raw = embed_pairs(fresh, images, batch=options.batch)
        simple["the untrained network"] = embedding_accuracy(raw, verification_set.issame)
    return simple
