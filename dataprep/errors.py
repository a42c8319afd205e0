"""The exceptions that a user may see, and the reasons for which a sample is rejected.

A problem with one sample is a `Reason` in a ledger row, never an exception. An exception means that the whole command
cannot continue. Every message says what is wrong; the hint says what to do about it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from dataprep.reasons import Reason


class DataprepError(Exception):
    """Base class of all errors raised deliberately.

    The message says what is wrong, in terms of the library. `hint` says what to type or do about it; the command line
    prints it on a line of its own. `exit_code` is the exit status of the command line.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def within(self, where: object) -> Self:
        """A copy of the error, hint included, with `where: ` (such as a file) in front of its message."""
        error = copy.copy(self)
        error.args = (f"{where}: {self}",)
        return error


class UsageError(DataprepError):
    """The command is invalid or does not fit this workspace."""

    exit_code = 2


class LockedError(DataprepError):
    """Another run is writing to the same part of the workspace."""

    exit_code = 4


class Interrupted(DataprepError):
    """The run was stopped by the user or the system; finished work is committed."""

    exit_code = 130


class SourceError(DataprepError):
    """A published list, or a folder of photos, cannot be read."""


class WorkspaceError(DataprepError):
    """The workspace is missing, damaged, or was made by an incompatible version."""


class DamagedFileError(WorkspaceError):
    """A file of the workspace is not what was written, or is gone; `path` names it."""

    def __init__(self, message: str = "", *, path: Path, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class RecordError(DataprepError):
    """A packed file (.rec, .idx, .lst, property, .bin) is damaged or not of the expected format."""


class ImagingError(DataprepError):
    """A photo cannot be decoded; `reason` is recorded in the ledger."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.code}: {detail}" if detail else reason.code)
        self.reason = reason
        self.detail = detail


class ModelError(DataprepError):
    """Weights, a checkpoint or a training configuration cannot be used."""


def _rebuild(kind: type[DataprepError], args: tuple[Any, ...], attributes: dict[str, Any]) -> DataprepError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
