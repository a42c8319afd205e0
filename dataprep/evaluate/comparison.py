"""Results of several models side by side, as the READMEs of this field print them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`rows` of cells under `header`; `notes` are what a reader must know to compare them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def find_results(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """The result.json files that `runs` are, or lie in at any depth. Raises RecordError for a run without one."""
    found: dict[Path, dict[str, Any]] = {}
    for run in runs:
        files = [run] if run.is_file() else sorted(run.rglob("result.json"))
        if not files:
            raise RecordError(f"{run} holds no result.json: `dataprep test` writes one")
        for file in files:
            try:
                content = json.loads(file.read_bytes())
                scores = content["verification"]
                rates = {f"{float(far):g}": float(tar) for far, tar in dict(scores["tar_at_far"]).items()}
                numbers = {name: float(scores[name]) for name in ("accuracy", "accuracy_std")}
                content["verification"] = {**numbers, "tar_at_far": rates}
                content["_row"] = str(content.get("name") or Path(content["model"]).stem)
                content["_set"] = str(content.get("set_name") or Path(content["set"]).stem)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                if run.is_file():
                    raise RecordError(f"{file} is no result of `dataprep test` ({error})") from None
                continue  # a folder may hold results of other kinds too
            found[file.resolve()] = {**content, "_file": str(file)}
    if not found:
        raise RecordError(f"{', '.join(map(str, runs))}: no result of `dataprep test` is there")
    return list(found.values())


def tabulate(results: Sequence[dict[str, Any]]) -> Table:
    """A row for each model (and protocol, and way of fusing flips), a column for each set's accuracy, then TAR at FAR."""
    keys = {name: _keys(results, name) for name in ("protocol", "flip")}
    told = [name for name, values in keys.items() if len(values) > 1]
    hashes: dict[str, set[str]] = {}
    for result in results:
        hashes.setdefault(_row(result), set()).add(_digest(result))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    columns: dict[str, None] = {}
    sets = list(dict.fromkeys(result["_set"] for result in results))
    rates = sorted(
        {far for result in results for far in result["verification"]["tar_at_far"]}, key=lambda far: -float(far)
    )
    for name in sets:
        columns[name] = None
    for name in sets:
        for far in rates:
            columns[f"{name} TAR@{float(far):.0e}".replace("e-0", "e-")] = None
    notes = [f"{name}: {' / '.join(values)}" for name, values in keys.items() if len(values) == 1]
    for result in results:
        row = _row(result)
        label = row if len(hashes[row]) == 1 else f"{row} ({_digest(result)[:8]})"
        cells = rows.setdefault((label, *(str(result.get(name, "")) for name in told)), {})
        scores = result["verification"]
        if result["_set"] in cells:
            notes.append(f"{result['_file']}: {label} on {result['_set']} stands in the table already; left out")
            continue
        cells[result["_set"]] = f"{scores['accuracy']:.2%} ± {scores['accuracy_std']:.2%}"
        for far, tar in scores["tar_at_far"].items():
            cells[f"{result['_set']} TAR@{float(far):.0e}".replace("e-0", "e-")] = f"{tar:.2%}"
        if result.get("skipped_pairs"):
            notes.append(f"{label} on {result['_set']}: {result['skipped_pairs']} pairs were left out")
    for name in sets:
        versions = {str(result.get("set_sha256")) for result in results if result["_set"] == name}
        if len(versions) > 1:
            notes.append(
                f"{name}: {len(versions)} different files of this name; its column does not compare like with like"
            )
    used = [column for column in columns if any(column in cells for cells in rows.values())]
    return Table(
        header=("model", *told, *used),
        rows=tuple((*key, *(cells.get(column, "-") for column in used)) for key, cells in rows.items()),
        notes=tuple(notes),
    )


def as_text(table: Table) -> str:
    """Aligned columns, the first ones to the left."""
    widths = [max(len(row[i]) for row in (table.header, *table.rows)) for i in range(len(table.header))]
    lines = []
    for row in (table.header, *table.rows):
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    return "\n".join([*lines, *table.notes])


def as_markdown(table: Table) -> str:
    """A table as GitHub shows it."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    lines.insert(1, "|" + "|".join([" --- ", *(" ---: " for _ in table.header[1:])]) + "|")
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)])


def _row(result: dict[str, Any]) -> str:
    return str(result["_row"])


def _digest(result: dict[str, Any]) -> str:
    return str(result.get("model_sha256") or result.get("features_sha256") or "")


def _keys(results: Sequence[dict[str, Any]], name: str) -> list[str]:
    return sorted({str(result.get(name, "?")) for result in results})
