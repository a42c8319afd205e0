"""What the command says: to a misspelt verb, a file that is another, a set that is lost as a whole, and at the end."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from helpers.command import ROOT, Run, command, environment
from helpers.small_faces import noise, pack_writer, people
from PIL import Image

from dataprep.cli.main import cli
from dataprep.content import explain_error, identify_content
from dataprep.packs.verification_bin import write_bin
from dataprep.pipeline.progress import BarDisplay, StageProgress
from dataprep.reasons import Reason


def faces(root: Path, people: int = 2, size: int = 112) -> Path:
    for person in range(people):
        (root / f"p{person}").mkdir(parents=True)
        for photo in range(3):
            (root / f"p{person}/{photo}.jpg").write_bytes(noise(10 * person + photo, size))
    return root


def test_the_workspace_and_quiet_are_taken_after_the_verb_too(dataprep: Run, tmp_path: Path) -> None:
    root = faces(tmp_path / "faces")
    said = dataprep("import", "folder", root, "--aligned", "-w", tmp_path / "other")
    other = f"dataprep -w {tmp_path / 'other'}"
    assert said.stderr == f"next: {other} align --size keep && {other} pack\n"
    assert (tmp_path / "other/dataprep.json").exists()
    said = dataprep("pack", "--workspace", tmp_path / "other", "-q")
    assert said.stderr == ""
    assert "6 images of 2 identities" in said.stdout


def test_help_explains_verbs_reasons_and_topics(dataprep: Run) -> None:
    assert "Detect the target face" in dataprep("help", "align").stdout
    assert "one folder per identity" in dataprep("help", "import", "folder").stdout
    assert "_DATAPREP_COMPLETE=zsh_source" in dataprep("help", "completion").stdout
    text = dataprep("help", "reasons").stdout
    assert all(f"{reason.code} (" in text and reason.meaning in text for reason in Reason)
    assert "neither a verb nor a topic" in dataprep("help", "alihn", code=2).stderr
    assert "hint: similar: align" in dataprep("alihn", code=2).stderr
    codes = dataprep("help", "exit-codes").stdout
    readme = (ROOT / "README.md").read_text("utf-8")
    assert {line.split()[0] for line in codes.splitlines()[2:]} == set(
        re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)
    )


def test_remedies_name_options_and_verbs_that_exist() -> None:
    import click

    def options(command: click.Command, ctx: click.Context) -> set[str]:
        found = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        if isinstance(command, click.Group):
            for name in command.list_commands(ctx):
                inner = command.get_command(ctx, name)
                assert inner is not None
                found |= options(inner, click.Context(inner))
        return found

    known = options(cli, click.Context(cli))
    for reason in Reason:
        assert reason.meaning
        assert set(re.findall(r"--[a-z-]+[a-z]", reason.remedy)) <= known, reason.code
        for code in re.findall(r"--reason ([a-z0-9_,]+)", reason.remedy):
            assert (
                all(Reason.from_code(each).transient for each in code.split(","))
                or "look" in reason.remedy
                or ("samples" in reason.remedy)
            )


def test_a_source_that_is_lost_as_a_whole_is_told_first_with_example_and_remedy(dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "folder", faces(tmp_path / "faces", size=160), "--aligned")
    said = dataprep("pack", code=1).stderr
    assert "align: all 6 samples are lost as size_mismatch" in said
    assert "for example p0/0: aligned to 160x160; the output size is 112" in said
    assert "hint: `dataprep align --size keep` takes aligned faces of any size" in said
    table = tmp_path / "private.csv"
    table.write_text("url,name\n" + "".join(f"http://127.0.0.1:8080/{n}.jpg,A\n" for n in range(30)))
    said = dataprep("download", "urls", table, workspace=tmp_path / "private", code=1).stderr
    assert "download: all 30 samples are lost as forbidden_address" in said
    assert "hint: --allow-private" in said


def test_a_failed_import_leaves_nothing_behind(dataprep: Run, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(6):
        (tmp_path / f"flat/{number}.jpg").write_bytes(noise(number))
    said = dataprep("import", "folder", tmp_path / "flat", code=1).stderr
    assert "its 6 files belong to nobody; each person needs a folder" in said
    assert "is a file, not a folder" in dataprep("import", "folder", tmp_path / "flat/1.jpg", code=1).stderr
    assert not (tmp_path / "ws").exists()
    said = dataprep("run", "folder", "--override", "source.rot=x", code=2).stderr
    assert "source folder has no option 'rot'" in said
    assert "hint: similar: root" in said
    assert "source folder needs 'root'" in dataprep("run", "folder", "--override", "source.root=", code=2).stderr
    assert not (tmp_path / "ws").exists()
    dataprep("import", "folder", faces(tmp_path / "faces"), "--aligned")
    dataprep("import", "folder", tmp_path / "flat", code=1)
    assert "6 samples" in dataprep("status").stdout


def test_a_pack_of_another_size_is_not_replaced_in_silence(dataprep: Run, tmp_path: Path) -> None:
    dataprep("import", "synth", "--identities", 3, "--photos", 3)
    dataprep("pack")
    before = (tmp_path / "ws/packs/train/train.rec").read_bytes()
    dataprep("align", "--size", 224)
    said = dataprep("pack", code=2).stderr
    assert "holds faces of 112x112, and these are 224" in said
    assert (tmp_path / "ws/packs/train/train.rec").read_bytes() == before
    dataprep("pack", "--name", "train-224")
    assert (tmp_path / "ws/packs/train-224/property").read_text().strip().endswith("224,224")
    dataprep("pack", "--overwrite")
    assert (tmp_path / "ws/packs/train/property").read_text().strip().endswith("224,224")


def test_export_counts_what_is_missing_removes_what_is_no_longer_there_and_keeps_what_is_not_ours(
    dataprep: Run, tmp_path: Path
) -> None:
    root, out = faces(tmp_path / "faces"), tmp_path / "out"
    dataprep("import", "folder", root, "--aligned")
    dataprep("pack")
    (root / "p0/1.jpg").unlink()
    (root / "p1/1.jpg").write_bytes(noise(77, 112))
    said = dataprep("export", "--what", "photos", out)
    assert f"4 photos under {out}" in said.stdout
    assert "2 photos missing" in said.stderr
    assert "p1/1: its bytes have changed since they were read" in said.stderr
    assert not (out / "p1/1.jpg").exists()
    shutil_faces = tmp_path / "f"
    assert "6 faces" in dataprep("export", shutil_faces).stdout
    (shutil_faces / "p0/notes.txt").write_text("mine")
    (shutil_faces / "p0/2.jpg").write_bytes(b"edited by hand")
    dataprep("exclude", "p0")
    said = dataprep("export", shutil_faces).stdout
    assert "3 faces" in said
    assert "3 as before" in said
    assert "2 files of an earlier export removed" in said
    assert sorted(path.name for path in (shutil_faces / "p0").iterdir()) == ["2.jpg", "notes.txt"]
    (tmp_path / "g/p1").mkdir(parents=True)
    (tmp_path / "g/p1/0.jpg").write_bytes(b"somebody's")
    assert "no export wrote it" in dataprep("export", tmp_path / "g", code=2).stderr
    assert (tmp_path / "g/p1/0.jpg").read_bytes() == b"somebody's"


def test_a_file_and_a_folder_of_one_name_are_told_apart(dataprep: Run, tmp_path: Path) -> None:
    root = tmp_path / "faces"
    (root / "ann/1.jpg").mkdir(parents=True)
    (root / "ann/1.png").write_bytes(noise(1, 112))
    (root / "ann/1.jpg/2.jpg").write_bytes(noise(2, 112))
    dataprep("import", "folder", root, "--aligned")
    dataprep("align")
    said = dataprep("export", tmp_path / "out").stdout
    assert "2 faces" in said
    assert "1 image renamed" in said
    assert {path.read_bytes() for path in (tmp_path / "out").rglob("*.jpg") if path.is_file()} == {
        noise(1, 112), noise(2, 112),
    }  # fmt: skip


CONTENTS = {
    "train.rec": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
    "lfw.bin": (b"<!DOCTYPE html><html><title>Google Drive</title></html>", "a web page"),
    "model.pt": (b"\x1f\x8b\x08\0" + bytes(20), "gzipped"),
    "x.npy": (b"PK\3\4" + bytes(26) + b"arr_0.npy" + bytes(20), "a NumPy archive"),
    "y.rec": (b"\x0a\x23\xd7\xce\x20\0\0\0\n\x22\n\x06source\x12\x18" + bytes(20), "RecordIO file of protobuf"),
    "faces.bin": (b"\xff\xd8\xff\xe0" + bytes(20), "a JPEG image"),
    "r50.pth": (b"\x08\x07\x12\x07pytorch" + bytes(20), "an ONNX model"),
    "z.tar": (bytes(16) + b"\xde\xc0\xef\xbe" + bytes(20), "an LMDB database"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_in_the_place_of_another_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    content, kind = CONTENTS[name]
    (tmp_path / name).write_bytes(content)
    explanation, _ = explain_error(f"{tmp_path / name}: cannot be read")
    assert kind in explanation


def test_a_file_of_the_right_kind_is_not_explained(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    assert explain_error(f"{tmp_path / 'x.npy'}: too short") == ("", "")
    assert explain_error(f"{tmp_path / 'a.jpg'}, at byte 5") == ("", "")
    (tmp_path / "t.csv").write_text("url,name\n")
    assert identify_content(tmp_path / "t.csv") is None
    assert identify_content(tmp_path / "nothing") is None


def test_a_verification_set_or_an_empty_file_is_no_pack(dataprep: Run, tmp_path: Path) -> None:
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec/train.rec").touch()
    assert "holds no images" in dataprep("verify", tmp_path / "rec", code=1).stdout
    (tmp_path / "lfw.bin").write_bytes(b"\x80\3]q\0.")
    assert "`dataprep bins show` reads verification sets" in dataprep("verify", tmp_path / "lfw.bin", code=1).stdout


def test_training_on_one_person_and_a_mistyped_network_are_refused(dataprep: Run, tmp_path: Path) -> None:
    assert "unknown network 'r500'" in dataprep("train", "--network", "r500", code=1).stderr  # before the missing pack
    said = dataprep("train", code=1).stderr
    assert "hint: build one with `dataprep pack`, or choose one with --pack\n" in said
    dataprep("import", "folder", faces(tmp_path / "faces", people=1), "--aligned")
    dataprep("pack")
    said = dataprep("train", "--batch-size", 2, code=1).stderr
    assert "nothing to learn from one" in said


class _Slow(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(1)
        body = noise(int(re.sub(r"\D", "", self.path)), 64)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_status_counts_a_download_that_runs_or_was_stopped_and_the_log_follows_it(
    dataprep: Run, tmp_path: Path
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    table = tmp_path / "t.csv"
    urls = [f"http://127.0.0.1:{server.server_port}/{n}.jpg,P{n % 9}\n" for n in range(50)]
    table.write_text("url,name\n" + "".join(urls))
    run = subprocess.Popen(
        command("-w", tmp_path / "ws", "download", "urls", table, "--allow-private"),
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            logs = "".join(path.read_text() for path in (tmp_path / "ws/runs").glob("*.jsonl"))
            if '"event": "progress"' in logs:
                break
            time.sleep(0.2)
        status = dataprep("status").stdout
        assert re.search(r"in which [1-9]\d* of 50 samples are done", status)
        assert f"process {run.pid} is working on it" in status
        os.kill(run.pid, signal.SIGINT)
        run.communicate(timeout=60)
        status = dataprep("status").stdout
        assert re.search(r"in which [1-9]\d* of 50 samples are done", status)
        assert "is working on it" not in status
    finally:
        run.kill()
        server.shutdown()
        server.server_close()
    events = [
        json.loads(line) for path in (tmp_path / "ws/runs").glob("*.jsonl") for line in path.read_text().splitlines()
    ]
    progress = [event for event in events if event["event"] == "progress"]
    assert 0 < progress[0]["done"] < 50
    assert events[-1]["event"] == "stopped"


def test_progress_on_80_columns_shows_all_reasons(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("COLUMNS", "80"), ("LINES", "24"), ("TERM", "xterm"), ("FORCE_COLOR", "1"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    gauge = StageProgress(stage="download", total=500)
    gauge.advance(121)
    gauge.verdicts.update({"ok": 60, "http_404": 20, "http_5xx": 10, "timeout": 9, "html": 8, "host_down": 10})
    display = BarDisplay()
    display.refresh({"download": gauge, "lst": StageProgress(stage="lst", total=0)})
    display.close({"download": gauge})
    shown = " ".join(capfd.readouterr().err.split())
    for reason in ("ok 60", "html 8", "host_down 10", "http_404 20", "http_5xx 10", "timeout 9", "121/500"):
        assert reason in shown
    assert "ETA done" not in shown
    assert "waiting" in shown


def test_an_accuracy_of_chance_at_threshold_0_is_called_what_it_is(dataprep: Run, tmp_path: Path) -> None:
    images = [noise(number, 32) for number in range(80)]
    write_bin(tmp_path / "set.bin", images, [True, False] * 20)
    np.save(tmp_path / "same.npy", np.ones((80, 8), np.float32))
    said = dataprep("test", "--features", tmp_path / "same.npy", "--benchmark", tmp_path / "set.bin")
    assert "accuracy 50.00%" in said.stdout
    assert "the model tells no two faces apart" in said.stderr
    assert "--mean, --std, --order" in said.stderr


def test_names_and_details_of_strangers_cannot_steer_a_terminal(dataprep: Run, tmp_path: Path) -> None:
    """Escape sequences, C1 codes and direction marks in a pack's names, a list's names and a licence."""
    evil = "red\x1b[31m\x9b2J\u202egnp.exe"
    pack = tmp_path / "pack"
    pack_writer(tmp_path)(people(1, 4), name="pack")
    (pack / "labels.tsv").write_text(f"0\t{evil}\t4\n")
    about = json.loads((pack / "pack.json").read_text())
    (pack / "pack.json").write_text(json.dumps({**about, "licence": evil}, ensure_ascii=False))
    (tmp_path / "list.csv").write_text(f"url,identity\nhttp://x/1.jpg,{evil}\nno url,{evil}\n")
    said = [
        dataprep("info", pack), dataprep("info", pack, "--json"), dataprep("verify", pack, code=None),
        dataprep("unpack", pack, "--format", "folder", "--out", tmp_path / evil),
        dataprep("download", "urls", tmp_path / "list.csv", "--dry-run"),
        dataprep("exclude", evil, code=None), dataprep("samples", "--person", evil, code=None),
    ]  # fmt: skip
    for done in said:
        for text in (done.stdout, done.stderr):
            assert not any(character in text for character in ("\x1b", "\x9b", "\u202e")), text
    assert json.loads(said[1].stdout)["licence"] == evil


def test_the_encoding_of_any_list_can_be_said(dataprep: Run, tmp_path: Path) -> None:
    faces(tmp_path / "faces")
    for person, name in (("p0", "Иван"), ("p1", "Жанна")):
        (tmp_path / "faces" / person).rename(tmp_path / "faces" / name)
    dataprep("import", "folder", tmp_path / "faces", "--aligned")
    (tmp_path / "out.txt").write_bytes("Иван\n".encode("cp1251"))
    assert "Иван: 3 photos" in dataprep("exclude", "--from", tmp_path / "out.txt", "--encoding", "cp1251").stdout
    (tmp_path / "list.lst").write_bytes("0\t1\tfaces/Жанна/0.jpg\n".encode("cp1251"))
    told = dataprep("--encoding", "cp1251", "import", "lst", tmp_path / "list.lst", "-w", tmp_path / "ws2").stdout
    assert "1 sample planned" in told
    assert "is not known" in dataprep("status", "--encoding", "utf-9", code=2).stderr
    (tmp_path / "urls.csv").write_text("url,name\nhttp://x/1.jpg,Ann\nhttp://x/2.jpg,Bob\n,Bob\n")
    preview = dataprep("download", "urls", tmp_path / "urls.csv", "--dry-run", "-w", tmp_path / "ws3").stdout
    assert "2 samples of 2 people would be planned" in preview
    assert "1 line cannot be used, bad_line; for example urls.csv line 4" in preview
