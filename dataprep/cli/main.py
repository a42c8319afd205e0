"""The `dataprep` command and its verbs; each verb's module is loaded only when the verb is used."""

from __future__ import annotations

import importlib
import logging
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any

import click

from dataprep import __version__
from dataprep.cli._options import DEFAULT_WORKSPACE, QUIET
from dataprep.cli._short_help import shorten_help
from dataprep.cli._streams import plain_streams
from dataprep.content import explain_error
from dataprep.errors import DataprepError, UsageError
from dataprep.names import printable
from dataprep.storage import redact
from dataprep.text import similar_to, use_encoding

# verb -> (module under dataprep.cli, attribute, one line of help)
_VERBS: dict[str, tuple[str, str, str]] = {
    "download": ("download", "download", "Download the photos in a published list of URLs."),
    "import": ("import_", "import_", "Import photos that are already on this disk."),
    "validate": ("build", "validate", "Decode every file and drop those that are not images."),
    "crop": ("build", "crop", "Clip the published face boxes to the photos."),
    "align": ("build", "align", "Detect faces and align them to the template."),
    "lst": ("build", "lst", "List the aligned faces with labels (dir2lst)."),
    "pack": ("build", "pack", "Pack the listed faces into RecordIO (face2rec)."),
    "train": ("train", "train", "Train a face recognition model on a pack."),
    "export-model": ("export_model", "export_model", "Export a model to ONNX or safetensors, with a model card."),
    "test": ("evaluate", "test", "Evaluate a model on a verification set."),
    "extract": ("evaluate", "extract", "Compute embeddings of a folder, a list, a pack or a .bin."),
    "compare": ("evaluate", "compare", "Print the results of several models side by side."),
    "similarity": ("similarity", "similarity", "Print how alike the faces in photos are."),
    "bins": ("bins", "bins", "Build, unpack and inspect verification .bin files."),
    "identify": ("identify", "identify", "Evaluate features on IJB or MegaFace, or search a gallery."),
    "run": ("run", "run", "Run a complete recipe: pipelines/X.yaml."),
    "export": ("workspace", "export", "Write the faces or photos as identity/image.jpg."),
    "unpack": ("packs", "unpack", "Convert a pack to images, WebDataset shards or .rec."),
    "merge": ("packs", "merge", "Merge several packs into one."),
    "verify": ("packs", "verify", "Check a pack: structure, index, labels and images."),
    "repair": ("packs", "repair", "Rebuild a pack from the readable records of a damaged one."),
    "info": ("packs", "info", "Show the layout, counts and origin of a pack."),
    "status": ("workspace", "status", "Show what is done, what was lost, and why."),
    "samples": ("look", "samples", "List samples of a reason or a person, with details."),
    "show": ("look", "show", "Show everything known of one sample."),
    "look": ("look", "look", "Write a sheet of faces or photos to look at."),
    "exclude": ("exclude", "exclude", "Leave people or photos out of packs, exports and imports."),
    "retry": ("workspace", "retry", "Retry the samples that failed for the given reasons."),
    "check": ("check", "check", "Compare everything in the workspace with its checksums."),
    "gc": ("workspace", "gc", "Remove unreferenced files."),
    "demo": ("demo", "demo", "Run the whole pipeline on synthetic faces."),
    "synth": ("synth", "synth", "Draw synthetic faces, or serve them from a faulty website."),
    "help": ("help", "help_", "Explain a verb or a topic, such as the reasons."),
    "doctor": ("workspace", "doctor", "Show what is installed and which backends are used."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        module, attribute, _ = _VERBS[name]
        command: click.Command = getattr(importlib.import_module(f"dataprep.cli.{module}"), attribute)
        _complete(command, name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _VERBS and not name.startswith("-"):
            hint = similar_to(name, _VERBS) or "`dataprep help` lists the verbs"
            raise UsageError(f"{name!r} is not a verb of dataprep", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _VERBS.items()])


def _use_workspace(ctx: click.Context, _: click.Parameter, folder: str | None) -> None:
    if folder is not None:
        ctx.obj = folder


def _be_quiet(ctx: click.Context, _: click.Parameter, quiet: bool) -> None:
    if quiet:
        ctx.meta[QUIET] = True
        logging.getLogger("dataprep").setLevel(logging.WARNING)


def _use_encoding(ctx: click.Context, _: click.Parameter, name: str | None) -> None:
    if name is not None and not ctx.resilient_parsing:
        use_encoding(name)


def _common_options() -> list[click.Parameter]:
    """-w, -q and --encoding, which are taken before the verb and after it."""
    return [
        click.Option(
            ["-w", "--workspace"], metavar="FOLDER", expose_value=False, callback=_use_workspace, is_eager=True,
            help="Folder for all data; default: workspace, or DATAPREP_WORKSPACE.",
        ),
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_be_quiet, is_eager=True,
            help="Print results and errors only.",
        ),
        click.Option(
            ["--encoding"], metavar="NAME", expose_value=False, callback=_use_encoding, is_eager=True,
            help="Encoding of lists and tables, such as cp1251; default: found out.",
        ),
    ]  # fmt: skip


def _complete(command: click.Command, path: str) -> None:
    """Add what all verbs have in common to a verb and the verbs in it."""
    if not any(parameter.name == "quiet" for parameter in command.params):
        shorten_help(command, path)
        own = {parameter.name for parameter in command.params}
        command.params.extend(option for option in _common_options() if option.name not in own)
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            _complete(inner, f"{path} {name}")


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dataprep")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Build face recognition datasets from URLs or photos, then train and test models on them.

    \b
    dataprep download vggface        # or: dataprep import folder PHOTOS
    dataprep align --size 112
    dataprep pack
    dataprep train
    dataprep test
    """
    ctx.obj = ctx.obj or os.environ.get("DATAPREP_WORKSPACE") or DEFAULT_WORKSPACE


cli.params.extend(_common_options())


def main(arguments: list[str] | None = None) -> None:
    """The console script. An error is printed to stderr, with its hint on a second line, and sets the exit code."""
    # Threads of torch that wait for each other by spinning make a busy machine three times as slow; libgomp reads this
    # when torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(format="dataprep: %(message)s", level=logging.WARNING)
    logging.getLogger("dataprep").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_redacted)
    with plain_streams():
        _run(arguments)


def _run(arguments: list[str] | None) -> None:
    try:
        _refuse_pipes(sys.argv[1:] if arguments is None else arguments)
        code = cli.main(args=arguments, prog_name="dataprep", standalone_mode=False)
    except DataprepError as error:
        explanation, advice = explain_error(str(error))
        text = f"{error}\n{explanation}" if explanation else str(error)
        sys.exit(_fail(text, error.exit_code, advice or error.hint))
    except click.exceptions.Abort:
        sys.exit(_fail("interrupted", 130))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:
        sys.exit(_fail(*_os_words(error)))
    sys.exit(code if isinstance(code, int) else 0)


def _redacted(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(redact(record.getMessage())), ()
    return True


def _refuse_pipes(arguments: Sequence[str]) -> None:
    """Raise UsageError for an argument that is a pipe or a device: files are read more than once, and reading these may
    never end."""
    for argument in arguments:
        try:
            mode = os.stat(argument.partition("=")[2] if argument.startswith("--") else argument).st_mode
        except (OSError, ValueError):
            continue
        endless = stat.S_ISCHR(mode) and argument in ("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
        if endless or ((stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and not argument.startswith("/dev/std")):
            raise UsageError(
                f"{argument} is a pipe or a device, not a file", hint="save what it gives as a file, and name that"
            )


def _fail(text: str, code: int, hint: str = "") -> int:
    try:
        print(f"dataprep: {redact(text)}", file=sys.stderr)
        if hint:
            print(f"hint: {redact(hint)}", file=sys.stderr, flush=True)
    except OSError:  # the terminal is gone; the exit code must not be another one for that
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - to the end of the process
    return code


def _os_words(error: OSError) -> tuple[str, int, str]:
    """Message, exit code and hint."""
    import errno

    where = f"{error.filename}: " if error.filename else ""
    remedy: dict[Any, str] = {
        errno.ENOSPC: "free some space, then run the same command again; committed work is kept",
        errno.EROFS: "the disk is read-only; choose another workspace with -w",
        errno.EACCES: "change the permissions, or choose another workspace with -w",
    }
    return f"{where}{error.strerror or error}", 1, remedy.get(error.errno, "")
