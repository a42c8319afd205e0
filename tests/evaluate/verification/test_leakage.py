import json
from pathlib import Path

import numpy as np
import pytest

from dataprep.errors import RecordError
from dataprep.evaluate.verification import leakage as leaks
from dataprep.evaluate.verification.leakage import describe_leaks, difference_hashes, find_leaks, find_near_pairs
from dataprep.evaluate.verification.pair_set import VerificationSet, open_verification_set
from dataprep.imaging.codec import decode_image, encode_jpeg
from dataprep.packs.base import FaceRecord, PackFormat
from dataprep.packs.io import open_pack, pack_digest, write_pack
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.rec_writer import write_insightface


def photos(drawn: Path, count: int = 36) -> list[bytes]:
    return [path.read_bytes() for path in sorted(drawn.glob("*/*"))[:count]]


@pytest.fixture
def chosen(drawn: Path, tmp_path: Path) -> VerificationSet:
    names = [str(path.relative_to(drawn)) for path in sorted(drawn.glob("*/*"))]
    lines = [f"{one} {other} 1" for one, other in zip(names[0::2], names[1::2], strict=True)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    return open_verification_set(tmp_path / "pairs.txt", images=drawn)


def packed(folder: Path, images: list[bytes], people: list[str]) -> Path:
    folder.mkdir()
    faces = [FaceRecord(name=f"{i}.jpg", label=i, identity=str(i), image=data) for i, data in enumerate(images)]
    write_insightface(folder, faces, height=112, width=112)
    (folder / "labels.tsv").write_text("".join(f"{i}\t{name}\t1\n" for i, name in enumerate(people)))
    return folder


def test_people_photos_and_their_copies_in_the_pack_are_found(
    chosen: VerificationSet, drawn: Path, tmp_path: Path
) -> None:
    mine = photos(drawn)
    generator = np.random.default_rng(0)
    noise = [encode_jpeg(generator.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(3)]
    copy = encode_jpeg(decode_image(mine[7])[0], quality=60)
    assert copy != mine[7]
    people = ["a", "Person_00002", "b", "c", "d"]
    pack = packed(tmp_path / "pack", [noise[0], mine[3], noise[1], copy, noise[2]], people)
    found = find_leaks(chosen, {"pack": str(pack), "pack_index_sha256": RecordPack(pack).index.digest()})
    assert found.identities == ["Person_00002"]
    assert [position for _, position in found.identical or []] == [1]
    assert chosen.images[chosen.names.index((found.identical or [])[0][0])] == mine[3]
    assert {position for _, position in found.near_identical or []} == {3}
    assert chosen.images[chosen.names.index((found.near_identical or [])[0][0])] == mine[7]
    said = "\n".join(describe_leaks(found))
    assert "1 people of the set are in the training pack: Person_00002" in said
    assert "near-identical" in said


def test_every_pack_of_several_is_looked_at_whatever_its_format(
    chosen: VerificationSet, drawn: Path, tmp_path: Path
) -> None:
    mine = photos(drawn)
    noise = encode_jpeg(np.random.default_rng(2).integers(0, 256, (112, 112, 3), dtype=np.uint8))
    first = packed(tmp_path / "first", [noise], ["Person_00002"])
    second = tmp_path / "second"
    second.mkdir()
    faces = [FaceRecord(name="0.jpg", label=0, identity="Person_00003", image=mine[4])]
    write_pack(second, faces, pack_format=PackFormat(container="webdataset"), height=112, width=112, about={})
    about = {
        "pack": str(first),
        "packs": [str(first), str(second)],
        "packs_sha256": [pack_digest(open_pack(first)), pack_digest(open_pack(second))],
    }
    found = find_leaks(chosen, about)
    assert found.identities == ["Person_00002", "Person_00003"]
    assert [position for _, position in found.identical or []] == [0]
    gone = find_leaks(chosen, {**about, "packs": [str(first), str(tmp_path / "gone")]})
    assert gone.identities == ["Person_00002"]
    assert gone.unknown == (f"{tmp_path / 'gone'}: the model's training pack is missing",)


def test_a_clean_pack_is_said_to_be_clean(chosen: VerificationSet, tmp_path: Path) -> None:
    noise = encode_jpeg(np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8))
    found = find_leaks(chosen, {}, trained_on=packed(tmp_path / "pack", [noise], ["x"]))
    assert (found.identities, found.identical, found.near_identical, found.unknown) == ([], [], [], ())
    assert describe_leaks(found) == ["the training pack shares no people and no photos with the set"]


def test_what_cannot_be_known_is_said(
    chosen: VerificationSet, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "does not name" in find_leaks(chosen, {}).unknown[0]
    assert "is missing" in find_leaks(chosen, {"pack": "/no/such"}).unknown[0]
    pack = packed(tmp_path / "pack", photos(drawn, 1), ["x"])
    other = find_leaks(chosen, {"pack": str(pack), "pack_index_sha256": "0" * 64})
    assert "is not the one" in other.unknown[0]
    assert other.identical is None
    monkeypatch.setattr(leaks, "MAX_AUTO_HASHED", 0)
    large = find_leaks(chosen, {}, trained_on=pack)
    assert large.identities == []
    assert large.identical is None
    assert "--leaks full" in large.unknown[0]
    assert find_leaks(chosen, {}, trained_on=pack, hash_all=True).identical
    with pytest.raises(RecordError, match="gone: no such pack"):
        find_leaks(chosen, {}, trained_on=tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="not a pack"):
        find_leaks(chosen, {}, trained_on=tmp_path / "empty")


def test_near_pairs_are_those_of_a_look_at_every_pair() -> None:
    generator = np.random.default_rng(0)
    ours = generator.integers(0, 256, (60, 40), dtype=np.uint8)
    theirs = ours[generator.integers(0, 60, 500)].copy()
    for row in theirs:  # flip up to 7 of the 64 bits and up to 40 of the 256
        for start, width, most in ((0, 64, 7), (64, 256, 40)):
            for bit in generator.choice(width, generator.integers(0, most), replace=False) + start:
                row[bit // 8] ^= 128 >> (bit % 8)
    different = np.unpackbits(ours[:, None] ^ theirs[None], axis=2)
    near = (different[:, :, :64].sum(2) <= 4) & (different[:, :, 64:].sum(2) <= 24)
    assert 100 < near.sum() < 450
    assert set(find_near_pairs(ours, [theirs[:123], theirs[123:]])) == set(zip(*np.nonzero(near), strict=True))


def test_different_people_of_lfw_are_not_taken_for_copies(shared: Path) -> None:
    """Of the real photos as they are, not aligned; tests/benchmarks/verification.py counts the aligned ones."""
    files = sorted((shared / "lfw").glob("*/*.jpg"))[::4]
    prints = np.stack([difference_hashes(path.read_bytes()) for path in files])
    found = {(i, j) for i, j in find_near_pairs(prints, [prints]) if i < j}
    assert [1 for i, j in found if files[i].parent != files[j].parent] == []
    again = np.stack([difference_hashes(encode_jpeg(decode_image(path.read_bytes())[0], quality=70)) for path in files])
    assert len({i for i, j in find_near_pairs(prints, [again]) if i == j}) >= 0.99 * len(files)


def test_a_trained_model_names_its_pack(tmp_path: Path) -> None:
    from dataprep.models.model_files import load_model
    from dataprep.train.config import TrainParams
    from dataprep.train.trainer import train

    generator = np.random.default_rng(0)
    images = [encode_jpeg(generator.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(4)]
    pack = packed(tmp_path / "pack", images, list("abcd"))
    train([pack], tmp_path / "model", TrainParams(epochs=1, batch_size=4, num_workers=0, device="cpu"))
    about = load_model(tmp_path / "model/model.pt").about
    assert Path(about["pack"]) == pack.resolve()
    assert json.loads((tmp_path / "model/config.json").read_text()).get("pack") is None  # a pack may be moved
