"""synth: draw faces as folders, or as a website that reproduces the web's failures."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import click

from dataprep.cli._options import say_next

_CORES = len(os.sched_getaffinity(0))


@click.group()
def synth() -> None:
    """Draw synthetic faces, as a folder of photos or as lists of URLs served on loopback.

    \b
    Example: dataprep synth draw faces/ --identities 20 --photos 10
             dataprep synth publish web/ && dataprep synth serve web/ &
             dataprep download vggface --lists web/lists --allow-private
    """


@synth.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--identities", type=click.IntRange(1), default=20, show_default=True, help="Number of people.")
@click.option("--photos", type=click.IntRange(1), default=10, show_default=True, help="Photos per person.")
@click.option("--width", type=click.IntRange(64), default=250, show_default=True, help="Width of the photos.")
@click.option("--height", type=click.IntRange(64), default=250, show_default=True, help="Height of the photos.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the drawn people.")
def draw(folder: Path, identities: int, photos: int, width: int, height: int, seed: int) -> None:
    """Write FOLDER/Person_00000/0000.jpg, ..., and truth.csv with boxes and landmarks.

    \b
    Example: dataprep synth draw faces/ --identities 5 --photos 4
    """
    from dataprep.synth.photos import draw_folder

    count = draw_folder(folder, identities=identities, photos=photos, seed=seed, width=width, height=height)
    click.echo(f"{count} photos of {identities} people under {folder}")
    say_next(f"import folder {folder}")


@synth.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--identities", type=click.IntRange(1), default=20, show_default=True, help="Number of people.")
@click.option("--photos", type=click.IntRange(1), default=10, show_default=True, help="URLs in each person's list.")
@click.option("--faults", type=click.FloatRange(0, 1), default=0.2, show_default=True, help="Share of faulty URLs.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the drawn people.")
@click.option("--port", type=click.IntRange(1024, 65535), default=8765, show_default=True, help="Port on 127.0.0.1.")
@click.option(
    "-j", "--jobs", type=click.IntRange(1), default=_CORES, show_default="CPU cores", help="Worker processes."
)
def publish(folder: Path, identities: int, photos: int, faults: float, seed: int, port: int, jobs: int) -> None:
    """Write a website to FOLDER, with VGG-Face-style lists in lists/ and the true outcome of every line.

    \b
    Example: dataprep synth publish web/ --identities 40 --photos 24
    """
    from dataprep.synth.web import SiteParams
    from dataprep.synth.web import publish_site as write

    params = SiteParams(identities=identities, photos=photos, faults=faults, seed=seed, port=port)
    truth = write(folder, params, jobs=jobs)
    lost = sum(truth["reasons"].values())
    click.echo(f"{truth['lines']} lines in {folder / 'lists'}, {lost} of them without a usable photo")
    say_next(f"synth serve {folder}", f"download vggface --lists {folder / 'lists'} --allow-private")


@synth.command()
@click.argument("folder", type=click.Path(path_type=Path))
def serve(folder: Path) -> None:
    """Serve a published site on 127.0.0.1 until Ctrl-C.

    \b
    Example: dataprep synth serve web/
    """
    from dataprep.synth.web import serve_site

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_site(folder))
