"""One class for verification sets of all forms: a .bin, pairs.txt with a folder of faces, lists and CSVs of pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np

from dataprep.embeddings.files import Features, Float32Array
from dataprep.errors import RecordError
from dataprep.evaluate.verification.kfold import BoolArray, IntArray
from dataprep.imaging.image_files import SUFFIX_SPELLINGS, has_image_suffix
from dataprep.packs.base import read_pack_json
from dataprep.packs.pair_lists import read_pairs
from dataprep.packs.pair_sampling import consecutive_folds
from dataprep.packs.verification_bin import bin_image_names, is_bin, read_bin
from dataprep.storage import Folder, file_sha256

BENCHMARK_NAMES = ("lfw", "cfp_fp", "cfp_ff", "agedb_30", "calfw", "cplfw")
_SHOWN = 5  # how many missing files a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationSet:
    """Distinct images, and pairs of them by position.

    `names[i]` is image i's path in the list, or its number in the .bin as in `bins unpack` (00001 ...). `identities[i]`
    is its person, if the set's form names people. `folds` counts the folds of the whole set, even if pairs were left
    out. `skipped` names the images left out and the reasons.
    """

    name: str
    path: Path
    sha256: str
    images: Sequence[bytes]
    names: tuple[str, ...]
    identities: tuple[str, ...] | None
    left: IntArray
    right: IntArray
    issame: BoolArray
    fold: IntArray
    folds: int
    skipped: tuple[str, ...] = ()
    skipped_pairs: int = 0

    def __len__(self) -> int:
        return len(self.issame)

    def without_images(self, bad: dict[int, str]) -> VerificationSet:
        """The set without the pairs of some images (position: reason); the other pairs keep their fold."""
        keep = ~(np.isin(self.left, list(bad)) | np.isin(self.right, list(bad)))
        return self.select_pairs(keep, bad)

    def select_pairs(self, keep: BoolArray, bad: dict[int, str]) -> VerificationSet:
        """The set with some of its pairs; `bad` maps the images of the other pairs to the reasons."""
        return replace(
            self,
            left=self.left[keep],
            right=self.right[keep],
            issame=self.issame[keep],
            fold=self.fold[keep],
            skipped=(*self.skipped, *(f"{self.names[i]}: {reason}" for i, reason in sorted(bad.items()))),
            skipped_pairs=self.skipped_pairs + int((~keep).sum()),
        )

    def check_folds(self) -> None:
        """Raises RecordError if pairs were left out and a fold lost all pairs of a kind: scores would not compare."""
        for fold in range(self.folds if self.skipped_pairs else 0):
            kinds = self.issame[self.fold == fold]
            if not len(kinds) or kinds.all() or not kinds.any():
                left = "no pairs" if not len(kinds) else f"no {'negative' if kinds.all() else 'positive'} pairs"
                raise RecordError(
                    f"fold {fold + 1} of {self.folds} has {left} left: {self.skipped_pairs} were left out because of "
                    f"{len(self.skipped)} images (first: {self.skipped[0]}); restore those"
                )


class FileImages(Sequence[bytes]):
    """Images in files, read on access."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        try:
            return self._paths[index].read_bytes()
        except OSError as error:
            raise RecordError(f"{self._paths[index]}: {error.strerror}") from None


def open_verification_set(
    path: Path, *, images: Path | None = None, skip_missing: bool = False, look: bool = True
) -> VerificationSet:
    """Open a set of any form. The names of a list are relative to the folder `images` (default: the list's folder).

    A name may lack its suffix. Missing files raise RecordError; with `skip_missing`, their pairs are left out and
    recorded. Without `look`, files are not checked: features can be scored without images.
    """
    if not path.is_file():
        raise RecordError(f"{path}: no such verification set")
    if is_bin(path):
        return _open_bin(path)
    pairs = read_pairs(path)
    names = tuple(dict.fromkeys([*pairs.left, *pairs.right]))
    place = {name: i for i, name in enumerate(names)}
    found = [_find(images or path.parent, name) for name in names]
    missing = [name for name, file in zip(names, found, strict=True) if file is None and look]
    if missing and not skip_missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise RecordError(
            f"{path}: {len(missing)} of {len(names)} images are not under {images or path.parent}: {shown}",
            hint="choose another folder with --image-dir, or leave their pairs out with --skip-missing",
        )
    people = tuple(str(Path(name).parent) for name in names)
    chosen = VerificationSet(
        name=path.stem,
        path=path,
        sha256=file_sha256(path),
        images=FileImages([file or (images or path.parent) / name for name, file in zip(names, found, strict=True)]),
        names=names,
        identities=people if all(person != "." for person in people) else None,
        left=np.array([place[name] for name in pairs.left], np.int64),
        right=np.array([place[name] for name in pairs.right], np.int64),
        issame=pairs.issame,
        fold=pairs.fold,
        folds=int(pairs.fold.max(initial=-1)) + 1,
    )
    return chosen.without_images({place[name]: "no such file" for name in missing}) if missing else chosen


def find_verification_set(text: str, workspace: Path) -> Path:
    """The path for a `--benchmark` value: a file, or a common name (lfw, cfp_fp, ...) looked up in the workspace."""
    if Path(text).is_file():
        return Path(text)
    name = text.lower().replace("-", "_")
    name = {"agedb30": "agedb_30", "agedb": "agedb_30"}.get(name, name)
    if name not in BENCHMARK_NAMES:
        raise RecordError(
            f"{text}: no such verification set; the known names are {', '.join(BENCHMARK_NAMES)}",
            hint="make one with `dataprep pack --holdout 0.1`, or choose another with --benchmark",
        )
    places = [workspace / "bins" / f"{name}.bin", workspace / f"{name}.bin"]
    places += sorted(workspace.glob(f"packs/*/{name}.bin"))
    for place in places:
        if place.is_file():
            return place
    raise RecordError(f"{name} is not at {', '.join(map(str, places))} or packs/*/{name}.bin: put the .bin there")


def _open_bin(path: Path) -> VerificationSet:
    images, same = read_bin(path)
    if not images:
        raise RecordError(f"{path} holds no pairs")
    first: dict[bytes, int] = {}
    names = []
    for name, image in zip(bin_image_names(len(images)), images, strict=True):
        if image not in first:
            first[image] = len(first)
            names.append(name)
    position = np.array([first[image] for image in images], np.int64)
    folds = consecutive_folds(len(same), _folds_of(path))
    return VerificationSet(
        name=path.stem,
        path=path,
        sha256=file_sha256(path),
        images=list(first),
        names=tuple(names),
        identities=None,
        left=position[0::2],
        right=position[1::2],
        issame=same,
        fold=folds,
        folds=int(folds.max()) + 1,
    )


def _folds_of(path: Path) -> int:
    """How many folds a .bin has: ten, as its readers take for granted, or what the pack.json beside a holdout.bin, or the
    .json that `bins make` writes, says."""
    if path.name == "holdout.bin":
        about = read_pack_json(path.parent)
    else:
        about = Folder(path.parent).get_json(f"{path.name}.json") or {}
        about = about if isinstance(about, dict) and about.get("sha256") == file_sha256(path) else {}
    folds = about.get("folds")
    return folds if isinstance(folds, int) and 2 <= folds <= 10 else 10


def _find(folder: Path, name: str) -> Path | None:
    """The file of a name in a list: with or without its suffix and, where lists name files alone, in its person's folder."""
    found = _find_file(folder / name, name)
    person = re.fullmatch(r"(.+)_\d{4}(\.\w+)?", name) if found is None and "/" not in name else None
    return _find_file(folder / person[1] / name, name) if person else found


def _find_file(path: Path, name: str) -> Path | None:
    if path.is_file():
        return path
    beside = [path.with_name(path.name + suffix) for suffix in SUFFIX_SPELLINGS]
    if has_image_suffix(name):
        beside += [path.with_suffix(suffix) for suffix in SUFFIX_SPELLINGS]
    return next((file for file in beside if file.is_file()), None)


def select_pair_features(
    features: Features, verification_set: VerificationSet, *, skip_missing: bool = False
) -> tuple[Float32Array, Float32Array, VerificationSet]:
    """The features of the pairs' two sides, and the part of the set that can be scored.

    They are found by name if the file has names (image suffixes are ignored); else rows 2i and 2i + 1 are pair i.
    Raises RecordError for rows that do not fit the set and, unless `skip_missing`, for images without a feature.
    """
    if features.names is None:
        if len(features) != 2 * len(verification_set):
            raise RecordError(
                f"{features.path}: {len(features)} rows without names; the {len(verification_set)} pairs of "
                f"{verification_set.path} need "
                f"{2 * len(verification_set)} in pair order, or a {features.path.name}.names.txt with one name per line"
            )
        return features.matrix[0::2], features.matrix[1::2], verification_set
    place: dict[str, int] = {}
    for i, name in enumerate(features.names):
        if place.setdefault(_bare(name), i) != i:
            raise RecordError(f"{features.path}: {name} occurs twice")
    used = sorted({*verification_set.left.tolist(), *verification_set.right.tolist()})
    missing = {i: "no feature" for i in used if _bare(verification_set.names[i]) not in place}
    if missing and not skip_missing:
        first = ", ".join(verification_set.names[i] for i in list(missing)[:5])
        raise RecordError(
            f"{features.path}: {len(missing)} of {len(used)} images of {verification_set.path} have no feature "
            f"there: {first}"
            f"{', ...' if len(missing) > 5 else ''}",
            hint="--skip-missing leaves their pairs out and reports them",
        )
    kept = verification_set.without_images(missing) if missing else verification_set
    row = np.array([place.get(_bare(name), -1) for name in verification_set.names], np.int64)
    return features.matrix[row[kept.left]], features.matrix[row[kept.right]], kept


def _bare(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if has_image_suffix(name) else str(path)
