"""Click options made from the parameter dataclasses, and the options shared by all stage verbs."""

from __future__ import annotations

import dataclasses
import os
import shlex
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from dataprep.params import StageParams

F = Callable[..., Any]


def params_options(*kinds: type[StageParams]) -> Callable[[F], F]:
    """Add one option per field, with the field's help, default, choices and group."""

    def decorate(function: F) -> F:
        for kind in reversed(kinds):
            hints = typing.get_type_hints(kind)
            for field in reversed(dataclasses.fields(kind)):
                function = _option(field, hints[field.name])(function)
        return function

    return decorate


def given_params(values: Mapping[str, Any], *kinds: type[StageParams]) -> list[dict[str, Any]]:
    """The command line's values for each of the dataclasses, validated. Raises UsageError."""
    given = [{f.name: values[f.name] for f in dataclasses.fields(kind)} for kind in kinds]
    return [kind.from_mapping(found).as_dict() for kind, found in zip(kinds, given, strict=True)]


def is_given(ctx: click.Context, kind: type[StageParams]) -> bool:
    """Whether the user set any option of this dataclass."""
    source = click.core.ParameterSource
    return any(
        ctx.get_parameter_source(f.name) not in (source.DEFAULT, source.DEFAULT_MAP, None)
        for f in dataclasses.fields(kind)
    )


QUIET = "dataprep.quiet"  # set in a context's meta by -q
DEFAULT_WORKSPACE = "workspace"


def is_quiet() -> bool:
    """Whether only results and errors are wanted (-q)."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(QUIET))


def say(text: str) -> None:
    """Print on stderr what is no result, unless the user wants results only."""
    if not is_quiet():
        click.echo(text, err=True)


def say_next(*verbs: str, in_workspace: bool = True) -> None:
    """Print the command that usually follows, for the workspace in use unless it needs none."""
    workspace = str(click.get_current_context().obj)
    usual = os.environ.get("DATAPREP_WORKSPACE") or DEFAULT_WORKSPACE
    named = "" if workspace == usual or not in_workspace else f"-w {shlex.quote(workspace)} "
    say("next: " + " && ".join(f"dataprep {named}{verb}" for verb in verbs))


class GroupedCommand(click.Command):
    """A command whose help lists the options by group; options without a group come first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(option, "group", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


class GroupedOption(click.Option):
    """An option with the title of its help section."""

    def __init__(self, *args: Any, group: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


RUN_OPTIONS = ("jobs", "dry_run", "strict", "accept_versions", "update")


def run_options(function: F) -> F:
    """The options RUN_OPTIONS, which every verb that runs stages has."""
    for option in (
        click.option(
            "--update", is_flag=True,
            help="Follow the photos on this disk: those that are gone leave the workspace, changed ones are read again.",
        ),
        click.option("--accept-versions", is_flag=True, help="Continue a stage begun with other library versions."),
        click.option("--strict", is_flag=True, help="Exit with status 3 if samples failed that a retry could recover."),
        click.option("--dry-run", is_flag=True, help="Show what would run, and why, without running it."),
        click.option(
            "-j", "--jobs", type=click.IntRange(0), default=len(os.sched_getaffinity(0)), show_default="CPU cores",
            help="Worker processes; 0 runs everything in this process.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def _option(field: dataclasses.Field[Any], hint: Any) -> Callable[[F], F]:
    name = "--" + field.name.replace("_", "-")
    help = field.metadata["help"]
    help = help[:1].upper() + help[1:] + "."
    settings: dict[str, Any] = {"cls": GroupedOption, "group": field.metadata.get("group", "Options"), "help": help}
    if hint is bool:
        both = f"{name}/--no-{name[2:]}" if field.default else name
        return click.option(both, is_flag=True, default=field.default, **settings)
    choices = field.metadata.get("choices")
    if choices:
        kind: Any = click.Choice(choices)
    else:
        kind = _plain_type(hint)
    shown = field.default not in (None, "")
    return click.option(name, type=kind, default=field.default, show_default=shown, **settings)


def _plain_type(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
