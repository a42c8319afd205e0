"""unpack, merge, verify, repair and info: commands on any pack, without a workspace."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from dataprep.cli._options import say_next
from dataprep.cli._ticker import ProgressBar
from dataprep.errors import UsageError
from dataprep.text import counted
from dataprep.workspace.exclusions import Exclusions
from dataprep.workspace.workspace import Workspace

_OUT = click.option(
    "--out", type=click.Path(path_type=Path), required=True, callback=lambda _ctx, _param, path: _local(path),
    help="Folder of the new pack, on a local disk.",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _format_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--max-part-size", type=click.IntRange(1), help="Split into parts of at most N MiB."),
        click.option("--layout", type=click.Choice(["insightface", "flat"]), default="insightface", show_default=True,
                     help="Layout of a .rec."),
        click.option("--format", "container", type=click.Choice(["rec", "webdataset", "folder"]), default="rec",
                     show_default=True, help="Format of the new pack."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command()
@click.argument("pack")
@_format_options
@_OUT
@click.option("--shuffle", type=click.IntRange(0), help="Shuffle with this seed (flat and webdataset).")
@click.pass_obj
def unpack(
    workspace: str, /, pack: str, container: str, layout: str, max_part_size: int | None, out: Path, shuffle: int | None
) -> None:
    """Convert a pack to a folder of images, WebDataset shards or a .rec, without re-encoding the images.

    PACK is a folder with a .rec, .tar shards or images, a .rec file, or the URL of either. From a pack of the workspace,
    or into it, people and photos that are excluded are left out.

    \b
    Example: dataprep unpack faces_emore --format folder --out emore_images
             dataprep unpack emore_images --format rec --out faces_again
    """
    from dataprep.packs.tools.convert import convert_pack

    chosen = _pack_format(container, layout, max_part_size)
    if shuffle is not None and chosen.layout in ("insightface", "folder"):
        raise UsageError(
            f"--shuffle: a {chosen.layout} pack is grouped by identity", hint="use --layout flat or --format webdataset"
        )
    excluded = _exclusions(workspace, pack, str(out))
    manifest = convert_pack(
        pack,
        out,
        pack_format=chosen,
        shuffle=shuffle,
        is_excluded=excluded.covers if excluded else None,
        progress=partial(ProgressBar(), "faces"),
    )
    _written(out, manifest)
    if manifest.get("excluded"):
        click.echo(f"  {manifest['excluded']} faces are excluded and were left out")


@click.command()
@click.argument("packs", nargs=-1, required=True)
@_format_options
@_OUT
@click.option("--join-names", is_flag=True, help="Treat identities of equal name as one person.")
@click.option("--drop-duplicates", is_flag=True, help="Keep only the first of byte-identical images.")
def merge(
    packs: tuple[str, ...],
    container: str,
    layout: str,
    max_part_size: int | None,
    out: Path,
    join_names: bool,
    drop_duplicates: bool,
) -> None:
    """Merge several packs into one and renumber the identities.

    \b
    Example: dataprep merge casia asian_celeb --out both --drop-duplicates
    """
    from dataprep.packs.tools.merge import merge_packs as put_together

    chosen = _pack_format(container, layout, max_part_size)
    manifest = put_together(
        packs,
        out,
        pack_format=chosen,
        merge_labels=join_names,
        drop_duplicates=drop_duplicates,
        progress=partial(ProgressBar(), "faces"),
    )
    _written(out, manifest)
    if drop_duplicates:
        click.echo(f"  {manifest['duplicates_dropped']} duplicates dropped")


@click.command()
@click.argument("pack")
@click.option("--reader", type=click.Choice(["dataprep", "mxnet"]), default="dataprep", show_default=True,
              help="mxnet: also read every record with mxnet itself, if installed.")  # fmt: skip
@click.option("-j", "--jobs", type=click.IntRange(1), default=len(os.sched_getaffinity(0)), show_default="CPU cores",
              help="Decoding threads.")  # fmt: skip
@_JSON
@click.pass_context
def verify(ctx: click.Context, pack: str, reader: str, jobs: int, as_json: bool) -> None:
    """Check a pack: structure, index, labels, identities, images, duplicates, hashes. Exits with 1 on errors.

    \b
    Example: dataprep verify workspace/packs/train
             dataprep verify faces_emore --reader mxnet
    """
    from dataprep.packs.tools.verify import verify_pack as check

    opened, findings = check(pack, reader=reader, jobs=jobs, progress=partial(ProgressBar(), "images"))
    errors = [finding for finding in findings if not finding.warning]
    if as_json:
        found = {"pack": pack, "whole": not errors, "findings": [dataclasses.asdict(f) for f in findings]}
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        if opened is not None:
            click.echo(f"{pack}: {opened.layout} layout, {len(opened)} images")
        for finding in findings:
            click.echo(
                f"  {'note' if finding.warning else 'WRONG'}: {finding.count} x {finding.meaning} ({finding.code})"
            )
            for example in finding.examples:
                click.echo(f"      {example}")
        mendable = opened is not None and len(opened) and opened.layout in ("insightface", "flat")
        mendable = mendable or (opened is None and any(Path(pack).glob("*.rec")))
        click.echo("not whole" if errors else "whole")
        if not errors:
            say_next(f"train --pack {pack}")
        elif mendable:
            say_next(f"repair {pack} --out {pack.rstrip('/')}-repaired", in_workspace=False)
    ctx.exit(1 if errors else 0)


@click.command()
@click.argument("pack")
@_OUT
@click.option("--layout", type=click.Choice(["insightface", "flat"]), help="The new layout; default: unchanged.")
def repair(pack: str, out: Path, layout: str | None) -> None:
    """Rebuild a pack from the readable records of a damaged .rec, which is not modified.

    The .idx, record 0 and the identities are rebuilt from the records. In the new pack, lost.tsv lists what was lost, also
    what the old .idx names and the file no longer has, and people.tsv the people of whom nothing is left.

    \b
    Example: dataprep repair faces_emore --out faces_repaired
    """
    from dataprep.packs.tools.repair import repair_pack as mend

    manifest = mend(pack, out, layout=layout, progress=partial(ProgressBar(), "records"))
    _written(out, manifest)
    lost = manifest["repaired_from"]["lost"]
    named = ", ".join(f"{count} {reason}" for reason, count in lost.items()) or "nothing"
    click.echo(f"  lost: {named}" + (f"; see {out}/lost.tsv" if lost else ""))
    if people := manifest["repaired_from"]["people_lost"]:
        click.echo(f"  {counted(people, 'person')} without any image left: see {out}/people.tsv")


@click.command()
@click.argument("pack")
@_JSON
def info(pack: str, as_json: bool) -> None:
    """Show the layout, counts, image sizes and origin of a pack.

    \b
    Example: dataprep info workspace/packs/train
    """
    from dataprep.packs.tools.info import describe_pack

    facts = describe_pack(pack)
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items())
        click.echo(f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    say_next(f"verify {pack}", in_workspace=False)


def _exclusions(workspace: str, *places: str) -> Exclusions:
    """The workspace's exclusions if any of the places lies in it, else none."""
    root = os.path.join(os.path.realpath(workspace), "")
    inside = any(os.path.realpath(place).startswith(root) for place in places)
    return (
        Workspace(workspace).exclusions() if inside and (Path(workspace) / "dataprep.json").exists() else Exclusions()
    )


def _local(path: Path) -> Path:
    if ":/" in str(path):
        raise UsageError(
            f"--out {path}: packs are written to a local disk only", hint="write locally, then copy the pack"
        )
    return path


def _pack_format(container: str, layout: str, max_part_size: int | None) -> Any:
    from dataprep.packs.base import PackFormat

    return PackFormat(
        container=container, record_layout=layout, max_part=None if max_part_size is None else max_part_size << 20
    )


def _written(out: Path, manifest: dict[str, Any]) -> None:
    counts = manifest["counts"]
    click.echo(f"{out}: {counts['images']} images of {counts['identities']} identities, {manifest['layout']} layout")
    say_next(f"verify {out}", in_workspace=False)
