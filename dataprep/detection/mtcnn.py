"""MTCNN (Zhang et al. 2016) with the weights of facenet-pytorch and the same output."""

from __future__ import annotations

import importlib.util
from typing import Any

from dataprep.detection.base import Detector
from dataprep.errors import ModelError

BACKENDS = ("auto", "c", "torch", "cuda")


def resolve_backend(wanted: str = "auto") -> str:
    """Resolve `auto` to a backend: the C extension if it was built, else torch on the CPU.

    Raises ModelError if the C extension is requested but was not built.
    """
    built = importlib.util.find_spec("dataprep.detection._mtcnn") is not None
    if wanted == "c" and not built:
        raise ModelError(
            "the C detector was not built in this installation",
            hint="reinstall face-dataprep with a C compiler and Python's headers, or use --backend torch",
        )
    if wanted == "auto":
        return "c" if built else "torch"
    return wanted


def make_detector(backend: str = "auto", **options: Any) -> Detector:
    """Make a detector with options of `TorchDetector` or `CDetector`. Raises ModelError if it cannot run here."""
    settled = resolve_backend(backend)
    if settled == "c":
        from dataprep.detection.mtcnn_c import CDetector

        return CDetector(**options)
    from dataprep.detection.mtcnn_torch import TorchDetector

    if settled == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ModelError("torch finds no CUDA device", hint="use --backend torch to run on the CPU")
        return TorchDetector(device="cuda", **options)
    return TorchDetector(**options)
