"""download and import: how samples come into a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dataprep.cli.options import given_params, params_options, run_options
from dataprep.manifest.workspace import Workspace
from dataprep.sources.base import Source
from dataprep.stages.download import DownloadParams

_LIMIT = click.option("--limit", type=click.IntRange(1), help="At most this many photos, in the list's order.")


def add_source(workspace: str, source: Source) -> None:
    """Freeze a source's samples into the plan of a workspace, unless they are in it."""
    plan = Workspace(workspace, create=True).plan()
    described, digest = source.describe(), source.digest()
    if plan.knows(described, digest):
        click.echo(f"{described['kind']}: planned before, {plan.count} samples in all")
        return
    added = plan.add(described, digest, source.samples())
    if added is None:
        click.echo(f"{described['kind']}: nothing new, {plan.count} samples in all")
    else:
        click.echo(f"{described['kind']}: {added.count} samples in {len(added.shards)} shards planned")


@click.group()
def download() -> None:
    """Fetch the photos of a published list of URLs: resumable, polite, suspicious.

    \b
    Example: dataprep download vggface --lists vgg_face_dataset.tar.gz --per-identity 50
             dataprep download urls photos.csv
    """


@download.command()
@click.option("--lists", type=click.Path(path_type=Path), help="Folder of lists, or vgg_face_dataset.tar.gz.")
@_LIMIT
@click.option("--per-identity", type=click.IntRange(1), help="At most this many photos of one person.")
@params_options(DownloadParams)
@run_options
@click.pass_obj
def vggface(workspace: str, /, lists: Path | None, limit: int | None, per_identity: int | None, **values: Any) -> None:
    """VGG-Face: 2.6 million URLs of 2,622 people. Without --lists, the official archive of lists is fetched first.

    \b
    Example: dataprep download vggface --limit 1000
    """
    from dataprep.sources.archive import fetch_lists
    from dataprep.sources.vggface import ARCHIVE_URL, VggFace

    if lists is None:
        lists = fetch_lists(ARCHIVE_URL, Path(workspace) / "lists" / "vgg_face_dataset.tar.gz")
    _download(workspace, VggFace(lists, limit=limit, per_identity=per_identity), values)


@download.command()
@click.argument("table", type=click.Path(path_type=Path))
@_LIMIT
@params_options(DownloadParams)
@run_options
@click.pass_obj
def urls(workspace: str, /, table: Path, limit: int | None, **values: Any) -> None:
    """A table of yours: .csv, .tsv or .parquet with the columns url, identity [, left, top, right, bottom, key].

    \b
    Example: dataprep download urls photos.csv --per-host 8
    """
    from dataprep.sources.urls import Urls

    _download(workspace, Urls(table, limit=limit), values)


def _download(workspace: str, source: Source, values: dict[str, Any]) -> None:
    (params,) = given_params(values, DownloadParams)
    run = {name: values[name] for name in ("jobs", "dry_run", "strict", "accept_versions")}
    if run["dry_run"]:
        count = sum(1 for _ in source.samples())
        click.echo(f"{source.describe()['kind']}: {count} samples would be planned, those not yet there downloaded")
        return
    from dataprep.cli.runs import run_stages  # `import` runs nothing, and starts faster without

    add_source(workspace, source)
    run_stages(workspace, "download", {"download": params}, **run)


@click.group("import")
def import_() -> None:
    """Take up photos that are on this disk already. They stay where they are.

    \b
    Example: dataprep import folder lfw/
    """


@import_.command()
@click.argument("photos", type=click.Path(path_type=Path))
@click.option("--aligned", is_flag=True, help="They are aligned faces: pack them as they are.")
@_LIMIT
@click.pass_obj
def folder(workspace: str, photos: Path, aligned: bool, limit: int | None) -> None:
    """A folder per identity with photos in it: LFW, CASIA-WebFace or VGGFace2 as they come, or your own.

    \b
    Example: dataprep import folder lfw/ && dataprep align
    """
    from dataprep.sources.folder import PhotoFolder

    add_source(workspace, PhotoFolder(photos, aligned=aligned, limit=limit))


@import_.command()
@click.argument("pack", type=click.Path(path_type=Path))
@_LIMIT
@click.pass_obj
def rec(workspace: str, pack: Path, limit: int | None) -> None:
    """The faces of a .rec pack, anyone's, to clean and to pack again. Their bytes stay as they are.

    \b
    Example: dataprep import rec faces_emore/ && dataprep pack --holdout 0.05
    """
    from dataprep.sources.rec import RecPack

    add_source(workspace, RecPack(pack, limit=limit))


@import_.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), help="Where relative paths start; else the list's folder.")
@click.option("--dialect", type=click.Choice(["insightface", "mxnet"]), help="Whose list it is; else recognised.")
@click.option("--aligned", is_flag=True, help="An im2rec list's images are aligned faces: pack them as they are.")
@_LIMIT
@click.pass_obj
def lst(workspace: str, /, file: Path, **options: Any) -> None:
    """The images of a .lst: insightface's, with boxes and landmarks if it has them, or im2rec's.

    People are told apart by the images' folders; by the labels if a folder holds more than one.

    \b
    Example: dataprep import lst faces.lst --root photos/ && dataprep align
    """
    from dataprep.sources.lst import ImageList

    add_source(workspace, ImageList(file, **options))


@import_.command("vggface2")
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["train", "test", "all"]), default="train", show_default=True, help="Which.")
@click.option("--boxes", type=click.Path(path_type=Path), multiple=True, help="loose_bb_*.csv, if not in DIR or meta/.")
@click.option(
    "--landmarks", type=click.Path(path_type=Path), multiple=True, help="loose_landmark_*.csv, if not in DIR or meta/."
)
@click.option("--names", type=click.Path(path_type=Path), help="identity_meta.csv: call people by name, not n000002.")
@_LIMIT
@click.pass_obj
def import_vggface2(workspace: str, /, root: Path, **options: Any) -> None:
    """VGGFace2 as released: DIR/train/n000002/0001_01.jpg, with its tables of boxes and landmarks.

    Its landmarks are taken as they are; align --landmarks detect finds them anew.

    \b
    Example: dataprep import vggface2 VGG-Face2/data && dataprep align --size 224 --extend 0.3
    """
    from dataprep.sources.vggface2 import VggFace2

    source = VggFace2(root, **options)
    add_source(workspace, source)
    if source.account:
        click.echo(source.account)


@import_.command()
@click.option("--identities", type=click.IntRange(1), default=20, show_default=True, help="How many people.")
@click.option("--photos", type=click.IntRange(1), default=10, show_default=True, help="Photos of each.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Other people for another seed.")
@click.pass_obj
def synth(workspace: str, identities: int, photos: int, seed: int) -> None:
    """Drawn faces with their true boxes: to try everything without anybody's photo.

    \b
    Example: dataprep import synth && dataprep pack
    """
    from dataprep.sources.synth.photos import Synth, draw_folder

    root = Path(workspace) / "synth" / f"seed{seed}-{identities}x{photos}"
    draw_folder(root, identities=identities, photos=photos, seed=seed)
    add_source(workspace, Synth(root))
