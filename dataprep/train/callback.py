"""Verification sets while training: what is asked of whoever scores them, and which model is kept as the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from dataprep.models.preprocessing import Preprocessing


class VerificationCallback(Protocol):
    """Scores a network in evaluation mode: the accuracy of each set by name, in order."""

    def check(self, preprocessing: Preprocessing) -> None:
        """Raises RecordError for sets that such a network cannot be scored on."""
        ...

    def __call__(self, module: nn.Module, preprocessing: Preprocessing) -> Mapping[str, float]: ...


@dataclass(slots=True)
class BestScore:
    """The best accuracy so far, the step that had it, and the last step that was scored at all."""

    rule: str = "last"
    accuracy: float = -1.0
    step: int = 0
    scored: int = 0

    def improves(self, scores: Mapping[str, float], step: int) -> bool:
        """Whether the scores are better than all before, by the last set (insightface's rule) or by the mean; then kept."""
        self.scored = step
        values = list(scores.values())
        accuracy = values[-1] if self.rule == "last" else sum(values) / len(values)
        if accuracy <= self.accuracy:
            return False
        self.accuracy, self.step = accuracy, step
        return True
