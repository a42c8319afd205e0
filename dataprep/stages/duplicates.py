"""Duplicate faces: the same position in photos with equal bytes.

A photo of several people may correctly appear under each of them with a different face, so equal photos alone are not
duplicates. Two faces are the same if their landmarks' centres are closer than the landmarks' spread (root mean square
distance from the centre, about a quarter of a face). A face without landmarks, as in a pack, fills its photo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dataprep.stages.base import MergeInput

DUPLICATE_POLICIES = ("keep", "within", "across", "both")

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """For each row, the position of another row with the same face in the same photo; -1 if there is none.

    `of` is the first such row, and `again` the first of the same person; both are set only for later rows. `contested`
    is the first such row of another person.
    """

    duplicate_of: Int32Array
    repeated: Int32Array
    contested: Int32Array


def read_photo_hashes(part: MergeInput, keys: Any) -> npt.NDArray[np.uint64]:
    """Return the first 128 bits of the photos' SHA-256 as (rows, 2) uint64, for keys that passed `validate`."""
    photos = part.read_passed("validate", ["key", "photo_sha256"])
    found = photos["photo_sha256"].take(_places(keys, photos["key"]))
    words = np.frombuffer(bytes.fromhex("".join(found.to_pylist())), ">u8")
    return words.reshape(-1, 4)[:, :2].astype(np.uint64)


def find_duplicates(
    keys: Any,
    person: npt.NDArray[np.int64],
    photos: npt.NDArray[np.uint64],
    source: npt.NDArray[np.int64],
    parts: Sequence[MergeInput],
    looked_at: npt.NDArray[np.bool_],
) -> Duplicates:
    """Search the rows `looked_at`. `keys` is an Arrow column; `source` is the part number of each row."""
    of, again, contested = (np.full(len(person), -1, np.int32) for _ in range(3))
    groups = list(_equal(photos, np.flatnonzero(looked_at)))
    candidates = np.sort(np.concatenate(groups)) if groups else np.empty(0, np.int64)
    faces = dict(zip(candidates.tolist(), _faces(keys, candidates, source, parts), strict=True))
    for group in groups:
        for rows in _same_face(group.tolist(), faces):
            whose = person[rows].tolist()
            firsts: dict[int, int] = {}
            for row, who in zip(rows, whose, strict=True):
                first = firsts.setdefault(who, row)
                if first != row:
                    again[row] = first
            of[rows[1:]] = rows[0]
            if len(firsts) > 1:
                one, other = list(firsts.values())[:2]
                contested[rows] = [other if who == whose[0] else one for who in whose]
    return Duplicates(duplicate_of=of, repeated=again, contested=contested)


def _equal(photos: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the ascending positions of each photo that occurs more than once."""
    high, low = photos[positions].T
    order = np.lexsort((low, high))  # stable
    high, low, positions = high[order], low[order], positions[order]
    begins = np.flatnonzero(np.concatenate([[True], (high[1:] != high[:-1]) | (low[1:] != low[:-1])]))
    ends = np.append(begins[1:], len(positions))
    for begin, end in zip(begins[ends - begins > 1], ends[ends - begins > 1], strict=True):
        yield positions[begin:end]


def _faces(
    keys: Any, rows: npt.NDArray[np.int64], source: npt.NDArray[np.int64], parts: Sequence[MergeInput]
) -> list[tuple[float, float, float]]:
    """Return centre and spread of each row's landmarks, in photo pixels; NaN where there are none."""
    faces = np.full((len(rows), 3), np.nan)
    order = np.argsort(source[rows], kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(source[rows][order])) + 1) if len(rows) else []:
        found = parts[source[rows[here[0]]]].read_passed("detect", ["key", "landmarks", "selected"])
        found = found.take(_places(keys.take(rows[here]), found["key"]))
        for at, points, chosen in zip(here, found["landmarks"].to_pylist(), found["selected"].to_pylist(), strict=True):
            if points and chosen is not None:
                landmarks = np.reshape(points, (-1, 5, 2))[chosen]
                centre = landmarks.mean(axis=0)
                faces[at] = *centre, np.sqrt(((landmarks - centre) ** 2).sum(axis=1).mean())
    return [(x, y, spread) for x, y, spread in faces.tolist()]


def _same_face(rows: list[int], faces: dict[int, tuple[float, float, float]]) -> list[list[int]]:
    """Group the rows of one photo by face, leaving out single ones. Each row is compared with the first of a group."""
    found: list[list[int]] = []
    for row in rows:
        x, y, _ = faces[row]
        for other in found:
            x0, y0, spread = faces[other[0]]
            if not (x - x0) ** 2 + (y - y0) ** 2 > spread**2:  # NaN matches any position
                other.append(row)
                break
        else:
            found.append([row])
    return [rows for rows in found if len(rows) > 1]


def _places(wanted: Any, keys: Any) -> Any:
    import pyarrow.compute as pc

    return pc.index_in(wanted, keys.combine_chunks())
