"""The template and identification protocols, from files to result.json."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataprep import __version__
from dataprep.embeddings.files import normalise_rows, read_features
from dataprep.embeddings.search import search_nearest
from dataprep.errors import RecordError, UsageError, WorkspaceError
from dataprep.evaluate.identification import megaface_lists as megaface
from dataprep.evaluate.identification.ijb import (
    find_ijb_protocol,
    list_meta_files,
    read_subjects,
    read_template_media,
    read_template_pairs,
)
from dataprep.evaluate.identification.megaface import IdentificationResult, identify_probes
from dataprep.evaluate.identification.megaface_lists import open_megaface
from dataprep.evaluate.identification.one_to_many import OneToManyResult, search_templates
from dataprep.evaluate.identification.one_to_one import OneToOneResult, verify_templates
from dataprep.evaluate.identification.templates import Pooling, order_by_image, pool_templates
from dataprep.storage import Folder, file_sha256

ProgressCallback = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A gallery photo for a probe; `rank` counts from 1."""

    probe: str
    rank: int
    match: str
    identity: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryResult:
    """`rank1`: of the probes whose person is in the gallery, the share whose best match is right; None without such."""

    probes: int
    gallery: int
    probes_with_mate: int
    rank1: float | None
    zeros_excluded: int
    matches: tuple[Match, ...]


def ijb_result_name(meta: Path, features: Path, protocol: str | None, pooling: Pooling, **asked: bool) -> str:
    """The name of a result: one for each way to score these features. `asked`: one_to_many, exclude_missing."""
    switches = {
        pooling.kind: pooling.kind != "insightface",
        "halves": pooling.halves,
        "noflip": not pooling.flip,
        "noscore": pooling.kind == "insightface" and not pooling.detector_score,
        "unit": pooling.normalise_faces,
        "nomissing": asked["exclude_missing"],
    }
    way = "1N" if asked["one_to_many"] else "11"
    return _joined(
        features.stem, find_ijb_protocol(meta, protocol), way, *(name for name, on in switches.items() if on)
    )


def megaface_result_name(
    probes: Path, distractors: Path, size: int | None, *, refined: bool, seed: int, exclude_missing: bool
) -> str:
    """The name of a result: one for each way to search these features."""
    return _joined(
        probes.stem, "in", distractors.stem, str(size or ""), f"refined{seed or ''}" if refined else "",
        "nomissing" if exclude_missing else "",
    )  # fmt: skip


def gallery_result_name(gallery: Path, probes: Path, top: int, *, exclude_missing: bool) -> str:
    """The name of a result: one for each way to search this gallery."""
    return _joined(probes.stem, "in", gallery.stem, f"top{top}", "nomissing" if exclude_missing else "")


def _joined(*parts: str) -> str:
    return "-".join(part for part in parts if part)


def check_identification_target(target: Path, *features: Path) -> None:
    """UsageError if `target` holds a result of other features: files of one name in two folders share a default."""
    found = Folder(target).get_json("result.json")
    wanted = [os.path.realpath(path) for path in features]
    if found is not None and [os.path.realpath(path) for path in found.get("features", wanted)] != wanted:
        raise UsageError(
            f"{target}/result.json is for {' and '.join(found['features'])}", hint="choose another folder with --out"
        )


def score_ijb(
    meta: Path,
    features: Path,
    target: Path,
    *,
    protocol: str | None = None,
    pooling: Pooling | None = None,
    one_to_many: bool = False,
    exclude_missing: bool = False,
    dim: int | None = None,
    progress: ProgressCallback = _silent,
) -> OneToOneResult | OneToManyResult:
    """Score IJB-B or IJB-C, 1:1 or 1:N, from the features of all faces; write result.json.

    Features are found by image name; features without names must be in the order of the meta files.
    """
    pooling = pooling or Pooling()
    protocol = find_ijb_protocol(meta, protocol)
    files = list_meta_files(meta, protocol, one_to_many=one_to_many)
    faces = read_template_media(*files[:2])
    rows = order_by_image(read_features(features, dim), faces.image, exclude_missing=exclude_missing)
    templates = pool_templates(
        rows, faces, pooling, exclude_missing=exclude_missing, progress=_named(progress, "faces")
    )
    del rows
    found: OneToOneResult | OneToManyResult
    if one_to_many:
        *galleries, probes = (read_subjects(path, path.stem) for path in files[2:])
        found = search_templates(
            templates, galleries, probes, exclude_missing=exclude_missing, progress=_named(progress, "probes")
        )
    else:
        pairs = read_template_pairs(files[2])
        found = verify_templates(templates, pairs, exclude_missing=exclude_missing, progress=_named(progress, "pairs"))
    name = f"{protocol} {'1:N' if one_to_many else '1:1'}; {pooling.description}"
    _save(target, name, [features], files, found)
    return found


def score_megaface(
    probes: Path,
    probe_list: Path,
    distractors: Path,
    target: Path,
    *,
    distractor_list: Path | None = None,
    size: int | None = None,
    noises: tuple[Path, Path] | None = None,
    suffix: str = ".bin",
    seed: int = 0,
    exclude_missing: bool = False,
    dim: int | None = None,
    device: str = "cpu",
    progress: ProgressCallback = _silent,
) -> IdentificationResult:
    """Score MegaFace, refined if the two noise lists are given (see `open_megaface`); write result.json."""
    contest = open_megaface(
        probes, probe_list, distractors, distractor_list=distractor_list, noises=noises, suffix=suffix, seed=seed,
        zeros=exclude_missing, dim=dim,
    )  # fmt: skip
    found = identify_probes(
        contest.probes, contest.probe_list.identities, contest.distractors, size=size, pushed_away=contest.noisy_distractors,
        present=(contest.probes != 0).any(axis=1), exclude_missing=exclude_missing, device=device,
        progress=_named(progress, "distractors"),
    )  # fmt: skip
    lists = [path for path in (probe_list, distractor_list, *(noises or ())) if path is not None]
    name = "MegaFace refined (@R)" if noises else "MegaFace"
    more = {"noisy_probes": contest.noisy_probes, "seed": seed} if noises else {}
    _save(target, f"{name}, cosine", [probes, distractors], lists, found, **more)
    return found


def search_gallery(
    gallery: Path,
    probes: Path,
    target: Path,
    *,
    top: int = 5,
    exclude_missing: bool = False,
    dim: int | None = None,
    device: str = "cpu",
    progress: ProgressCallback = _silent,
) -> GalleryResult:
    """Find the `top` gallery photos for each probe, leaving out photos of the probe's own name; write matches.csv and
    result.json. The identity of a photo is its folder."""
    listed, asked = read_features(gallery, dim), read_features(probes, dim)
    for features in (listed, asked):
        if features.names is None:
            raise RecordError(f"{features.path} holds no names; use Parquet, or put a text file of names beside it")
    if listed.dim != asked.dim:
        raise RecordError(f"{gallery} holds features of {listed.dim} values, but {probes} of {asked.dim}")
    names, wanted = list(listed.names or ()), list(asked.names or ())
    units = normalise_rows(asked, np.arange(len(asked)), zeros=exclude_missing)
    kept = np.flatnonzero(units.present)
    found = search_nearest(
        units.rows[kept], listed, keep=min(top + 1, len(names)), exclude_zeros=exclude_missing, device=device,
        progress=_named(progress, "gallery photos"),
    )  # fmt: skip
    matches: list[Match] = []
    people = {megaface.identity_from_path(name) for name in names}
    per_person = _photos(names)
    with_mate = right = 0
    for row, scores, columns in zip(kept.tolist(), found.scores.tolist(), found.rows.tolist(), strict=True):
        name = wanted[row]
        identity = megaface.identity_from_path(name)
        best = [(s, names[c]) for s, c in zip(scores, columns, strict=True) if c >= 0 and names[c] != name][:top]
        matches += [
            Match(probe=name, rank=i, match=match, identity=megaface.identity_from_path(match), score=score)
            for i, (score, match) in enumerate(best, 1)
        ]
        if identity in people and (name not in per_person[identity] or len(per_person[identity]) > 1):
            with_mate += 1
            right += bool(best) and megaface.identity_from_path(best[0][1]) == identity
    result = GalleryResult(
        probes=len(kept),
        gallery=found.compared,
        probes_with_mate=with_mate,
        rank1=right / with_mate if with_mate else None,
        zeros_excluded=found.zeros + len(wanted) - len(kept),
        matches=tuple(matches),
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["probe", "rank", "match", "identity", "score"])
    writer.writerows([m.probe, m.rank, m.match, m.identity, f"{m.score:.6f}"] for m in matches)
    Folder(target).put("matches.csv", text.getvalue().encode())
    _save(target, "closed-set search, cosine", [gallery, probes], [], result, matches=len(matches))
    return result


def _photos(names: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in names:
        found.setdefault(megaface.identity_from_path(name), set()).add(name)
    return found


def _named(progress: ProgressCallback, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)


def _version(name: str) -> str | None:
    """None if nothing is installed under this name, as with some device-specific builds."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extracted_with(features: Path) -> dict[str, Any] | None:
    """The model's sha256, its input and the flip, if `extract` left its .json beside the features."""
    try:
        found = Folder(features.parent).get_json(f"{features.name}.json")
    except (WorkspaceError, OSError):
        return None
    identity = found.get("identity") if isinstance(found, dict) else None
    if not isinstance(identity, dict) or "model_sha256" not in identity:
        return None
    return {name: identity.get(name) for name in ("model_sha256", "input", "flip")}


def _save(
    target: Path, protocol: str, features: Sequence[Path], lists: Sequence[Path], found: Any, **more: Any
) -> None:
    inputs = [*features, *lists]
    Folder(target).put_json(
        "result.json",
        {
            "protocol": protocol,
            "features": [str(path) for path in features],
            "inputs": {
                str(path): file_sha256(path) if path.is_file() else "a folder; its files are not hashed"
                for path in inputs
            },
            "models": {str(path): about for path in inputs if (about := _extracted_with(path)) is not None},
            "versions": {"dataprep": __version__, **{name: _version(name) for name in ("numpy", "torch")}},
            **asdict(found),
            **more,
        },
    )
