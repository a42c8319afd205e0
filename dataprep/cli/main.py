"""`dataprep`: the verbs, each loaded only when it is used."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from dataprep import __version__
from dataprep.errors import DataprepError

# verb -> (module under dataprep.cli, attribute, one line of help)
_VERBS: dict[str, tuple[str, str, str]] = {
    "download": ("download", "download", "Fetch the photos of a published list of URLs."),
    "import": ("import_", "import_", "Take up photos that are on this disk already."),
    "validate": ("build", "validate", "Decode every photo; drop what is none."),
    "crop": ("build", "crop", "Clamp the published boxes to the photos."),
    "align": ("build", "align", "Detect faces and align them to the template."),
    "lst": ("build", "lst", "List the aligned faces with labels (dir2lst)."),
    "pack": ("build", "pack", "Pack the listed faces into RecordIO (face2rec)."),
    "train": ("train", "train", "Train a recogniser on a pack."),
    "export-model": ("export_model", "export_model", "Write a model as ONNX or safetensors, with its card."),
    "test": ("evaluate", "test", "Score a model on a verification set."),
    "extract": ("evaluate", "extract", "Embed a folder, a list, a pack or a .bin."),
    "compare": ("evaluate", "compare", "Print the results of several models side by side."),
    "bins": ("bins", "bins", "Build, unpack and show verification .bin files."),
    "identify": ("identify", "identify", "Score features by IJB or MegaFace, or search a gallery."),
    "run": ("run", "run", "Run a whole recipe: pipelines/X.yaml."),
    "export": ("workspace", "export", "Write faces or photos as identity/image.jpg."),
    "unpack": ("packs", "unpack", "Write a pack as images, WebDataset shards or .rec."),
    "merge": ("packs", "merge", "Put several packs into one."),
    "verify": ("packs", "verify", "Check a pack: structure, index, labels, images."),
    "repair": ("packs", "repair", "Make a new pack of what stands in a damaged one."),
    "info": ("packs", "info", "Say what a pack is."),
    "status": ("workspace", "status", "Show what is done, what is lost, and why."),
    "retry": ("workspace", "retry", "Ask again for samples that failed for given reasons."),
    "gc": ("workspace", "gc", "Remove files that nothing refers to."),
    "demo": ("demo", "demo", "See the whole line at work on synthetic faces."),
    "synth": ("synth", "synth", "Draw synthetic faces; serve them as the web really is."),
    "doctor": ("workspace", "doctor", "Show what is installed and which backends are in use."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        module, attribute, _ = _VERBS[name]
        command: click.Command = getattr(importlib.import_module(f"dataprep.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _VERBS.items()])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dataprep")
@click.option(
    "-w", "--workspace", envvar="DATAPREP_WORKSPACE", default="workspace", show_default=True,
    help="Where everything is kept; also DATAPREP_WORKSPACE.",
)  # fmt: skip
@click.pass_context
def cli(ctx: click.Context, workspace: str) -> None:
    """Build face recognition datasets: URLs or photos in, packed and verified records out; then train and test.

    \b
    dataprep download vggface        # or: dataprep import folder PHOTOS
    dataprep align --size 112
    dataprep pack
    dataprep train
    dataprep test
    """
    ctx.obj = workspace


def main(arguments: list[str] | None = None) -> None:
    """The console script: errors become one line on stderr and an exit code."""
    try:
        code = cli.main(args=arguments, prog_name="dataprep", standalone_mode=False)
    except DataprepError as error:
        sys.exit(_fail(str(error), error.exit_code, error.hint))
    except click.exceptions.Abort:
        sys.exit(_fail("interrupted", 130))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:
        sys.exit(_fail(_os_words(error), 1))
    sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str, code: int, hint: str = "") -> int:
    print(f"dataprep: {text}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code


def _os_words(error: OSError) -> str:
    import errno

    where = f"{error.filename}: " if error.filename else ""
    remedy: dict[Any, str] = {
        errno.ENOSPC: "free some space and type the same command again; what was committed stays",
        errno.EROFS: "the disk is read-only; choose another place with -w",
        errno.EACCES: "permission is missing; choose another place with -w, or change the permissions",
    }
    hint = remedy.get(error.errno)
    return f"{where}{error.strerror or error}" + (f": {hint}" if hint else "")
