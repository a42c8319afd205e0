"""MTCNN (Zhang et al. 2016) on facenet-pytorch's weights, giving facenet-pytorch's faces."""

from __future__ import annotations

import importlib.util
from typing import Any

from dataprep.detection.base import Detector
from dataprep.errors import ModelError

BACKENDS = ("auto", "c", "torch", "cuda")


def resolve_backend(wanted: str = "auto") -> str:
    """`auto` as the backend it stands for here: the C extension where it was built, else torch on the CPU.

    Raises ModelError if a backend is asked for by name and is not there.
    """
    built = importlib.util.find_spec("dataprep.detection._mtcnn") is not None
    if wanted == "c" and not built:
        raise ModelError(
            "the C detector was not built in this installation: install face-dataprep anew where there is a C compiler "
            "and Python's headers, or choose --backend torch"
        )
    if wanted == "auto":
        return "c" if built else "torch"
    return wanted


def make_detector(backend: str = "auto", **options: Any) -> Detector:
    """A detector; the options are those of `TorchDetector` and `CDetector`. Raises ModelError if it cannot run here."""
    settled = resolve_backend(backend)
    if settled == "c":
        from dataprep.detection.mtcnn_c import CDetector

        return CDetector(**options)
    from dataprep.detection.mtcnn_torch import TorchDetector

    if settled == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ModelError("--backend cuda: torch sees no GPU here; --backend torch is the same on the CPU")
        return TorchDetector(device="cuda", **options)
    return TorchDetector(**options)
