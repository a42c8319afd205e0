"""The exceptions a user can meet, and the reasons for which a sample does not make it.

A sample's trouble is a `Reason` in a ledger row and never an exception; an exception means that the command as a whole
cannot go on. Every message names what is wrong and what to do about it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

from dataprep.reasons import Reason


class DataprepError(Exception):
    """Base of everything raised on purpose.

    The message says what is wrong, in terms of the library. `hint` is what somebody at the command line types or does
    about it; the command line prints it on a line of its own. `exit_code` is what the command line exits with.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def within(self, where: object) -> Self:
        """The same error, hint included, with `where: ` in front of its message: a file that holds what is wrong."""
        error = copy.copy(self)
        error.args = (f"{where}: {self}",)
        return error


class UsageError(DataprepError):
    """The command cannot be understood or does not fit this workspace."""

    exit_code = 2


class LockedError(DataprepError):
    """Another run is writing to the same part of the workspace."""

    exit_code = 4


class Interrupted(DataprepError):
    """The user or the system asked the run to stop; what was finished is committed."""

    exit_code = 130


class SourceError(DataprepError):
    """A published list, or a folder of photos, cannot be read."""


class WorkspaceError(DataprepError):
    """The workspace is missing, damaged, or was made by an incompatible version."""


class RecordError(DataprepError):
    """A packed file (.rec, .idx, .lst, property, .bin) is damaged or is not what it claims to be."""


class ImagingError(DataprepError):
    """A photo's bytes cannot be turned into pixels; carries the reason for the ledger."""

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
