"""MegaFace's features and lists from files, made ready to be scored here or written for the devkit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataprep.errors import RecordError
from dataprep.evaluate import megaface
from dataprep.evaluate.dumps import write_vector
from dataprep.evaluate.features import Bools, FeatureFolder, FeatureRows, Features, Matrix, read_features, unit_rows
from dataprep.storage import is_safe

_BLOCK = 1024  # distractors in memory together


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Probes (n, d), of length one or zero, and the distractors to find them among.

    `pushed_away` marks the noisy distractors of the refined protocol, whose noisy probes are replaced already.
    """

    listed: megaface.Listed
    probes: Matrix
    distractors: FeatureRows
    pushed_away: Bools | None
    noisy_probes: int


def open_contest(
    probes: Path,
    probe_list: Path,
    distractors: Path,
    *,
    distractor_list: Path | None = None,
    noises: tuple[Path, Path] | None = None,
    suffix: str = ".bin",
    seed: int = 0,
    zeros: bool = False,
    dim: int | None = None,
) -> Contest:
    """Open what MegaFace compares, refined where the noise lists (FaceScrub's, MegaFace's) are given.

    Features are files, or folders of one file a name with this `suffix`; a file without names is in the order of its
    list. Raises RecordError for what does not fit together and, unless `zeros`, for probes that are all zero.
    """
    listed = megaface.read_list(probe_list, people=True)
    others = megaface.read_list(distractor_list) if distractor_list is not None else None
    searched = _rows(distractors, others.names if others else None, suffix, dim)
    opened = _rows(probes, listed.names, suffix, dim)
    if opened.dim != searched.dim:
        raise RecordError(f"{probes} holds features of {opened.dim} values, {distractors} of {searched.dim}")
    units = unit_rows(opened, np.arange(len(opened)), zeros=zeros)
    if noises is None:
        return Contest(listed=listed, probes=units.rows, distractors=searched, pushed_away=None, noisy_probes=0)
    noise = megaface.noisy(listed.names, megaface.read_noises(noises[0]), parts=1)
    if not noise.any():
        raise RecordError(f"{noises[0]} names none of the photos of {probe_list}: it is of another data set")
    if searched.names is None:
        raise RecordError(f"{distractors} holds no names, so that the noise cannot be found: give --distractor-list")
    return Contest(
        listed=listed,
        probes=megaface.refined_probes(units.rows, listed, noise, present=units.present, seed=seed),
        distractors=searched,
        pushed_away=megaface.noisy(searched.names, megaface.read_noises(noises[1]), parts=3),
        noisy_probes=int(noise.sum()),
    )


def write_for_devkit(
    contest: Contest, target: Path, *, algorithm: str, tick: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """The features as insightface's remove_noises.py writes them: TARGET/facescrub/NAME_ALGORITHM.bin and
    TARGET/megaface/NAME_ALGORITHM.bin, of one value more than the features that were read."""
    names = contest.distractors.names
    if names is None:
        raise RecordError(f"{contest.distractors.path} holds no names to write files under: give --distractor-list")
    total = len(contest.probes) + len(names)
    _write(target / "facescrub", contest.listed.names, megaface.extended(contest.probes), algorithm)
    tick(len(contest.probes), total)
    for first in range(0, len(names), _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, len(names)))
        block = unit_rows(contest.distractors, rows, zeros=True).rows
        noise = None if contest.pushed_away is None else contest.pushed_away[rows]
        _write(target / "megaface", names[first : first + _BLOCK], megaface.extended(block, noise), algorithm)
        contest.distractors.release()
        tick(len(contest.probes) + int(rows[-1]) + 1, total)


def _write(folder: Path, names: Sequence[str], vectors: Matrix, algorithm: str) -> None:
    for name, vector in zip(names, vectors, strict=True):
        own = f"{name.lstrip('/')}_{algorithm}.bin"
        if not all(map(is_safe, own.split("/"))):
            raise RecordError(f"{own!r} names no file that may be written under {folder}")
        write_vector(folder / own, vector)


def _rows(path: Path, names: Sequence[str] | None, suffix: str, dim: int | None) -> FeatureRows:
    """The features of these names, in their order; all of a file if no names are given."""
    if path.is_dir():
        if names is None:
            raise RecordError(f"{path} is a folder: give --distractor-list, which names its features")
        return FeatureFolder(path, names, suffix)
    found: Features = read_features(path, dim)
    if names is None:
        return found
    if found.names is not None:
        return found.select(names)
    if len(found) != len(names):
        raise RecordError(f"{path} holds {len(found)} features without names, its list {len(names)} names")
    return Features(path, found.matrix, names, mapped=found.mapped)
