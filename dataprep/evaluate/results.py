"""Reading result.json of `test` and `identify`, reduced to the figures that a table shows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataprep.errors import RecordError

_BENCHMARKS = {"ijbb": "IJB-B", "ijbc": "IJB-C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSummary:
    """The printed figures of one file; the keys of `cells` are appended to the set's name.

    `digest` is the model's sha256, or the features' if no model is known; `set_digest` distinguishes sets of one name.
    `traits` are the settings behind the figures: protocol and flip. Without `named`, `model` names the features' file.
    """

    file: Path
    model: str
    named: bool
    digest: str
    set: str
    set_digest: str
    traits: Mapping[str, str]
    cells: Mapping[str, str]
    notes: Sequence[str] = field(default=())


def find_results(runs: Sequence[Path]) -> list[ResultSummary]:
    """The result.json files given as `runs`, or below them at any depth. Raises RecordError for a run without one."""
    found: dict[Path, ResultSummary] = {}
    for run in runs:
        files = [run] if run.is_file() else sorted(run.rglob("result.json"))
        if not files:
            raise RecordError(
                f"{run} holds no result.json", hint="`dataprep test` and `dataprep identify` write these files"
            )
        for file in files:
            try:
                found[Path(os.path.realpath(file))] = _read_result(file)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                if run.is_file():
                    raise RecordError(f"{file} is not a result of a test or an identification ({error})") from None
                continue  # a folder may hold results of other kinds too
    if not found:
        raise RecordError(
            f"{', '.join(map(str, runs))}: found no result of a test or an identification",
            hint="`dataprep test` and `dataprep identify` write result.json",
        )
    return list(found.values())


def _read_result(file: Path) -> ResultSummary:
    content = json.loads(file.read_bytes())
    return _verified(file, content) if "verification" in content else _identified(file, content)


def _verified(file: Path, content: Mapping[str, Any]) -> ResultSummary:
    scores = content["verification"]
    name = str(content.get("name") or Path(content["model"]).stem)
    skipped = content.get("skipped_pairs")
    return ResultSummary(
        file=file,
        model=name,
        named=True,
        digest=str(content.get("model_sha256") or content.get("features_sha256") or ""),
        set=str(content.get("set_name") or Path(content["set"]).stem),
        set_digest=str(content.get("set_sha256")),
        traits={trait: str(content.get(trait, "?")) for trait in ("protocol", "flip")},
        cells={
            "": f"{float(scores['accuracy']):.2%} ± {float(scores['accuracy_std']):.2%}",
            **_rates("TAR@", scores["tar_at_far"]),
        },
        notes=[f"{skipped} pairs were left out"] if skipped else [],
    )


def _identified(file: Path, content: Mapping[str, Any]) -> ResultSummary:
    """IJB 1:1, IJB 1:N or MegaFace. The model's name is unknown: only its features and, from `extract`, its hash."""
    features, inputs = [str(path) for path in content["features"]], content["inputs"]
    benchmark, _, protocol = content["protocol"].partition("; " if "tar_at_fpr" not in content else ", ")
    name, _, way = benchmark.partition(" ")
    if "tpir_at_fpir_ijb_1n" in content:
        cells = {**_ranks(content["rank"]), **_rates("TPIR@", content["tpir_at_fpir_ijb_1n"])}
        left_out = [
            (content["probes_excluded"], "probes"),
            (content["gallery_templates_excluded"], "gallery templates"),
        ]
    elif "tar_at_fpr" in content:
        cells = {**_ranks(content["rank"]), **_rates("TAR@", content["tar_at_fpr"])}
        left_out = [(content["probes_excluded"], "probes"), (content["distractors_excluded"], "distractors")]
        way = f"{way} {content['distractors']:,}".strip()
    else:
        cells = _rates("TAR@", content["tar_at_far"])
        left_out = [(content["pairs_excluded"], "pairs"), (content["faces_excluded"], "faces")]
    lists = sorted(str(sha256) for path, sha256 in inputs.items() if path not in features)
    models = {str(about["model_sha256"]) for about in content.get("models", {}).values()}
    return ResultSummary(
        file=file,
        model=Path(features[0]).stem,
        named=False,
        digest=models.pop() if len(models) == 1 else str(inputs[features[0]]),
        set=f"{_BENCHMARKS.get(name, name)} {way}".strip(),
        set_digest=hashlib.sha256("\n".join(lists).encode()).hexdigest(),
        traits={"protocol": protocol},
        cells=cells,
        notes=[f"{count} {what} were left out" for count, what in left_out if count],
    )


def _ranks(shares: Mapping[str, Any]) -> dict[str, str]:
    return {f"rank-{rank}": f"{float(shares[rank]):.2%}" for rank in sorted(shares, key=int)}


def _rates(what: str, rates: Mapping[str, Any]) -> dict[str, str]:
    """In order of descending false accept rate."""
    known = sorted(((float(rate), float(share)) for rate, share in dict(rates).items()), reverse=True)
    return {f"{what}{rate:.0e}".replace("e-0", "e-"): f"{share:.2%}" for rate, share in known}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultTable:
    """`rows` of cells under `header`; `notes` hold what a reader must know to compare them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def tabulate_results(results: Sequence[ResultSummary]) -> ResultTable:
    """A row for each model and a column for each figure of each set: first the accuracies, then the rates.

    Results on one set with different traits (protocol, flip) get different columns.
    """
    models, notes = _models(results), _shared_traits(results)
    kinds = [_kind(result, results) for result in results]
    rows: dict[str, dict[tuple[str, str], str]] = {}
    for result, model, kind in zip(results, models, kinds, strict=True):
        cells = rows.setdefault(model, {})
        if any(there == kind for there, _ in cells):
            notes.append(f"{result.file}: {model} on {kind} is already in the table; left out")
            continue
        cells.update({(kind, figure): text for figure, text in result.cells.items()})
        notes += [f"{model} on {kind}: {note}" for note in result.notes]
    for name in dict.fromkeys(result.set for result in results):
        versions = {result.set_digest for result in results if result.set == name}
        if len(versions) > 1:
            notes.append(
                f"{name}: {len(versions)} different files have this name; the figures in its column are not comparable"
            )
    columns = list(
        dict.fromkeys((kind, figure) for result, kind in zip(results, kinds, strict=True) for figure in result.cells)
    )
    columns.sort(key=lambda column: kinds.index(column[0]))
    columns.sort(key=lambda column: column[1] != "")  # stable: the accuracies come first
    return ResultTable(
        header=("model", *(f"{kind} {figure}".strip() for kind, figure in columns)),
        rows=tuple((name, *(cells.get(column, "-") for column in columns)) for name, cells in rows.items()),
        notes=tuple(notes),
    )


def format_text(table: ResultTable) -> str:
    """Aligned columns; the first is left-aligned."""
    widths = [max(len(row[i]) for row in (table.header, *table.rows)) for i in range(len(table.header))]
    lines = []
    for row in (table.header, *table.rows):
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    return "\n".join([*lines, *table.notes])


def format_markdown(table: ResultTable) -> str:
    """A table in GitHub's Markdown."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    lines.insert(1, "|" + "|".join([" --- ", *(" ---: " for _ in table.header[1:])]) + "|")
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)])


def _shared_traits(results: Sequence[ResultSummary]) -> list[str]:
    """The traits that all results on a set share; sets with the same trait share a line."""
    said: dict[str, list[str]] = {}
    for name in dict.fromkeys(result.set for result in results):
        for trait, values in _traits(results, name).items():
            if len(values) == 1:
                said.setdefault(f"{trait}: {next(iter(values))}", []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in said.items()]


def _kind(result: ResultSummary, results: Sequence[ResultSummary]) -> str:
    """The set, and the traits that distinguish this result from others on it."""
    varying = [trait for trait, values in _traits(results, result.set).items() if len(values) > 1]
    told = [result.traits[trait] for trait in varying if trait in result.traits]
    return f"{result.set} ({', '.join(told)})" if told else result.set


def _models(results: Sequence[ResultSummary]) -> list[str]:
    """The models' names, with a digest where several models share a name.

    A result that has only the model's digest takes the name from another result of that model.
    """
    known = {result.digest: result.model for result in reversed(results) if result.named}
    names = [result.model if result.named else known.get(result.digest, result.model) for result in results]
    digests: dict[str, set[str]] = {}
    for result, name in zip(results, names, strict=True):
        digests.setdefault(name, set()).add(result.digest)
    return [
        f"{name} ({result.digest[:8]})" if len(digests[name]) > 1 else name
        for result, name in zip(results, names, strict=True)
    ]


def _traits(results: Sequence[ResultSummary], name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for result in results:
        if result.set == name:
            for trait, value in result.traits.items():
                found.setdefault(trait, set()).add(value)
    return found
