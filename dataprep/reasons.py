"""Why a sample is dropped or fails: the codes of the ledgers."""

from __future__ import annotations

from enum import Enum
from typing import Literal

Verdict = Literal["ok", "dropped", "failed"]


class Reason(Enum):
    """Why a sample was dropped (its data is unusable) or failed (an error occurred while processing it).

    Members are (code, verdict, transient): `transient` marks failures that a retry may resolve.
    """

    # the URL itself
    BAD_URL = ("bad_url", "dropped", False)
    BAD_LINE = ("bad_line", "dropped", False)
    BAD_NAME = ("bad_name", "dropped", False)
    FORBIDDEN_ADDRESS = ("forbidden_address", "dropped", False)
    # the HTTP response
    HTTP_4XX = ("http_4xx", "failed", False)
    HTTP_404 = ("http_404", "failed", False)
    HTTP_429 = ("http_429", "failed", True)
    HTTP_5XX = ("http_5xx", "failed", True)
    HTTP_OTHER = ("http_other", "failed", False)
    MALFORMED_RESPONSE = ("malformed_response", "failed", False)
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
    # the content is not a usable photo
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
    # files on disk
    IO_ERROR = ("io_error", "failed", True)
    PHOTO_CHANGED = ("photo_changed", "failed", True)
    # boxes and faces
    BAD_BOX = ("bad_box", "dropped", False)
    BOX_OUTSIDE = ("box_outside", "dropped", False)
    NO_FACE = ("no_face", "dropped", False)
    BAD_LANDMARKS = ("bad_landmarks", "dropped", False)
    UPSCALED = ("upscaled", "dropped", False)
    SIZE_MISMATCH = ("size_mismatch", "dropped", False)
    # quality filters
    LOW_CONFIDENCE = ("low_confidence", "dropped", False)
    FACE_TOO_SMALL = ("face_too_small", "dropped", False)
    FACE_OUT_OF_FRAME = ("face_out_of_frame", "dropped", False)
    YAW_TOO_LARGE = ("yaw_too_large", "dropped", False)
    ROLL_TOO_LARGE = ("roll_too_large", "dropped", False)
    ALIGNMENT_ERROR = ("alignment_error", "dropped", False)
    BLURRED = ("blurred", "dropped", False)
    # identities
    TOO_FEW_IMAGES = ("too_few_images", "dropped", False)
    EXCLUDED = ("excluded", "dropped", False)
    DUPLICATE = ("duplicate", "dropped", False)
    IDENTITY_CONFLICT = ("identity_conflict", "dropped", False)
    # internal errors
    INTERNAL_ERROR = ("internal_error", "failed", True)
    WORKER_DIED = ("worker_died", "failed", True)

    def __init__(self, code: str, verdict: Verdict, transient: bool) -> None:
        self.code = code
        self.verdict: Verdict = verdict
        self.transient = transient

    @classmethod
    def from_code(cls, code: str) -> Reason:
        """The member with this `code`. Raises UsageError, which lists the codes, if there is none."""
        for reason in cls:
            if reason.code == code:
                return reason
        known = ", ".join(reason.code for reason in cls)
        raise ValueError(f"unknown reason {code!r}; the reasons are: {known}")
