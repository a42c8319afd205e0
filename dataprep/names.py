"""Names of people and files: which are safe on every file system, and which are equal to one."""

from __future__ import annotations

import functools
import re
import unicodedata

# control characters, characters reserved by file systems or shells, surrogates, and invisible or direction-changing
# characters (zero-width, bidirectional and other default-ignorable); U+FFFD replaces bytes that were not UTF-8
_UNSAFE = re.compile(
    r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5'
    r"\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff"
    r"\ud800-\udfff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff]"
)


_INVISIBLE = re.compile(_UNSAFE.pattern.replace(r'/\\:*?"<>|', ""))

_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com\d|lpt\d) *(\..*)?", re.IGNORECASE)


_LONGEST = 180  # bytes of UTF-8; file systems allow 255, and suffixes are appended


@functools.lru_cache(maxsize=1 << 14)  # lists of millions of photos repeat the same names
def is_safe(name: str) -> bool:
    """Whether a name from a list is safe as the name of a file or folder: a single path component.

    It must be in NFC, and also safe in NFKC, to which some systems convert names: U+FF0F becomes `/` there.
    """
    if not _is_plain(name):
        return False
    return name.isascii() or (unicodedata.is_normalized("NFC", name) and _is_plain(unicodedata.normalize("NFKC", name)))


def plain_name(name: str) -> str:
    """The name in NFC, without trailing dots and spaces, which Windows drops: Robert_Downey_Jr. -> Robert_Downey_Jr."""
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).rstrip(". ")


def casefold_name(name: str) -> str:
    """A key that is equal for names that collide on file systems that ignore case or Unicode normalisation."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def printable(text: str) -> str:
    """Text of others for a terminal, a list or a page: control, invisible and direction-changing characters are escaped, so
    that it can neither steer a terminal nor look like something else."""
    return text if text.isascii() and text.isprintable() else _INVISIBLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    """As in Python, and beyond ASCII as in JSON too."""
    text = ascii(found[0])[1:-1]
    return f"\\u00{text[2:]}" if text.startswith(("\\x8", "\\x9", "\\xa")) else text


def _is_plain(name: str) -> bool:
    return bool(
        name
        and name[0] not in "-~. "
        and name[-1] not in ". "
        and not _UNSAFE.search(name)
        and not _RESERVED.fullmatch(name)
        and len(name.encode()) <= _LONGEST
    )
