"""download: fetch the photos in lists of URLs."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import click

from dataprep.cli._options import RUN_OPTIONS, given_params, params_options, run_options
from dataprep.cli._pipeline import run_stages
from dataprep.cli._sources import add_source, selection_options
from dataprep.download.settings import DownloadParams
from dataprep.sources.base import Source, iterate_samples
from dataprep.storage import Folder
from dataprep.text import counted
from dataprep.workspace.plan import Plan


@click.group(invoke_without_command=True)
@run_options
@click.pass_context
def download(ctx: click.Context, /, **values: Any) -> None:
    """Download the photos in a published list of URLs: resumable, polite, and wary of non-photos.

    Pass a list again when it has grown: planned samples stay unchanged, and only new ones are fetched. Without a list,
    pending samples and retries are downloaded with the options of the last run.

    \b
    Example: dataprep download vggface --lists vgg_face_dataset.tar.gz --per-identity 50
             dataprep download urls photos.csv
             dataprep retry --reason timeout && dataprep download
    """
    if ctx.invoked_subcommand is None:
        run_stages(ctx.obj, "download", {}, **values)
    elif any(ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT for name in values):
        raise click.UsageError(f"put the options after `{ctx.invoked_subcommand}`")


@download.command()
@click.option("--lists", type=click.Path(), help="Folder of lists, a single person's .txt, or vgg_face_dataset.tar.gz.")
@click.option("--curated-only", is_flag=True, help="Use only lines of the curated set (last column 1).")
@click.option("--frontal-only", is_flag=True, help="Use only frontal faces (pose above 2).")
@selection_options
@params_options(DownloadParams)
@run_options
@click.pass_obj
def vggface(workspace: str, /, **values: Any) -> None:
    """VGG-Face: 2.6 million URLs of 2,622 people. Without --lists, the official list archive is downloaded first.

    \b
    Example: dataprep download vggface --curated-only --identities 100
    """
    _download(workspace, "vggface", values)


@download.command()
@click.option(
    "--lists", type=click.Path(), multiple=True, help="facescrub_actors.txt, facescrub_actresses.txt or their folder."
)
@click.option("--ignore-hashes", is_flag=True, help="Also keep photos whose bytes have changed since 2014.")
@selection_options
@params_options(DownloadParams)
@run_options
@click.pass_obj
def facescrub(workspace: str, /, **values: Any) -> None:
    """FaceScrub: 106,863 faces of 530 actors and actresses. The authors provide the lists on request.

    \b
    Example: dataprep download facescrub --lists facescrub/
    """
    _download(workspace, "facescrub", values)


@download.command()
@click.argument("table")
@click.option("--format", help="csv, tsv, txt, parquet, json or jsonl; default: by the suffix of TABLE.")
@click.option(
    "--columns", metavar="A,B,...", help="Names of all columns, in order, for a TABLE without a line of names."
)
@click.option("--delimiter", help="Character between the fields; default: found out.")
@click.option("--encoding", help="Encoding, such as cp1251; default: found out.")
@click.option("--url-column", help="Column of URLs; default: url, image_url or img_url.")
@click.option("--identity-column", help="Column of identities; default: identity, person or name.")
@click.option("--identity", help="The identity of all photos, instead of a column.")
@click.option("--key-column", help="Column of photo names, unique per person; default: key, else a hash of the URL.")
@click.option(
    "--box-column", multiple=True,
    help="One column of four numbers, or A,B,C,D; default: left, top, right, bottom or x1, y1, x2, y2.",
)  # fmt: skip
@click.option(
    "--box-format",
    type=click.Choice(["ltrb", "ltwh"]),
    help="Box numbers: edges (ltrb, default), or width and height (ltwh).",
)
@click.option(
    "--size-columns", multiple=True, metavar="WIDTH,HEIGHT",
    help="Size of the photo that the box was measured on: two columns, or one with both numbers; default: guessed, as "
    "`height width` or original_width, original_height.",
)  # fmt: skip
@click.option(
    "--hash-column", help="Column of published photo hashes, in hexadecimal; photos with another hash are dropped."
)
@click.option("--hash-algorithm", help="md5, sha1, sha256, sha384 or sha512; default: by the length.")
@selection_options
@params_options(DownloadParams)
@run_options
@click.pass_obj
def urls(workspace: str, /, **values: Any) -> None:
    """Your own table: .csv, .tsv, .json, .jsonl (also .gz), .parquet, .txt with a URL per line, or a folder of these.

    TABLE may be any fsspec URL. Input and output files of img2dataset work too: name the identity column.

    \b
    Example: dataprep download urls photos.csv --per-host 8
             dataprep download urls 00000.parquet --identity-column caption --hash-column sha256
    """
    _download(workspace, "urls", values)


def _preview(kind: str, source: Source, plan: Plan) -> None:
    """Say what a source would add to the plan, and what of it cannot be used, with a line of each reason."""
    count, unusable, examples, people = 0, Counter[str](), dict[str, str](), set[str]()
    for table in plan.new_samples(iterate_samples(source)):
        count += len(table)
        people.update(table.filter(table["error"].is_null())["identity"].unique().to_pylist())
        lost = table.filter(table["error"].is_valid()).select(["error", "detail"])
        unusable.update(lost["error"].to_pylist())
        for row in lost.to_pylist():
            examples.setdefault(row["error"], row["detail"])
    click.echo(
        f"{kind}: {counted(count - unusable.total(), 'sample')} of {counted(len(people), 'person')} would be planned and "
        f"downloaded; {plan.known_count} are already planned"
    )
    for reason, number in unusable.most_common():
        click.echo(f"{counted(number, 'line')} cannot be used, {reason}; for example {examples[reason]}")


def _download(workspace: str, kind: str, values: dict[str, Any]) -> None:
    from dataprep.sources.catalog import open_source

    (params,) = given_params(values, DownloadParams)
    run = {name: values.pop(name) for name in RUN_OPTIONS}
    options = {name: value for name, value in values.items() if name not in {f.name for f in fields(DownloadParams)}}
    source = open_source(kind, options, workspace)
    if run["dry_run"]:
        plan = Plan(Folder(workspace).folder("plan"))
        _preview(kind, source, plan)
        if not plan.generations:
            return
    else:
        add_source(workspace, source)
    run_stages(workspace, "download", {"download": params}, **run)
