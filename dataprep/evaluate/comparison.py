"""Results of several models side by side, as the READMEs of this field print them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataprep.evaluate.results import Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`rows` of cells under `header`; `notes` are what a reader must know to compare them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def tabulate(results: Sequence[Scored]) -> Table:
    """A row for each model, a column for each figure of each set: first the sets' accuracies, then the rates.

    What differs between results on one set beside the model (protocol, flip) makes them different columns.
    """
    models, notes = _models(results), _shared_traits(results)
    kinds = [_kind(result, results) for result in results]
    rows: dict[str, dict[tuple[str, str], str]] = {}
    for result, model, kind in zip(results, models, kinds, strict=True):
        cells = rows.setdefault(model, {})
        if any(there == kind for there, _ in cells):
            notes.append(f"{result.file}: {model} on {kind} stands in the table already; left out")
            continue
        cells.update({(kind, figure): text for figure, text in result.cells.items()})
        notes += [f"{model} on {kind}: {note}" for note in result.notes]
    for name in dict.fromkeys(result.set for result in results):
        versions = {result.set_digest for result in results if result.set == name}
        if len(versions) > 1:
            notes.append(
                f"{name}: {len(versions)} different files of this name; its column does not compare like with like"
            )
    columns = list(
        dict.fromkeys((kind, figure) for result, kind in zip(results, kinds, strict=True) for figure in result.cells)
    )
    columns.sort(key=lambda column: kinds.index(column[0]))
    columns.sort(key=lambda column: column[1] != "")  # stable: the accuracies come first
    return Table(
        header=("model", *(f"{kind} {figure}".strip() for kind, figure in columns)),
        rows=tuple((name, *(cells.get(column, "-") for column in columns)) for name, cells in rows.items()),
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


def _shared_traits(results: Sequence[Scored]) -> list[str]:
    """What holds for all results on a set, once for all sets that it holds for."""
    said: dict[str, list[str]] = {}
    for name in dict.fromkeys(result.set for result in results):
        for trait, values in _traits(results, name).items():
            if len(values) == 1:
                said.setdefault(f"{trait}: {next(iter(values))}", []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in said.items()]


def _kind(result: Scored, results: Sequence[Scored]) -> str:
    """The set, and what tells this result on it from others."""
    varying = [trait for trait, values in _traits(results, result.set).items() if len(values) > 1]
    told = [result.traits[trait] for trait in varying if trait in result.traits]
    return f"{result.set} ({', '.join(told)})" if told else result.set


def _models(results: Sequence[Scored]) -> list[str]:
    """The models' names, with a digest where several have one name.

    A result that knows its model by the digest only takes the name under which another result knows it.
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


def _traits(results: Sequence[Scored], name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for result in results:
        if result.set == name:
            for trait, value in result.traits.items():
                found.setdefault(trait, set()).add(value)
    return found
