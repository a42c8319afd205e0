"""Aligns the faces of photos that belong to no workspace and need no people: files and folders in, a folder of faces out."""

from __future__ import annotations

import csv
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.errors import DataprepError, Interrupted, SourceError, UsageError
from dataprep.imaging.image_files import LITTER_FOLDERS, is_litter
from dataprep.params import fingerprint
from dataprep.pipeline.worker import apply_stages, batch_items, prepare_worker
from dataprep.stages.align import AlignParams, AlignStage
from dataprep.stages.base import Item, MapStage, Photo, read_local_photo
from dataprep.stages.crop import CropParams, CropStage
from dataprep.stages.detect import DetectParams, DetectStage
from dataprep.stages.validate import ValidateParams, ValidateStage
from dataprep.storage import Folder, lock_directory
from dataprep.types import Row, Sample

_CHUNK = 32  # photos that a worker gets at a time
_TABLE, _ABOUT = "faces.csv", "faces.json"
_COLUMNS = ("photo", "face", "verdict", "reason", "detail", "box", "landmarks", "score", "mtime_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceSettings:
    """How faces are found and aligned."""

    align: AlignParams
    detect: DetectParams

    def fingerprint(self) -> str:
        return fingerprint({"align": self.align.counted(), "detect": self.detect.counted()})


def align_photos(
    photos: Sequence[Path], out: Path, settings: FaceSettings, *, jobs: int, progress: Callable[[int, int], None]
) -> Counter[str]:
    """Write the face of each photo to `out`, under the photo's path below the folder that was given, and a table
    faces.csv with what was found in every file. Returns the number of files by reason (`ok` for faces).

    The same call again does only what is new or has changed. Raises SourceError if there are no files, UsageError if
    `out` holds faces of other settings, and Interrupted on Ctrl-C, after which the call goes on where it was.
    """
    files = _list_files(photos, out)
    with lock_directory(out, "the folder of faces"):
        done = _finished(out, settings)
        others = [row for photo, row in done.items() if Path(photo) not in files]
        names = _face_names(files, settings.align.format, {row["face"].casefold() for row in others})
        todo = [file for file in files if not _is_done(file, names[file], done, out)]
        counts = Counter(done[str(file)]["reason"] or "ok" for file in set(files) - set(todo))
        chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
        _rewrite(out, settings, [*others, *(done[str(file)] for file in files if file not in set(todo))])
        with open(out / _TABLE, "a", encoding="utf-8", newline="") as table:
            writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n")
            for rows in _processed(chunks, names, out, settings, jobs):
                writer.writerows(rows)
                table.flush()
                counts.update(row["reason"] or "ok" for row in rows)
                progress(counts.total(), len(files))
    return counts


def align_one(photo: Path, settings: FaceSettings) -> Row:
    """The row of the align stage for one photo, with the encoded face as its payload; or of the stage that rejected it."""
    sample = Sample(key=f"photos/{photo.name}", identity="photos", path=str(photo.absolute()))
    ((_, row),) = _rows([sample], settings)
    return row[-1][1]


def _list_files(photos: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The files, with the path that each has below the folder that was given."""
    files: dict[Path, Path] = {}
    for given in photos:
        if given.is_dir():
            for folder, folders, names in os.walk(given):
                folders[:] = sorted(
                    name
                    for name in folders
                    if name[0] != "." and name.lower() not in LITTER_FOLDERS and Path(folder, name) != out
                )
                for name in sorted(names):
                    if not is_litter(name):
                        files.setdefault(Path(folder, name), Path(folder, name).relative_to(given))
        elif given.is_file():
            files.setdefault(given, Path(given.name))
        else:
            raise SourceError(f"{given}: no such file or folder")
    if not files:
        raise SourceError(f"{', '.join(map(str, photos))}: no files in it")
    return files


def _face_names(files: dict[Path, Path], suffix: str, taken: set[str]) -> dict[Path, str]:
    """The names of the faces: the photo's path with the suffix of faces, or all of its name where two would be equal."""
    times = Counter(str(below.with_suffix("")).casefold() for below in files.values())
    names: dict[Path, str] = {}
    for file, below in files.items():
        stem = str(below) if times[str(below.with_suffix("")).casefold()] > 1 else str(below.with_suffix(""))
        name, number = f"{stem}.{suffix}", 1
        while name.casefold() in taken:  # files of one name from several folders
            number += 1
            name = f"{stem}~{number}.{suffix}"
        taken.add(name.casefold())
        names[file] = name
    return names


def _finished(out: Path, settings: FaceSettings) -> dict[str, dict[str, Any]]:
    """The rows of earlier calls, by photo."""
    about = Folder(out).get_json(_ABOUT)
    if about is None:
        return {}
    if not isinstance(about, dict) or about.get("fingerprint") != settings.fingerprint():
        raise UsageError(f"{out} holds faces made with other options", hint="choose another --out")
    try:
        with open(out / _TABLE, encoding="utf-8", newline="") as table:
            return {row["photo"]: row for row in csv.DictReader(table) if row.get("mtime_ns")}
    except FileNotFoundError:
        return {}


def _is_done(file: Path, name: str, done: dict[str, dict[str, Any]], out: Path) -> bool:
    row = done.get(str(file))
    if row is None or row["mtime_ns"] != str(file.stat().st_mtime_ns):
        return False
    return not row["face"] or (row["face"] == name and (out / name).is_file())


def _rewrite(out: Path, settings: FaceSettings, rows: Iterable[dict[str, Any]]) -> None:
    """Begin the table again with the rows that stay, so that a photo is never in it twice."""
    Folder(out).put_json(_ABOUT, {"fingerprint": settings.fingerprint(), "align": settings.align.as_dict()})
    temporary = out / f".{_TABLE}.tmp"
    with open(temporary, "w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, out / _TABLE)


def _processed(
    chunks: Sequence[Sequence[Path]], names: dict[Path, str], out: Path, settings: FaceSettings, jobs: int
) -> Iterator[list[dict[str, Any]]]:
    import joblib

    calls = [([(str(file), names[file]) for file in chunk], str(out), settings) for chunk in chunks]
    try:
        if jobs == 0 or len(calls) < 2:
            yield from (_process_chunk(*call) for call in calls)
            return
        parallel = joblib.Parallel(n_jobs=min(jobs, len(calls)), return_as="generator", pre_dispatch="2*n_jobs")
        yield from parallel(joblib.delayed(_in_worker)(*call) for call in calls)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the faces written so far are kept", hint="run the same command again") from None
    except joblib.externals.loky.process_executor.TerminatedWorkerError:
        raise DataprepError(
            "a worker process was killed, perhaps for lack of memory",
            hint="run the same command again with fewer --jobs",
        ) from None


def _in_worker(files: Sequence[tuple[str, str]], out: str, settings: FaceSettings) -> list[dict[str, Any]]:
    prepare_worker()
    return _process_chunk(files, out, settings)


def _process_chunk(files: Sequence[tuple[str, str]], out: str, settings: FaceSettings) -> list[dict[str, Any]]:
    """Write the faces of these (photo, name of its face) and return their rows of faces.csv, in order."""
    samples = [Sample(key=f"photos/{n}", identity="photos", path=os.path.abspath(f)) for n, (f, _) in enumerate(files)]
    lines = []
    for (sample, rows), (file, name) in zip(_rows(samples, settings), files, strict=True):
        _, row = rows[-1]
        if row.payload is not None:
            target = Path(out, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(row.payload)
        found = dict(rows).get("detect")
        face = _face(found) if found is not None and found.reason is None else {}
        lines.append(
            {
                "photo": file,
                "face": name if row.payload is not None else "",
                "verdict": row.verdict,
                "reason": row.reason.code if row.reason else "",
                "detail": row.detail,
                "mtime_ns": os.stat(sample.path).st_mtime_ns,
                **face,
            }
        )
    return lines


def _face(row: Row) -> dict[str, str]:
    """The selected face in a row of detect."""
    chosen, values = row.values["selected"], row.values
    return {
        "box": " ".join(f"{value:.2f}" for value in values["boxes"][4 * chosen : 4 * chosen + 4]),
        "landmarks": " ".join(f"{value:.2f}" for value in values["landmarks"][10 * chosen : 10 * chosen + 10]),
        "score": f"{values['scores'][chosen]:.6f}",
    }


def _rows(samples: Sequence[Sample], settings: FaceSettings) -> list[tuple[Sample, list[tuple[str, Row]]]]:
    """The rows of each sample, by stage, up to the one that rejected it."""
    stages = _prepared(settings)
    params = stages[0].params
    found: dict[str, list[tuple[str, Row]]] = {sample.key: [] for sample in samples}
    items = (
        Item(
            sample=sample,
            rows={},
            photo=Photo(functools.partial(read_local_photo, sample), codec=params.codec, max_pixels=params.max_pixels),
        )
        for sample in samples
    )
    for _, batch in batch_items(enumerate(items)):
        for stage, rows in zip(stages, apply_stages(stages, batch), strict=True):
            for row in rows:
                found[row.key].append((stage.name, row))
    return [(sample, found[sample.key]) for sample in samples]


@functools.lru_cache(maxsize=2)
def _prepared(settings: FaceSettings) -> tuple[MapStage[Any], ...]:
    stages = (
        ValidateStage(ValidateParams()),
        CropStage(CropParams()),
        DetectStage(settings.detect),
        AlignStage(settings.align),
    )
    for stage in stages:
        stage.setup()
    return stages
