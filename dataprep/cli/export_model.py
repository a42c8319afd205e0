"""export-model: write a model as ONNX or safetensors."""

from __future__ import annotations

from pathlib import Path

import click

from dataprep.cli._options import say_next
from dataprep.cli.evaluate import input_description


@click.command("export-model")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--format", type=click.Choice(["onnx", "safetensors"]), required=True, help="Output format.")
@click.option("--out", type=click.Path(path_type=Path), help="Output file; default: MODEL with the format's suffix.")
@click.option("--order", type=click.Choice(["RGB", "BGR"]), help="Channel order of the input of published weights.")
@click.option("--mean", help="Mean of that input (0..255): one number or three; default: that of their authors.")
@click.option("--std", help="Divisor of that input: one number or three; default: that of their authors.")
@click.option("--licence", default="not stated", show_default=True, help="Licence of the weights.")
def export_model(
    model: Path, format: str, out: Path | None, order: str | None, mean: str | None, std: str | None, licence: str
) -> None:
    """Export a model, checked against PyTorch, with a model card on its input and training data.

    MODEL is dataprep's model.pt or checkpoint, or published weights: insightface's backbone.pth, Face_Pytorch's .ckpt,
    foamliu's MobileFaceNet, VGGFace2's .pkl or .pth.

    \b
    Example: dataprep export-model workspace/models/default/model.pt --format onnx
             dataprep export-model backbone.pth --format safetensors --licence "MIT, non-commercial"
    """
    from dataprep.models.export import export_model

    target, described = out or model.with_suffix(f".{format}"), input_description(mean, std, order)
    made = export_model(model, target, format, licence=licence, preprocessing=described)
    click.echo(f"{made.path}: embeddings differ from PyTorch's by {made.difference:.1e} of the largest value")
    click.echo(f"  {made.card}")
    say_next(f"test --model {made.path}")
