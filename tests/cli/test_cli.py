"""The command line as such: help, exit codes, what is loaded, and that every verb and option is explained."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from helpers.command import ROOT, Run, environment

from dataprep.cli._short_help import shown_options
from dataprep.cli.main import cli


def verbs(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from verbs(found, (*path, name))
    if path:
        yield path, command


ALL = dict(verbs())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_verb_has_help_with_an_example_and_every_option_is_explained(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help
    assert "Example: dataprep" in command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} of {' '.join(path)}"


def test_every_verb_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [
        name
        for name in cli.list_commands(click.Context(cli))
        if f"dataprep {name}" not in readme and f"`{name}`" not in readme
    ] == []


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom dataprep.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'cv2', 'pyarrow', 'aiohttp', 'numpy', 'PIL', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["align"], 1, "there is no workspace at"),
        (["status"], 1, "dataprep download"),
        (["nonsense"], 2, "is not a verb of dataprep"),
        (["align", "--size", "100"], 2, "a multiple of 112"),
        (["align", "--rule", "prettiest"], 2, "is not one of"),
        (["validate", "--min-side", "-3"], 2, "below 1"),
        (["import", "folder", "/no/such"], 1, "no such directory"),
        (["download", "urls", "/no/such.csv"], 1, "no such file"),
        (["download", "vggface", "--lists", "/no/such"], 1, "give --lists the folder"),
        (["run", "no-such-recipe"], 2, "synth, vggface"),
        (["test", "--benchmark", "/no/such.bin"], 1, "no such verification set"),
    ],
)
def test_mistakes_are_answered_in_a_line(dataprep: Run, arguments: list[str], code: int, said: str) -> None:
    assert said in dataprep(*arguments, code=code).stderr


def test_the_official_archive_out_of_reach_says_what_to_do(tmp_path: Path) -> None:
    from dataprep.errors import SourceError
    from dataprep.sources.archive import fetch_lists

    with pytest.raises(SourceError, match="could not be fetched") as raised:
        fetch_lists("http://127.0.0.1:9/vgg.tar.gz", tmp_path / "lists.tar.gz")
    assert "pass it with --lists" in raised.value.hint
    assert not (tmp_path / "lists.tar.gz").exists()


def test_a_disk_that_is_read_only_is_named(drawn: Path, dataprep: Run) -> None:
    said = dataprep("import", "folder", drawn, workspace="/proc/nowhere", code=1).stderr
    assert "/proc/nowhere" in said


def test_a_recipe_runs_the_whole_line(dataprep: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "source: {kind: synth, identities: 24, photos: 3}\n"
        "stages:\n  align: {size: '112'}\n  lst: {holdout: 0.85}\n"
        "train: {epochs: 1, batch-size: 4}\ntest: {}\n"
    )
    assert "would be planned" in dataprep("run", recipe, "--dry-run").stdout
    out = dataprep("run", recipe).stdout
    assert "accuracy" in out
    assert (tmp_path / "ws/models/default/test/holdout/roc.png").exists()
    assert "nothing to do" in dataprep("run", recipe, "--until", "pack").stdout
    dataprep("run", recipe, "--override", "stages.align.size=224", "--until", "align")
    assert "--until alin" in dataprep("run", recipe, "--until", "alin", code=2).stderr
    assert "mapping of options" in dataprep("run", recipe, "--override", "source=5", code=2).stderr
    assert "not a YAML value" in dataprep("run", recipe, "--override", "test.x=[", code=2).stderr
    assert "unknown stage 'alihn'" in dataprep("run", recipe, "--override", "stages.alihn.size=3", code=2).stderr
    assert "unknown option 'sise'" in dataprep("run", recipe, "--override", "stages.align.sise=3", code=2).stderr
    recipe.write_text("source: [")
    assert "not valid YAML" in dataprep("run", recipe, code=2).stderr


def test_the_shipped_recipes_are_sound() -> None:
    from dataprep.cli.run import load_recipe
    from dataprep.stages.order import STAGES_BY_NAME

    for path in sorted((ROOT / "pipelines").glob("*.yaml")):
        loaded = load_recipe(path.stem)
        for name, params in loaded["stages"].items():
            STAGES_BY_NAME[name].Params.from_mapping(params)


def test_export_lst_and_crops_and_doctor(drawn: Path, dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "folder", drawn, "--limit", "8")
    assert "align is not complete" in dataprep("export", tmp_path / "x", code=1).stderr
    dataprep("lst", "--out", tmp_path / "train.lst")
    lines = (tmp_path / "train.lst").read_text().splitlines()
    assert len(lines) == 8
    assert lines[0] == "1\tPerson_00000/0000.jpg\t0"
    dataprep("export", "--format", "folder", tmp_path / "faces")
    assert all((tmp_path / "faces" / line.split("\t")[1]).is_file() for line in lines)
    dataprep("export", "--what", "photos", tmp_path / "photos")
    assert (tmp_path / "photos/Person_00000/0000.jpg").read_bytes() == (drawn / "Person_00000/0000.jpg").read_bytes()
    assert "8 crops" in dataprep("crop", "--write", tmp_path / "crops").stdout
    assert "in use" in dataprep("doctor").stdout


def kind(option: click.Option) -> str:
    if option.is_flag:
        return "flag"
    names = {click.Path: "path", click.Choice: "choice", click.IntRange: "number", click.FloatRange: "number"}
    named = names.get(type(option.type), "number" if option.type.name in ("integer", "float") else "text")
    return "text" if named == "choice" else named


def test_an_option_means_one_thing_on_every_verb() -> None:
    kinds: dict[str, dict[str, list[str]]] = {}
    for path, command in ALL.items():
        for option in command.params:
            if isinstance(option, click.Option):
                for name in (name for name in option.opts if name.startswith("--")):
                    kinds.setdefault(name, {}).setdefault(kind(option), []).append(" ".join(path))
    differing = {name: sorted(found) for name, found in kinds.items() if len(found) > 1}
    # how many people to draw; elsewhere how many of a list, or which
    assert differing == {"--identities": ["number", "text"]}
    # one word per idea: --format, --layout, --num-workers, --batch-size, --overwrite, --override, --benchmark, --until
    assert kinds.keys().isdisjoint({"--to", "--form", "--style", "--workers", "--batch", "--fresh", "--set", "--upto"})


COMMON = ("workspace", "quiet", "encoding", "help", "help-all")
OWN = {("download", "urls"): ("encoding",)}  # recorded with the list, and not among the dozen


def shown_in_help(path: tuple[str, ...], *, option: str = "--help") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dataprep", *path, option], capture_output=True, text=True, env=environment(), check=True
    )
    return re.findall(r"^  (?:-\w, )?--([\w-]+)", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_a_verbs_help_shows_a_dozen_options_and_help_all_the_rest(path: tuple[str, ...]) -> None:
    options = [option for option in ALL[path].params if isinstance(option, click.Option)]
    short = shown_options(" ".join(path))
    named = {name.removeprefix("--") for option in options for name in (*option.opts, *option.secondary_opts)}
    if short is None:
        assert len(options) <= 14, "give it a short help"
        return
    assert set(short) <= named, "options that there are"
    assert len(short) <= 12


@pytest.mark.parametrize("path", [("align",), ("train",), ("download", "urls")], ids=" ".join)
def test_help_all_shows_every_option(path: tuple[str, ...]) -> None:
    short, whole = set(shown_in_help(path)), set(shown_in_help(path, option="--help-all"))
    assert short == {*(shown_options(" ".join(path)) or ()), *COMMON} - {*OWN.get(path, ())}
    options = [option for option in ALL[path].params if isinstance(option, click.Option)]
    assert {max(option.opts, key=len).removeprefix("--") for option in options} - whole == set()
