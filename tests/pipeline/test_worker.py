from pathlib import Path

import numpy as np

from dataprep.imaging.codec import encode_png
from dataprep.pipeline.worker import batch_items
from dataprep.stages.base import Item, Photo
from dataprep.types import Sample


def item(name: str, width: int, height: int) -> Item:
    data = encode_png(np.zeros((height, width, 3), np.uint8)) if width else b"no photo"
    photo = Photo(lambda: data, codec="pillow", max_pixels=10**9)
    return Item(sample=Sample(key=f"a/{name}", identity="a"), rows={}, photo=photo)


def test_photos_are_taken_together_as_far_as_their_pixels_allow() -> None:
    sizes = [(10, 10), (10, 10), (10, 10), (100, 100), (0, 0), (60, 100), (50, 100), (10, 10)]
    items = [(place * 2, item(str(place), *size)) for place, size in enumerate(sizes)]
    found = list(batch_items(iter(items), size=3, pixels=10_000))
    names = [(first, [one.sample.key for one in batch]) for first, batch in found]
    assert names == [(0, ["a/0", "a/1", "a/2"]), (6, ["a/3", "a/4"]), (10, ["a/5"]), (12, ["a/6", "a/7"])]


def test_a_photo_that_cannot_be_read_weighs_nothing(tmp_path: Path) -> None:
    gone = Photo((tmp_path / "gone.jpg").read_bytes, codec="pillow", max_pixels=10**9)
    assert gone.pixel_count == 0
    assert list(batch_items(iter([]), size=3, pixels=1)) == []
