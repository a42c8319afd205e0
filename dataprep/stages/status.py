"""What a status that brings no photo means, and when to come again."""

from __future__ import annotations

import email.utils
import time

from dataprep.errors import Reason

LONGEST_REST = 120.0  # seconds; a host that wants more (Retry-After) is put aside for them


def status_reason(status: int) -> Reason:
    if status in (404, 410):
        return Reason.HTTP_404
    if status == 429:
        return Reason.HTTP_429
    if 500 <= status < 600:
        return Reason.HTTP_5XX
    return Reason.HTTP_4XX if 400 <= status < 500 else Reason.HTTP_OTHER


def retry_after(value: str) -> float:
    """Seconds that a server asks us to wait; 0 if it does not say so in a way we know."""
    if not value:
        return 0.0
    try:
        wanted = float(value)
    except ValueError:
        try:
            wanted = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(wanted, 0.0) if wanted == wanted else 0.0
