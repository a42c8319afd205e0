"""MegaFace's lists, and the refined protocol (@R) that takes out the noise insightface found in them.

insightface's remove_noises.py edits the feature files before the devkit reads them: every feature gets one more value, 0;
a noisy probe (a photo in FaceScrub of someone else) becomes its person's centre, the sum of the clean features plus
uniform noise of +-0.001, made length one; a noisy distractor (a photo in MegaFace of a FaceScrub person) keeps its feature
and gets 100.0 as the last value, which puts it at an L2 distance of 100 from everything. `refined_probes` and `extended`
write the same. To score, the plain equivalent is used: noisy probes are replaced likewise, and noisy distractors match
nothing while they count as negatives; the ranks and rates are the same, without the additional value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.errors import RecordError
from dataprep.evaluate.features import Bools, Matrix

FAR_AWAY = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Features by name; `identities[i]` is who `names[i]` shows."""

    names: tuple[str, ...]
    identities: tuple[str, ...]


def read_list(path: Path, *, people: bool = False) -> Listed:
    """A list of the devkit's (`{"path": [...], "id": [...]}`), a JSON array of paths, or one relative path a line.

    Without `id` the identity is the folder that the file is in, as the devkit takes it. Raises RecordError for lists
    that are none and, with `people`, for one whose files all lie in one folder.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not a readable list ({error})") from None
    if not text.lstrip().startswith(("{", "[")):
        names = [line.strip() for line in text.split("\n") if line.strip()]
        found: dict[str, Any] = {"path": names}
    else:
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path}: not JSON ({error})") from None
        found = parsed if isinstance(parsed, dict) else {"path": parsed}
    names = found.get("path", [])
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise RecordError(f'{path}: "path" must be a list of names, and not empty')
    identities = found.get("id", [own_folder(name) for name in names])
    if not isinstance(identities, list) or len(identities) != len(names):
        raise RecordError(f'{path}: "id" must name one identity for each of the {len(names)} paths')
    if people and "id" not in found and len(names) > 1 and len(set(identities)) == 1:
        raise RecordError(
            f"{path}: all {len(names)} files lie in a folder {identities[0]!r}, so that they would show one person: "
            'name people with "id", or keep each in a folder of their own'
        )
    if len(set(names)) != len(names):
        raise RecordError(f"{path}: {len(names) - len(set(names))} names stand there more than once")
    return Listed(names=tuple(names), identities=tuple(map(str, identities)))


def read_noises(path: Path) -> frozenset[str]:
    """Names, one a line, `#` before comments; of lines with tabs the second column, as remove_noises.py reads them."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not a readable noise list ({error})") from None
    columns = [line.strip().split("\t") for line in lines if line.strip() and not line.startswith("#")]
    names = frozenset(c[1] if len(c) > 1 else c[0] for c in columns)
    if not names:
        raise RecordError(f"{path}: no names are listed; a noise list has one a line")
    return names


def noisy(names: Sequence[str], noises: frozenset[str], *, parts: int) -> Bools:
    """Which names are noise, by their last `parts` parts: 1 for FaceScrub (file), 3 for MegaFace (folder/folder/file).
    A short list of distractors may hold none; the number that was found is part of the result.
    """
    return np.array(["/".join(name.split("/")[-parts:]) in noises for name in names], np.bool_)


def refined_probes(
    probes: Matrix, listed: Listed, noise: Bools, *, present: Bools | None = None, seed: int = 0
) -> Matrix:
    """Noisy probes replaced by their person's disturbed centre. RecordError for a person with no clean photo."""
    generator = np.random.default_rng(seed)
    clean = ~noise if present is None else ~noise & present
    _, person = np.unique(listed.identities, return_inverse=True)
    centres = np.zeros((person.max() + 1, probes.shape[1]), np.float32)
    np.add.at(centres, person[clean], probes[clean])
    out = probes.copy()
    for row in np.flatnonzero(noise):
        if not (clean & (person == person[row])).any():
            raise RecordError(
                f"all photos of {listed.identities[row]} are noise; there is no centre to put in their place"
            )
        centre = centres[person[row]] + np.float32(generator.uniform(-0.001, 0.001, probes.shape[1]))
        out[row] = centre / np.linalg.norm(centre)
    return out


def extended(matrix: Matrix, noise: Bools | None = None) -> Matrix:
    """(n, d + 1): features as remove_noises.py writes them for the devkit; of distractors, `noise` marks the noisy."""
    last = np.zeros((len(matrix), 1), np.float32)
    if noise is not None:
        last[noise] = FAR_AWAY
    return np.concatenate([matrix, last], axis=1)


def own_folder(name: str) -> str:
    """The identity of a photo: the folder it is in; without a folder, the photo itself."""
    return name.strip("/").split("/")[-2:][0]
