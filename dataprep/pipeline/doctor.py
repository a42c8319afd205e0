"""Describes the installation: versions, backends, and the speed of the detector."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Iterator

from dataprep import __version__

_NEEDED = ("torch", "facenet-pytorch", "opencv-python", "pillow", "aiohttp", "numpy", "click", "joblib", "pyarrow")
_OPTIONAL = ("mxnet", "onnxruntime")


def describe_installation() -> Iterator[str]:
    """Yield lines of the report."""
    yield f"dataprep {__version__}, {len(os.sched_getaffinity(0))} cores"
    for name in (*_NEEDED, *_OPTIONAL):
        try:
            yield f"  {name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"  {name} not installed{' (optional)' if name in _OPTIONAL else ': reinstall face-dataprep'}"
    yield from _detector()


def _detector() -> Iterator[str]:
    import torch

    from dataprep.detection.base import Target
    from dataprep.detection.mtcnn import make_detector, resolve_backend
    from dataprep.detection.weights import weights_digest
    from dataprep.synth.photos import draw_photo

    torch.set_num_threads(1)
    yield f"detector: MTCNN, weights {weights_digest()}; in use: {resolve_backend()}"
    drawn = [draw_photo(identity, 0) for identity in range(10)]
    photos = [one.pixels for one in drawn]
    meant = [Target(rule="overlap", published=one.box) for one in drawn]
    for backend in dict.fromkeys((resolve_backend(), "torch", *(["cuda"] if torch.cuda.is_available() else []))):
        detector = make_detector(backend)
        detector.detect(photos[:1])
        level = f" ({detector.level})" if hasattr(detector, "level") else ""
        for what, targets in (("all faces", None), ("the face in the published box", meant)):
            began = time.perf_counter()
            detector.detect(photos, targets)
            rate = len(photos) / (time.perf_counter() - began)
            each = "second" if backend == "cuda" else "second and core"
            yield f"  {backend}{level}, {what}: {rate:.0f} photos of 250x250 per {each}"
    yield f"CUDA: {'yes, ' + torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'not available'}"
