"""Options of a run from a YAML file; what the command line says comes first."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

import yaml

from dataprep.errors import UsageError


def read_config(path: Path, names: Collection[str], *, several: Collection[str] = ()) -> dict[str, str | list[str]]:
    """The mapping of option names (with underscores for dashes) to words as they would be typed. A list stays one for
    the options in `several`, else it is joined with commas. Raises UsageError; near names are listed."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        words = " ".join(str(error).split())[:200]
        raise UsageError(f"--config {path}: not YAML ({words})") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"--config {path}: expected a mapping such as `network: r50`, found {type(found).__name__}")
    chosen: dict[str, str | list[str]] = {}
    for given, value in found.items():
        name = str(given).replace("-", "_")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            known = ", ".join(other.replace("_", "-") for other in near) or "see `dataprep train --help`"
            raise UsageError(f"--config {path}: there is no option {given!r}; near it: {known}")
        if name in chosen:
            raise UsageError(f"--config {path}: {given!r} stands there twice")
        if isinstance(value, dict) or value is None:
            raise UsageError(f"--config {path}: {given!r} takes a plain value, not {value!r}")
        typed = [str(each) for each in (value if isinstance(value, list) else [value])]
        chosen[name] = typed if name in several else ",".join(typed)
    return chosen
