"""test, extract and compare: evaluate models, compute embeddings, tabulate results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dataprep.cli._options import say_next
from dataprep.cli._ticker import ProgressBar
from dataprep.cli.train import find_default_pack
from dataprep.errors import UsageError

if TYPE_CHECKING:
    from dataprep.evaluate.verification.scoring import TestResult
    from dataprep.models.preprocessing import Preprocessing

F = Callable[..., Any]


def model_options(function: F) -> F:
    for option in (
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, ..."),
        click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Batch size."),
        click.option(
            "--order", type=click.Choice(["RGB", "BGR"]), help="Channel order of an ONNX model's input; default RGB."
        ),
        click.option("--std", help="Per-channel std of an ONNX model's input; default 127.5. One number or R,G,B."),
        click.option("--mean", help="Per-channel mean of an ONNX model's input (0..255); default 127.5. Also R,G,B."),
    ):
        function = option(function)
    return function


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="model.pt or .onnx; default: models/default.")
@click.option("--name", default="default", show_default=True, help="Name of the model under models/.")
@click.option(
    "--features", type=click.Path(path_type=Path), help="Score a .npy or .parquet of features instead of a model."
)
@click.option(
    "--benchmark",
    help="A .bin, pairs.txt, `left right 1|-1` list or CSV, or lfw, cfp_fp, cfp_ff, agedb_30, calfw, cplfw from the "
    "workspace's bins/; default: holdout.bin of packs/train.",
)  # fmt: skip
@click.option(
    "--image-dir", type=click.Path(path_type=Path), help="Folder of a list's aligned faces; default: the list's."
)
@click.option("--protocol", type=click.Choice(["insightface", "face_pytorch", "cosine"]), default="insightface",
              show_default=True, help="Evaluation protocol; results differ between protocols.")  # fmt: skip
@click.option("--flip", type=click.Choice(["sum", "concat", "none"]),
              help="How the mirrored face's embedding is fused; default: by the protocol.")  # fmt: skip
@click.option("--skip-missing", is_flag=True, help="Skip pairs of missing or unusable images, and report them.")
@click.option("--baselines", is_flag=True, help="Also score mean colour, raw pixels and the untrained network.")
@click.option("--plots", is_flag=True, help="Also plot DET, score histograms and the worst errors.")
@click.option("--leaks", type=click.Choice(["auto", "full", "off"]), default="auto", show_default=True,
              help="Search the training pack for the set's people and photos; auto hashes up to 100,000.")  # fmt: skip
@click.option(
    "--trained-on", type=click.Path(path_type=Path), help="The training pack, if the model does not record it."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results; default: models/NAME/test/SET.")
@model_options
@click.pass_obj
def test(
    workspace: str, /, model: Path | None, name: str, features: Path | None, benchmark: str | None,
    image_dir: Path | None, protocol: str, flip: str | None, skip_missing: bool, baselines: bool, plots: bool, leaks: str,
    trained_on: Path | None, out: Path | None, mean: str | None, std: str | None, order: str | None, batch_size: int,
    device: str,
) -> None:  # fmt: skip
    """Evaluate a model on a verification set: ten-fold accuracy, VAL, TAR at FAR, AUC and EER, with 95 % intervals.

    \b
    Example: dataprep test
             dataprep test --benchmark lfw --plots
             dataprep test --model backbone.onnx --benchmark pairs.txt --image-dir lfw-112 --protocol face_pytorch
             dataprep test --features lfw.parquet --benchmark lfw.bin
    """
    from dataprep.evaluate.verification.pair_set import find_verification_set, open_verification_set
    from dataprep.evaluate.verification.scoring import (
        ScoringOptions,
        check_verification_target,
        score_features,
        score_model,
    )

    if model is not None and features is not None:
        raise UsageError("--model and --features exclude each other")
    if features is not None:
        _refuse(
            "--features", "flip", "baselines", "leaks", "trained_on", "mean", "std", "order", "device", "batch_size"
        )
    path = (
        find_default_pack(workspace, "--benchmark") / "holdout.bin"
        if benchmark is None
        else find_verification_set(benchmark, Path(workspace))
    )
    chosen = open_verification_set(path, images=image_dir, skip_missing=skip_missing, look=features is None or plots)
    found = features or model or Path(workspace) / "models" / name / "model.pt"
    label = "-".join(part for part in (path.stem, "" if protocol == "insightface" else protocol, flip) if part)
    if name == "default" and (features or model):  # the folder's name tells more than model.onnx
        name = found.absolute().parent.name if found.stem == "model" else found.stem
    target = out or Path(workspace) / "models" / name / "test" / label
    how = ScoringOptions(
        protocol=protocol, flip=flip, batch=batch_size, device=device, preprocessing=input_description(mean, std, order),
        skip_missing=skip_missing, baselines=baselines, plots=plots, leaks=leaks, trained_on=trained_on,
    )  # fmt: skip
    if out is None:
        check_verification_target(target, found, chosen, how)
    if features is not None:
        result = score_features(features, chosen, target, how)
    else:
        result = score_model(found, chosen, target, how, progress=ProgressBar())
    _tell(path, result)
    pictures = "roc.png, det.png, scores.png and wrong.png" if plots else "roc.png"
    click.echo(f"  {target}/result.json, {pictures}")
    say_next(f"compare {workspace}/models")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .parquet or .npy file, or a folder.")
@click.option("--format", type=click.Choice(["parquet", "npy", "npy-per-image", "megaface"]),
              help="Output format; default: by the suffix of --out, npy-per-image for a folder.")  # fmt: skip
@click.option("--model", type=click.Path(path_type=Path), help="model.pt or .onnx; default: models/default.")
@click.option(
    "--root", type=click.Path(path_type=Path), help="Base folder of a list's paths; default: the list's folder."
)
@click.option("--flip", type=click.Choice(["sum", "concat", "none"]), default="none", show_default=True,
              help="How the mirrored face's embedding is fused.")  # fmt: skip
@click.option("--algorithm", default="dataprep", show_default=True, help="Suffix of MegaFace's file names.")
@click.option("--chunk", type=click.IntRange(1), default=1024, show_default=True, help="Images between commits.")
@click.option("--overwrite", is_flag=True, help="Start over and discard previous results.")
@model_options
@click.pass_obj
def extract(
    workspace: str, /, source: Path, out: Path, format: str | None, model: Path | None, root: Path | None, flip: str,
    algorithm: str, chunk: int, overwrite: bool, mean: str | None, std: str | None, order: str | None, batch_size: int,
    device: str,
) -> None:  # fmt: skip
    """Compute embeddings of SOURCE: a folder, a list of paths, a pack or a .bin. The same command resumes it.

    \b
    Example: dataprep extract faces/ --out faces.parquet
             dataprep extract lfw.bin --model backbone.onnx --flip sum --out lfw.npy
             dataprep extract probes.txt --root facescrub/ --out features/ --format megaface
    """
    from dataprep.embeddings.extract import extract_features, open_described_model
    from dataprep.embeddings.images import open_image_source

    found = model or Path(workspace) / "models" / "default" / "model.pt"
    form = format or {".parquet": "parquet", ".npy": "npy"}.get(out.suffix, "npy-per-image")
    images, (embedder, about) = (
        open_image_source(source, root=root),
        open_described_model(found, device, input_description(mean, std, order)),
    )
    ticker = ProgressBar()

    def tick(done: int, failed: int, total: int) -> None:
        ticker(f"embed ({failed} failed)" if failed else "embed", done, total)

    result = extract_features(
        images, embedder, out, about=about, form=form, flip=flip, batch=batch_size, algorithm=algorithm, overwrite=overwrite,
        chunk=chunk, progress=tick,
    )  # fmt: skip
    click.echo(f"{out}: {result.images} features of {result.width} values")
    if result.failed:
        click.echo(f"  {result.failed} images failed; the reasons are in {out}.failed.tsv")
    if form in ("parquet", "npy"):
        say_next(f"test --features {out} --benchmark PAIRS")


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
def compare(runs: tuple[Path, ...], markdown: bool) -> None:
    """Print results of several models side by side. RUNS are result.json files or folders that contain them.

    \b
    Example: dataprep compare workspace/models workspace/identify
             dataprep compare a/result.json b/result.json --markdown
    """
    from dataprep.evaluate.results import find_results, format_markdown, format_text, tabulate_results

    table = tabulate_results(find_results(runs))
    click.echo(format_markdown(table) if markdown else format_text(table))
    say_next("export-model MODEL --format onnx")


def _tell(path: Path, result: TestResult) -> None:
    from dataprep.evaluate.verification.leakage import describe_leaks

    found = result.verification
    spans = {name: f"{low:.2%} .. {high:.2%}" for name, (low, high) in found.intervals.items()}
    click.echo(f"{path.name}: {found.pairs} pairs, {found.positives} of the same person")
    if result.skipped_pairs:
        click.echo(
            f"  {result.skipped_pairs} pairs skipped because of {len(result.skipped)} images, listed in result.json"
        )
    click.echo(
        f"  accuracy {found.accuracy:.2%} +- {found.accuracy_std:.2%}   [{spans['accuracy']}]   "
        f"(mean of folds, threshold {found.threshold:.3f})"
    )
    if found.accuracy == 0.5 and found.threshold == 0:
        click.echo(
            "  warning: the model tells no two faces apart: its embeddings are all equal, or untrained", err=True
        )
        click.echo(
            "  hint: train longer (--epochs); an ONNX model's input may be described wrongly: --mean, --std, --order",
            err=True,
        )
    if found.validation is not None:
        click.echo(
            f"  VAL {found.validation:.2%} at FAR {found.validation_far:.2e} (target 1e-3)   [{spans['validation']}]"
        )
    for far, tar in found.tar_at_far.items():
        click.echo(f"  TAR {tar:.2%} at FAR {float(far):.0e}   [{spans[f'tar@{far}']}]")
    if found.negatives_needed:
        far, needed = next(iter(found.negatives_needed.items()))
        click.echo(
            f"  TAR at FAR {float(far):.0e} and below is not measurable: it needs {needed:,} negatives, "
            f"the set has {found.pairs - found.positives:,}"
        )
    click.echo(f"  AUC {found.auc:.5f}   [{found.intervals['auc'][0]:.5f} .. {found.intervals['auc'][1]:.5f}]")
    click.echo(f"  EER {found.eer:.2%}   [{spans['eer']}]   (intervals: 95 %)")
    for what, accuracy in result.baselines.items():
        click.echo(f"  {what}: {accuracy:.2%}")
    for line in describe_leaks(result.leaks):
        click.echo(f"  leaks: {line}")


def input_description(mean: str | None, std: str | None, order: str | None) -> Preprocessing | None:
    if mean is None and std is None and order is None:
        return None
    from dataprep.models.preprocessing import Preprocessing, parse_channels

    mean, std = mean or "127.5", std or "127.5"
    return Preprocessing(mean=parse_channels(mean, "mean"), std=parse_channels(std, "std"), order=order or "RGB")


def _refuse(given: str, *options: str) -> None:
    """Raise UsageError for options that do not apply together with `given`."""
    context = click.get_current_context()
    typed = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if typed:
        option = f"--{typed[0].replace('_', '-')}"
        raise UsageError(f"{option} does not apply to {given}", hint=f"leave out {option}")
