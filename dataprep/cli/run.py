"""run: execute a recipe, which sets the source, the stage parameters, training and testing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dataprep.cli._options import run_options
from dataprep.cli._pipeline import run_stages
from dataprep.errors import UsageError
from dataprep.text import read_yaml

_PARTS = ("about", "source", "stages", "train", "test")


@click.command()
@click.argument("recipe")
@click.option("--until", help="Stop after this stage (download, validate, crop, detect, align, lst, pack) or train.")
@click.option(
    "--override", "settings", multiple=True, metavar="PART.NAME=VALUE", help="Override a value of the recipe."
)
@run_options
@click.pass_context
def run(ctx: click.Context, /, recipe: str, until: str | None, settings: tuple[str, ...], **values: Any) -> None:
    """Run a complete recipe: a YAML file, or the name of a recipe shipped with dataprep.

    \b
    Example: dataprep run vggface --override source.lists=lists/ --override stages.align.size=112
             dataprep run pipelines/vggface.yaml --dry-run
    """
    from dataprep.cli import _sources as sources
    from dataprep.cli import evaluate as scoring
    from dataprep.cli import train as models
    from dataprep.sources.catalog import open_source
    from dataprep.stages.order import STAGES_BY_NAME

    loaded = load_recipe(recipe)
    for setting in settings:
        _change(loaded, setting)
    _check_mappings(recipe, loaded)
    if until and until not in (*STAGES_BY_NAME, "train"):
        raise UsageError(f"--until {until} is not one of {', '.join(STAGES_BY_NAME)}, train")
    stages = {name: dict(params or {}) for name, params in (loaded.get("stages") or {}).items()}
    unknown = [name for name in stages if name not in STAGES_BY_NAME]
    if unknown:
        raise UsageError(f"{recipe}: unknown stage {unknown[0]!r}; the stages are: {', '.join(STAGES_BY_NAME)}")
    changes = {name: STAGES_BY_NAME[name].Params.from_mapping(params).as_dict() for name, params in stages.items()}
    source = dict(loaded.get("source") or {})
    if not values["dry_run"]:
        sources.add_source(ctx.obj, open_source(str(source.pop("kind", None)), source, ctx.obj))
    elif not (Path(ctx.obj) / "dataprep.json").exists():
        click.echo(f"{source.get('kind')} would be planned, then all stages would run")
        return
    last = until if until in STAGES_BY_NAME else "pack"
    if not run_stages(ctx.obj, last, changes, **values) or until in STAGES_BY_NAME:
        return
    if "train" in loaded:
        _invoke(ctx, models.train, loaded["train"] or {})
    if "test" in loaded and until != "train":
        _invoke(ctx, scoring.test, loaded["test"] or {})


def load_recipe(name: str) -> dict[str, Any]:
    """The recipe in a file, or the shipped recipe of that name. Raises UsageError."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = _shipped() / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in _shipped().glob("*.yaml")))
        raise UsageError(f"unknown recipe {name!r}", hint=f"pass a .yaml file, or one of: {names}")
    loaded = read_yaml(path)
    if not isinstance(loaded, dict):
        raise UsageError(f"{path}: a recipe must be a mapping of {', '.join(_PARTS)}")
    unknown = [part for part in loaded if part not in _PARTS]
    if unknown:
        raise UsageError(f"{path}: unknown part {unknown[0]!r}; the parts are: {', '.join(_PARTS)}")
    return loaded


def _check_mappings(recipe: str, loaded: dict[str, Any]) -> None:
    stages = loaded.get("stages")
    parts = {part: loaded.get(part) for part in _PARTS[1:]}
    parts |= {f"stages.{name}": params for name, params in stages.items()} if isinstance(stages, dict) else {}
    for part, value in parts.items():
        if value is not None and not isinstance(value, dict):
            raise UsageError(f"{recipe}: {part} must be a mapping of options, not {str(value)[:200]}")
        for name in value or ():
            if not isinstance(name, str):
                raise UsageError(f"{recipe}: {part} has the option {name!r}, which is not a name")


def _shipped() -> Path:
    """The folder of shipped recipes: in the installed package, or beside it in a checkout."""
    import dataprep

    package = Path(dataprep.__file__).parent
    inside = package / "pipelines"
    return inside if inside.is_dir() else package.parent / "pipelines"


def _change(loaded: dict[str, Any], setting: str) -> None:
    import yaml

    path, separator, value = setting.partition("=")
    keys = path.split(".")
    if not separator or keys[0] not in _PARTS:
        raise UsageError(f"--override {setting}: expected PART.NAME=VALUE, with PART one of {', '.join(_PARTS[1:])}")
    place: Any = loaded
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise UsageError(f"--override {setting}: {key} is a value, not a mapping")
    try:
        place[keys[-1]] = yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise UsageError(f"--override {setting}: {value!r} is not a YAML value") from None


def _invoke(ctx: click.Context, command: click.Command, options: dict[str, Any]) -> None:
    """Run a verb with the options of a recipe, as from the command line."""
    arguments: list[str] = []
    switches = {text for option in command.params for text in option.secondary_opts}
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(option)
        elif value is False:
            arguments += [no for no in switches if no == f"--no-{option[2:]}"]
        elif value is not None:
            arguments += [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    with command.make_context(command.name, arguments, parent=ctx) as inner:
        command.invoke(inner)
