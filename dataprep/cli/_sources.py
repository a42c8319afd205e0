"""Add the samples of a source to a workspace; options that select samples."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from dataprep.cli._options import say_next
from dataprep.errors import DataprepError
from dataprep.sources.base import UNUSABLE_IDENTITY, Source, iterate_samples
from dataprep.text import counted
from dataprep.workspace.plan import Plan
from dataprep.workspace.workspace import Workspace


def plan_source(workspace: str, kind: str, options: Mapping[str, Any], *, update: bool = True) -> None:
    """Add a source's samples to the plan of a workspace, unless they are in it already."""
    from dataprep.sources.catalog import open_source

    add_source(workspace, open_source(kind, options, workspace), update=update)
    say_next(*(("align --size keep", "pack") if options.get("aligned") or kind == "rec" else ("align --size 112",)))


def add_source(workspace: str, source: Source, *, update: bool = True) -> None:
    """Plan the samples of a source. With `update`, the plan also follows files that are gone, changed or moved."""
    with _undone_on_failure(Path(workspace)):
        _plan(Workspace(workspace, create=True), source, update)


@contextlib.contextmanager
def _undone_on_failure(folder: Path) -> Iterator[None]:
    """Leave nothing of a workspace that this command made for a source that then cannot be read."""
    made = not (folder / "dataprep.json").exists()
    there = folder.exists()
    try:
        yield
    except DataprepError:
        if made and not list(folder.glob("plan/g*.json")):
            (folder / "dataprep.json").unlink(missing_ok=True)
            shutil.rmtree(folder / "plan", ignore_errors=True)
            if not there:
                with contextlib.suppress(OSError):  # lists were fetched into it, for example
                    folder.rmdir()
        raise


def _plan(opened: Workspace, source: Source, update: bool) -> None:
    plan, excluded = opened.plan(), opened.exclusions()
    described, digest = source.describe(), source.digest()
    if excluded:
        digest = hashlib.sha256(f"{digest} {excluded.digest()}".encode()).hexdigest()
    if plan.generations:
        from dataprep.cli._pipeline import follow_photos
        from dataprep.pipeline.pipeline import Pipeline

        pipeline = Pipeline(opened, opened.recipe())
        for line in filter(None, follow_photos(pipeline, plan, update=update, listed=iterate_samples(source))):
            click.echo(line)
    if plan.contains_source(described, digest):
        click.echo(f"{described['kind']}: already planned, {_counted(plan)} in total")
        return
    left_out: Counter[str] = Counter()
    listed = excluded.filter_samples(iterate_samples(source), on_excluded=lambda identity: left_out.update([identity]))
    added = plan.add(described, digest, listed)
    if added is None:
        click.echo(f"{described['kind']}: nothing new, {_counted(plan)} in total")
    else:
        click.echo(f"{described['kind']}: {counted(added.count, 'sample')} planned, {_counted(plan)} in total")
    if left_out:
        click.echo(f"{counted(left_out.total(), 'photo')} of {counted(len(left_out), 'person')} excluded and left out")
    if plan.known_count:
        click.echo(
            f"{plan.known_count} were already planned and stay unchanged; new boxes, landmarks or hashes need a "
            f"new workspace"
        )
    if source.summary:
        click.echo(source.summary)


def _counted(plan: Plan) -> str:
    people = len(plan.photos_per_identity().keys() - {UNUSABLE_IDENTITY})
    return f"{counted(plan.count, 'sample')} of {counted(people, 'person')}"


def update_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--update/--no-update", default=True, show_default=True,
        help="Also follow photos that are gone, changed or moved since the last import.",
    )(function)  # fmt: skip


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--limit, --per-identity, --identities."""
    for option in (
        click.option("--limit", type=click.IntRange(1), help="Maximum number of photos, in list order."),
        click.option("--per-identity", type=click.IntRange(1), help="Maximum number of photos per person."),
        click.option(
            "--identities", metavar="N|FILE|NAME,NAME",
            help="Only the first N people, the names in FILE (one per line), or the given names.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function
