"""export-model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("export-model")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(["onnx", "safetensors"]), required=True, help="What is written.")
@click.option("--out", type=click.Path(path_type=Path), help="Default: beside MODEL, under its name.")
@click.option("--licence", default="not stated", show_default=True, help="Under which the weights are given away.")
def export_model(model: Path, form: str, out: Path | None, licence: str) -> None:
    """Write a model for others, checked against torch first, with a card that says what it takes and whom it has seen.

    MODEL is a model.pt or a checkpoint of ours, or published weights: insightface's backbone.pth, Face_Pytorch's .ckpt,
    foamliu's MobileFaceNet, VGGFace2's .pkl or .pth.

    \b
    Example: dataprep export-model workspace/models/default/model.pt --to onnx
             dataprep export-model backbone.pth --to safetensors --licence "MIT, non-commercial"
    """
    from dataprep.models.export import export_model

    made = export_model(model, out or model.with_suffix(f".{form}"), form, licence=licence)
    click.echo(f"{made.path}: its embeddings differ from torch's by {made.difference:.1e} of their largest number")
    click.echo(f"  {made.card}")
