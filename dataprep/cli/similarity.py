"""similarity: how alike the faces in photos are to a model."""

from __future__ import annotations

import itertools
from pathlib import Path

import click
import numpy as np

from dataprep.cli._options import say_next
from dataprep.cli.evaluate import input_description, model_options
from dataprep.errors import RecordError, UsageError
from dataprep.names import printable


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="model.pt or .onnx; default: models/default.")
@click.option(
    "--aligned", is_flag=True, help="The photos are aligned faces of the model's size: embed them as they are."
)
@model_options
@click.pass_obj
def similarity(
    workspace: str, photos: tuple[Path, ...], model: Path | None, aligned: bool, mean: str | None, std: str | None,
    order: str | None, batch_size: int, device: str,
) -> None:  # fmt: skip
    """Print the cosine similarity of the faces in photos, for every two of them: 1 for equal embeddings.

    Faces are found and aligned as by `dataprep align`, and embedded with their mirror image. What counts as the same
    person depends on the model: `dataprep test` prints its threshold.

    \b
    Example: dataprep similarity anna.jpg bert.jpg --model mobilefacenet.onnx
    """
    from dataprep.embeddings.embedder import embed_pairs, open_model
    from dataprep.pipeline.plain_files import FaceSettings, align_one
    from dataprep.stages.align import AlignParams
    from dataprep.stages.detect import DetectParams

    if len(photos) < 2:
        raise UsageError("similarity takes two photos or more", hint="dataprep similarity A.jpg B.jpg --model MODEL")
    found = model or Path(workspace) / "models" / "default" / "model.pt"
    embedder = open_model(found, device, preprocessing=input_description(mean, std, order))
    images = []
    for photo in photos:
        if aligned:
            images.append(photo.read_bytes())
            continue
        size = f"{embedder.width}x{embedder.height}"
        row = align_one(photo, FaceSettings(align=AlignParams(size=size, format="png"), detect=DetectParams()))
        if row.payload is None:
            why = row.reason.code if row.reason else "no face"
            raise RecordError(f"{photo}: {why}" + f" ({row.detail})" * bool(row.detail))
        images.append(row.payload)
    units = embed_pairs(embedder, images, batch=batch_size)
    for (one, left), (two, right) in itertools.combinations(zip(photos, units, strict=True), 2):
        click.echo(f"{np.dot(left, right):.4f}\t{printable(str(one))}\t{printable(str(two))}")
    say_next(f"test --model {found} --benchmark PAIRS")
