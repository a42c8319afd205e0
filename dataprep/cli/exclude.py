"""exclude: leave people and photos out of everything that a workspace hands out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dataprep.cli._options import say_next
from dataprep.errors import UsageError
from dataprep.text import counted, read_names
from dataprep.workspace.exclusions import ExclusionFile, loose_name, match_exclusions
from dataprep.workspace.workspace import Workspace


@click.command()
@click.argument("names", metavar="[NAME|PHOTO]...", nargs=-1)
@click.option("--from", "lists", type=click.Path(path_type=Path), multiple=True, help="A list of them, one per line.")
@click.option("--list", "show", is_flag=True, help="Show what is excluded.")
@click.option("--undo", is_flag=True, help="Take them in again.")
@click.pass_obj
def exclude(workspace: str, names: tuple[str, ...], lists: tuple[Path, ...], show: bool, undo: bool) -> None:
    """Leave people (by name) or photos (as PERSON/PHOTO, path or URL) out of packs, exports and later imports.

    An exclusion lasts until --undo. Case, blanks, underscores and hyphens in names do not matter. `dataprep pack` makes
    the pack without them; folders and packs written earlier keep what they have.

    \b
    Example: dataprep exclude "Anna Smith" Bert/0003.jpg && dataprep pack
             dataprep exclude --from opted_out.txt
    """
    entries = [*names, *(name for path in lists for name in read_names(path))]
    opened = Workspace(workspace)
    if undo:
        if not entries:
            raise UsageError("--undo takes the names to take in again", hint="`dataprep exclude --list` shows them")
        ExclusionFile(opened.folder).remove(entries)
        click.echo(f"{', '.join(entries)}: no longer excluded; import again what was left out since")
        say_next("pack")
    elif entries:
        exclude_all(opened, entries)
        say_next("pack")
    elif not show:
        raise UsageError("nothing to exclude", hint="name people or photos, or use --list")
    if show:
        _show(opened)


def exclude_all(workspace: Workspace, entries: Sequence[str]) -> None:
    """Exclude people and photos, and print what each entry covers."""
    from dataprep.stages.lst import ListingParams, ListStage

    matches = match_exclusions(entries, workspace.plan().tables(["identity", "key", "url", "path"]))
    ExclusionFile(workspace.folder).add(matches)
    listing = ListingParams.from_mapping(workspace.recipe().get("lst", {}))
    renamed = ListStage.in_workspace(listing, workspace).renames.names
    for match in matches:
        if match.photos:
            people = ", ".join(match.people)
            also = f" of {people}" if match.keys or people != match.entry else ""
            click.echo(f"{match.entry}: {counted(match.photos, 'photo')}{also} excluded")
        elif former := [old for old, new in renamed.items() if loose_name(new) == loose_name(match.entry)]:
            click.echo(f"{match.entry}: the new name of {', '.join(former)}, excluded")
        else:
            similar = f" (similar: {', '.join(match.similar)})" if match.similar else ""
            what = "no such photo" if "/" in match.entry else "nobody of that name"
            click.echo(f"{match.entry}: {what} here{similar}; excluded from later imports", err=True)


def _show(workspace: Workspace) -> None:
    excluded = workspace.exclusions()
    entries = [*sorted(excluded.people), *sorted(excluded.photos)]
    for match in match_exclusions(entries, workspace.plan().tables(["identity", "key", "url", "path"])):
        click.echo(
            f"{match.entry}\t{counted(match.photos, 'photo')}"
            + (f" of {', '.join(match.people)}" if match.people else "")
        )
    if not entries:
        click.echo("nothing is excluded")
