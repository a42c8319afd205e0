"""The exceptions a user can meet, and the reasons for which a sample does not make it.

A sample's trouble is a `Reason` in a ledger row and never an exception; an exception means that the command as a whole
cannot go on. Every message names what is wrong and what to do about it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, Self

Verdict = Literal["ok", "dropped", "failed"]


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


class Reason(Enum):
    """Why a sample was dropped (the data says no) or failed (something went wrong while asking).

    Members are (code, verdict, transient): `transient` marks failures that a retry may mend.
    """

    # the URL itself
    BAD_URL = ("bad_url", "dropped", False)
    BAD_LINE = ("bad_line", "dropped", False)
    BAD_NAME = ("bad_name", "dropped", False)
    FORBIDDEN_ADDRESS = ("forbidden_address", "dropped", False)
    # the answer
    HTTP_4XX = ("http_4xx", "failed", False)
    HTTP_404 = ("http_404", "failed", False)
    HTTP_429 = ("http_429", "failed", True)
    HTTP_5XX = ("http_5xx", "failed", True)
    HTTP_OTHER = ("http_other", "failed", False)
    BAD_ANSWER = ("bad_answer", "failed", False)
    TIMEOUT = ("timeout", "failed", True)
    DNS = ("dns", "failed", True)
    CONNECTION = ("connection", "failed", True)
    TLS = ("tls", "failed", False)
    REDIRECTS = ("too_many_redirects", "failed", False)
    SHORT_BODY = ("short_body", "failed", True)
    TOO_LARGE = ("too_large", "dropped", False)
    OPTED_OUT = ("opted_out", "dropped", False)
    HOST_DOWN = ("host_down", "failed", True)
    ROBOTS = ("robots_txt", "dropped", False)
    ROBOTS_DOWN = ("robots_txt_unreachable", "failed", True)
    # what was found instead of a photo
    EMPTY = ("empty", "dropped", False)
    HTML = ("html", "dropped", False)
    NOT_AN_IMAGE = ("not_an_image", "dropped", False)
    WRONG_TYPE = ("wrong_type", "dropped", False)
    SVG = ("svg", "dropped", False)
    PLACEHOLDER = ("placeholder", "dropped", False)
    HASH_MISMATCH = ("hash_mismatch", "dropped", False)
    ANIMATED = ("animated", "dropped", False)
    TRUNCATED = ("truncated", "dropped", False)
    CORRUPT = ("corrupt", "dropped", False)
    TOO_SMALL = ("too_small", "dropped", False)
    BOMB = ("too_many_pixels", "dropped", False)
    # what the files on disk did
    UNREADABLE = ("unreadable", "failed", True)
    PHOTO_CHANGED = ("photo_changed", "failed", True)
    # boxes and faces
    BAD_BOX = ("bad_box", "dropped", False)
    BOX_OUTSIDE = ("box_outside", "dropped", False)
    NO_FACE = ("no_face", "dropped", False)
    BAD_LANDMARKS = ("bad_landmarks", "dropped", False)
    TINY_FACE = ("tiny_face", "dropped", False)
    OTHER_SIZE = ("other_size", "dropped", False)
    # quality that was asked for
    LOW_PROBABILITY = ("low_probability", "dropped", False)
    SMALL_FACE = ("small_face", "dropped", False)
    CUT_FACE = ("cut_face", "dropped", False)
    PROFILE = ("profile", "dropped", False)
    ROLLED = ("rolled", "dropped", False)
    MISFIT = ("misfit", "dropped", False)
    BLURRED = ("blurred", "dropped", False)
    # identities
    TOO_FEW_IMAGES = ("too_few_images", "dropped", False)
    EXCLUDED = ("excluded", "dropped", False)
    DUPLICATE = ("duplicate", "dropped", False)
    AMBIGUOUS = ("ambiguous", "dropped", False)
    # us
    BUG = ("bug", "failed", True)
    WORKER_DIED = ("worker_died", "failed", True)

    def __init__(self, code: str, verdict: Verdict, transient: bool) -> None:
        self.code = code
        self.verdict: Verdict = verdict
        self.transient = transient

    @classmethod
    def from_code(cls, code: str) -> Reason:
        """The member whose `code` is given; UsageError lists the codes if there is none."""
        for reason in cls:
            if reason.code == code:
                return reason
        known = ", ".join(reason.code for reason in cls)
        raise UsageError(f"unknown reason {code!r}; the reasons are: {known}")
