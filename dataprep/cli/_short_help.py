"""--help shows the options of a verb that matter to most; --help-all shows all."""

from __future__ import annotations

from typing import Any

import click

_ALL = "dataprep.all_options"  # set in a context's meta by --help-all
_DOWNLOAD = "identities per-identity limit per-host connections contact robots dry-run"
# the options in the short help of verbs that have many
_SHOWN = {
    "download vggface": f"lists curated-only {_DOWNLOAD}",
    "download facescrub": f"lists ignore-hashes {_DOWNLOAD}",
    "download urls": "url-column identity-column identity key-column box-column size-columns hash-column limit per-host "
    "dry-run",
    "align": "size extend margin min-size min-prob max-yaw landmarks min-face out jobs dry-run",
    "lst": "min-images holdout seed duplicates map exclude out jobs dry-run",
    "pack": "format layout shuffle max-part-size name overwrite licence min-images holdout map exclude",
    "train": "pack network loss epochs batch-size lr recipe pretrained benchmark device precision name",
    "test": "model features benchmark image-dir protocol flip plots leaks out device",
    "extract": "model out format root flip overwrite batch-size device",
    "identify ijb": "meta features protocol one-to-many no-flip exclude-missing out",
    "identify megaface": "probes probe-list distractors distractor-list noises num-distractors refined device out",
}


def shorten_help(command: click.Command, path: str) -> None:
    """Give a verb with many options a short help, and --help-all."""
    if path not in _SHOWN:
        return
    shown = {name.replace("-", "_") for name in _SHOWN[path].split()} | {"help_all"}
    options = [option for option in command.params if isinstance(option, click.Option)]
    rest = [option for option in options if _name(option) not in shown]
    full = command.format_options

    def format_options(ctx: click.Context, formatter: click.HelpFormatter) -> None:
        hide = not ctx.meta.get(_ALL)
        for option in rest:  # only here: completion knows all
            option.hidden = hide
        try:
            full(ctx, formatter)
        finally:
            for option in rest:
                option.hidden = False

    command.format_options = format_options  # type: ignore[method-assign]
    command.params.append(
        click.Option(
            ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all,
            help=f"Show all {len(options)} options and exit.",
        )
    )  # fmt: skip


def shown_options(path: str) -> list[str] | None:
    """The names of the options in a verb's short help; None if it shows all."""
    return _SHOWN[path].split() if path in _SHOWN else None


def _name(option: click.Option) -> str:
    return max(option.opts, key=len).removeprefix("--").replace("-", "_")


def _show_all(ctx: click.Context, _: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()
