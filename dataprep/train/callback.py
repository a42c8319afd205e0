"""Verification during training: the interface of a scorer, and the choice of the best model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from dataprep.models.preprocessing import Preprocessing


class VerificationCallback(Protocol):
    """Scores a network in evaluation mode. Returns the accuracy of each set by name, in order."""

    def check(self, preprocessing: Preprocessing) -> None:
        """Raises RecordError if a set does not fit a network with this input."""
        ...

    def __call__(self, module: nn.Module, preprocessing: Preprocessing) -> Mapping[str, float]: ...


@dataclass(slots=True)
class BestScore:
    """The best accuracy so far, its step, and the last step that was scored."""

    rule: str = "last"
    accuracy: float = -1.0
    step: int = 0
    scored: int = 0

    def improves(self, scores: Mapping[str, float], step: int) -> bool:
        """Whether the scores are the best so far, by the last set (insightface's rule) or the mean. Records them if so."""
        self.scored = step
        values = list(scores.values())
        accuracy = values[-1] if self.rule == "last" else sum(values) / len(values)
        if accuracy <= self.accuracy:
            return False
        self.accuracy, self.step = accuracy, step
        return True
