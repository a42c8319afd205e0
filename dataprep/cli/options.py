"""Click options made from the parameter dataclasses, and the options that every stage verb has."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from dataprep.params import StageParams

F = Callable[..., Any]


def params_options(*kinds: type[StageParams]) -> Callable[[F], F]:
    """One option for each field, with the field's own help, default and choices."""

    def decorate(function: F) -> F:
        for kind in reversed(kinds):
            hints = typing.get_type_hints(kind)
            for field in reversed(dataclasses.fields(kind)):
                function = _option(field, hints[field.name])(function)
        return function

    return decorate


def given_params(values: Mapping[str, Any], *kinds: type[StageParams]) -> list[dict[str, Any]]:
    """The values that the command line holds for each of the dataclasses, checked. Raises UsageError."""
    given = [{f.name: values[f.name] for f in dataclasses.fields(kind)} for kind in kinds]
    return [kind.from_mapping(found).as_dict() for kind, found in zip(kinds, given, strict=True)]


def is_given(ctx: click.Context, kind: type[StageParams]) -> bool:
    """Whether the user typed any option of this dataclass."""
    source = click.core.ParameterSource
    return any(
        ctx.get_parameter_source(f.name) not in (source.DEFAULT, source.DEFAULT_MAP, None)
        for f in dataclasses.fields(kind)
    )


def run_options(function: F) -> F:
    """--jobs, --dry-run, --strict, --accept-versions."""
    for option in (
        click.option("--accept-versions", is_flag=True, help="Go on with a stage begun under other library versions."),
        click.option("--strict", is_flag=True, help="Exit with 3 if samples failed that a retry could save."),
        click.option("--dry-run", is_flag=True, help="Print what would run, and why; do nothing."),
        click.option(
            "-j", "--jobs", type=click.IntRange(0), default=len(os.sched_getaffinity(0)), show_default="the cores",
            help="Worker processes; 0 works in this process.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def _option(field: dataclasses.Field[Any], hint: Any) -> Callable[[F], F]:
    name = "--" + field.name.replace("_", "-")
    help = field.metadata["help"]
    help = help[:1].upper() + help[1:] + "."
    if hint is bool:
        return click.option(name, is_flag=True, default=field.default, help=help)
    choices = field.metadata.get("choices")
    if choices:
        kind: Any = click.Choice(choices)
    else:
        kind = _plain_type(hint)
    return click.option(name, type=kind, default=field.default, show_default=field.default not in (None, ""), help=help)


def _plain_type(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
