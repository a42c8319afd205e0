"""How the samples of a source come into a workspace, and the options that select some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from dataprep.sources.base import Source, listed
from dataprep.workspace.workspace import Workspace


def plan_source(workspace: str, kind: str, options: Mapping[str, Any]) -> None:
    """Freeze a source's samples into the plan of a workspace, unless they are in it."""
    from dataprep.sources.catalog import open_source

    add_source(workspace, open_source(kind, options, workspace))


def add_source(workspace: str, source: Source) -> None:
    plan = Workspace(workspace, create=True).plan()
    described, digest = source.describe(), source.digest()
    if plan.knows(described, digest):
        click.echo(f"{described['kind']}: planned before, {plan.count} samples in all")
        return
    added = plan.add(described, digest, listed(source))
    if added is None:
        click.echo(f"{described['kind']}: nothing new, {plan.count} samples in all")
    else:
        click.echo(f"{described['kind']}: {added.count} samples in {len(added.shards)} shards planned")
    if plan.known:
        click.echo(
            f"{plan.known} were planned before and stay as they were; new boxes, landmarks or hashes take a workspace of "
            "their own"
        )
    if source.account:
        click.echo(source.account)


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--limit, --per-identity, --identities."""
    for option in (
        click.option("--limit", type=click.IntRange(1), help="At most this many photos, in the list's order."),
        click.option("--per-identity", type=click.IntRange(1), help="At most this many photos of one person."),
        click.option(
            "--identities", metavar="N|FILE|NAME,NAME",
            help="Only the first N people, those of a file with a name per line, or these.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function
