"""A pack that is exchanged for another one of the same record sizes is noticed: by its digest, and by whoever opened it."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.small_faces import noise, pack_writer, people
from helpers.small_packs import INPUT, SIDE

from dataprep.errors import RecordError
from dataprep.packs.base import PackFormat
from dataprep.packs.io import open_pack, pack_digest
from dataprep.packs.rec_reader import RecordPack
from dataprep.storage import sampled_sha256
from dataprep.train.data.dataset import open_dataset
from dataprep.train.data.loader import iterate_batches

FORMS = [
    PackFormat(),
    PackFormat(record_layout="flat"),
    PackFormat(container="webdataset"),
    PackFormat(container="folder"),
]


def two_packs(folder: Path, form: PackFormat, side: int = SIDE) -> tuple[Path, Path]:
    """Packs of equal names, labels and file sizes, with other faces."""
    write, faces = pack_writer(folder), people(3, 4)
    longest = max(len(noise(number, side)) for number in range(300)) + 64
    made = []
    for name, shift in (("one", 0), ("two", 100)):
        images = [noise(shift + number, side) for number in range(len(faces))]
        padded = [image[:-2] + bytes(longest - len(image)) + image[-2:] for image in images]
        made.append(
            write([replace(f, image=i) for f, i in zip(faces, padded, strict=True)], name=name, form=form, side=side)
        )
    return made[0], made[1]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.layout)
def test_packs_of_equal_sizes_and_other_faces_have_other_digests(tmp_path: Path, form: PackFormat) -> None:
    one, two = two_packs(tmp_path, form)
    if form.container == "rec":
        assert RecordPack(one).index.digest() == RecordPack(two).index.digest()
    assert pack_digest(open_pack(one)) != pack_digest(open_pack(two))
    shutil.copytree(one, tmp_path / "copy")
    assert pack_digest(open_pack(one)) == pack_digest(open_pack(tmp_path / "copy")), "wherever it lies"
    assert open_dataset([one]).digest() != open_dataset([two]).digest()


def test_samples_of_a_large_file_tell_it_from_another(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(40 << 20))
    before = sampled_sha256(path)
    with open(path, "r+b") as stream:
        for place in range(0, 40 << 20, 20_000):
            stream.seek(place)
            stream.write(b"x")
    assert sampled_sha256(path) != before


@pytest.mark.parametrize("form", FORMS[:3], ids=lambda form: form.layout)
def test_a_loader_process_refuses_a_file_that_was_put_in_the_place_of_the_opened_one(
    tmp_path: Path, form: PackFormat
) -> None:
    one, two = two_packs(tmp_path, form)
    state = pickle.dumps(open_dataset([one]).images)
    assert pickle.loads(state)[0] == open_dataset([one]).images[0]
    source = open_dataset([one])
    shutil.rmtree(one)
    two.rename(one)
    with pytest.raises(RecordError, match="was replaced or changed after it was opened"):
        pickle.loads(state)
    loading = iterate_batches(source, INPUT, batch_size=4, seed=0, epoch=0, skip=0, workers=1)
    with pytest.raises(RecordError, match="was replaced or changed") as raised:
        list(loading)
    assert "leave the pack alone" in raised.value.hint
