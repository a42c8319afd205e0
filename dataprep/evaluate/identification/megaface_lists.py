"""MegaFace's lists, and the refined protocol (@R), which removes the noise that insightface found in them.

insightface's remove_noises.py edits the feature files before the devkit reads them. Every feature gets one more value,
0. A noisy probe (a FaceScrub photo of someone else) becomes its person's centre: the sum of the clean features plus
uniform noise of +-0.001, scaled to length one. A noisy distractor (a MegaFace photo of a FaceScrub person) keeps its
feature and gets 100.0 as the last value, which puts it at an L2 distance of 100 from everything. `refine_probes` and
`append_noise_column` write the same. Scoring here uses an equivalent without the extra value: noisy probes are
replaced likewise, and noisy distractors match nothing but count as negatives. The ranks and rates are the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.embeddings.dumps import write_vector
from dataprep.embeddings.files import (
    BoolArray,
    FeatureFolder,
    FeatureRows,
    Features,
    Float32Array,
    normalise_rows,
    read_features,
)
from dataprep.errors import RecordError
from dataprep.evaluate.identification import megaface_lists as megaface
from dataprep.names import is_safe
from dataprep.text import forward_slashes, iterate_lines

FAR_AWAY = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureList:
    """Features by name; `identities[i]` is the person that `names[i]` shows."""

    names: tuple[str, ...]
    identities: tuple[str, ...]


def read_feature_list(path: Path, *, people: bool = False) -> FeatureList:
    """Read a devkit list (`{"path": [...], "id": [...]}`), a JSON array of paths, or one relative path per line.

    Without `id`, the identity is the file's folder, as in the devkit. Raises RecordError for invalid lists and, with
    `people`, for a list whose files are all in one folder.
    """
    text = "\n".join(line for _, line in iterate_lines(path, error=RecordError, longest=1 << 30))
    if not text.lstrip().startswith(("{", "[")):
        names = [forward_slashes(line.strip()) for line in text.split("\n") if line.strip()]
        found: dict[str, Any] = {"path": names}
    else:
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path}: not JSON ({error})") from None
        found = parsed if isinstance(parsed, dict) else {"path": parsed}
    names = found.get("path", [])
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise RecordError(f'{path}: "path" must be a non-empty list of names')
    identities = found.get("id", [identity_from_path(name) for name in names])
    if not isinstance(identities, list) or len(identities) != len(names):
        raise RecordError(f'{path}: "id" must name one identity for each of the {len(names)} paths')
    if people and "id" not in found and len(names) > 1 and len(set(identities)) == 1:
        raise RecordError(
            f"{path}: all {len(names)} files are in one folder, {identities[0]!r}, and would count as one person",
            hint='name people with "id", or give each person a folder',
        )
    if len(set(names)) != len(names):
        raise RecordError(f"{path}: {len(names) - len(set(names))} names occur more than once")
    return FeatureList(names=tuple(names), identities=tuple(map(str, identities)))


def read_noises(path: Path) -> frozenset[str]:
    """Names, one per line; `#` starts a comment; of lines with tabs, the second column, as in remove_noises.py."""
    lines = [line for _, line in iterate_lines(path, error=RecordError)]
    columns = [line.strip().split("\t") for line in lines if line.strip() and not line.startswith("#")]
    names = frozenset(c[1] if len(c) > 1 else c[0] for c in columns)
    if not names:
        raise RecordError(f"{path}: no names are listed; a noise list has one per line")
    return names


def find_noisy(names: Sequence[str], noises: frozenset[str], *, parts: int) -> BoolArray:
    """Which names are noise, by their last `parts` parts: 1 for FaceScrub (file), 3 for MegaFace (folder/folder/file).
    A short list of distractors may contain no noise; the number found is part of the result.
    """
    return np.array(["/".join(name.split("/")[-parts:]) in noises for name in names], np.bool_)


def refine_probes(
    probes: Float32Array, listed: FeatureList, noise: BoolArray, *, present: BoolArray | None = None, seed: int = 0
) -> Float32Array:
    """Replace noisy probes by their person's centre plus noise. RecordError for a person without a clean photo."""
    generator = np.random.default_rng(seed)
    clean = ~noise if present is None else ~noise & present
    _, person = np.unique(listed.identities, return_inverse=True)
    centres = np.zeros((person.max() + 1, probes.shape[1]), np.float32)
    np.add.at(centres, person[clean], probes[clean])
    out = probes.copy()
    for row in np.flatnonzero(noise):
        if not (clean & (person == person[row])).any():
            raise RecordError(
                f"all photos of {listed.identities[row]} are noise, so there is no centre to replace them"
            )
        centre = centres[person[row]] + np.float32(generator.uniform(-0.001, 0.001, probes.shape[1]))
        out[row] = centre / np.linalg.norm(centre)
    return out


def append_noise_column(matrix: Float32Array, noise: BoolArray | None = None) -> Float32Array:
    """(n, d + 1): features as remove_noises.py writes them for the devkit; `noise` marks noisy distractors."""
    last = np.zeros((len(matrix), 1), np.float32)
    if noise is not None:
        last[noise] = FAR_AWAY
    return np.concatenate([matrix, last], axis=1)


def identity_from_path(name: str) -> str:
    """The identity of a photo: the folder it is in; without a folder, the photo itself."""
    return name.strip("/").split("/")[-2:][0]


_BLOCK = 1024  # distractors in memory together


@dataclass(frozen=True, slots=True, kw_only=True)
class MegaFaceBenchmark:
    """Probes (n, d), of length one or zero, and the distractors to search.

    `pushed_away` marks the noisy distractors of the refined protocol; its noisy probes are already replaced.
    """

    probe_list: megaface.FeatureList
    probes: Float32Array
    distractors: FeatureRows
    noisy_distractors: BoolArray | None
    noisy_probes: int


def open_megaface(
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
) -> MegaFaceBenchmark:
    """Open MegaFace's probes and distractors; refined if the noise lists (FaceScrub's, MegaFace's) are given.

    Features are files, or folders with one file per name with this `suffix`. A file without names is in the order of
    its list. Raises RecordError for inputs that do not fit together and, unless `zeros`, for probes that are all zero.
    """
    listed = megaface.read_feature_list(probe_list, people=True)
    others = megaface.read_feature_list(distractor_list) if distractor_list is not None else None
    searched = _rows(distractors, others.names if others else None, suffix, dim)
    opened = _rows(probes, listed.names, suffix, dim)
    if opened.dim != searched.dim:
        raise RecordError(f"{probes} holds features of {opened.dim} values, {distractors} of {searched.dim}")
    units = normalise_rows(opened, np.arange(len(opened)), zeros=zeros)
    if noises is None:
        return MegaFaceBenchmark(
            probe_list=listed, probes=units.rows, distractors=searched, noisy_distractors=None, noisy_probes=0
        )
    noise = megaface.find_noisy(listed.names, megaface.read_noises(noises[0]), parts=1)
    if not noise.any():
        raise RecordError(f"{noises[0]} names none of the photos in {probe_list}; it belongs to another data set")
    if searched.names is None:
        raise RecordError(
            f"{distractors} holds no names, so noisy distractors cannot be found", hint="add --distractor-list"
        )
    return MegaFaceBenchmark(
        probe_list=listed,
        probes=megaface.refine_probes(units.rows, listed, noise, present=units.present, seed=seed),
        distractors=searched,
        noisy_distractors=megaface.find_noisy(searched.names, megaface.read_noises(noises[1]), parts=3),
        noisy_probes=int(noise.sum()),
    )


def write_for_devkit(
    contest: MegaFaceBenchmark,
    target: Path,
    *,
    algorithm: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the features like insightface's remove_noises.py: TARGET/facescrub/NAME_ALGORITHM.bin and
    TARGET/megaface/NAME_ALGORITHM.bin, with one value more than the input features."""
    names = contest.distractors.names
    if names is None:
        raise RecordError(f"{contest.distractors.path} holds no names for the files", hint="add --distractor-list")
    total = len(contest.probes) + len(names)
    _write(target / "facescrub", contest.probe_list.names, megaface.append_noise_column(contest.probes), algorithm)
    progress(len(contest.probes), total)
    for first in range(0, len(names), _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, len(names)))
        block = normalise_rows(contest.distractors, rows, zeros=True).rows
        noise = None if contest.noisy_distractors is None else contest.noisy_distractors[rows]
        _write(
            target / "megaface", names[first : first + _BLOCK], megaface.append_noise_column(block, noise), algorithm
        )
        contest.distractors.release()
        progress(len(contest.probes) + int(rows[-1]) + 1, total)


def _write(folder: Path, names: Sequence[str], vectors: Float32Array, algorithm: str) -> None:
    for name, vector in zip(names, vectors, strict=True):
        own = f"{name.lstrip('/')}_{algorithm}.bin"
        if not all(map(is_safe, own.split("/"))):
            raise RecordError(f"{own!r} is not a safe file name under {folder}")
        write_vector(folder / own, vector)


def _rows(path: Path, names: Sequence[str] | None, suffix: str, dim: int | None) -> FeatureRows:
    """The features of these names, in this order; the whole file if no names are given."""
    if path.is_dir():
        if names is None:
            raise RecordError(f"{path} is a folder; a list of its features is needed", hint="add --distractor-list")
        return FeatureFolder(path, names, suffix)
    found: Features = read_features(path, dim)
    if names is None:
        return found
    if found.names is not None:
        return found.select(names)
    if len(found) != len(names):
        raise RecordError(f"{path} holds {len(found)} features without names, but its list has {len(names)} names")
    return Features(path, found.matrix, names, mapped=found.mapped)
