"""identify: the subcommands ijb, megaface, devkit and gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from dataprep.cli._options import say_next
from dataprep.cli._ticker import ProgressBar
from dataprep.errors import UsageError


@click.group()
def identify() -> None:
    """Evaluate features by template and identification protocols, or search a gallery.

    \b
    Example: dataprep identify ijb --meta IJBC/meta --features ijbc.npy --halves
    """


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    path = click.Path(path_type=Path)
    for option in (
        click.option("--out", type=path, help="Folder for result.json; default: identify/NAME in the workspace."),
        click.option("--dim", type=click.IntRange(1), help="Values per row of raw float32 features."),
        click.option("--exclude-missing", is_flag=True, help="Exclude and count zero features and templates without "
                     "faces, instead of stopping."),
    ):  # fmt: skip
        function = option(function)
    return function


_DEVICE = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, ...; results are the same on all."
)


@identify.command()
@click.option("--meta", type=click.Path(path_type=Path), required=True, help="The benchmark's meta folder.")
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    required=True,
    help="One row per face, by image name or in the order of the meta files.",
)
@click.option("--protocol", type=click.Choice(["ijbb", "ijbc"]), help="Default: by the files in the meta folder.")
@click.option("--one-to-many", is_flag=True, help="Evaluate 1:N with both galleries instead of 1:1.")
@click.option("--pooling", type=click.Choice(["insightface", "vggface2"]), default="insightface", show_default=True,
              help="How faces are pooled to templates.")  # fmt: skip
@click.option("--halves", is_flag=True, help="Each row is the face's embedding followed by the mirrored face's.")
@click.option("--no-flip", is_flag=True, help="With --halves: ignore the mirrored face (F0).")
@click.option("--no-detector-score", is_flag=True, help="Do not weight faces by detector score (D0).")
@click.option("--normalise-faces", is_flag=True, help="L2-normalise face features before pooling (insightface's N0).")
@_shared
@click.pass_obj
def ijb(
    workspace: str, meta: Path, features: Path, protocol: str | None, one_to_many: bool, pooling: str, halves: bool,
    no_flip: bool, no_detector_score: bool, normalise_faces: bool, exclude_missing: bool, dim: int | None,
    out: Path | None,
) -> None:  # fmt: skip
    """IJB-B and IJB-C: pool faces to templates, then verify 15.7 million pairs (1:1) or search galleries (1:N).

    \b
    Example: dataprep identify ijb --meta IJBC/meta --features ijbc.npy --halves
             dataprep identify ijb --meta IJBB/meta --features ijbb.npy --one-to-many --normalise-faces
    """
    from dataprep.evaluate.identification.benchmark import check_identification_target, ijb_result_name, score_ijb
    from dataprep.evaluate.identification.one_to_one import OneToOneResult
    from dataprep.evaluate.identification.templates import Pooling

    how = Pooling.from_switches(
        pooling, halves=halves, flip=not no_flip, detector_score=not no_detector_score, normalise_faces=normalise_faces
    )
    target = out or Path(workspace) / "identify" / ijb_result_name(
        meta, features, protocol, how, one_to_many=one_to_many, exclude_missing=exclude_missing
    )
    if out is None:
        check_identification_target(target, features)
    found = score_ijb(
        meta, features, target, protocol=protocol, pooling=how, one_to_many=one_to_many,
        exclude_missing=exclude_missing, dim=dim, progress=ProgressBar(),
    )  # fmt: skip
    if isinstance(found, OneToOneResult):
        click.echo(f"{found.pairs} pairs, {found.positives} of the same person; {found.templates} templates")
        if found.pairs_excluded or found.faces_excluded:
            click.echo(
                f"  excluded: {found.pairs_excluded} pairs ({found.positives_excluded} of the same person), "
                f"{found.templates_without_faces} templates, {found.faces_excluded} faces"
            )
        for far, tar in found.tar_at_far.items():
            click.echo(
                f"  TAR {tar:.2%} at FAR {far}   (insightface's nearest point {found.tar_at_far_insightface[far]:.2%})"
            )
    else:
        click.echo(f"{found.probes} probes, {found.probes_without_mate} without a mate")
        if found.probes_excluded or found.gallery_templates_excluded:
            click.echo(
                f"  excluded: {found.probes_excluded} probes, {found.gallery_templates_excluded} gallery templates"
            )
        click.echo(f"  both galleries combined: {_shares('rank', found.rank)}")
        click.echo(f"    {_shares('TPIR at FPIR', found.tpir_at_fpir_ijb_1n)} (as ijb_1n.py)")
        for gallery in found.galleries:
            click.echo(
                f"  {gallery.name}: {gallery.mated} mated, {gallery.impostors} not; {_shares('rank', gallery.rank)}"
            )
            click.echo(f"    {_shares('TPIR at FPIR', gallery.tpir_at_fpir)}")
        click.echo(f"  mean of the galleries: {_shares('TPIR at FPIR', found.mean_tpir_at_fpir)}")
    click.echo(f"  {target}/result.json")
    say_next(f"compare {target}")


def _megaface_features(function: Callable[..., Any]) -> Callable[..., Any]:
    path = click.Path(path_type=Path)
    for option in (
        click.option("--suffix", default=".bin", show_default=True,
                     help="Suffix of feature files in a folder: _ALGO.bin."),
        click.option("--seed", default=0, show_default=True, help="Seed of the noise on the centres of noisy probes."),
        click.option("--noises", type=path, nargs=2, metavar="FACESCRUB MEGAFACE",
                     help="facescrub_noises.txt and megaface_noises.txt."),
        click.option("--distractor-list", type=path, help="Distractor list; required for a folder or --noises."),
        click.option("--distractors", type=path, required=True, help="Features of MegaFace: a file or a folder."),
        click.option("--probe-list", type=path, required=True, help="The devkit's JSON list, or one path per line."),
        click.option("--probes", type=path, required=True, help="Features of FaceScrub's photos: a file or a folder."),
    ):  # fmt: skip
        function = option(function)
    return function


@identify.command()
@_megaface_features
@click.option("--num-distractors", type=click.IntRange(1), help="Use only the first N distractors.")
@click.option("--refined", is_flag=True, help="Use the refined protocol (@R); requires --noises.")
@_DEVICE
@_shared
@click.pass_obj
def megaface(
    workspace: str, probes: Path, probe_list: Path, distractors: Path, distractor_list: Path | None,
    num_distractors: int | None,
    refined: bool, noises: tuple[Path, Path] | None, suffix: str, seed: int, device: str, exclude_missing: bool,
    dim: int | None, out: Path | None,
) -> None:  # fmt: skip
    """MegaFace without its devkit: ranks among up to a million distractors, and TAR at FPR 1e-6.

    \b
    Example: dataprep identify megaface --probes facescrub.parquet --probe-list facescrub_features_list.json \\
                 --distractors megaface.npy --distractor-list megaface_features_list.json_1000000_1 \\
                 --refined --noises facescrub_noises.txt megaface_noises.txt
    """
    from dataprep.evaluate.identification.benchmark import (
        check_identification_target,
        megaface_result_name,
        score_megaface,
    )

    if refined != (noises is not None):
        raise UsageError("--refined and --noises must be used together", hint="--refined --noises FACESCRUB MEGAFACE")
    target = out or Path(workspace) / "identify" / megaface_result_name(
        probes, distractors, num_distractors, refined=refined, seed=seed, exclude_missing=exclude_missing
    )
    if out is None:
        check_identification_target(target, probes, distractors)
    found = score_megaface(
        probes, probe_list, distractors, target, distractor_list=distractor_list, size=num_distractors,
        noises=noises, suffix=suffix, seed=seed, exclude_missing=exclude_missing, dim=dim, device=device,
        progress=ProgressBar(),
    )  # fmt: skip
    click.echo(
        f"{found.probes} probes of {found.identities} people, {found.searches} searches, {found.distractors} distractors"
    )
    if refined:
        click.echo(f"  {found.distractors_pushed_away} noisy distractors cannot match")
    if found.probes_excluded or found.distractors_excluded:
        click.echo(f"  excluded: {found.probes_excluded} probes, {found.distractors_excluded} distractors")
    click.echo(f"  {_shares('rank', found.rank)}")
    for fpr, tar in found.tar_at_fpr.items():
        click.echo(f"  TAR {tar:.2%} at FPR {fpr} ({found.positives} positives, {found.negatives} negatives)")
    click.echo(f"  {target}/result.json")
    say_next(f"compare {target}")


@identify.command()
@_megaface_features
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--algorithm", default="dataprep", show_default=True, help="Suffix of the file names.")
@click.option("--dim", type=click.IntRange(1), help="Values per row of raw float32 features.")
def devkit(
    probes: Path, probe_list: Path, distractors: Path, distractor_list: Path | None, noises: tuple[Path, Path] | None,
    suffix: str, seed: int, out: Path, algorithm: str, dim: int | None,
) -> None:  # fmt: skip
    """Write features for MegaFace's devkit like insightface's remove_noises.py: a file per photo, one extra value.

    \b
    Example: dataprep identify devkit --probes facescrub.parquet --probe-list facescrub_features_list.json \\
                 --distractors megaface.npy --distractor-list megaface_features_list.json_1000000_1 \\
                 --noises facescrub_noises.txt megaface_noises.txt --out feature_out_clean
    """
    from dataprep.evaluate.identification.megaface_lists import open_megaface, write_for_devkit

    contest = open_megaface(
        probes, probe_list, distractors, distractor_list=distractor_list, noises=noises, suffix=suffix, seed=seed,
        zeros=True, dim=dim,
    )  # fmt: skip
    ticker = ProgressBar()
    write_for_devkit(contest, out, algorithm=algorithm, progress=lambda done, total: ticker("files", done, total))
    click.echo(
        f"{out}: {len(contest.probes)} probes ({contest.noisy_probes} noisy), {len(contest.distractors)} distractors of "
        f"{contest.distractors.dim + 1} values"
    )


@identify.command()
@click.option(
    "--gallery", type=click.Path(path_type=Path), required=True, help="Features with names: the known people."
)
@click.option(
    "--probes", type=click.Path(path_type=Path), required=True, help="Features with names: the people to look for."
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Number of matches per probe.")
@_DEVICE
@_shared
@click.pass_obj
def gallery(
    workspace: str, gallery: Path, probes: Path, top: int, device: str, exclude_missing: bool, dim: int | None,
    out: Path | None,
) -> None:  # fmt: skip
    """List the most similar gallery photos for each probe. A gallery photo with the probe's name is skipped.

    \b
    Example: dataprep identify gallery --gallery known.parquet --probes unknown.parquet --top 3
    """
    from dataprep.evaluate.identification.benchmark import (
        check_identification_target,
        gallery_result_name,
        search_gallery,
    )

    target = out or Path(workspace) / "identify" / gallery_result_name(
        gallery, probes, top, exclude_missing=exclude_missing
    )
    if out is None:
        check_identification_target(target, gallery, probes)
    found = search_gallery(
        gallery, probes, target, top=top, exclude_missing=exclude_missing, dim=dim, device=device,
        progress=ProgressBar(),
    )  # fmt: skip
    for match in found.matches[: 20 * top]:
        click.echo(f"{match.probe}  {match.rank}  {match.score:.4f}  {match.match}")
    if len(found.matches) > 20 * top:
        click.echo("...")
    click.echo(f"{found.probes} probes, {found.gallery} gallery photos: {target}/matches.csv and result.json")
    if found.zeros_excluded:
        click.echo(f"  excluded: {found.zeros_excluded} zero features")
    if found.rank1 is not None:
        click.echo(f"  rank-1 {found.rank1:.2%} of {found.probes_with_mate} probes whose person is in the gallery")


def _shares(what: str, values: Mapping[str, float]) -> str:
    return ", ".join(f"{what} {name}: {value:.2%}" for name, value in values.items()) or f"{what}: too few samples"
