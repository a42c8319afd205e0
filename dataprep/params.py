"""Parameters of stages: frozen dataclasses that mark which of their fields change the output.

A field made with `param()` is part of the stage's fingerprint. A field made with `runtime()` is not: it controls how
the work is done (time-outs, paths), not the output. Both have the help text that the command line shows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args, get_type_hints

from dataprep.errors import UsageError


def counted_field(default: Any, help: str, **extra: Any) -> Any:
    """A field of the fingerprint. `choices=(...)`, `minimum=` and `maximum=` are checked on construction."""
    return _field(default, help, counts=True, **extra)


def runtime_field(default: Any, help: str, **extra: Any) -> Any:
    """A field that does not change the output and is not part of the fingerprint."""
    return _field(default, help, counts=False, **extra)


def _field(default: Any, help: str, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True, kw_only=True)
class StageParams:
    """Base class of stage parameters. Subclasses are frozen, keyword-only dataclasses of plain values."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _check(f.name, getattr(self, f.name), f.metadata)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Parameters from a recipe's mapping. Names may have dashes or underscores; unknown names raise UsageError."""
        hints = get_type_hints(cls)
        names = {f.name: f for f in dataclasses.fields(cls)}
        chosen = {}
        for given, value in values.items():
            name = given.replace("-", "_")
            if name not in names:
                known = ", ".join(sorted(n.replace("_", "-") for n in names))
                raise UsageError(f"unknown option {given!r}; the options are: {known}")
            chosen[name] = _coerce(name, value, hints[name])
        return cls(**chosen)

    def counted(self) -> dict[str, Any]:
        """The fields of the fingerprint, JSON-serialisable."""
        return {
            f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.metadata.get("counts", True)
        }

    def as_dict(self) -> dict[str, Any]:
        """All fields, JSON-serialisable and accepted by `from_mapping`."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON (sorted keys, no spaces, no NaN), in hex."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _coerce(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(hint, types.UnionType):  # X | None
        if value is None:
            return None
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # YAML reads `size: 112` as a number
    simple = {int: int, float: float, str: str, bool: bool}
    if hint in simple and type(value) is not hint:
        raise UsageError(f"{name}: expected {hint.__name__}, got {value!r}")
    return value


def _check(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    option = name.replace("_", "-")
    choices = metadata.get("choices")
    if choices is not None and value not in choices:
        raise UsageError(f"{option}: {value!r} is not one of {', '.join(map(str, choices))}")
    low, high = metadata.get("minimum"), metadata.get("maximum")
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{option}: {value!r} is not a finite number")
    if low is not None and not value >= low:
        raise UsageError(f"{option}: {value!r} is below {low}")
    if high is not None and not value <= high:
        raise UsageError(f"{option}: {value!r} is above {high}")
