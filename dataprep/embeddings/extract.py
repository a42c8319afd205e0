"""extract: from a folder, a list, a pack or a .bin to one file of features, or to one file per image.

The images are embedded in chunks, and each chunk is committed as a part file by one rename. A killed run resumes after
the last part. The output is assembled from the parts in the order of the source. Images that cannot be embedded are
left out, counted, and listed with the reason in a .failed.tsv beside the output.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from dataprep import __version__
from dataprep.embeddings.dumps import write_npy, write_parquet, write_vector
from dataprep.embeddings.embedder import Embedder, decode_fitting_face, embed_batch, find_unusable_rows, open_model
from dataprep.embeddings.files import Float32Array
from dataprep.embeddings.images import ImageSource
from dataprep.errors import ModelError, RecordError, UsageError, WorkspaceError
from dataprep.imaging.codec import Pixels
from dataprep.storage import Folder, file_sha256, lock_directory

if TYPE_CHECKING:
    from dataprep.models.preprocessing import Preprocessing

_FILES = ("npy-per-image", "megaface")
FEATURE_FORMATS = ("parquet", "npy", *_FILES)
_COUNTS = ("images", "failed", "width")  # in the .json beside finished features
_LIST = ".files.txt"  # beside a folder of files: lists those that the extraction wrote

ExtractionProgressCallback = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionResult:
    """How many images have a feature of `width` numbers, and how many have none. `fresh` counts those of this run."""

    images: int
    failed: int
    width: int
    newly_embedded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    rows: list[int]
    features: Float32Array
    reasons: dict[int, str]


def extract_features(
    source: ImageSource,
    embedder: Embedder,
    out: Path,
    *,
    about: dict[str, Any],
    form: str = "parquet",
    flip: str = "none",
    batch: int = 64,
    algorithm: str = "dataprep",
    overwrite: bool = False,
    chunk: int = 1024,
    progress: ExtractionProgressCallback = lambda done, failed, total: None,
) -> ExtractionResult:
    """Embed every image of `source` into `out`. `about` identifies the model (its sha256, its input).

    `form` is parquet or npy (names in <out>.names.txt), or, with `out` as a folder, npy-per-image (VGGFace2-pytorch's
    `<name>.npy`) or megaface (`<name with suffix>_<algorithm>.bin`). A kill costs at most `chunk` images. Raises
    ModelError if `out` or its parts belong to another extraction, unless `fresh`; RecordError if no image can be
    embedded, or if names cannot be placed under `out`.
    """
    _check_form(out, form)
    if form in _FILES:
        _placed(source.names, form, algorithm)  # before anything is embedded
    # The settings the parts depend on. The batch size is not one: it affects only rounding, and a run that ran out of
    # memory must be able to resume with a smaller one.
    made = {"source": source.digest, "images": len(source), "flip": flip, "chunk": chunk, **about}
    identity = {**made, "form": form, "algorithm": algorithm}
    parts = Folder(out.parent / f".{out.name}.parts")
    if not overwrite and (done := _finished(out, parts, identity)) is not None:
        return done
    with lock_directory(parts.path, "the output"):
        _begin(out, parts, made, overwrite=overwrite)
        embedded = _embed_all(source, embedder, parts, flip, batch, chunk, progress)
        return _finish(out, parts, source, identity, form, algorithm, embedded)


def open_described_model(
    path: Path, device: str, preprocessing: Preprocessing | None
) -> tuple[Embedder, dict[str, Any]]:
    """The opened model, and what distinguishes its features from another model's."""
    embedder = open_model(path, device, preprocessing=preprocessing)
    return embedder, {
        "model_sha256": file_sha256(path),
        "input": None if preprocessing is None else asdict(preprocessing),
    }


def _finished(out: Path, parts: Folder, identity: dict[str, Any]) -> ExtractionResult | None:
    """The result of this extraction if it is already complete. Raises ModelError if `out` belongs to another."""
    try:
        finished = Folder(out.parent).get_json(f"{out.name}.json")
        known = isinstance(finished, dict) and all(name in finished for name in ("identity", *_COUNTS))
    except WorkspaceError:
        known = False
    if known and out.exists():
        _check_same(out, finished["identity"], identity)
        gone = [name for name in _list_written_files(out) if not (out / name).is_file()]
        if gone:
            raise ModelError(
                f"{out / gone[0]} is missing, one of {len(gone)} files of this extraction",
                hint="--overwrite extracts all of them again",
            )
        return ExtractionResult(
            images=finished["images"], failed=finished["failed"], width=finished["width"], newly_embedded=0
        )
    if out.exists() and parts.get_json("extraction.json") is None:
        raise ModelError(f"{out} already exists and is not from this extraction", hint="--overwrite overwrites it")
    return None


def _begin(out: Path, parts: Folder, made: dict[str, Any], *, overwrite: bool) -> None:
    begun = None if overwrite else parts.get_json("extraction.json")
    if begun is not None:
        _check_same(parts.path, begun, made)
        return
    if overwrite:  # remove first the file that marks `out` as complete, so that a killed run can be resumed
        (out.parent / f"{out.name}.json").unlink(missing_ok=True)
        for name in _list_written_files(out):
            (out / name).unlink(missing_ok=True)
        (out.parent / f"{out.name}{_LIST}").unlink(missing_ok=True)
    for name in parts.names("*.npz"):
        (parts / name).unlink()
    parts.put_json("extraction.json", made)


def _embed_all(
    source: ImageSource,
    embedder: Embedder,
    parts: Folder,
    flip: str,
    batch: int,
    chunk: int,
    progress: ExtractionProgressCallback,
) -> int:
    """Make the missing parts; return the number of images embedded."""
    failed = embedded = 0
    with ThreadPoolExecutor(4) as decoders:
        for number, start in enumerate(range(0, len(source), chunk)):
            stop = min(start + chunk, len(source))
            name = f"{number:06d}.npz"
            if (parts / name).exists():
                failed += len(_part(parts, name).reasons)
                progress(stop, failed, len(source))
                continue

            def within(done: int, lost: int, start: int = start, before: int = failed) -> None:
                progress(start + done, before + lost, len(source))

            rows, features, reasons = _embed(source, range(start, stop), embedder, flip, batch, decoders, within)
            with parts.writing(name) as stream:
                np.savez(stream, rows=rows, features=features, reasons=np.array(json.dumps(reasons)))
            embedded += stop - start
            failed += len(reasons)
    return embedded


def _check_same(where: Path, found: dict[str, Any], identity: dict[str, Any]) -> None:
    changed = [name for name in sorted({*found, *identity}) if found.get(name) != identity.get(name)]
    if changed:
        raise ModelError(
            f"{where} is from an extraction with another {' and '.join(changed)}",
            hint="--overwrite starts over; another --out keeps both",
        )


def _embed(
    source: ImageSource,
    positions: range,
    embedder: Embedder,
    flip: str,
    batch: int,
    decoders: ThreadPoolExecutor,
    progress: Callable[[int, int], None],
) -> tuple[np.typing.NDArray[np.int64], Float32Array, dict[int, str]]:
    """(positions, their features, reasons why the others have none). The next batch is decoded during embedding."""
    reasons: dict[int, str] = {}
    rows: list[int] = []
    features: list[Float32Array] = []

    def submit(members: range) -> list[Future[Pixels | str]]:
        return [decoders.submit(_face, _read_image(source, position), embedder) for position in members]

    batches = [positions[i : i + batch] for i in range(0, len(positions), batch)]
    waiting = submit(batches[0])
    for number, members in enumerate(batches):
        faces = [one.result() for one in waiting]
        waiting = submit(batches[number + 1]) if number + 1 < len(batches) else []
        reasons.update({p: one for p, one in zip(members, faces, strict=True) if isinstance(one, str)})
        good = [(p, one) for p, one in zip(members, faces, strict=True) if not isinstance(one, str)]
        if not good:
            continue
        embedded = np.asarray(embed_batch(embedder, np.stack([one for _, one in good]), flip), np.float32)
        usable = ~find_unusable_rows(embedded)
        reasons.update(
            {p: "its embedding is zero or not finite" for (p, _), ok in zip(good, usable, strict=True) if not ok}
        )
        rows += [p for (p, _), ok in zip(good, usable, strict=True) if ok]
        features.append(embedded[usable])
        progress(members[-1] + 1 - positions[0], len(reasons))
    joined = np.concatenate(features) if features else np.zeros((0, 0), np.float32)
    return np.array(rows, np.int64), joined, dict(sorted(reasons.items()))


def _read_image(source: ImageSource, position: int) -> bytes | str:
    """The bytes, or why there are none. Called in one thread: a pack is one file with one position."""
    try:
        return source.read(position)
    except RecordError as error:
        return str(error)


def _face(data: bytes | str, embedder: Embedder) -> Pixels | str:
    if isinstance(data, str):
        return data
    try:
        return decode_fitting_face(data, embedder)
    except RecordError as error:
        return str(error)


def _part(parts: Folder, name: str) -> _Part:
    try:
        with np.load(parts / name, allow_pickle=False) as found:
            reasons = {int(position): reason for position, reason in json.loads(str(found["reasons"])).items()}
            return _Part(rows=found["rows"].tolist(), features=found["features"], reasons=reasons)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RecordError(
            f"{parts / name} is damaged ({error})", hint="remove it and run the same command again"
        ) from None


def _finish(
    out: Path, parts: Folder, source: ImageSource, identity: dict[str, Any], form: str, algorithm: str, embedded: int
) -> ExtractionResult:
    names = parts.names("*.npz")
    rows = width = 0
    failures: dict[int, str] = {}
    for name in names:
        part = _part(parts, name)
        rows, width = rows + len(part.rows), max(width, part.features.shape[1])
        failures.update(part.reasons)
    if not rows:
        first = next(iter(failures.items()), None)
        said = f": {source.names[first[0]]} {first[1]}" if first else ""
        raise RecordError(f"none of the {len(source)} images of {source.path} could be embedded{said}")

    def chunks() -> Iterator[tuple[Sequence[str], Float32Array]]:
        for name in names:
            part = _part(parts, name)
            if part.rows:
                yield [source.names[i] for i in part.rows], part.features

    if form == "parquet":
        write_parquet(out, chunks(), width)
    elif form == "npy":
        write_npy(out, chunks(), rows, width)
    else:
        placed = _placed([source.names[p] for p in range(len(source)) if p not in failures], form, algorithm)
        Folder(out.parent).put(f"{out.name}{_LIST}", "".join(f"{target}\n" for target in placed.values()).encode())
        _write_files(out, chunks(), placed)
    beside = Folder(out.parent)
    table = "".join(f"{source.names[p]}\t{reason}\n" for p, reason in sorted(failures.items()))
    if table:
        beside.put(f"{out.name}.failed.tsv", table.encode())
    else:
        (beside / f"{out.name}.failed.tsv").unlink(missing_ok=True)
    result = ExtractionResult(images=rows, failed=len(failures), width=width, newly_embedded=embedded)
    summary = {"images": rows, "failed": len(failures), "width": width, "made_by": f"dataprep {__version__}"}
    beside.put_json(f"{out.name}.json", {"identity": identity, **summary})
    shutil.rmtree(parts.path)
    return result


def _write_files(out: Path, chunks: Iterator[tuple[Sequence[str], Float32Array]], placed: dict[str, str]) -> None:
    """Write one file per image, each atomically; the .json beside the folder marks the set as complete."""
    for names, features in chunks:
        for name, feature in zip(names, features, strict=True):
            target = out / placed[name]
            if target.suffix == ".npy":
                with Folder(target.parent).writing(target.name) as stream:
                    np.save(stream, feature)
            else:
                write_vector(target, feature)


def _check_form(out: Path, form: str) -> None:
    if form not in FEATURE_FORMATS:
        raise UsageError(f"unknown form {form!r}: one of {', '.join(FEATURE_FORMATS)}")
    suffix = out.suffix.removeprefix(".")
    if (form not in _FILES and suffix != form) or (form in _FILES and suffix in FEATURE_FORMATS):
        wanted = "a folder" if form in _FILES else f"a .{form}"
        raise UsageError(
            f"{out}: the form {form} is {wanted}; readers go by the suffix", hint="change --out or --format"
        )
    if out.exists() and out.is_dir() != (form in _FILES):
        raise UsageError(
            f"{out} already exists and is {'a folder' if out.is_dir() else 'a file'}", hint="choose another --out"
        )


def _placed(names: Sequence[str], form: str, algorithm: str) -> dict[str, str]:
    """Each image's file under the output. RecordError for a name that leads out of it, or two that collide."""
    placed: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise RecordError(f"{name}: a name outside the source's folder cannot be placed under the output")
        target = str(
            path.with_suffix(".npy") if form == "npy-per-image" else path.with_name(f"{path.name}_{algorithm}.bin")
        )
        if taken.setdefault(target, name) != name or name in placed:
            raise RecordError(
                f"{taken[target]} and {name} would both become {target}", hint="rename one, or use --format parquet"
            )
        placed[name] = target
    return placed


def _list_written_files(out: Path) -> list[str]:
    """The files under `out` that an earlier extraction wrote."""
    try:
        names = (out.parent / f"{out.name}{_LIST}").read_text("utf-8").split("\n")
    except FileNotFoundError:
        return []
    return [name for name in names if name and not name.startswith("/") and ".." not in PurePosixPath(name).parts]
