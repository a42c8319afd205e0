"""status, retry, gc, export and doctor: commands on a workspace."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataprep.cli._options import say_next
from dataprep.cli._pipeline import format_counts, format_duplicates
from dataprep.names import printable
from dataprep.text import counted

if TYPE_CHECKING:
    from dataprep.pipeline.image_export import ImageExport

_EXAMPLES = 3  # samples shown of each reason


@click.command()
@click.option("--why", is_flag=True, help="Show why stages are pending, and some samples of each reason.")
@click.option("--hosts", type=click.IntRange(1), help="Show the N hosts with the most lost photos.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_obj
def status(workspace: str, why: bool, hosts: int | None, as_json: bool) -> None:
    """Show what is done, what was lost and why, and what is pending.

    \b
    Example: dataprep status --why
    """
    from dataprep.pipeline.maintenance import list_failed_hosts
    from dataprep.pipeline.maintenance import workspace_status as look
    from dataprep.review.samples import find_samples

    found = look(workspace)
    if hosts:
        found["hosts"] = list_failed_hosts(workspace, hosts)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    sources = ", ".join(f"{s['source'].get('kind')} {s['samples']}" for s in found["sources"]) or "none yet"
    planned = f"{counted(found['samples'], 'sample')} of {counted(found['people'], 'person')}"
    click.echo(f"{found['workspace']}: {planned} ({sources})")
    if found["changes"]:
        click.echo(f"  since the workspace read them, {found['changes']}; --update takes this over")
    if found["excluded"]:
        click.echo(f"  {found['excluded']} people or photos are excluded: dataprep exclude --list")
    for stage in found["stages"]:
        account = stage["account"]
        done = format_counts(stage["stage"], account) if account["in"] else f"{stage['stage']}: -"
        size = f" | {stage['bytes'] / 1e6:.1f} MB" if stage["bytes"] else ""
        pending = f" | pending {stage['pending']} of {stage['shards']} shards" if stage["pending"] else ""
        if stage["unfinished"]:
            pending += f", in which {stage['unfinished']} of {stage['waiting']} samples are done"
        if stage["running"]:
            pending += f" | process {stage['running']} is working on it"
        click.echo(f"  {done}{size}{pending}")
        if stage["extra"].get("duplicates"):
            click.echo(f"      {format_duplicates(stage['extra']['duplicates'])}")
        if why:
            for reason, count in stage["why"].items():
                click.echo(f"      {count} x {reason}")
            for code in (*account["dropped"], *account["failed"]):
                for record in itertools.islice(find_samples(workspace, reasons=[code]), _EXAMPLES):
                    click.echo(printable(f"      {code}: {record.sample.key} ({record.detail or record.location})"))
    for host in found.get("hosts", ()):
        named = ", ".join(f"{code} {count}" for code, count in sorted(host["lost"].items(), key=lambda item: -item[1]))
        click.echo(f"  {host['host']}: {sum(host['lost'].values())} lost ({named}), {host['ok']} ok")
    if found["packs"]:
        click.echo(f"  packs: {', '.join(found['packs'])}")
    begun = next((stage["stage"] for stage in found["stages"] if stage["pending"]), "")
    if not found["samples"]:
        say_next("import folder PHOTOS")
    elif begun:
        say_next({"download": "download", "lst": "pack", "pack": "pack"}.get(begun, "align --size 112"))
    else:
        say_next("train")


@click.command()
@click.option("--reason", "reasons", required=True, help="One or more reasons, comma-separated.")
@click.option("--shard", "shards", default="", help="Only these shards (g0-000012), comma-separated.")
@click.pass_obj
def retry(workspace: str, reasons: str, shards: str) -> None:
    """Mark samples lost for these reasons for a retry. The next verb runs them and all that depends on them.

    \b
    Example: dataprep retry --reason timeout,http_5xx && dataprep pack
    """
    from dataprep.pipeline.maintenance import request_retry
    from dataprep.stages.order import stage_verb

    for stage, counts in request_retry(workspace, _split_commas(reasons), _split_commas(shards)).items():
        named = ", ".join(f"{code} {count}" for code, count in counts.items())
        click.echo(f"{stage}: {named} will be retried by the next `dataprep {stage_verb(stage)}`, `pack` or `run`")
    say_next("pack")


def _split_commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed, without removing it.")
@click.option("--other-parameters", is_flag=True, help="Also remove results of parameters no longer in use.")
@click.pass_obj
def gc(workspace: str, dry_run: bool, other_parameters: bool) -> None:
    """Remove unreferenced files: leftovers of killed runs, and results that retries replaced.

    \b
    Example: dataprep gc --dry-run
    """
    from dataprep.pipeline.maintenance import collect_garbage

    found = collect_garbage(workspace, remove=not dry_run, other_parameters=other_parameters)
    if dry_run:
        for path, size in found:
            click.echo(f"{size:>12}  {path}")
    total = sum(size for _, size in found)
    click.echo(f"{len(found)} files, {total / 1e6:.1f} MB {'to remove' if dry_run else 'removed'}")
    say_next("gc" if dry_run else "status")


@click.command()
@click.option("--format", type=click.Choice(["folder"]), default="folder", show_default=True, help="Output format.")
@click.option(
    "--what", type=click.Choice(["faces", "photos"]), default="faces", show_default=True, help="Images to write."
)
@click.argument("target", type=click.Path(path_type=Path))
@click.pass_obj
def export(workspace: str, format: str, what: str, target: Path) -> None:
    """Write the aligned faces or the usable photos as identity/image.jpg.

    \b
    Example: dataprep export --format folder faces/
    """
    from dataprep.pipeline.image_export import export_folder

    tell_export(export_folder(workspace, target, what), what, target)


def tell_export(result: ImageExport, what: str, target: Path) -> None:
    """Print what an export did, and which images are missing."""
    click.echo(
        f"{result.images} {what} under {target}" + (f", {result.unchanged} as before" if result.unchanged else "")
    )
    if result.removed:
        click.echo(f"  {counted(result.removed, 'file')} of an earlier export removed")
    if result.renamed:
        click.echo(f"  {counted(result.renamed, 'image')} renamed, since a file or folder has the name")
    if result.missing:
        click.echo(f"  {len(result.missing)} {what} missing", err=True)
        for key, why in itertools.islice(result.missing.items(), _EXAMPLES):
            click.echo(printable(f"      {key}: {why}"), err=True)
    say_next("pack")


@click.command()
def doctor() -> None:
    """Show what is installed, which detector backend is used, and how fast it is on this machine.

    \b
    Example: dataprep doctor
    """
    from dataprep.pipeline.doctor import describe_installation

    for line in describe_installation():
        click.echo(line)
    say_next("import folder PHOTOS")
