"""samples, show and look: what is known of samples, and their pictures."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from dataprep.cli._options import say_next
from dataprep.errors import UsageError
from dataprep.names import printable
from dataprep.text import counted


def _selection(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--dropped", "lost", is_flag=True, help="All samples that were dropped or failed."),
        click.option("--person", default="", metavar="NAME", help="Only this person's."),
        click.option("--reason", "reasons", default="", metavar="R,R", help="Lost for these reasons, comma-separated."),
    ):
        function = option(function)
    return function


@click.command()
@_selection
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="At most N samples; 0 for all.")
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print CSV with everything that the ledgers have; no limit by default."
)
@click.pass_context
def samples(ctx: click.Context, reasons: str, person: str, lost: bool, limit: int, as_csv: bool) -> None:
    """List samples with their verdict, reason and detail: those lost for a reason, or those of a person.

    \b
    Example: dataprep samples --reason no_face
             dataprep samples --person "Anna Smith" --csv > anna.csv
    """
    from dataprep.review.samples import write_csv

    found = _find(ctx.obj, reasons, person, lost)
    if as_csv and ctx.get_parameter_source("limit") is click.core.ParameterSource.DEFAULT:
        limit = 0
    shown = itertools.islice(found, limit or None)
    if as_csv:
        write_csv(sys.stdout, ctx.obj, shown)
        return
    number = 0
    for record in shown:
        number += 1
        verdict = " ".join(filter(None, (record.stage, record.reason or record.verdict or "not yet looked at")))
        click.echo("\t".join(map(printable, (record.sample.key, verdict, record.detail, record.location))))
    more = next(found, None) is not None
    click.echo(
        f"{counted(number, 'sample')} shown" + (", there are more: --limit 0 shows all" if more else ""), err=True
    )
    if number:
        typed = (("--reason", reasons), ("--person", shlex.quote(person) if person else ""))
        say_next(" ".join(["look", *(f"{option} {value}" for option, value in typed if value), *["--dropped"] * lost]))


@click.command()
@click.argument("sample", metavar="KEY|URL|PHOTO")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object per line.")
@click.pass_obj
def show(workspace: str, sample: str, as_json: bool) -> None:
    """Show everything known of a sample: its line of the plan, and its row in the ledger of each stage.

    SAMPLE is a key (PERSON/PHOTO), a URL, a path or file name, or "line 12" for an unusable line of a list.

    \b
    Example: dataprep show anna/0001
    """
    from dataprep.review.samples import find_samples

    person = ""
    for record in find_samples(workspace, like=sample):
        facts, person = record.flat(), record.sample.identity
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=True))
            continue
        for name, value in facts.items():
            if value not in (None, "", []):
                text = " ".join(f"{each:g}" for each in value) if isinstance(value, list) else str(value)
                click.echo(f"{name + ':':<26}{printable(text)}")
        click.echo()
    say_next(f"look --whole-photos --person {shlex.quote(person)}")


@click.command()
@_selection
@click.option(
    "--out", type=click.Path(path_type=Path), help="The sheet, .html or .png; default: look.html in the workspace."
)
@click.option(
    "--whole-photos", "photos", is_flag=True, help="Whole photos with their boxes, also where there is an aligned face."
)
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="At most N samples.")
@click.pass_obj
def look(workspace: str, reasons: str, person: str, lost: bool, out: Path | None, photos: bool, limit: int) -> None:
    """Write a sheet of pictures: aligned faces, or why photos were lost, with boxes, names and reasons.

    \b
    Example: dataprep look --reason no_face
             dataprep look --person "Anna Smith" --out anna.png
    """
    from dataprep.review.sheet import write_sheet

    target = out or Path(workspace) / "look.html"
    chosen = [reasons or ("lost" if lost else ""), person]
    title = f"{workspace}: {', '.join(filter(None, chosen)) or 'all samples'}"
    found = _find(workspace, reasons, person, lost)
    shown = itertools.islice(found, limit)
    number = write_sheet(workspace, target, shown, title=title, faces=not (photos or reasons or lost))
    more = f" (there are more: --limit {10 * limit})" if next(found, None) is not None else ""
    click.echo(f"{counted(number, 'sample')} in {target}{more}")
    say_next("exclude NAME|PHOTO...")


def _find(workspace: str, reasons: str, person: str, lost: bool) -> Iterator[Any]:
    from dataprep.review.samples import count_lost, find_samples

    wanted = [code.strip() for code in reasons.split(",") if code.strip()]
    found = find_samples(workspace, reasons=wanted, person=person, lost=lost)
    first = next(found, None)
    if first is None:
        counts = ", ".join(f"{code} {count}" for code, count in sorted(count_lost(workspace).items()))
        raise UsageError(
            f"no sample in {workspace} fits", hint=f"samples were lost for: {counts}" if counts else "none was lost"
        )
    return itertools.chain([first], found)
