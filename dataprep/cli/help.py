"""help: explain a verb or a topic."""

from __future__ import annotations

import importlib.resources

import click

from dataprep.errors import UsageError
from dataprep.reasons import Reason

_PAGES = ("checkpoints", "completion", "exit-codes", "losses")


@click.command("help")
@click.argument("topic", nargs=-1)
@click.pass_context
def help_(ctx: click.Context, topic: tuple[str, ...]) -> None:
    """Explain a verb, or one of the topics reasons, checkpoints, losses, exit-codes and completion.

    \b
    Example: dataprep help align
             dataprep help reasons
             dataprep help no_face
    """
    root = ctx.find_root()
    if not topic:
        click.echo(root.get_help())
        click.echo(
            f"\nTopics: reasons, {', '.join(_PAGES)}. `dataprep help TOPIC` explains one, `dataprep help VERB` a verb."
        )
    elif topic[0] == "reasons":
        click.echo("\n".join(_explain(reason) for reason in Reason))
    elif topic[0] in {reason.code for reason in Reason}:
        click.echo(_explain(Reason.from_code(topic[0])))
    elif topic[0] in _PAGES:
        click.echo(importlib.resources.files("dataprep.docs").joinpath(f"{topic[0]}.md").read_text("utf-8"), nl=False)
    else:
        _explain_verb(root, topic)


def _explain(reason: Reason) -> str:
    kind = f"{reason.verdict}, may pass on a retry" if reason.transient else reason.verdict
    text = f"{reason.code} ({kind}): {reason.meaning}"
    return f"{text}\n    {reason.remedy}" if reason.remedy else text


def _explain_verb(root: click.Context, path: tuple[str, ...]) -> None:
    ctx, command = root, root.command
    for name in path:
        inner = command.get_command(ctx, name) if isinstance(command, click.Group) else None
        if inner is None:
            raise UsageError(
                f"{' '.join(path)!r} is neither a verb nor a topic",
                hint="`dataprep help` lists the verbs and the topics",
            )
        command, ctx = inner, click.Context(inner, info_name=name, parent=ctx)
    click.echo(command.get_help(ctx))
