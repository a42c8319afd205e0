"""Add the samples of a source to a workspace; options that select samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from dataprep.sources.base import Source, iterate_samples
from dataprep.workspace.workspace import Workspace


def plan_source(workspace: str, kind: str, options: Mapping[str, Any]) -> None:
    """Add a source's samples to the plan of a workspace, unless they are in it already."""
    from dataprep.sources.catalog import open_source

    add_source(workspace, open_source(kind, options, workspace))


def add_source(workspace: str, source: Source) -> None:
    plan = Workspace(workspace, create=True).plan()
    described, digest = source.describe(), source.digest()
    if plan.contains_source(described, digest):
        click.echo(f"{described['kind']}: already planned, {plan.count} samples in total")
        return
    added = plan.add(described, digest, iterate_samples(source))
    if added is None:
        click.echo(f"{described['kind']}: nothing new, {plan.count} samples in total")
    else:
        click.echo(f"{described['kind']}: {added.count} samples in {len(added.shards)} shards planned")
    if plan.known_count:
        click.echo(
            f"{plan.known_count} were already planned and stay unchanged; new boxes, landmarks or hashes need a "
            f"new workspace"
        )
    if source.summary:
        click.echo(source.summary)


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
