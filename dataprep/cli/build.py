"""validate, crop, align, lst and pack: the stages after the download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dataprep.cli._options import RUN_OPTIONS, given_params, is_given, params_options, run_options, say_next
from dataprep.cli._pipeline import format_duplicates, run_stages
from dataprep.cli._ticker import ProgressBar
from dataprep.cli.exclude import exclude_all
from dataprep.cli.workspace import tell_export
from dataprep.errors import UsageError
from dataprep.stages.align import AlignParams
from dataprep.stages.crop import CropParams
from dataprep.stages.detect import DetectParams
from dataprep.stages.lst import ListingParams
from dataprep.stages.pack import PackParams
from dataprep.stages.validate import ValidateParams
from dataprep.text import counted, read_names
from dataprep.workspace.workspace import Workspace


def _split(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in RUN_OPTIONS}


@click.command()
@params_options(ValidateParams)
@run_options
@click.pass_obj
def validate(workspace: str, /, **values: Any) -> None:
    """Decode every photo fully, by content, not by file name. Record its properties; drop unusable files.

    \b
    Example: dataprep validate --min-side 64
    """
    (params,) = given_params(values, ValidateParams)
    run_stages(workspace, "validate", {"validate": params}, **_split(values))


@click.command()
@params_options(CropParams)
@click.option(
    "--write", type=click.Path(path_type=Path), help="Also write the crops to this folder, as identity/name.jpg."
)
@run_options
@click.pass_obj
def crop(workspace: str, /, write: Path | None, **values: Any) -> None:
    """Clip the published boxes to their photos. Drop samples whose box lies outside.

    \b
    Example: dataprep crop --write crops/
    """
    (params,) = given_params(values, CropParams)
    report = run_stages(workspace, "crop", {"crop": params}, **_split(values))
    if write and report:
        from dataprep.pipeline.image_export import export_crops

        tell_export(export_crops(workspace, write), "crops", write)


@click.command()
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path))
@params_options(AlignParams, DetectParams)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the faces of PHOTOS.")
@run_options
@click.pass_obj
def align(workspace: str, /, photos: tuple[Path, ...], out: Path | None, **values: Any) -> None:
    """Detect the target face in every photo and align it to insightface's five-point template.

    With PHOTOS, files or folders, and --out the faces of these are written to a folder, without a workspace; faces.csv
    there says what was found in each.

    \b
    Example: dataprep align --size 112
             dataprep align --size 224 --extend 0.3      # VGGFace2's crop, without alignment
             dataprep align holiday/ me.jpg --out faces/
    """
    aligning, detecting = given_params(values, AlignParams, DetectParams)
    if photos or out:
        _align_files(photos, out, aligning, detecting, jobs=values["jobs"], dry_run=values["dry_run"])
        return
    run_stages(workspace, "align", {"detect": detecting, "align": aligning}, **_split(values))


def _align_files(
    photos: tuple[Path, ...], out: Path | None, aligning: Any, detecting: Any, *, jobs: int, dry_run: bool
) -> None:
    from dataprep.pipeline.plain_files import FaceSettings, align_photos

    if out is None or not photos:
        raise UsageError("aligning files takes both PHOTOS and --out", hint="dataprep align PHOTOS/ --out FACES/")
    if dry_run:
        raise UsageError("--dry-run shows the stages of a workspace", hint="leave it out to align files")
    settings = FaceSettings(align=AlignParams(**aligning), detect=DetectParams.from_mapping(detecting))
    bar = ProgressBar()
    counts = align_photos(photos, out, settings, jobs=jobs, progress=lambda done, total: bar("photos", done, total))
    lost = ", ".join(f"{code} {count}" for code, count in sorted(counts.items()) if code != "ok")
    click.echo(
        f"{counted(counts['ok'], 'face')} of {counted(counts.total(), 'file')} in {out}" + f" ({lost})" * bool(lost)
    )
    if not counts["ok"]:
        raise SystemExit(1)


_EXCLUDE = click.option(
    "--exclude", type=click.Path(path_type=Path),
    help="Exclude the people and photos in this list, from now on; see `dataprep exclude`.",
)  # fmt: skip


def _exclude(workspace: str, path: Path | None, dry_run: bool) -> None:
    if path is None:
        return
    entries = read_names(path)
    if dry_run:
        click.echo(f"{len(entries)} people or photos in {path} would be excluded")
    else:
        exclude_all(Workspace(workspace), entries)


@click.command()
@params_options(ListingParams)
@_EXCLUDE
@click.option(
    "--out", type=click.Path(path_type=Path), help="Also write the list to this file, in insightface's dialect."
)
@run_options
@click.pass_obj
def lst(workspace: str, /, out: Path | None, exclude: Path | None, **values: Any) -> None:
    """List the faces to pack: identities with enough images, labelled from 0 without gaps; some may be held out.

    \b
    Example: dataprep lst --min-images 10 --holdout 0.1
    """
    (params,) = given_params(values, ListingParams)
    _exclude(workspace, exclude, values["dry_run"])
    report = run_stages(workspace, "lst", {"lst": params}, **_split(values))
    if report:
        found = report.extras["lst"]
        click.echo(f"{found['identities']} identities to train on, {found['held_out']} held out")
        click.echo(format_duplicates(found["duplicates"]))
        if out:
            from dataprep.pipeline.image_export import export_lst

            click.echo(f"{export_lst(workspace, out)} lines in {out}")


@click.command()
@params_options(PackParams, ListingParams)
@_EXCLUDE
@run_options
@click.pass_context
def pack(ctx: click.Context, /, exclude: Path | None, **values: Any) -> None:
    """Pack the listed faces like insightface: train.rec, .idx, .lst and property, plus dataprep's own files.

    Options of lst are accepted too; without any, the last run of lst applies.

    \b
    Example: dataprep pack --format rec --holdout 0.1
    """
    packing, listing = given_params(values, PackParams, ListingParams)
    _exclude(ctx.obj, exclude, values["dry_run"])
    changes = {"pack": packing} | ({"lst": listing} if is_given(ctx, ListingParams) else {})
    report = run_stages(ctx.obj, "pack", changes, **_split(values))
    if report:
        counts = report.extras["pack"]["counts"]
        held = f", {counts['pairs']} held-out pairs in holdout.bin" if counts["pairs"] else ""
        if 0 < counts["folds"] < 10:
            held += f" ({counts['folds']} folds instead of 10: few people are held out)"
        click.echo(
            f"{counts['images']} images of {counts['identities']} identities in {ctx.obj}/packs/{packing['name']}{held}"
        )
        chosen = "" if packing["name"] == "train" else f" --pack {ctx.obj}/packs/{packing['name']}"
        say_next(f"train{chosen}", "test") if counts["pairs"] else say_next(f"train{chosen}")
