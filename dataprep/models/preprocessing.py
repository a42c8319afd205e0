"""The input that a network expects: image size, channel order and normalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataprep.errors import ModelError, UsageError


def parse_channels(text: str, what: str) -> tuple[float, float, float]:
    """The mean or std of three channels, from one number or three separated by commas. Raises UsageError."""
    try:
        numbers = [float(part) for part in text.split(",")]
        first, second, third = numbers * 3 if len(numbers) == 1 else numbers
    except ValueError:
        raise UsageError(f"{what} {text}: expected one number or three separated by commas") from None
    if not all(map(math.isfinite, (first, second, third))):
        raise UsageError(f"{what} {text}: the numbers must be finite")
    if what == "std" and min(first, second, third) <= 0:
        raise UsageError(f"{what} {text}: the numbers must be above 0")
    return first, second, third


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The input of a network: (n, 3, height, width), channels in `order`, `(value - mean) / std` of values 0..255.

    `mean` and `std` are per channel, in `order`.
    """

    height: int = 112
    width: int = 112
    order: str = "RGB"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)

    @classmethod
    def from_mapping(cls, described: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `dataclasses.asdict`. Lists may stand for tuples. Raises ModelError."""
        try:
            means, stds = (tuple(float(value) for value in described[name]) for name in ("mean", "std"))
            (m1, m2, m3), (s1, s2, s3) = means, stds
            found = cls(
                height=int(described["height"]),
                width=int(described["width"]),
                order=str(described["order"]),
                mean=(m1, m2, m3),
                std=(s1, s2, s3),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the description of its input is damaged ({error})") from None
        if found.order not in ("RGB", "BGR") or min(found.height, found.width, *found.std) <= 0:
            raise ModelError(f"the description of its input is invalid: {dict(described)}")
        return found

    def normalise(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Convert RGB bytes (n, height, width, 3) to the network's input, floats (n, 3, height, width)."""
        batch = torch.from_numpy(images if self.order == "RGB" else images[..., ::-1].copy())
        batch = batch.permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (batch - mean) / std

    def check_size(self, what: str, height: int, width: int) -> None:
        """Raises ModelError if the faces of `what` (a pack or a set) do not have the network's input size."""
        if (height, width) != (self.height, self.width):
            raise ModelError(
                f"{what} holds faces of {width}x{height}, but the model takes {self.width}x{self.height}: "
                f"align and pack them to that size, or choose a model for their size"
            )
