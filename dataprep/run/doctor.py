"""What this installation is: versions, backends, and how fast the detector runs here."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Iterator

from dataprep import __version__

_NEEDED = ("torch", "facenet-pytorch", "opencv-python", "pillow", "aiohttp", "numpy", "click", "joblib", "pyarrow")
_OPTIONAL = ("mxnet", "onnxruntime")


def examine() -> Iterator[str]:
    """Lines for people."""
    yield f"dataprep {__version__}, {len(os.sched_getaffinity(0))} cores"
    for name in (*_NEEDED, *_OPTIONAL):
        try:
            yield f"  {name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"  {name} not installed{' (optional)' if name in _OPTIONAL else ': reinstall face-dataprep'}"
    yield from _detector()


def _detector() -> Iterator[str]:
    import numpy as np
    import torch

    from dataprep.imaging.mtcnn.torch_backend import TorchDetector

    torch.set_num_threads(1)
    detector = TorchDetector()
    yield f"detector: {detector.versions()['detector']}, weights {detector.versions()['weights']}"
    generator = np.random.default_rng(0)
    photo = generator.integers(0, 256, (250, 250, 3), dtype=np.uint8)
    detector.detect([photo])
    began = time.perf_counter()
    for _ in range(5):
        detector.detect([photo])
    yield f"  {5 / (time.perf_counter() - began):.0f} photos of 250x250 without a face per second and core"
    yield f"CUDA: {'yes, ' + torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'not available'}"
