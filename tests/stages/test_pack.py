"""The pack stage: formats, layouts and parts, packs of others taken in, and a disk that fills up."""

import hashlib
import json
import resource
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from helpers.command import Run, command, environment, pack_bytes

from dataprep.packs.base import PackFormat
from dataprep.packs.io import open_pack
from dataprep.packs.tools.convert import convert_pack
from dataprep.packs.tools.verify import verify_pack


@pytest.fixture(scope="module")
def built(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the drawn people aligned."""
    workspace = tmp_path_factory.mktemp("built") / "ws"
    for arguments in (("import", "folder", drawn), ("align",), ("pack", "--holdout", "0.0")):
        subprocess.run(command("-w", workspace, *arguments), check=True, capture_output=True, env=environment())
    return workspace


@pytest.fixture
def workspace(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "ws")
    return tmp_path / "ws"


@pytest.mark.parametrize(
    ("options", "form"),
    [
        (["--format", "webdataset"], PackFormat(container="webdataset")),
        (["--format", "folder"], PackFormat(container="folder")),
        (["--layout", "flat"], PackFormat(record_layout="flat")),
        (["--max-part-size", "1"], PackFormat(max_part=1 << 20)),
    ],
)
def test_every_format_is_what_unpack_makes_of_the_rec(
    workspace: Path, tmp_path: Path, dataprep: Run, options: list[str], form: PackFormat
) -> None:
    rec = workspace / "packs" / "train"
    convert_pack(rec, tmp_path / "converted", pack_format=form)
    dataprep("pack", *options, "--name", "other")
    made = workspace / "packs" / "other"
    files = {str(p.relative_to(made)): p.read_bytes() for p in made.rglob("*") if p.is_file() and p.name != "pack.json"}
    for name, data in files.items():
        assert (tmp_path / "converted" / name).read_bytes() == data
    manifest = json.loads((made / "pack.json").read_text())
    assert manifest["files"] == {n: hashlib.sha256(d).hexdigest() for n, d in files.items() if "/" not in n}
    assert [f.code for f in verify_pack(made)[1]] == []


def test_a_shuffled_flat_pack_is_the_same_for_the_same_seed_and_any_jobs(workspace: Path, dataprep: Run) -> None:
    for name, seed, jobs in (("a", 4, 0), ("b", 4, 2), ("c", 5, 0)):
        dataprep("pack", "--layout", "flat", "--shuffle", seed, "--name", name, "-j", jobs)
    first, again, other = (pack_bytes(workspace / "packs" / name) for name in "abc")
    assert first == again
    assert first["train.rec"] != other["train.rec"]
    assert "grouped by identity" in dataprep("pack", "--shuffle", 1, code=2).stderr


def test_a_pack_taken_in_again_comes_out_as_it_was(workspace: Path, dataprep: Run) -> None:
    rec = workspace / "packs" / "train"
    second = workspace.with_name("second")
    dataprep("import", "rec", rec, workspace=second)
    dataprep("pack", workspace=second)
    assert pack_bytes(second / "packs" / "train") == pack_bytes(rec)
    assert json.loads((second / "packs/train/pack.json").read_text())["template"] is None


def test_packs_are_cleaned_and_merged_by_importing_them(shared: Path, dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "rec", shared / "rec/faceid25")
    convert_pack(shared / "rec/webface8", tmp_path / "images", pack_format=PackFormat(container="folder"))
    dataprep("import", "folder", "--aligned", tmp_path / "images")
    (tmp_path / "out.txt").write_text("Irada_Ramadanova\nAli_Okapov\n")
    dataprep("pack", "--exclude", tmp_path / "out.txt", "--min-images", 9)
    pack = open_pack(tmp_path / "ws" / "packs" / "train")
    names = {pack.face(position).identity for position in range(len(pack))}
    assert names.isdisjoint({"Irada_Ramadanova", "Ali_Okapov"})
    counts = Counter(pack.labels().tolist())
    assert min(counts.values()) >= 9
    originals = {image for image, _ in open_pack(shared / "rec/faceid25")}  # type: ignore[attr-defined]
    assert {pack.face(position).image for position in range(len(pack))} <= originals
    dataprep("align", "--size", 224, code=1)
    status = json.loads(dataprep("status", "--json").stdout)
    align = next(stage for stage in status["stages"] if stage["stage"] == "align")
    assert align["account"]["dropped"] == {"size_mismatch": align["account"]["in"]}


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_while_packing_leaves_the_pack_before_as_it_was(workspace: Path) -> None:
    """The disk's end is a limit on the size of files: the write fails in the middle of the .rec, as on a full disk."""
    packs = workspace / "packs"
    before = pack_bytes(packs / "train")
    done = subprocess.run(
        command("-w", workspace, "pack", "--licence", "another", "-j", 0),
        preexec_fn=limit_file_size,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert pack_bytes(packs / "train") == before
    assert [path.name for path in packs.iterdir() if path.name != ".lock"] == ["train"]


def test_a_disk_that_is_full(workspace: Path) -> None:
    """The same on a file system of two megabytes that really fills up, where one may be mounted."""
    script = (
        f"mount -t tmpfs -o size=1600k tmpfs {workspace}/packs && cp -r {workspace}/kept {workspace}/packs/train && "
        f"head -c 1000000 /dev/zero > {workspace}/packs/ballast; "
        f"{' '.join(command('-w', workspace, 'pack', '--licence', 'another', '-j', '0'))}; echo exit $?; "
        f"ls {workspace}/packs; sha256sum {workspace}/packs/train/train.rec"
    )
    shutil.copytree(workspace / "packs" / "train", workspace / "kept")
    shutil.rmtree(workspace / "packs" / "train")
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, env=environment(), check=False
    )
    if "exit" not in done.stdout:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()[:100]}")
    assert "exit 1" in done.stdout
    assert "Traceback" not in done.stderr
    assert "MiB" in done.stderr or "No space left" in done.stderr
    assert done.stdout.split()[-2] == hashlib.sha256((workspace / "kept/train.rec").read_bytes()).hexdigest()
