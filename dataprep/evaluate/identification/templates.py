"""Templates: one vector for all the faces of a person that a benchmark groups together.

insightface (ijb_11.py): a face is weighted by its detector score (switch D), its length is kept (N1) or removed (N0),
and the mirrored face is added (F). Faces of one media (a photo, or all frames of a video) are averaged; media are
summed. ijb_evals.py of the same repository swaps the names N0 and N1; here the switch is `normalise_faces`.

VGGFace2 (ijb_evaluation.py): faces are normalised, those of one media summed and normalised, media summed; no scores.
Both produce vectors of length one, so that the product of two is their cosine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataprep.embeddings.files import BoolArray, FeatureRows, Float32Array, FloatArray, IntArray, check_norms
from dataprep.errors import RecordError, UsageError
from dataprep.evaluate.identification.ijb import Int32Array, TemplateMedia

_CHUNK = 8192  # faces; 32 MB of 1024 float32, and as much again during summation
_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|webp)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """How faces become templates. `halves`: a row holds the embeddings of the face and of the mirrored face."""

    kind: Literal["insightface", "vggface2"] = "insightface"
    halves: bool = False
    flip: bool = True
    detector_score: bool = True
    normalise_faces: bool = False

    @classmethod
    def from_switches(cls, kind: str, **switches: bool) -> Pooling:
        """From the switches as given. UsageError for switches that the kind does not have."""
        if kind == "vggface2":
            if not switches.get("detector_score", True) or switches.get("normalise_faces", False):
                raise UsageError("vggface2 pooling always normalises faces and uses no detector scores")
            return cls(kind="vggface2", halves=switches.get("halves", False), flip=switches.get("flip", True))
        if kind != "insightface":
            raise UsageError(f"unknown pooling {kind!r}: one of insightface, vggface2")
        return cls(kind="insightface", **switches)

    @property
    def description(self) -> str:
        flip = ("flip added" if self.flip else "flip left out") if self.halves else "one embedding a face"
        if self.kind == "vggface2":
            return f"vggface2: {flip}, faces and media normalised, media summed"
        norm = "faces normalised" if self.normalise_faces else "face norms kept"
        score = "detector scores as weights" if self.detector_score else "no detector scores"
        return f"insightface: {flip}, {norm}, {score}, media averaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """`vectors[i]`, of length one, is template `number[i]` (ascending). Templates not `present` have no usable face."""

    number: Int32Array
    vectors: FloatArray
    present: BoolArray
    faces: int
    zero_faces: int

    def rows(self, numbers: Int32Array) -> IntArray:
        """The rows of these templates; -1 for those without a usable face."""
        first = int(self.number[0])
        if int(self.number[-1]) - first >= 1 << 24:  # too large a range for a lookup table
            near = np.minimum(np.searchsorted(self.number, numbers), len(self.number) - 1)
            return np.where((self.number[near] == numbers) & self.present[near], near, -1)
        place = np.full(int(self.number[-1]) - first + 2, -1, np.int64)
        place[self.number[self.present] - first] = np.flatnonzero(self.present)
        outside = (numbers < first) | (numbers > self.number[-1])
        return np.asarray(place[np.where(outside, len(place) - 1, numbers - first)])


class FaceFeatures:
    """The features of a benchmark's faces in its order, from a file in another order; zeros for missing faces."""

    def __init__(self, features: FeatureRows, images: Sequence[str], rows: IntArray) -> None:
        self.path, self.dim, self.names = features.path, features.dim, images
        self._features, self._rows = features, rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: IntArray) -> Float32Array:
        chosen = self._rows[rows]
        found = self._features.take(np.maximum(chosen, 0))
        return found if (chosen >= 0).all() else np.where(chosen[:, None] < 0, np.float32(0), found)

    def release(self) -> None:
        self._features.release()


def order_by_image(features: FeatureRows, images: Sequence[str], *, exclude_missing: bool = False) -> FeatureRows:
    """Row i is the feature of `images[i]`, found by its name; features without names must already be in that order.

    Names are compared without the image suffix, and without folders if the file's differ from the benchmark's. Raises
    RecordError for a name that occurs twice and, unless `exclude_missing`, for images without a feature.
    """
    if features.names is None:
        return features
    rows: IntArray | None = None
    for key in (_stem, lambda name: _stem(name.rpartition("/")[2])):
        place = {key(name): row for row, name in enumerate(features.names)}
        if len(place) == len(features.names) and len({key(image) for image in images}) == len(set(images)):
            rows = np.array([place.get(key(image), -1) for image in images], np.int64)
            if (rows >= 0).all():
                break
    if rows is None:
        raise RecordError(f"{features.path}: a name occurs twice; features of faces are found by name")
    missing = int((rows < 0).sum())
    if missing == len(rows) or (missing and not exclude_missing):
        raise RecordError(
            f"{features.path} has no feature for {missing} of the {len(rows)} faces of the benchmark, the first is "
            f"{images[int((rows < 0).argmax())]!r}{'; the file is for other images' if missing == len(rows) else ''}",
            hint="" if missing == len(rows) else "--exclude-missing leaves such faces out and counts them",
        )
    return FaceFeatures(features, images, rows)


def _stem(name: str) -> str:
    return _SUFFIX.sub("", name)


def pool_templates(
    features: FeatureRows,
    faces: TemplateMedia,
    pooling: Pooling,
    *,
    exclude_missing: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Templates:
    """The templates of a benchmark; row i of `features` is face i.

    Raises RecordError unless there is one finite feature per face and, unless `exclude_missing`, for faces whose
    feature is zero and for templates that sum to zero. Excluded faces do not enter averages.
    """
    if len(features) != len(faces):
        raise RecordError(f"{features.path} holds {len(features)} features for the {len(faces)} faces of the benchmark")
    if pooling.halves and features.dim % 2:
        raise RecordError(f"{features.path}: rows of {features.dim} values cannot be split into two halves")
    if not pooling.flip and not pooling.halves:
        raise UsageError(
            "leaving out the flip needs features in two halves", hint="add --halves if the rows hold both embeddings"
        )
    order = np.lexsort((faces.media, faces.template))
    template, media = faces.template[order], faces.media[order]
    new_template = np.concatenate([[True], np.diff(template) != 0])
    new_media = new_template | np.concatenate([[True], np.diff(media) != 0])
    starts = np.flatnonzero(new_template)
    vectors = np.zeros((len(starts), features.dim // 2 if pooling.halves else features.dim))
    zero, done = 0, 0
    for first, last in _chunks(starts, len(order)):
        begin, end = starts[first], starts[last] if last < len(starts) else len(order)
        rows = order[begin:end]
        found, present = _prepared(features, rows, faces.score[rows], pooling, zeros=exclude_missing)
        media_starts = np.flatnonzero(new_media[begin:end])
        sums = _sums(found, media_starts)
        if pooling.kind == "vggface2":
            sums = _normalised(sums)
        else:
            sums /= np.maximum(np.add.reduceat(present.astype(np.int64), media_starts), 1)[:, None]
        template_starts = np.flatnonzero(new_template[begin:end][media_starts])
        vectors[first:last] = _sums(sums, template_starts)
        zero += int((~present).sum())
        done += len(rows)
        features.release()
        progress(done, len(order))
    full: BoolArray = (vectors != 0).any(axis=1)
    if not exclude_missing and not full.all():
        raise RecordError(
            f"{features.path}: the faces of template {template[starts][~full][0]} and of {int((~full).sum()) - 1} "
            "others sum to zero",
            hint="--exclude-missing leaves them out and counts them",
        )
    return Templates(
        number=template[starts], vectors=_normalised(vectors), present=full, faces=len(faces), zero_faces=zero
    )


def _prepared(
    features: FeatureRows, rows: IntArray, score: Float32Array, pooling: Pooling, *, zeros: bool
) -> tuple[Float32Array, BoolArray]:
    """Faces ready for summation, in float32 as in the originals, and which of them are not zero."""
    found = features.take(rows)
    if pooling.halves:
        half = features.dim // 2
        found = found[:, :half] + found[:, half:] if pooling.flip else found[:, :half]
    norms = check_norms(features, rows, found, zeros=zeros)
    present = norms > 0
    if pooling.kind == "vggface2" or pooling.normalise_faces:
        found = found / np.where(present, norms, 1).astype(np.float32)[:, None]
    if pooling.kind == "insightface" and pooling.detector_score:
        found = found * score[:, None]
    return found, present


def _sums(rows: Float32Array | FloatArray, starts: IntArray) -> FloatArray:
    """Sums over runs of rows, in float64: all first rows, then all second rows; five times faster than reduceat."""
    counts = np.diff(starts, append=len(rows))
    out = rows[starts].astype(np.float64)
    longer = np.arange(len(starts))
    for place in range(1, int(counts.max())):
        longer = longer[counts[longer] > place]
        out[longer] += rows[starts[longer] + place]
    return out


def _chunks(starts: IntArray, faces: int) -> Iterator[tuple[int, int]]:
    """(first, last) ranges of whole templates with about _CHUNK faces together."""
    first = 0
    while first < len(starts):
        last = int(np.searchsorted(starts, starts[first] + _CHUNK, side="right")) - 1
        if starts[first] + _CHUNK >= faces:
            last = len(starts)
        last = max(last, first + 1)
        yield first, last
        first = last


def _normalised(vectors: FloatArray) -> FloatArray:
    """Rows scaled to length one; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1))
