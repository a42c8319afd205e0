"""import: plan photos that are already on this disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dataprep.cli._sources import plan_source, selection_options, update_option


@click.group("import")
def import_() -> None:
    """Import photos that are already on this disk. The files are not moved or changed.

    \b
    Example: dataprep import folder lfw/
    """


_LINKS = click.option(
    "--follow-links", is_flag=True, help="Also take in what links that lead out of the folder point to."
)
_ALIGNED = click.option("--aligned", is_flag=True, help="The photos are aligned faces: pack them unchanged.")


@import_.command()
@click.argument("root", metavar="PHOTOS", type=click.Path())
@_ALIGNED
@_LINKS
@selection_options
@update_option
@click.pass_obj
def folder(workspace: str, /, update: bool, **options: Any) -> None:
    """Photos in one folder per identity: your own, or any dataset with this layout.

    \b
    Example: dataprep import folder photos/ && dataprep align
    """
    plan_source(workspace, "folder", options, update=update)


@import_.command()
@click.argument("root", metavar="DIR", type=click.Path())
@click.option("--pairs-file", type=click.Path(), help="pairs.txt, if not in DIR; all its photos must exist.")
@_ALIGNED
@selection_options
@update_option
@click.pass_obj
def lfw(workspace: str, /, update: bool, **options: Any) -> None:
    """LFW, unpacked (lfw, lfw_funneled, lfw-deepfunneled, lfw-a): DIR/NAME/NAME_0001.jpg.

    \b
    Example: dataprep import lfw lfw-deepfunneled/ && dataprep align
    """
    plan_source(workspace, "lfw", options, update=update)


@import_.command()
@click.argument("root", metavar="DIR", type=click.Path())
@click.option("--names", type=click.Path(), help="Lines `0000045 Name`, to use names as identities.")
@_ALIGNED
@selection_options
@update_option
@click.pass_obj
def casia(workspace: str, /, update: bool, **options: Any) -> None:
    """CASIA-WebFace, unpacked: DIR/0000045/001.jpg.

    \b
    Example: dataprep import casia CASIA-WebFace/ --names names.txt && dataprep align
    """
    plan_source(workspace, "casia", options, update=update)


@import_.command()
@click.argument("pack", type=click.Path())
@selection_options
@update_option
@click.pass_obj
def rec(workspace: str, /, update: bool, **options: Any) -> None:
    """The faces of any pack, to clean and pack again: .rec, WebDataset shards, or Parquet of the Hugging Face hub.

    Their bytes are not changed.

    \b
    Example: dataprep import rec faces_emore/ && dataprep pack --holdout 0.05
    """
    plan_source(workspace, "rec", options, update=update)


@import_.command()
@click.argument("file", type=click.Path())
@click.option("--root", type=click.Path(), help="Base folder of relative paths; default: the list's folder.")
@click.option(
    "--dialect",
    type=click.Choice(["insightface", "mxnet", "path-label"]),
    help="Dialect of the list; default: detected.",
)
@click.option("--aligned", is_flag=True, help="The images of an im2rec list are aligned faces: pack them unchanged.")
@selection_options
@update_option
@click.pass_obj
def lst(workspace: str, /, update: bool, **options: Any) -> None:
    """The images of a list: a .lst of insightface, with any boxes and landmarks it has, or of im2rec, or `path label`.

    An image's identity is its folder, or its label if any folder contains several labels.

    \b
    Example: dataprep import lst faces.lst --root photos/ && dataprep align
    """
    plan_source(workspace, "lst", options, update=update)


@import_.command()
@click.argument("root", metavar="DIR", type=click.Path())
@click.option("--split", type=click.Choice(["train", "test", "all"]), default="train", show_default=True, help="Split.")
@click.option("--box-tables", type=click.Path(), multiple=True, help="loose_bb_*.csv, if not in DIR or meta/.")
@click.option(
    "--landmark-tables", type=click.Path(), multiple=True, help="loose_landmark_*.csv, if not in DIR or meta/."
)
@click.option("--names", type=click.Path(), help="identity_meta.csv, to use names as identities.")
@selection_options
@update_option
@click.pass_obj
def vggface2(workspace: str, /, update: bool, **options: Any) -> None:
    """VGGFace2 as released: DIR/train/n000002/0001_01.jpg, with its tables of boxes and landmarks.

    The released landmarks are used; `align --landmarks detect` detects them again.

    \b
    Example: dataprep import vggface2 VGG-Face2/data && dataprep align --size 224 --extend 0.3
    """
    plan_source(workspace, "vggface2", options, update=update)


@import_.command()
@click.option("--identities", type=click.IntRange(1), default=20, show_default=True, help="Number of people.")
@click.option("--photos", type=click.IntRange(1), default=10, show_default=True, help="Photos per person.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the drawn people.")
@click.pass_obj
def synth(workspace: str, /, identities: int, photos: int, seed: int) -> None:
    """Drawn faces with their true boxes, to try everything without real photos.

    \b
    Example: dataprep import synth && dataprep pack
    """
    root = Path(workspace) / "synth" / f"seed{seed}-{identities}x{photos}"
    plan_source(workspace, "synth", {"root": root, "identities": identities, "photos": photos, "seed": seed})
