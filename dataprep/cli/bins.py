"""bins: build, unpack or inspect a verification .bin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataprep.cli._options import say_next

if TYPE_CHECKING:
    from dataprep.evaluate.verification.bin_tools import BinReport


@click.group()
def bins() -> None:
    """Build, unpack or inspect verification sets in insightface's .bin format.

    \b
    Example: dataprep bins build pairs.txt --image-dir lfw-112 --out lfw.bin
    """


@bins.command()
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--image-dir", type=click.Path(path_type=Path), help="Folder of aligned faces; default: that of PAIRS.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .bin file to write.")
@click.option("--skip-missing", is_flag=True, help="Skip pairs with missing files, and report how many.")
def build(pairs: Path, image_dir: Path | None, out: Path, skip_missing: bool) -> None:
    """Pack the faces named in PAIRS (pairs.txt, `left right 1|-1` or CSV), with bytes and order unchanged.

    \b
    Example: dataprep bins build pairs.txt --image-dir lfw-112 --out workspace/bins/lfw.bin
    """
    from dataprep.evaluate.verification.bin_tools import build_bin
    from dataprep.evaluate.verification.pair_set import open_verification_set

    chosen = open_verification_set(pairs, images=image_dir, skip_missing=skip_missing)
    _tell(out, build_bin(chosen, out))
    say_next(f"test --benchmark {out}")
    if chosen.skipped_pairs:
        click.echo(f"  {chosen.skipped_pairs} pairs skipped because of {len(chosen.skipped)} missing files")


@bins.command()
@click.argument("faces", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .bin file to write.")
@click.option("--max-pairs", type=click.IntRange(4), default=6000, show_default=True, help="At most N pairs.")
@click.option("--folds", type=click.IntRange(2, 10), default=10, show_default=True, help="Folds that share nobody.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the choice.")
def make(faces: Path, out: Path, max_pairs: int, folds: int, seed: int) -> None:
    """Draw pairs from FACES, a pack or a folder with one folder of aligned faces per person: your own lfw.bin.

    \b
    Example: dataprep bins make faces-112/ --out own.bin && dataprep test --benchmark own.bin
    """
    from dataprep.evaluate.verification.bin_tools import make_bin

    found = make_bin(faces, out, pairs=max_pairs, folds=folds, seed=seed)
    _tell(out, found)
    if found.folds < folds:
        click.echo(f"  {found.folds} folds instead of {folds}: there are few people")
    say_next(f"test --benchmark {out}")


@bins.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def unpack(path: Path, out: Path) -> None:
    """Write the images of a .bin to OUT as 00001.jpg, ..., not re-encoded, with a `L R 1|-1` list.

    \b
    Example: dataprep bins unpack lfw.bin lfw/
    """
    from dataprep.evaluate.verification.bin_tools import unpack_bin

    click.echo(f"{unpack_bin(path, out)} lists the pairs")
    say_next(f"test --benchmark {path}")


@bins.command()
@click.argument("path", type=click.Path(path_type=Path))
def show(path: Path) -> None:
    """Show the pairs, image sizes and image formats of a .bin, and whether ten folds can score it.

    \b
    Example: dataprep bins show lfw.bin
    """
    from dataprep.evaluate.verification.bin_tools import inspect_bin

    _tell(path, inspect_bin(path))
    say_next(f"test --benchmark {path}")


def _tell(path: Path, found: BinReport) -> None:
    click.echo(f"{path}: {found.pairs} pairs, {found.positives} of the same person; sha256 {found.sha256}")
    kept = ", ".join(f"{count} as {kind}" for kind, count in found.elements.items())
    click.echo(f"  {2 * found.pairs} images ({kept}), {found.distinct} of them distinct")
    for form, count in found.forms.items():
        click.echo(f"  {count} of {form}")
    if found.refolded:
        click.echo(f"  {found.refolded} pairs move to a different fold: a .bin is read as ten folds of equal length")
    if found.one_kind:
        click.echo(
            f"  fold {', '.join(map(str, found.one_kind))} of ten has only positive or only negative pairs, so the "
            "ten-fold protocols cannot score it; interleave the list"
        )
