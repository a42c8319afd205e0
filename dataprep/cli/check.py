"""check: look whether everything in the workspace is still what was written."""

from __future__ import annotations

import click

from dataprep.cli._ticker import ProgressBar
from dataprep.text import counted


@click.command()
@click.option("--redo", is_flag=True, help="Mark what is damaged, so that the next run makes it again.")
@click.pass_context
def check(ctx: click.Context, redo: bool) -> None:
    """Read everything in the workspace and compare it with its checksums: plan, ledgers, images, packs, models.

    Runs check what they read themselves, and make a damaged shard again. Exit status 1 means that something is damaged.

    \b
    Example: dataprep check
             dataprep check --redo && dataprep pack
    """
    from dataprep.pipeline.integrity_check import check_workspace

    shown = ProgressBar()
    report = check_workspace(ctx.obj, redo=redo, progress=lambda files, size: shown("files", files))
    for damage in report.damaged:
        click.echo(f"damaged: {damage.path}: {damage.what}")
        if damage.remedy:
            click.echo(f"  remedy: {damage.remedy}")
    read = f"{counted(report.files, 'file')} with {report.bytes / 1e6:.1f} MB read"
    if not report.damaged:
        click.echo(f"{read}: everything is whole")
        return
    marked = "; marked to be made again where a run can" if redo else ""
    click.echo(f"{read}: {len(report.damaged)} damaged{marked}")
    ctx.exit(1)
