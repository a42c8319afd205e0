"""Names what a file really holds, by its first bytes: what people have in place of the file that they meant."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

_HEAD = 4096
_RECORDIO_MAGIC = 0xCED7230A
_TORCH = "a PyTorch file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a file holds, the suffixes that such files have, and what to do with one. `stand_in` marks what is never the file
    itself, such as a web page saved in its place."""

    kind: str
    suffixes: tuple[str, ...] = ()
    advice: str = ""
    stand_in: bool = False


_LFS = Content(
    kind="a Git LFS pointer, not the file itself", stand_in=True,
    advice="fetch the file with `git lfs pull`, or from the repository's page",
)  # fmt: skip
_PAGE = Content(
    kind="a web page, not the file itself", suffixes=(".html", ".htm"), stand_in=True,
    advice="the server sent a page instead, such as a drive's warning or a login; download the file again, from Google "
    "Drive with gdown",
)  # fmt: skip
_SIGNATURES: tuple[tuple[bytes, Content], ...] = (
    (b"version https://git-lfs.github.com/spec", _LFS),
    (b"version https://hawser.github.com/spec", _LFS),
    (b"/annex/objects/", Content(kind="a git-annex pointer, not the file", advice="`git annex get` it", stand_in=True)),
    (b"\x93NUMPY", Content(kind="a NumPy array", suffixes=(".npy",))),
    (b"PAR1", Content(kind="a Parquet table", suffixes=(".parquet", ".pq"))),
    (b"\x89HDF\r\n\x1a\n", Content(kind="an HDF5 file", suffixes=(".h5", ".hdf5", ".mat"), advice="convert it first")),
    (b"SQLite format 3\0", Content(kind="an SQLite database", suffixes=(".db", ".sqlite"))),
    (b"\x1f\x8b", Content(kind="gzipped", suffixes=(".gz", ".tgz"), advice="unpack it first: gunzip, or tar xzf")),
    (b"BZh", Content(kind="a bzip2 archive", suffixes=(".bz2",), advice="unpack it first: tar xjf")),
    (b"\xfd7zXZ\0", Content(kind="an xz archive", suffixes=(".xz",), advice="unpack it first: tar xJf")),
    (b"7z\xbc\xaf\x27\x1c", Content(kind="a 7z archive", suffixes=(".7z",), advice="unpack it first")),
    (b"Rar!\x1a\7", Content(kind="a rar archive", suffixes=(".rar",), advice="unpack it first")),
    (b"(\xb5/\xfd", Content(kind="a zstandard archive", suffixes=(".zst",), advice="unpack it first")),
    (b"%PDF", Content(kind="a PDF", suffixes=(".pdf",))),
    (b"\x7fELF", Content(kind="a program")),
    (b"\xff\xd8\xff", Content(kind="a JPEG image", suffixes=(".jpg", ".jpeg"))),
    (b"\x89PNG\r\n\x1a\n", Content(kind="a PNG image", suffixes=(".png",))),
)  # fmt: skip
_TORCH_ZIP = Content(kind=_TORCH, suffixes=(".pt", ".pth", ".ckpt", ".bin", ".pkl"))
_HTML = re.compile(rb"^\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head)\b", re.IGNORECASE | re.DOTALL)


def identify_content(path: str | os.PathLike[str]) -> Content | None:
    """What the file holds, or None if that is not known, or it cannot be read."""
    try:
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return None
    if head.startswith(b"PK\3\4"):
        return _zip(head)
    if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")):
        return _PAGE
    found = next((content for start, content in _SIGNATURES if head.startswith(start)), None)
    return found or _by_structure(head)


def explain_error(message: str) -> tuple[str, str]:
    """What is the matter with the first file that an error message names, as (explanation, advice); empty if nothing is
    known, or the file holds what its suffix promises."""
    for named in re.findall(r"[^\s,:;'\"()]+", message):
        content = identify_content(named) if "/" in named or "." in named else None
        if content is not None:
            if not content.stand_in and Path(named).suffix.lower() in content.suffixes:
                return "", ""
            return f"{named} is {content.kind}", content.advice
    return "", ""


def _zip(head: bytes) -> Content:
    if b"data.pkl" in head or b"/version" in head[:200]:
        return _TORCH_ZIP
    if b".npy" in head[:100]:
        return Content(kind="a NumPy archive", suffixes=(".npz",))
    return Content(kind="a zip archive", suffixes=(".zip",), advice="unpack it first")


def _by_structure(head: bytes) -> Content | None:
    if head[257:262] == b"ustar":
        return Content(kind="a tar archive", suffixes=(".tar",), advice="unpack it first: tar xf")
    if len(head) >= 20 and struct.unpack_from("<I", head, 16)[0] == 0xBEEFC0DE:
        return Content(kind="an LMDB database", suffixes=(".mdb",), advice="export its images first; LMDB is not read")
    if len(head) >= 12 and struct.unpack_from("<I", head, 8)[0] == _masked_crc32c(head[:8]):
        return Content(
            kind="a TFRecord file",
            suffixes=(".tfrecord", ".tfrecords"),
            advice="export its images first; TFRecord is not read",
        )
    if len(head) >= 16 and struct.unpack_from("<I", head)[0] == _RECORDIO_MAGIC and _is_protobuf(head[8:]):
        return Content(
            kind="a RecordIO file of protobuf records, as SageMaker writes for numbers; it holds no images",
            advice="pack the images themselves, with `dataprep import` and `dataprep pack`",
            stand_in=True,
        )
    size = struct.unpack_from("<Q", head)[0] if len(head) > 9 else 0
    if 2 <= size <= 100_000_000 and head[8:10] == b'{"':
        return Content(kind="a safetensors file", suffixes=(".safetensors",))
    if re.match(rb"\x08[\x01-\x0f](\x12|:|\x1a)", head):
        return Content(kind="an ONNX model", suffixes=(".onnx",))
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return Content(kind="a pickle", suffixes=(".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt"))
    return None


def _is_protobuf(record: bytes) -> bool:
    """Whether a RecordIO payload is a protobuf message, which begins with field 1, and no image record, whose first four
    bytes are a small number of labels."""
    return record[:1] == b"\x0a" and int.from_bytes(record[:4], "little") > 1 << 16


def _masked_crc32c(data: bytes) -> int:
    """TFRecord's checksum: tensorflow/core/lib/hash/crc32c.h."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
