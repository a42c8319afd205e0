"""MTCNN's trained weights, from the installed facenet-pytorch without importing it (it would import torchvision)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

from dataprep.errors import ModelError

# the files of facenet-pytorch 2.5.3, unchanged since 2.0
SHA256 = {
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}


@cache
def weight_files() -> dict[str, Path]:
    """Paths of pnet.pt, rnet.pt and onet.pt; ModelError if facenet-pytorch is missing or its weights were altered."""
    spec = importlib.util.find_spec("facenet_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("MTCNN's weights come with facenet-pytorch: pip install 'facenet-pytorch==2.5.3'")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    files = {name: folder / f"{name}.pt" for name in SHA256}
    for name, path in files.items():
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        if found != SHA256[name]:
            try:
                version = importlib.metadata.version("facenet-pytorch")
            except importlib.metadata.PackageNotFoundError:  # a checkout
                version = "of unknown version"
            raise ModelError(
                f"{path} of facenet-pytorch {version} is not the published one (sha256 {found[:12]}, expected "
                f"{SHA256[name][:12]}): pip install --force-reinstall --no-deps 'facenet-pytorch==2.5.3'"
            )
    return files


def weights_digest() -> str:
    """One hash for the three weight files, for fingerprints."""
    weight_files()
    return hashlib.sha256("".join(SHA256[name] for name in sorted(SHA256)).encode()).hexdigest()[:16]
