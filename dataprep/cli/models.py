"""train."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataprep.cli.options import given_params, params_options
from dataprep.errors import RecordError
from dataprep.manifest.locks import locked
from dataprep.train.params import TrainParams

if TYPE_CHECKING:
    from dataprep.train.loop import Progress


@click.command()
@params_options(TrainParams)
@click.option(
    "--pack", type=click.Path(path_type=Path), help="Folder of a pack; default: packs/train of the workspace."
)
@click.option("--name", default="default", show_default=True, help="The folder under models/.")
@click.option("--fresh", is_flag=True, help="Start over, whatever is there.")
@click.pass_obj
def train(workspace: str, /, pack: Path | None, name: str, fresh: bool, **values: Any) -> None:
    """Train a recogniser on a pack. Typed again, it goes on where it was stopped, to the same losses.

    \b
    Example: dataprep train --epochs 4
             dataprep train --pack faces_emore/ --device cuda --batch-size 512
    """
    from dataprep.train.loop import train

    (params,) = given_params(values, TrainParams)
    target = Path(workspace) / "models" / name
    shown = _Display()

    source = pack or default_pack(workspace)
    with locked(target, "the model"):
        about = train(source, target, TrainParams.from_mapping(params), fresh=fresh, report=shown.show)
    click.echo(f"trained on {about['images']} images of {about['identities']} identities: {target / 'model.pt'}")


def default_pack(workspace: str) -> Path:
    """packs/train of the workspace, or the only pack that it has."""
    folder = Path(workspace) / "packs"
    packs = sorted(path.parent for path in folder.glob("*/pack.json"))
    if folder / "train" in packs:
        return folder / "train"
    if len(packs) == 1:
        return packs[0]
    if not packs:
        raise RecordError(f"{workspace} holds no pack yet: `dataprep pack` makes one, --pack or --set names another")
    raise RecordError(f"{workspace} holds several packs ({', '.join(p.name for p in packs)}): choose one with --pack")


class _Display:
    """A line on stderr every few seconds; with carriage returns on a terminal."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._next = 0.0

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next and progress.step < progress.steps:
            return
        self._next = now + (0.5 if self._live else 10.0)
        left = progress.seconds_left
        text = (
            f"step {progress.step}/{progress.steps} epoch {progress.epoch + 1} loss {progress.loss:.3f} "
            f"{progress.images_per_second:.0f} images/s ETA {int(left) // 60}:{int(left) % 60:02}"
        )
        last = progress.step == progress.steps
        click.echo(("\r" if self._live else "") + text, err=True, nl=not self._live or last)
