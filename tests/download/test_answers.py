"""Everything that a server can say, HTTP or not, ends as a reason; raw bytes from a socket."""

import asyncio
import base64
import gzip
import re
import shutil
import ssl
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from helpers.downloads import PHOTO, Noting, download, samples
from helpers.webserver import serving, serving_raw

from dataprep import __version__
from dataprep.download.client import user_agent
from dataprep.errors import UsageError
from dataprep.reasons import Reason
from dataprep.types import Sample

SIZE = len(PHOTO)


def http(status: str = "200 OK", body: bytes = b"", *headers: str, length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def packed(form: int) -> bytes:
    packer = zlib.compressobj(wbits=form)
    return packer.compress(PHOTO) + packer.flush()


REDIRECT = "302 Found"
ANSWERS: dict[str, tuple[bytes, Reason | None, str]] = {
    "photo": (http(body=PHOTO), None, ""),
    "203": (http("203 Non-Authoritative Information", PHOTO), None, ""),
    "until-the-end": (http(body=PHOTO, length=False), None, ""),
    "gzip": (http("200 OK", gzip.compress(PHOTO), "Content-Encoding: gzip"), None, ""),
    "deflate": (http("200 OK", packed(15), "Content-Encoding: deflate"), None, ""),
    "gzip-in-name-only": (http("200 OK", PHOTO, "Content-Encoding: gzip"), None, ""),
    "jpg-in-name-only": (http("200 OK", b"%PDF-1.4", "Content-Type: image/jpeg"), Reason.WRONG_TYPE, "pdf"),
    "encoded-as-itself": (http("200 OK", PHOTO, "Content-Encoding: image/jpeg"), None, ""),
    "brotli": (http("200 OK", b"\x0b\x02", "Content-Encoding: br"), Reason.WRONG_TYPE, "Content-Encoding: br"),
    "gzip-bomb": (http("200 OK", gzip.compress(bytes(5_000_000)), "Content-Encoding: gzip"), Reason.TOO_LARGE, "decompress"),
    "gzip-cut": (http("200 OK", gzip.compress(PHOTO)[:-900], "Content-Encoding: gzip"), Reason.SHORT_BODY, "cut short"),
    "gzip-bad": (
        http("200 OK", b"\x1f\x8b\x08\0" + b"\xff" * 900, "Content-Encoding: gzip"), Reason.CORRUPT, "invalid gzip",
    ),
    "empty": (http(), Reason.EMPTY, "0 bytes"),
    "short": (
        http(length=False).replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % SIZE) + PHOTO[:700],
        Reason.SHORT_BODY, f"700 of {SIZE} bytes",
    ),
    "announced": (
        http(length=False).replace(b"\r\n\r\n", b"\r\nContent-Length: 99999999\r\n\r\n"), Reason.TOO_LARGE, "announced",
    ),
    "unannounced": (http(body=PHOTO + bytes(2_000_000), length=False), Reason.TOO_LARGE, "over 1000000 bytes"),
    "chunks": (
        http("200 OK", b"", "Transfer-Encoding: chunked", length=False) + b"%x\r\n" % SIZE + PHOTO + b"\r\n0\r\n\r\n",
        None, "",
    ),
    "bad-chunks": (
        http("200 OK", b"", "Transfer-Encoding: chunked", length=False) + b"zz\r\n" + PHOTO, Reason.MALFORMED_RESPONSE, "",
    ),
    "cut-chunks": (
        http("200 OK", b"", "Transfer-Encoding: chunked", length=False) + b"%x\r\n" % SIZE + PHOTO[:900],
        Reason.SHORT_BODY, "900 bytes",
    ),
    "204": (http("204 No Content", length=False), Reason.HTTP_OTHER, "HTTP 204"),
    "206": (http("206 Partial Content", PHOTO, "Content-Range: bytes 0-9/10"), Reason.HTTP_OTHER, "HTTP 206"),
    "300": (http("300 Multiple Choices"), Reason.HTTP_OTHER, "HTTP 300"),
    "304": (http("304 Not Modified", length=False), Reason.HTTP_OTHER, "HTTP 304"),
    "302-nowhere": (http(REDIRECT), Reason.HTTP_OTHER, "HTTP 302"),
    "402": (http("402 Payment Required"), Reason.HTTP_4XX, "HTTP 402"),
    "599": (http("599 Odd"), Reason.HTTP_5XX, "HTTP 599"),
    "999": (http("999 Request denied"), Reason.HTTP_OTHER, "HTTP 999"),
    "http-0.9": (PHOTO, Reason.MALFORMED_RESPONSE, ""),
    "status-line": (b"HTTP/1.1 OK\r\n\r\n", Reason.MALFORMED_RESPONSE, ""),
    "ssh": (b"SSH-2.0-OpenSSH_9.0\r\n", Reason.MALFORMED_RESPONSE, ""),
    "huge-header": (http("200 OK", PHOTO, "X-Large: " + "a" * 100_000), Reason.MALFORMED_RESPONSE, ""),
    "many-headers": (http("200 OK", PHOTO, *(f"X-{i}: a" for i in range(20_000))), Reason.MALFORMED_RESPONSE, ""),
    "two-lengths": (
        http("200 OK", PHOTO, "Content-Length: 5"), Reason.MALFORMED_RESPONSE, "",
    ),
    "hangs-up": (b"", Reason.CONNECTION, "Server disconnected"),
    "hangs-up-in-header": (b"HTTP/1.1 200 OK\r\nConte", Reason.CONNECTION, ""),
    "to-a-file": (http(REDIRECT, b"", "Location: file:///etc/passwd"), Reason.BAD_URL, "scheme 'file'"),
    "to-a-script": (http(REDIRECT, b"", "Location: javascript:alert(1)"), Reason.BAD_URL, "scheme"),
    "to-a-user": (http(REDIRECT, b"", "Location: http://me:pw@127.0.0.1/"), Reason.BAD_URL, "user name"),
    "to-latin-1": (http(REDIRECT, b"", "Location: http://\xe9\xff/"), Reason.BAD_URL, "domain name"),
    "to-mail": (http(REDIRECT, b"", "Location: http://127.0.0.1:25/"), Reason.BAD_URL, "port 25"),
    "in-a-circle": (http(REDIRECT, b"", "Location: /in-a-circle"), Reason.REDIRECTS, "more than 5"),
    "noai": (http("200 OK", PHOTO, "X-Robots-Tag: noindex, noai"), Reason.OPTED_OUT, "noai"),
    "no-image-ai": (http("200 OK", PHOTO, "X-Robots-Tag: dataprep: NoImageAI"), Reason.OPTED_OUT, "NoImageAI"),
    "noai-no-text": (http("200 OK", PHOTO, "X-Robots-Tag: noai, \xff\xfe\x9b"), Reason.OPTED_OUT, "noai, ???"),
    "not-us": (http("200 OK", PHOTO, "X-Robots-Tag: otherbot: noai"), None, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        name = head.split(b" ")[1].decode().strip("/")
        if name == "resets":
            writer.transport.abort()
        elif name == "trickles":
            writer.write(http("200 OK", b"", length=False))
            for byte in PHOTO:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        elif name == "silent":
            await asyncio.sleep(30)
        else:
            writer.write(ANSWERS[name][0])

    with serving_raw(answer) as url:
        yield url


def test_whatever_is_said_ends_under_its_reason(base: str, tmp_path: Path) -> None:
    report, rows = download(
        tmp_path, [f"{base}/{name}" for name in ANSWERS], max_bytes=1_000_000, placeholders=0, retries=0,
        host_failures=100,
    )  # fmt: skip
    assert not report.errors
    found = {name: rows[f"{base}/{name}"] for name in ANSWERS}
    assert {name: row["reason"] for name, row in found.items()} == {
        name: reason.code if reason else None for name, (_, reason, _) in ANSWERS.items()
    }
    for name, (_, _, detail) in ANSWERS.items():
        assert detail in found[name]["detail"], name
    assert found["short"]["bytes"] == 700
    assert found["short"]["status"] == 200
    assert found["jpg-in-name-only"]["bytes"] == 8
    assert len(found["jpg-in-name-only"]["body_sha256"]) == 64
    assert found["gzip"]["sha256"] == found["photo"]["sha256"]
    assert found["gzip"]["size"] == found["photo"]["bytes"] == SIZE


def test_each_kind_of_waiting_has_its_own_end(base: str, tmp_path: Path) -> None:
    names = ["trickles", "silent", "resets"]
    _, rows = download(
        tmp_path, [f"{base}/{name}" for name in names], idle_timeout=0.4, timeout=1.2, retries=0, host_failures=9
    )
    found = {name: (rows[f"{base}/{name}"]["reason"], rows[f"{base}/{name}"]["detail"]) for name in names}
    assert found["trickles"] == ("timeout", "not done within 1.2 s")
    assert found["silent"] == ("timeout", "no data for 0.4 s")
    assert found["resets"][0] == "connection"


def test_tls_that_cannot_be_trusted_or_is_none(tmp_path: Path) -> None:
    openssl = shutil.which("openssl") or pytest.skip("no openssl to make a certificate with")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=photos.test", "-addext", "subjectAltName=DNS:photos.test", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def photo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(body=PHOTO))

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serving_raw(photo, tls=context) as secure, serving_raw(plain) as insecure:
        urls = [f"https://photos.test:{base.rpartition(':')[2]}/a.jpg" for base in (secure, insecure)]
        _, rows = download(tmp_path, urls, lookup=lambda host: ["127.0.0.1"])
    assert {row["reason"] for row in rows.values()} == {"tls"}
    assert "self-signed certificate" in rows[urls[0]]["detail"].replace("self signed", "self-signed")


def test_published_hashes_are_compared(tmp_path: Path) -> None:
    import hashlib

    async def photo(request: web.Request) -> web.StreamResponse:
        return web.Response(body=PHOTO)

    hashes = {
        "sha256:" + hashlib.sha256(PHOTO).hexdigest(): None,
        "sha1:" + hashlib.sha1(PHOTO).hexdigest(): None,
        "MD5:" + hashlib.md5(PHOTO).hexdigest().upper(): None,
        "": None,
        "sha256:" + hashlib.sha256(b"").hexdigest(): "hash_mismatch",
        "md5:" + hashlib.md5(b"").hexdigest(): "hash_mismatch",
        "crc32:00000000": "bad_line",
        "md5:zz": "bad_line",
        "nonsense": "bad_line",
    }
    with serving(photo) as base:
        listed = [
            Sample(key=f"p/{i}", identity="p", url=f"{base}/{i}.jpg", hash=published)
            for i, published in enumerate(hashes)
        ]
        _, rows = download(tmp_path, listed)
    assert [rows[sample.url]["reason"] for sample in listed] == list(hashes.values())


def test_the_proxys_credentials_go_to_the_proxy_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A little proxy: plain requests are answered by it, CONNECT is refused; the origin server is asked past it."""
    heads: dict[str, list[str]] = {"proxy": [], "origin": []}

    def noting(who: str, answer: bytes) -> object:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            heads[who].append(head)
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n" if head.startswith("CONNECT") else answer)

        return serve

    moved = http(REDIRECT, b"", "Location: {}/direct.jpg")
    with serving_raw(noting("origin", http(body=PHOTO))) as origin:
        answer = moved.replace(b"{}", origin.replace("127.0.0.1", "origin.test").encode())
        with serving_raw(noting("proxy", answer)) as proxy:
            place = proxy.replace("http://", "http://me:secret@")
            monkeypatch.setenv("http_proxy", place)
            monkeypatch.setenv("https_proxy", place)
            monkeypatch.setenv("no_proxy", "origin.test")
            urls = ["http://photos.test/a.jpg", "https://photos.test/b.jpg"]
            _, rows = download(tmp_path, urls, lookup=lambda host: ["127.0.0.1"], retries=0)
    assert rows[urls[0]]["reason"] is None
    assert rows[urls[0]]["final_url"].endswith("/direct.jpg")
    assert rows[urls[1]]["reason"] == "connection"
    assert "502" in rows[urls[1]]["detail"]
    token = base64.b64encode(b"me:secret").decode()
    assert all(f"Proxy-Authorization: Basic {token}" in head for head in heads["proxy"])
    assert len(heads["origin"]) == 1
    assert "uthorization" not in heads["origin"][0]
    sent = re.findall(r"(?m)^([\w-]+):", heads["origin"][0])
    assert set(sent) - {"Connection"} == {"Host", "User-Agent", "Accept", "Accept-Encoding"}
    assert "Accept-Encoding: identity" in heads["origin"][0]


def test_a_proxy_that_cannot_be_used_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(UsageError, match="http_proxy"):
        download(tmp_path, ["http://x.test/a.jpg"])


def test_a_contact_stands_in_the_user_agent_and_can_smuggle_nothing() -> None:
    assert user_agent("https://x.org/bot").startswith(f"dataprep/{__version__} (https://x.org/bot; builds")
    for bad in ("a\r\nX: y", "é", "a" * 300):
        with pytest.raises(UsageError, match="cannot be sent in a header"):
            user_agent(bad)


def test_the_progress_line_says_what_came_of_it(base: str, tmp_path: Path) -> None:
    display = Noting()
    wanted = samples([f"{base}/{name}" for name in ("photo", "204", "empty", "http-0.9", "brotli")])
    download(tmp_path, wanted, display=display)
    assert display.line.startswith("download 5/5 (done")
    assert display.line.endswith("; ok 1; dropped empty 1, wrong_type 1; failed http_other 1, malformed_response 1)")
