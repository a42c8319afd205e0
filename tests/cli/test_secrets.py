"""Passwords and signatures in URLs and proxies stay out of files, logs and messages; presigned URLs and http packs open."""

import http.server
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from helpers.command import command, environment
from helpers.downloads import PHOTO
from helpers.small_faces import pack_writer, people

from dataprep.packs.io import open_pack
from dataprep.storage import redact

SECRETS = ("hunter2", "SIGNATURE", "PROXYPW")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://bob:pw@x.org/a/b.csv?sig=1&t=2", "http://x.org/a/b.csv?..."),
        ("s3://bucket/key and https://u@h:8/p?q failed", "s3://bucket/key and https://h:8/p?... failed"),
        ("'https://h/p?q' and \"ftp://me:pw@h\"", "'https://h/p?...' and \"ftp://h\""),
        ("mail me@example.org? C:\\x", "mail me@example.org? C:\\x"),
    ],
)
def test_what_is_told_of_a_url(text: str, told: str) -> None:
    assert redact(text) == told


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...

    def list_directory(self, path: object) -> None:
        self.send_error(403)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An http server of a folder that lists nothing; (its address, the folder)."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def test_no_secret_is_written_or_printed(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    rows = [f"http://{address}/{number}.jpg,p{number % 2}\n" for number in range(6)]
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(PHOTO + bytes([number]))
    (folder / "list.csv").write_text("url,identity\n" + "".join(rows))
    asked = f"http://bob:hunter2@{address}/list.csv?X-Amz-Signature=SIGNATURE"
    env = {**environment(), "https_proxy": "http://me:PROXYPW@127.0.0.1:9"}
    told = []
    for verb in (
        ["download", "urls", asked, "--allow-private", "--placeholders", 0],
        ["download", "urls", asked.replace("list", "gone"), "--allow-private"],
        ["pack", "--min-images", 1], ["status", "--json"], ["export", tmp_path / "faces"],
        ["info", f"http://bob:hunter2@{address}/gone?X-Amz-Signature=SIGNATURE"],
        ["download", "urls", folder / "list.csv", "--url-column", "SIGNATURE?"],
    ):  # fmt: skip
        done = subprocess.run(
            command("-w", tmp_path / "ws", *verb), env=env, capture_output=True, text=True, check=False, timeout=100
        )
        assert "Traceback" not in done.stderr, done.stderr
        told.append(done.stdout + done.stderr)
    assert "6 ok" in told[0]
    assert not any(secret in text for text in told[:6] for secret in SECRETS)
    assert (tmp_path / "ws/packs/train/pack.json").exists()
    for path in [*(tmp_path / "ws").rglob("*"), *(tmp_path / "faces").rglob("*")]:
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path


def test_a_pack_behind_http_and_a_presigned_url_open(site: tuple[str, Path]) -> None:
    address, folder = site
    pack = pack_writer(folder)(people(3, 2))
    for url in ("pack", "pack/train.rec", "pack/train.rec?sig=1", "pack/?sig=2"):
        opened = open_pack(f"http://{address}/{url}")
        assert [opened.face(n).identity for n in range(6)] == ["person0"] * 2 + ["person1"] * 2 + ["person2"] * 2
    for name in ("train.idx", "train.lst", "labels.tsv", "pack.json", "property"):  # a signature for one file alone
        (pack / name).unlink()
    assert open_pack(f"http://{address}/pack/train.rec?sig=3").labels().tolist() == [0, 0, 1, 1, 2, 2]
