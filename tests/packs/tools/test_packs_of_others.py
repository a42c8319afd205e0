"""What a hostile reading of the tools on packs found: nothing is lost, renamed or overwritten without a word."""

import json
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command import Run
from helpers.small_faces import noise, people

from dataprep.errors import RecordError
from dataprep.packs.base import FaceRecord, PackFormat
from dataprep.packs.io import open_pack
from dataprep.packs.rec_reader import RecordPack
from dataprep.packs.recordio import MAGIC, encode_image_header, encode_record
from dataprep.packs.recovery import recover_records
from dataprep.packs.tools import convert as converting
from dataprep.packs.tools.convert import convert_pack
from dataprep.packs.tools.merge import merge_packs
from dataprep.packs.tools.repair import repair_pack
from dataprep.packs.tools.verify import verify_pack

TAR = PackFormat(container="webdataset")


def faces_of(path: Path) -> list[FaceRecord]:
    pack = open_pack(path)
    return [pack.face(position) for position in range(len(pack))]


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_an_index_cut_short_is_an_error_for_every_tool(packed: Callable[..., Path], tmp_path: Path, kept: int) -> None:
    pack = packed(people(3, 3))
    lines = (pack / "train.idx").read_text().splitlines(keepends=True)
    (pack / "train.idx").write_text("".join(lines[:kept]))
    with pytest.raises(RecordError, match="leaves out records"):
        convert_pack(pack, tmp_path / "out", pack_format=PackFormat(container="folder"))
    assert verify_pack(pack)[1][0].code == "unopenable"
    repair_pack(pack, tmp_path / "mended")
    assert faces_of(tmp_path / "mended") == people(3, 3)


def test_a_tar_with_a_damaged_header_or_without_its_end_is_an_error(
    packed: Callable[..., Path], tmp_path: Path
) -> None:
    pack = packed(people(2, 3), form=TAR)
    shard = next(pack.glob("*.tar"))
    whole = shard.read_bytes()
    with tarfile.open(shard) as archive:
        header = archive.getmembers()[6].offset
    for damaged in (whole[: header + 3] + b"X" + whole[header + 4 :], whole[:header], whole[: header + 700]):
        shard.write_bytes(damaged)
        assert verify_pack(pack)[1][0].code == "unopenable"
        with pytest.raises(RecordError, match="tar"):
            convert_pack(pack, tmp_path / "out", pack_format=PackFormat())


def test_a_missing_shard_or_a_stray_tar_changes_nothing_silently(packed: Callable[..., Path], tmp_path: Path) -> None:
    shards = packed(people(6, 6), "shards", PackFormat(container="webdataset", max_part=30_000))
    (shards / "train-000001.tar").unlink()
    with pytest.raises(RecordError, match=r"train-000001\.tar, which is missing"):
        convert_pack(shards, tmp_path / "out", pack_format=PackFormat())
    folder = packed(people(2, 2), "folder", PackFormat(container="folder"))
    (folder / "backup.tar").write_bytes(b"\0" * 1024)
    convert_pack(folder, tmp_path / "again", pack_format=PackFormat())
    assert faces_of(tmp_path / "again") == people(2, 2)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "x.tar").write_bytes(b"\0" * 1024)
    with pytest.raises(RecordError, match="no"):
        convert_pack(empty, tmp_path / "nothing", pack_format=PackFormat())


def test_other_peoples_tars_with_long_names_and_pax_headers_are_read(tmp_path: Path) -> None:
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        folder = tmp_path / str(format)
        folder.mkdir()
        with tarfile.open(folder / "x.tar", "w", format=format) as archive:
            for number in range(3):
                for suffix, data in (("jpg", noise(number)), ("cls", b"0")):
                    file = folder / "member"
                    file.write_bytes(data)
                    archive.add(file, f"{'long' * 40}/{number}.{suffix}")
        assert [face.image for face in faces_of(folder)] == [noise(number) for number in range(3)]


def test_tars_that_mean_harm_end_soon(tmp_path: Path) -> None:
    def with_size(field: bytes, kind: bytes = b"0") -> bytes:
        block = bytearray(tarfile.TarInfo("0.cls").tobuf())
        block[124:136], block[156:157] = field, kind
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)

    first = tarfile.TarInfo("0.jpg").tobuf()
    for number, field in enumerate((b"\xff" * 10 + b"\xfe\x00", b"\x80" + b"\x7f" * 11, b"77777777777\0", b"junk!")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "x.tar").write_bytes(first + with_size(field.ljust(12, b"\0")) + b"\0" * 1024)
        assert verify_pack(folder)[1][0].code == "unopenable"
    sparse = tmp_path / "sparse"
    sparse.mkdir()
    (sparse / "x.tar").write_bytes(first + with_size(b"00000000000\0", b"S") + b"\0" * 1024)
    with pytest.raises(RecordError, match="sparse"):
        open_pack(sparse)


def test_chains_that_share_their_parts_are_not_walked_again_and_again() -> None:
    """Quadratic, the 30,000 parts would be 900 million steps."""
    count = 30_000
    heads = b"".join(struct.pack("<II", MAGIC, 1 << 29 | 8 * (count - number - 1)) for number in range(count))
    data = heads + struct.pack("<II", MAGIC, 2 << 29) * count + struct.pack("<II", MAGIC, 3 << 29) + b"garbage_" * 2
    assert sum(1 for _ in recover_records(data)) < 3 * count


def test_a_list_that_names_the_neighbour_is_not_believed(packed: Callable[..., Path], tmp_path: Path) -> None:
    pack = packed(people(3, 3))
    lines = (pack / "train.lst").read_text().splitlines(keepends=True)
    (pack / "pack.json").unlink()
    (pack / "train.lst").write_text("".join(reversed(lines)))
    assert "list" in {finding.code for finding in verify_pack(pack)[1]}
    assert RecordPack(pack).names is None
    (pack / "train.lst").write_text("1\tskipped/0.jpg\t7\n" + "".join(lines))
    repair_pack(pack, tmp_path / "mended")
    assert [face.name for face in faces_of(tmp_path / "mended")][:2] == ["person0/00000001.jpg", "person0/00000002.jpg"]


def test_repair_keeps_what_most_have_whatever_property_says(packed: Callable[..., Path], tmp_path: Path) -> None:
    faces = people(3, 3)
    faces[4] = replace(faces[4], image=noise(4, side=32))
    pack = packed(faces)
    (pack / "property").write_text("3,32,32\n")
    assert repair_pack(pack, tmp_path / "mended")["repaired_from"]["lost"] == {"size": 1}


def test_the_label_of_nobody_makes_nobody(tmp_path: Path) -> None:
    """face2rec2 gives images without a person the label -1 and no identity."""
    source = tmp_path / "source"
    source.mkdir()
    records = [encode_image_header((label, 1), key) + noise(key) for key, label in enumerate((-1, 0, 0, 1), 1)]
    records += [encode_image_header((5, 7), 0), encode_image_header((2, 4), 5), encode_image_header((4, 5), 6)]
    (source / "train.rec").write_bytes(b"".join(map(encode_record, records)))
    manifest = convert_pack(source, tmp_path / "out", pack_format=PackFormat(container="folder"))
    assert (manifest["without_label"], manifest["counts"]) == (1, {"images": 3, "identities": 2})
    assert [f.code for f in verify_pack(source)[1]] == ["label"]


def test_what_appears_at_the_target_during_the_run_stays(
    packed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, target = packed(people(2, 2)), tmp_path / "out"
    real = converting.write_pack

    def slow(*arguments: object, **options: object) -> object:
        target.mkdir()
        (target / "thesis.txt").write_text("mine")
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(converting, "write_pack", slow)
    with pytest.raises(RecordError, match="already exists"):
        convert_pack(pack, target, pack_format=PackFormat())
    assert (target / "thesis.txt").read_text() == "mine"


def test_images_of_another_size_do_not_slip_through(packed: Callable[..., Path], tmp_path: Path) -> None:
    faces = people(2, 3)
    faces[4] = replace(faces[4], image=noise(4, side=32))
    pack = packed(faces)
    for form in (PackFormat(), PackFormat(container="folder")):
        with pytest.raises(RecordError, match="is 32x32, the pack 16x16"):
            convert_pack(pack, tmp_path / "out", pack_format=form)
    with pytest.raises(RecordError, match="is 32x32"):
        merge_packs([pack], tmp_path / "out", pack_format=PackFormat())


def test_a_template_is_claimed_only_if_all_say_it(packed: Callable[..., Path], tmp_path: Path) -> None:
    packs = [packed(people(1, 2, seed=number), str(number)) for number in range(2)]

    def say(number: int, template: object) -> None:
        path = packs[number] / "pack.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "template": template}))

    say(0, [[1, 2]])
    assert merge_packs(packs, tmp_path / "a", pack_format=PackFormat())["template"] is None
    say(1, [[1, 2]])
    assert merge_packs(packs, tmp_path / "b", pack_format=PackFormat())["template"] == [[1, 2]]
    say(1, [[1, 3]])
    with pytest.raises(RecordError, match="different templates"):
        merge_packs(packs, tmp_path / "c", pack_format=PackFormat())


def test_many_faces_of_one_name_all_get_their_file(packed: Callable[..., Path]) -> None:
    faces = [replace(face, name="person0/x.jpg") for face in people(1, 30)]
    faces[7] = replace(faces[7], name="person0/x~2.jpg")
    pack = packed(faces, form=PackFormat(container="folder"))
    assert [face.image for face in faces_of(pack)] == [face.image for face in faces]


def test_names_that_no_disk_or_list_takes(packed: Callable[..., Path], tmp_path: Path) -> None:
    odd = [
        replace(face, identity="Jos\u2028e Jr.", name=f"Jos\u2028e Jr./{i}.jpg") for i, face in enumerate(people(1, 2))
    ]
    pack = packed(odd, form=TAR)
    for number, form in enumerate((PackFormat(container="folder"), PackFormat(), TAR)):
        convert_pack(pack, tmp_path / f"out{number}", pack_format=form)
        assert [f.code for f in verify_pack(tmp_path / f"out{number}")[1]] == []
        convert_pack(tmp_path / f"out{number}", tmp_path / f"back{number}", pack_format=PackFormat())
    surrogate = [replace(people(1, 1)[0], identity="a\ud800")]
    with pytest.raises(RecordError, match="UTF-8"):
        packed(surrogate, "surrogate")


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"files": 3, "counts": 7, "format": []}', "null"])
def test_any_pack_json_is_borne(packed: Callable[..., Path], text: str) -> None:
    pack = packed(people(2, 2))
    (pack / "pack.json").write_text(text)
    verify_pack(pack)


def test_a_pack_whose_file_is_gone_is_made_again(tmp_path: Path, dataprep: Run) -> None:
    dataprep("import", "synth", "--identities", 2, "--photos", 2)
    dataprep("pack")
    rec = tmp_path / "ws/packs/train/train.rec"
    before = rec.read_bytes()
    rec.unlink()
    dataprep("pack")
    assert rec.read_bytes() == before
    (rec.parent / "pack.json").write_text("[]")
    dataprep("pack")
    assert json.loads((rec.parent / "pack.json").read_text())["counts"]["images"] == 4


def test_urls_are_read_and_never_mistaken_for_a_folder(
    packed: Callable[..., Path], tmp_path: Path, dataprep: Run
) -> None:
    pack = packed(people(2, 2))
    assert "written to a local disk" in dataprep("unpack", pack, "--out", "s3://bucket/x", code=2).stderr
