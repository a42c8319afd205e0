"""Why a sample is dropped or fails: the codes of the ledgers."""

from __future__ import annotations

from enum import Enum
from typing import Literal

Verdict = Literal["ok", "dropped", "failed"]


class Reason(Enum):
    """Why a sample was dropped (its data is unusable) or failed (an error occurred while processing it).

    Members are (code, verdict, transient, meaning, remedy): `transient` marks failures that a retry may resolve; `remedy`,
    in terms of the command line, is empty where there is none.
    """

    # the URL itself
    BAD_URL = (
        "bad_url", "dropped", False, "the line's URL is no http(s) URL, or has a port or form that is never asked",
        "correct the list",
    )  # fmt: skip
    BAD_LINE = (
        "bad_line", "dropped", False, "the line of the list cannot be read",
        "`dataprep samples --reason bad_line` shows the lines; correct the list",
    )  # fmt: skip
    BAD_NAME = (
        "bad_name", "dropped", False, "the person's or photo's name cannot be the name of a file",
        "rename it in the list",
    )  # fmt: skip
    FORBIDDEN_ADDRESS = (
        "forbidden_address", "dropped", False, "the host lies on a private network or on this machine",
        "--allow-private asks such hosts too",
    )  # fmt: skip
    # the HTTP response
    HTTP_4XX = ("http_4xx", "failed", False, "the server refused the request", "")
    HTTP_404 = ("http_404", "failed", False, "the photo is no longer there", "")
    HTTP_429 = (
        "http_429", "failed", True, "the server asked for fewer requests",
        "`dataprep retry --reason http_429`, later or with a larger --spacing",
    )  # fmt: skip
    HTTP_5XX = ("http_5xx", "failed", True, "the server failed", "`dataprep retry --reason http_5xx`")
    HTTP_OTHER = ("http_other", "failed", False, "the server answered with a status that brings no photo", "")
    MALFORMED_RESPONSE = ("malformed_response", "failed", False, "the answer breaks the rules of HTTP", "")
    TIMEOUT = (
        "timeout", "failed", True, "the server did not answer in time",
        "`dataprep retry --reason timeout`, perhaps with a longer --timeout",
    )  # fmt: skip
    DNS = (
        "dns", "failed", True, "the host's name is not known",
        "`dataprep retry --reason dns` if the network was at fault",
    )  # fmt: skip
    CONNECTION = ("connection", "failed", True, "no connection, or it broke", "`dataprep retry --reason connection`")
    TLS = (
        "tls", "failed", False, "the encrypted connection failed: an expired certificate, or one of another host",
        "",
    )  # fmt: skip
    REDIRECTS = ("too_many_redirects", "failed", False, "the photo's address leads elsewhere again and again", "")
    SHORT_BODY = (
        "short_body", "failed", True, "the answer ended before its announced length",
        "`dataprep retry --reason short_body`",
    )  # fmt: skip
    TOO_LARGE = (
        "too_large", "dropped", False, "the file has more bytes than the limit",
        "raise --max-bytes for a download",
    )  # fmt: skip
    OPTED_OUT = (
        "opted_out", "dropped", False, "the server says X-Robots-Tag: noai or noimageai",
        "respect it; --ignore-opt-out overrules it",
    )  # fmt: skip
    HOST_DOWN = (
        "host_down", "failed", True, "the host gave no answer to several URLs, so its others were not asked",
        "`dataprep retry --reason host_down,timeout`",
    )  # fmt: skip
    ROBOTS = (
        "robots_txt", "dropped", False, "the host's robots.txt forbids the URL",
        "respect it; leaving out --robots overrules it",
    )  # fmt: skip
    ROBOTS_DOWN = (
        "robots_txt_unreachable", "failed", True, "the host's robots.txt could not be read, so nothing may be asked",
        "`dataprep retry --reason robots_txt_unreachable`",
    )  # fmt: skip
    # the content is not a usable photo
    EMPTY = ("empty", "dropped", False, "the file has no bytes, or only zeros and blanks", "")
    HTML = ("html", "dropped", False, "a web page instead of a photo, such as an error page or a login form", "")
    NOT_AN_IMAGE = ("not_an_image", "dropped", False, "the content is no image of a known format", "")
    WRONG_TYPE = (
        "wrong_type", "dropped", False, "the content is of a format that is not accepted",
        "convert the file, or leave out `--other-formats drop`",
    )  # fmt: skip
    SVG = ("svg", "dropped", False, "a vector drawing", "")
    PLACEHOLDER = (
        "placeholder", "dropped", False,
        "the host sends the same picture for several people's photos, such as `image not available`",
        "--placeholders 0 keeps such pictures",
    )  # fmt: skip
    HASH_MISMATCH = (
        "hash_mismatch", "dropped", False, "the photo's bytes are not those that the list was made from",
        "",
    )  # fmt: skip
    ANIMATED = ("animated", "dropped", False, "an animation of several frames", "")
    TRUNCATED = ("truncated", "dropped", False, "the file is cut off", "fetch it again")
    CORRUPT = ("corrupt", "dropped", False, "the file cannot be decoded", "fetch it again")
    TOO_SLOW = (
        "too_slow",
        "dropped",
        False,
        "the file is made so that decoding it takes minutes, or takes too long",
        "",
    )
    TOO_SMALL = (
        "too_small", "dropped", False, "the photo's shorter side is below the limit",
        "lower --min-side of validate",
    )  # fmt: skip
    BOMB = (
        "too_many_pixels", "dropped", False, "the photo has more pixels than the limit",
        "raise --max-pixels of validate",
    )  # fmt: skip
    # files on disk
    IO_ERROR = (
        "io_error", "failed", True, "the file cannot be read",
        "make the file readable, then `dataprep retry --reason io_error`",
    )  # fmt: skip
    PHOTO_CHANGED = (
        "photo_changed", "failed", True, "the file changed while the build ran",
        "`dataprep retry --reason photo_changed`",
    )  # fmt: skip
    # boxes and faces
    BAD_BOX = (
        "bad_box", "dropped", False, "the published box has no area, or the source has none where one is needed",
        "correct the list; --box-format ltwh reads widths and heights",
    )  # fmt: skip
    BOX_OUTSIDE = (
        "box_outside", "dropped", False, "the published box lies outside the photo",
        "check the box's order and the photo's size in the list",
    )  # fmt: skip
    BOX_MISFIT = (
        "box_misfit", "dropped", False,
        "the published box makes no sense for the photo that came: it was measured on a photo of another size or shape",
        "name the list's columns with the size of the published photo: --size-columns WIDTH,HEIGHT",
    )  # fmt: skip
    NO_FACE = (
        "no_face", "dropped", False, "no face was found, or none that overlaps the published box",
        "lower --min-face or the thresholds of align; `dataprep look --reason no_face` shows the photos",
    )  # fmt: skip
    BAD_LANDMARKS = (
        "bad_landmarks", "dropped", False, "the published landmarks are not five points in the photo",
        "`dataprep align --landmarks detect` detects them",
    )  # fmt: skip
    UPSCALED = (
        "upscaled", "dropped", False, "the face would be enlarged by more than --max-scale",
        "raise --max-scale",
    )  # fmt: skip
    SIZE_MISMATCH = (
        "size_mismatch", "dropped", False, "the aligned face has another size than the output",
        "`dataprep align --size keep` takes aligned faces of any size as they are",
    )  # fmt: skip
    # quality filters
    LOW_CONFIDENCE = (
        "low_confidence", "dropped", False, "the detector's score is below --min-prob",
        "lower --min-prob",
    )  # fmt: skip
    FACE_TOO_SMALL = ("face_too_small", "dropped", False, "the face's box is below --min-size", "lower --min-size")
    FACE_OUT_OF_FRAME = (
        "face_out_of_frame", "dropped", False, "more of the face lies outside the photo than --max-outside",
        "raise --max-outside",
    )  # fmt: skip
    YAW_TOO_LARGE = ("yaw_too_large", "dropped", False, "the face is turned by more than --max-yaw", "raise --max-yaw")
    ROLL_TOO_LARGE = (
        "roll_too_large", "dropped", False, "the face is tilted by more than --max-roll",
        "raise --max-roll",
    )  # fmt: skip
    ALIGNMENT_ERROR = (
        "alignment_error", "dropped", False, "the landmarks are further from the template than --max-residual",
        "raise --max-residual",
    )  # fmt: skip
    BLURRED = ("blurred", "dropped", False, "the face is less sharp than --min-sharpness", "lower --min-sharpness")
    # identities
    TOO_FEW_IMAGES = (
        "too_few_images", "dropped", False, "the person has fewer faces than --min-images",
        "lower --min-images",
    )  # fmt: skip
    EXCLUDED = (
        "excluded", "dropped", False, "the person or photo is excluded",
        "`dataprep exclude --list` shows what is, `--undo` takes it back",
    )  # fmt: skip
    DUPLICATE = (
        "duplicate", "dropped", False, "the person has the same face in a photo of equal bytes",
        "leave out --duplicates",
    )  # fmt: skip
    IDENTITY_CONFLICT = (
        "identity_conflict", "dropped", False, "the same face in the same photo is filed under several people",
        "leave out --duplicates",
    )  # fmt: skip
    # internal errors
    INTERNAL_ERROR = (
        "internal_error", "failed", True, "a fault in dataprep; the detail has the exception",
        "report it, with the line that `dataprep samples` prints",
    )  # fmt: skip
    WORKER_DIED = (
        "worker_died", "failed", True, "the photo killed the process that looked at it three times",
        "remove the photo, or retry with fewer --jobs",
    )  # fmt: skip

    def __init__(self, code: str, verdict: Verdict, transient: bool, meaning: str, remedy: str) -> None:
        self.code = code
        self.verdict: Verdict = verdict
        self.transient = transient
        self.meaning, self.remedy = meaning, remedy

    @classmethod
    def from_code(cls, code: str) -> Reason:
        """The member with this `code`. Raises UsageError, which lists the codes, if there is none."""
        for reason in cls:
            if reason.code == code:
                return reason
        known = ", ".join(reason.code for reason in cls)
        raise ValueError(f"unknown reason {code!r}; the reasons are: {known}")
