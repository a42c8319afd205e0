"""Boxes that were measured on a copy of another size: the right face, or a reason, and never another person's."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataprep.imaging.codec import encode_jpeg
from dataprep.pipeline.pipeline import Pipeline
from dataprep.pipeline.runner import run_pipeline
from dataprep.reasons import Reason
from dataprep.synth.faults import with_orientation
from dataprep.synth.photos import draw_photo
from dataprep.types import Box, Sample
from dataprep.workspace.workspace import Workspace

LEFT, RIGHT = draw_photo(1, 0), draw_photo(2, 0)  # 250x250
PHOTO = np.concatenate([LEFT.pixels, RIGHT.pixels], axis=1)  # 500x250


def shifted(by: float, factor: float) -> Box:
    left, top, right, bottom = RIGHT.box
    return Box((left + by) * factor, top * factor, (right + by) * factor, bottom * factor)


def run(folder: Path, photo: bytes, **fields: object) -> tuple[str, dict]:
    """The reason, or ok, of the crop stage for one sample, and its row; or of detect if crop passes it."""
    (folder / "photo.jpg").write_bytes(photo)
    sample = Sample(key="p/1", identity="p", path=str(folder / "photo.jpg"), **fields)
    workspace = Workspace(folder / "ws", create=True)
    workspace.plan().add({"kind": "test"}, "d", [sample])
    chain = Pipeline(workspace, {}, until="detect")
    run_pipeline(chain, jobs=0)
    for name in ("detect", "crop"):
        for marker in chain.node(name).store.markers().values():
            for row in chain.node(name).store.rows(marker):
                return row["reason"] or "ok", row
    raise AssertionError("no row")


@pytest.mark.parametrize("factor", [0.5, 1, 2, 3.1])
def test_a_box_measured_on_a_larger_or_smaller_copy_names_the_same_face(tmp_path: Path, factor: float) -> None:
    size = (round(500 * factor), round(250 * factor))
    reason, row = run(tmp_path, encode_jpeg(PHOTO), box=shifted(250, factor), box_size=size)
    assert reason == "ok"
    left = row["boxes"][0]
    assert left > 250, "the right person's face"


def test_a_box_in_shares_of_the_photo_names_its_face(tmp_path: Path) -> None:
    box = shifted(250, 1)
    shares = Box(box.left / 500, box.top / 250, box.right / 500, box.bottom / 250)
    reason, row = run(tmp_path, encode_jpeg(PHOTO), box=shares, box_size=(1, 1))
    assert (reason, row["boxes"][0] > 250) == ("ok", True)


def test_without_the_size_a_box_whose_middle_is_beyond_the_photo_is_a_reason_of_its_own(tmp_path: Path) -> None:
    reason, row = run(tmp_path, encode_jpeg(PHOTO), box=Box(150, 110, 460, 420))
    assert reason == Reason.BOX_MISFIT.code
    assert "beyond the photo of 500x250" in row["detail"]


def test_a_photo_of_another_shape_was_cut_and_its_box_is_unknown(tmp_path: Path) -> None:
    reason, row = run(tmp_path, encode_jpeg(PHOTO), box=Box(100, 100, 300, 300), box_size=(1000, 1000))
    assert reason == Reason.BOX_MISFIT.code
    assert "measured on a photo of 1000x1000; the photo of 500x250 has another shape" in row["detail"]


@pytest.mark.parametrize("upright", [False, True])
def test_the_size_may_be_that_of_the_stored_or_of_the_upright_photo(tmp_path: Path, upright: bool) -> None:
    """A photo of 500x250 that is stored turned by a quarter, 250x500."""
    turned = with_orientation(PHOTO, 6, 95)
    stored = Image.open(io.BytesIO(turned))
    assert stored.size in ((500, 250), (250, 500))
    shown = stored.size[::-1]
    box = Box(0, 0, shown[0], shown[1]) if upright else Box(0, 0, *stored.size)
    doubled = Box(*(2 * edge for edge in box))
    size = (2 * shown[0], 2 * shown[1]) if upright else (2 * stored.size[0], 2 * stored.size[1])
    reason, row = run(tmp_path, turned, box=doubled, box_size=size)
    assert reason in ("ok", "no_face"), row["detail"]  # the box is usable: it is the whole photo
