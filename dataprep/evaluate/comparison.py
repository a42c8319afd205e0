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

    What differs between results on one set beside the model (protocol, flip) is part of the row's name.
    """
    notes = _shared_traits(results)
    names = _row_names(results)
    rows: dict[str, dict[tuple[str, str], str]] = {}
    for result, name in zip(results, names, strict=True):
        cells = rows.setdefault(name, {})
        if any(kind == result.set for kind, _ in cells):
            notes.append(f"{result.file}: {name} on {result.set} stands in the table already; left out")
            continue
        cells.update({(result.set, figure): text for figure, text in result.cells.items()})
        notes += [f"{name} on {result.set}: {note}" for note in result.notes]
    sets = list(dict.fromkeys(result.set for result in results))
    for kind in sets:
        versions = {result.set_digest for result in results if result.set == kind}
        if len(versions) > 1:
            notes.append(
                f"{kind}: {len(versions)} different files of this name; its column does not compare like with like"
            )
    columns = [(kind, figure) for kind in sets for figure in _figures(results, kind)]
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
    for kind in dict.fromkeys(result.set for result in results):
        for trait, values in _traits(results, kind).items():
            if len(values) == 1:
                said.setdefault(f"{trait}: {values[0]}", []).append(kind)
    return [f"{', '.join(kinds)}: {text}" for text, kinds in said.items()]


def _row_names(results: Sequence[Scored]) -> list[str]:
    """The model, the traits that tell its results apart, and its digest where several models have one name.

    A result that knows its model by the digest only takes the name under which another result knows it.
    """
    known = {result.digest: result.model for result in reversed(results) if result.named}
    models = [result.model if result.named else known.get(result.digest, result.model) for result in results]
    digests: dict[str, set[str]] = {}
    for result, model in zip(results, models, strict=True):
        digests.setdefault(model, set()).add(result.digest)
    names = []
    for result, model in zip(results, models, strict=True):
        told = [
            result.traits[trait] for trait, values in _traits(results, result.set).items()
            if len(values) > 1 and trait in result.traits
        ]  # fmt: skip
        if len(digests[model]) > 1:
            told.insert(0, result.digest[:8])
        names.append(f"{model} ({', '.join(told)})" if told else model)
    return names


def _traits(results: Sequence[Scored], kind: str) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for result in results:
        if result.set == kind:
            for trait, value in result.traits.items():
                found.setdefault(trait, set()).add(value)
    return {trait: sorted(values) for trait, values in found.items()}


def _figures(results: Sequence[Scored], kind: str) -> list[str]:
    """The figures of a set in their own order, as far as the results on it agree on one."""
    return list(dict.fromkeys(figure for result in results if result.set == kind for figure in result.cells))
