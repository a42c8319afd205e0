"""Counts in words."""

from __future__ import annotations

_PLURALS = {"person": "people", "identity": "identities"}


def counted(count: int, noun: str) -> str:
    """`1 photo`, `2 photos`, `3 people`."""
    return f"{count} {noun}" if count == 1 else f"{count} {_PLURALS.get(noun, noun + 's')}"
