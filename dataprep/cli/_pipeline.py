"""Run the stages that a verb covers, with its parameters, and print the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from dataprep.cli._options import is_quiet, say, say_next
from dataprep.errors import RecordError
from dataprep.names import printable
from dataprep.pipeline.photo_changes import find_moved, find_photo_changes, take_over
from dataprep.pipeline.pipeline import Pipeline
from dataprep.pipeline.progress import make_display
from dataprep.pipeline.runner import RunReport, build_report, plan_work, run_pipeline
from dataprep.reasons import Reason
from dataprep.review.samples import find_samples
from dataprep.text import counted
from dataprep.types import Sample
from dataprep.workspace.plan import Plan
from dataprep.workspace.plan_table import SampleTable
from dataprep.workspace.workspace import Workspace


def run_stages(
    workspace: str,
    until: str,
    changes: Mapping[str, Mapping[str, Any]],
    *,
    jobs: int,
    dry_run: bool,
    strict: bool,
    accept_versions: bool,
    update: bool = False,
) -> RunReport | None:
    """Run the stages up to `until` with the workspace's recipe and `changes`. Returns None after a dry run.

    Exits with 1 if shards failed, and with 3 if `strict` is set and a retry could recover samples.
    """
    opened = Workspace(workspace)
    pipeline = Pipeline(opened, opened.recipe() | dict(changes), until=until)
    happened, hint = follow_photos(pipeline, opened.plan(), update=update and not dry_run)
    for line in filter(None, (happened, hint and f"hint: {hint}")):
        click.echo(line, err=True)
    work = plan_work(pipeline)
    if dry_run:
        _show_plan(work)
        return None
    announce = [(node.name, len(pending), pending[0].reason) for node, pending in work if pending]
    for name, shards, why in announce:
        if name != until:
            say(f"{name}: {counted(shards, 'shard')} to do first ({why})")
        elif name == "download" and why != "never run":
            say(f"{name}: {counted(shards, 'shard')} downloaded again ({why})")
    display = make_display(quiet=is_quiet())
    try:
        report = run_pipeline(pipeline, jobs=jobs, accept_versions=accept_versions, display=display)
    except RecordError:  # nothing is left to pack: say where it all went
        _tell_wholesale_losses(pipeline, build_report(pipeline, {node.name: 0 for node in pipeline.nodes}, {}))
        raise
    if not announce:
        click.echo(f"{until}: nothing to do, everything is done")
    _show_account(report, until)
    if report.errors:
        raise SystemExit(1)
    if _tell_wholesale_losses(pipeline, report):
        raise SystemExit(1)
    if strict and count_transient_failures(report):
        raise SystemExit(3)
    if until in _NEXT:
        say_next(_NEXT[until])
    return report


_NEXT = {
    "download": "align --size 112",
    "validate": "align --size 112",
    "crop": "align --size 112",
    "align": "pack",
    "lst": "pack",
}
_NEARLY_ALL = 0.95  # of a stage's samples, lost for one reason, are told as if they were all


def _tell_wholesale_losses(pipeline: Pipeline, report: RunReport) -> bool:
    """Say which stages of this run lost all or nearly all of their samples for one reason, with an example and a remedy."""
    found = False
    for name in report.committed.keys() & report.accounts.keys():
        account = report.accounts[name]
        lost = {**account["dropped"], **account["failed"]}
        code = max(lost, key=lambda code: lost[code], default="")
        if not code or lost[code] < _NEARLY_ALL * account["in"] or code == Reason.EXCLUDED.code:
            continue
        found = True
        which = "all" if lost[code] == account["in"] else f"{lost[code]} of"
        reason = Reason.from_code(code)
        example = next(find_samples(str(pipeline.workspace.path), reasons=[code]), None)
        shown = f"; for example {printable(example.sample.key)}: {printable(example.detail)}" if example else ""
        click.echo(f"{name}: {which} {account['in']} samples are lost as {code}: {reason.meaning}{shown}", err=True)
        if reason.remedy:
            click.echo(f"hint: {reason.remedy}", err=True)
    return found


def follow_photos(
    pipeline: Pipeline, plan: Plan, *, update: bool, listed: Iterable[Sample | SampleTable] = ()
) -> tuple[str, str]:
    """What happened to the photos on this disk, and a hint; both are empty if nothing has. With `update` the plan follows
    them, moved ones to where a source has `listed` them."""
    changes = find_photo_changes(pipeline, plan)
    if not changes:
        return "", ""
    taken = take_over(pipeline, plan, changes, find_moved(changes, listed)) if update else changes
    followed = update and bool(taken.gone or taken.changed or taken.moved)
    text = f"since the workspace read them, {taken.describe()}; {'the plan follows' if followed else 'it keeps what it had'}"
    if taken.absent:
        return text, "mount the disk, or import the folder from its new place"
    return text, "" if update else "--update takes this over"


def count_transient_failures(report: RunReport) -> dict[str, int]:
    """The number of failed samples that a retry may recover, by reason."""
    found: dict[str, int] = {}
    for account in report.accounts.values():
        for code, count in account["failed"].items():
            if Reason.from_code(code).transient:
                found[code] = found.get(code, 0) + count
    return found


def format_counts(name: str, account: Mapping[str, Any]) -> str:
    """`align: 950 in = 941 ok + 9 dropped (no_face 9) + 0 failed`."""
    parts = []
    for kind in ("dropped", "failed"):
        reasons = account[kind]
        total = sum(reasons.values())
        named = ", ".join(f"{code} {count}" for code, count in sorted(reasons.items(), key=lambda item: -item[1]))
        parts.append(f"{total} {kind}" + (f" ({named})" if named else ""))
    return f"{name}: {account['in']} in = {account['ok']} ok + {' + '.join(parts)}"


def format_duplicates(found: Mapping[str, int]) -> str:
    return f"duplicate faces in identical photos: {found['within']} within a person, {found['across']} across people"


def _show_plan(work: Any) -> None:
    any_pending = False
    for node, pending in work:
        if pending:
            any_pending = True
            reasons: dict[str, int] = {}
            for entry in pending:
                reasons[entry.reason] = reasons.get(entry.reason, 0) + 1
            why = "; ".join(f"{counted(count, 'shard')}: {reason}" for reason, count in reasons.items())
            click.echo(f"{node.name} would run ({why})")
    if not any_pending:
        click.echo("nothing would run, everything is done")


def _show_account(report: RunReport, until: str) -> None:
    for name, account in report.accounts.items():
        if name in report.committed or name == until:
            click.echo(format_counts(name, account))
    saveable = count_transient_failures(report)
    if saveable:
        total = sum(saveable.values())
        click.echo(f"{total} transient failures: dataprep retry --reason {','.join(sorted(saveable))}")
    for shard, error in report.errors.items():
        click.echo(f"shard {shard} failed: {error.strip().splitlines()[-1]}", err=True)
