"""Every verb that takes a file gets a hundred wrong ones: it says what is wrong, and no exception reaches the user."""

import contextlib
import gzip
import io
import json
import os
import pickle
import signal
import struct
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.small_faces import noise, pack_writer, people

from dataprep.cli.main import main
from dataprep.packs.verification_bin import write_bin

SECONDS = 20  # for one file; a hang fails the test
SUFFIXES = (
    ".rec",
    ".bin",
    ".pt",
    ".onnx",
    ".csv",
    ".txt",
    ".yaml",
    ".lst",
    ".jpg",
    ".parquet",
    ".npz",
    ".tar",
    ".json",
)


def archive(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=stream, mode="w") as tar:
            info = tarfile.TarInfo("../../etc/a.jpg")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    elif kind == "zip":
        with zipfile.ZipFile(stream, "w") as zipped:
            zipped.writestr("archive/data.pkl", b"\x80\x02}.")
            zipped.writestr("archive/version", b"3\n")
    elif kind == "npz":
        np.savez(stream, a=np.zeros((2, 0)), b=np.array([{"x": 1}], object))
    elif kind == "npy":
        np.save(stream, np.full((3, 2), np.nan))
    elif kind == "parquet":
        pq.write_table(pa.table({"a": [1, None], "b": [{"c": b"x"}, None]}), stream)
    return stream.getvalue()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/dataprep-was-here",)


def contents() -> dict[str, bytes]:
    record = struct.pack("<II", 0xCED7230A, 24) + struct.pack("<IfQQ", 0, 1.0, 1, 0)
    jpeg = noise(1)
    return {
        "empty": b"", "zeros": bytes(4096), "newline": b"\n", "words": b"the quick brown fox\n" * 3,
        "html": b"<!doctype html><html>log in</html>", "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "json": b'{"a": [1, {"b": null}]}', "list": b"[1, 2, [3]]", "deep": b"[" * 30_000, "deep map": b'{"a":' * 5_000,
        "yaml": b"a: &x [1]\nb: *x\nc: {d: !!python/object/apply:os.system [ls]}\n", "colons": b"a: b: c\n\t- x\n",
        "null bytes": b"name,url\nAnn\0,http://x/\0\n", "utf16": "anna\tAnn\nb\t1\n".encode("utf-16"),
        "half utf16": "anna\tAnn".encode("utf-16")[:-1], "latin": b"Ren\xe9,http://x/1\n", "nan": b"1\tnan\tinf\n0\ta\t-1\n",
        "numbers": b"1 2 3\n4 5 6\n", "huge number": b"1\ta.jpg\t99999999999999999999999\n", "tabs": b"\t\t\t\n",
        "pickle": pickle.dumps({"a": [1]}), "bin": pickle.dumps(([b"no jpeg"], [True, False])), "evil": pickle.dumps(Evil()),
        "cut pickle": pickle.dumps(list(range(1000)))[:50], "jpeg": jpeg, "cut jpeg": jpeg[:200],
        "gzip": gzip.compress(b"a,b\n"), "cut gzip": gzip.compress(os.urandom(999))[:100], "record": record,
        "cut record": record[:20], "protobuf": struct.pack("<II", 0xCED7230A, 12) + b"\x0a\x0avalues\x12\x00ab",
        "safetensors": struct.pack("<Q", 10) + b'{"a":{"dt', "onnx": b"\x08\x07\x12\x04test:\x02\x0a\x00",
        "noise": os.urandom(3000), "long line": b"x" * (3 << 20),
        **{kind: archive(kind) for kind in ("tar", "zip", "npz", "npy", "parquet")},
        "sqlite": b"SQLite format 3\0" + bytes(100), "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    }  # fmt: skip


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A hundred files and more: each content under three suffixes, and what is no file."""
    folder = tmp_path_factory.mktemp("wrong")
    made = []
    for number, (name, data) in enumerate(contents().items()):
        for turn in range(3):
            path = folder / f"{name.replace(' ', '-')}{SUFFIXES[(number + 5 * turn) % len(SUFFIXES)]}"
            path.write_bytes(data)
            made.append(path)
    (folder / "folder.rec").mkdir()
    (folder / "nested").mkdir()
    (folder / "nested/train.rec").write_bytes(b"")
    (folder / "nested/property").write_bytes(b"\xff")
    (folder / "broken.csv").symlink_to(folder / "nowhere")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    os.mkfifo(folder / "pipe.txt")
    made += [folder / name for name in ("folder.rec", "nested", "broken.csv", "loop.txt", "pipe.txt", "missing.bin")]
    assert len(made) > 100
    return made


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pack, a .bin, a folder of faces and a list of names."""
    folder = tmp_path_factory.mktemp("good")
    pack_writer(folder)(people(4, 3))
    write_bin(folder / "lfw.bin", [noise(number) for number in range(40)], [True, False] * 10)
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg"):
        (folder / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "faces" / name).write_bytes(noise(7))
    (folder / "names.txt").write_text("a/1.jpg\nb/1.jpg\n")
    (folder / "list.json").write_text(json.dumps({"path": ["a/1.jpg"], "id": ["a"]}))
    return folder


COMMANDS = """
import folder {file}
import lfw {file}
import casia {file}
import casia {good}/faces --names {file}
import rec {file}
import lst {file}
import lst {file} --dialect mxnet
import vggface2 {file}
import folder {good}/faces --identities {file}
download vggface --lists {file} --dry-run
download facescrub --lists {file} --dry-run
download urls {file} --dry-run
download urls {file} --dry-run --identity X --format csv
exclude --from {file}
run {file}
train --pack {file} --overwrite
train --image-list {file} --root {good}/faces --overwrite
train --pack {good}/pack --config {file} --overwrite
train --pack {good}/pack --recipe {file} --overwrite
train --pack {good}/pack --pretrained {file} --epochs 1 --overwrite
test --model {file} --benchmark {good}/lfw.bin
test --features {file} --benchmark {good}/lfw.bin
test --features {good}/names.txt --benchmark {file}
test --features {good}/names.txt --benchmark {file} --image-dir {good}/faces
extract {file} --model {good}/names.txt --out {out}/f.npz
extract {good}/faces --model {file} --out {out}/f.npz
export-model {file}
compare {file}
similarity {good}/faces/a/1.jpg {file} --model {file}
bins show {file}
bins make {file} --out {out}/x.bin
bins unpack {file} --out {out}/images
bins pairs {file} --out {out}/p.txt
identify ijb --meta {file} --features {file}
identify megaface --probes {file} --probe-list {good}/list.json --distractors {file}
identify megaface --probes {good}/names.txt --probe-list {file} --distractors {file} --distractor-list {file}
identify gallery --gallery {file} --probes {file}
unpack {file} --out {out}/unpacked
merge {file} {good}/pack --out {out}/merged
verify {file}
repair {file} --out {out}/repaired
info {file}
-w {file} status
-w {file} pack
align {file} --out {out}/faces -j 0
""".strip().splitlines()


@contextlib.contextmanager
def limited(seconds: int, what: str) -> Iterator[None]:
    def expire(number: int, frame: object) -> None:
        raise AssertionError(f"hangs: {what}")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_wrong_file_is_a_message(
    wrong: list[Path], good: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dataprep"])
    faults = []
    for number, file in enumerate(wrong):
        out = tmp_path / f"out{number}"
        out.mkdir()
        words = [word.format(file=file, good=good, out=out) for word in line.split()]
        words = words if words[0] == "-w" else ["-w", str(out / "ws"), *words]
        with warnings.catch_warnings(), limited(SECONDS, f"{line}: {file.name}"):
            warnings.simplefilter("ignore")
            try:
                main(words)
            except SystemExit as ended:
                told = capsys.readouterr()
                if ended.code not in (0, 1, 2, 3) or "Traceback" in told.err + told.out:
                    faults.append(f"{file.name}: exit {ended.code}: {told.err[-300:]}")
                elif ended.code and "dataprep:" not in told.err and "rror:" not in told.err and "hint" not in told.err:
                    said = told.out + told.err
                    faults += [] if said.strip() else [f"{file.name}: exit {ended.code} in silence"]
            except Exception as error:
                faults.append(f"{file.name}: {type(error).__name__}: {str(error)[:200]}")
    assert not faults, "\n".join(faults[:40])
    assert not Path("/tmp/dataprep-was-here").exists(), "code of a pickle ran"


RECIPES = {
    "deep": "source: " + "[" * 3000 + "]" * 3000,
    "itself": "source: &s\n  kind: folder\n  root: *s\n",
    "laughs": "source: {kind: folder, root: x}\nstages:\n  lst:\n    seed: &a [1]\n"
    + "".join(f"    x{n}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)),
    "a number for a name": "source: {kind: folder, root: x, 5: 6}\n",
    "a number for a stage's option": "source: {kind: folder, root: x}\nstages: {align: {5: 6}}\n",
    "a date": "source: {kind: folder, root: x}\nstages: {align: {size: 2020-01-01}}\n",
    "no such date": "source: {kind: folder, root: x}\nstages: {align: {size: 2020-13-41}}\n",
    "too large": "source: {kind: folder, root: x}\nstages: {align: {size: 1e400}}\n",
    "null": "source: {kind: folder, root: ~}\n",
    "a list": "source: [kind, folder]\n",
    "a number": "source: {kind: folder, root: 5}\n",
    "a kind that is none": "source: {kind: [folder], root: x}\n",
    "stages in a list": "source: {kind: folder, root: x}\nstages: [align]\n",
    "training by number": "source: {kind: folder, root: x}\ntrain: {5: 6}\n",
}


@pytest.mark.parametrize("what", RECIPES)
def test_an_odd_recipe_is_a_message(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text(RECIPES[what])
    for more in ([], ["--dry-run"], ["--override", "stages.align.size=["], ["--override", "source.root=&a [*a]"]):
        with pytest.raises(SystemExit) as ended:
            main(["-w", str(tmp_path / "ws"), "run", str(tmp_path / "r.yaml"), *more])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        if not more:
            assert ended.value.code in (1, 2)
            assert "dataprep: " in told.err
            assert len(told.err) < 2000
