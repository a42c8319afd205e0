"""train: train a model on a pack or a list of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dataprep.cli._options import GroupedCommand, GroupedOption, given_params, params_options, say, say_next
from dataprep.cli._ticker import ProgressBar
from dataprep.cli._training import open_display
from dataprep.errors import RecordError, UsageError
from dataprep.train.config import TrainParams
from dataprep.train.recipes import RECIPES


def _use_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Use the file's values as defaults; options on the command line take precedence."""
    if path is None:
        return
    from dataprep.train.config import read_config

    options = {
        option.opts[0].lstrip("-").replace("-", "_"): option for option in ctx.command.params if option.expose_value
    }
    several = [name for name, option in options.items() if getattr(option, "multiple", False)]
    found = read_config(path, options, several=several)
    chosen = {str(options[name].name): value for name, value in found.items()}
    ctx.meta["dataprep.config"] = set(chosen)
    ctx.default_map = {**(ctx.default_map or {}), **chosen}


def _use_recipe(ctx: click.Context, _: click.Parameter, name: str | None) -> None:
    """Use a recipe's values as defaults; a --config and the command line take precedence."""
    if name is None:
        return
    recipe = RECIPES[name]
    ctx.default_map = {**recipe.options, **(ctx.default_map or {})}
    ctx.meta["dataprep.recipe"] = name


def _tell_recipe(ctx: click.Context) -> None:
    """Print what the recipe set, what took precedence, and where the values come from."""
    name = ctx.meta.get("dataprep.recipe")
    if name is None:
        return
    recipe = RECIPES[name]
    typed = ctx.meta.get("dataprep.config", set())
    changed = [
        option
        for option in recipe.options
        if option in typed or ctx.get_parameter_source(option) is ParameterSource.COMMANDLINE
    ]
    values = [
        f"{option.replace('_', '-')} {value}" for option, value in recipe.options.items() if option not in changed
    ]
    say(f"recipe {name} ({recipe.source}): {', '.join(values)}")
    if changed:
        say(f"  not from the recipe: {', '.join(option.replace('_', '-') for option in changed)}")
    say(f"  not set by it: {recipe.theirs}")


def _list_networks(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    from dataprep.models.registry import format_networks, list_networks

    click.echo(format_networks(list_networks()))
    ctx.exit()


_PATH = click.Path(path_type=Path)
_DATA, _NETWORK, _CHECK = "Data", "Network", "Verification and checkpoints"


@click.command(cls=GroupedCommand)
@click.option("--pack", "packs", type=_PATH, multiple=True, cls=GroupedOption, group=_DATA,
              help="A pack of any format; repeat to join several. Default: packs/train of the workspace.")  # fmt: skip
@click.option("--image-list", type=_PATH, cls=GroupedOption, group=_DATA,
              help="Instead of --pack: a list of images with lines `path label` or `path`, packed first.")  # fmt: skip
@click.option("--root", type=_PATH, cls=GroupedOption, group=_DATA,
              help="Base folder of the list's paths; default: the list's folder.")  # fmt: skip
@click.option("--names", type=_PATH, cls=GroupedOption, group=_DATA,
              help="VGGFace2's identity_meta.csv, to use names as identities.")  # fmt: skip
@click.option("--pretrained", type=_PATH, cls=GroupedOption, group=_NETWORK,
              help="Initial weights: dataprep's, .safetensors, or published ones.")  # fmt: skip
@click.option("--benchmark", "sets", default="", cls=GroupedOption, group=_CHECK,
              help="Verification sets, comma-separated, as for --benchmark of `dataprep test`.")  # fmt: skip
@params_options(TrainParams)
@click.option("--name", default="default", show_default=True, help="Name of the folder under models/.")
@click.option("--config", type=_PATH, is_eager=True, expose_value=False, callback=_use_config,
              help="YAML file of these options; the command line takes precedence.")  # fmt: skip
@click.option("--recipe", type=click.Choice(list(RECIPES)), is_eager=True, expose_value=False, callback=_use_recipe,
              help="All settings of a published trainer; --config and the command line take precedence.")  # fmt: skip
@click.option("--log", type=_PATH, help="Also append progress lines to this file.")
@click.option("--overwrite", is_flag=True, help="Start over and discard previous progress.")
@click.option("--list-networks", is_flag=True, is_eager=True, expose_value=False, callback=_list_networks,
              help="List the networks with parameters and GFLOPs, and exit.")  # fmt: skip
@click.pass_obj
def train(
    workspace: str, /, packs: Sequence[Path], image_list: Path | None, root: Path | None, names: Path | None,
    pretrained: Path | None, sets: str, name: str, log: Path | None, overwrite: bool, **values: Any,
) -> None:  # fmt: skip
    """Train a face recognition model on a pack. The same command resumes a stopped run, with the same losses.

    \b
    Example: dataprep train --epochs 4
             dataprep train --pack faces_emore/ --network ir50 --device cuda --batch-size 512 --benchmark lfw,agedb_30
             dataprep train --loss triplet --lr 0.005 --pretrained workspace/models/default/model.pt --name triplet
             dataprep train --image-list train_list.txt --root VGGFace2/train --config my.yaml
             torchrun --nproc-per-node 8 -m dataprep train --pack glint360k/ --network ir100 --sample-rate 0.1
    """
    if not Path(name).parts or ".." in Path(name).parts or Path(name).is_absolute():
        raise UsageError(f"--name {name!r} is not a folder name under models/ of the workspace")
    if image_list is not None and packs:
        raise UsageError(
            "--pack and --image-list exclude each other", hint="leave out --pack: the images are packed first"
        )
    if image_list is None and (root or names):
        raise UsageError("--root and --names require --image-list: a pack has its names in labels.tsv")
    _tell_recipe(click.get_current_context())
    (params,) = given_params(values, TrainParams)
    chosen = TrainParams.from_mapping(params)
    from dataprep.models.registry import find_network
    from dataprep.train.trainer import train

    if chosen.network:
        find_network(chosen.network)  # a mistyped name is told before anything else
    target = Path(workspace) / "models" / name
    validate = None
    if sets:
        from dataprep.evaluate.verification.in_training import Validator

        validate = Validator([text.strip() for text in sets.split(",") if text.strip()], Path(workspace))
    source: Sequence[Path] | Callable[[], Sequence[Path]] = packs
    if image_list is not None:
        source = _pack_of_list(image_list, root, names, target, chosen, pretrained)
    with open_display(log) as display:
        about = train(
            source or [find_default_pack(workspace)], target, chosen, pretrained=pretrained, overwrite=overwrite,
            validate=validate, report=display.show,
        )  # fmt: skip
    if about is not None:
        click.echo(f"trained on {about['images']} images of {about['identities']} identities: {target / 'model.pt'}")
        say_next("test" if name == "default" else f"test --name {name}")


def _pack_of_list(
    images: Path, root: Path | None, meta: Path | None, target: Path, params: TrainParams, pretrained: Path | None
) -> Callable[[], Sequence[Path]]:
    """Return a function that packs a list of images at the network's input size."""

    def make() -> Sequence[Path]:
        from dataprep.packs.tools.from_list import pack_image_list
        from dataprep.sources.vggface2_tables import read_class_names
        from dataprep.train.backbone import required_image_size

        height, width = required_image_size(params, pretrained)
        ticker = ProgressBar()
        made = pack_image_list(
            images, root or images.parent, target / "images", height=height, width=width,
            names=read_class_names(meta).by_class if meta else None, progress=lambda done,
            total: ticker("pack the list", done, total),
        )  # fmt: skip
        return [made]

    return make


def find_default_pack(workspace: str, option: str = "--pack") -> Path:
    """packs/train of the workspace, or its only pack; `option` names another one. Raises RecordError."""
    folder = Path(workspace) / "packs"
    packs = sorted(path.parent for path in folder.glob("*/pack.json"))
    if folder / "train" in packs:
        return folder / "train"
    if len(packs) == 1:
        return packs[0]
    if not packs:
        raise RecordError(
            f"{workspace} has no pack yet", hint=f"build one with `dataprep pack`, or choose one with {option}"
        )
    names = ", ".join(p.name for p in packs)
    raise RecordError(f"{workspace} has several packs ({names})", hint=f"choose one with {option}")
