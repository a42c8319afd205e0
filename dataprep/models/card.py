"""The model card of an exported model: metadata inside its file, and the same facts as Markdown beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataprep import __version__
from dataprep.models.model_files import FaceModel
from dataprep.models.registry import find_network

METADATA_KEY = "dataprep"  # the metadata key of the facts, as JSON, in an ONNX or safetensors file

UNKNOWN_LICENCE = "not stated"
_TOLD = ("pack_index_sha256", "identities", "images", "steps", "metrics", "source", "weights")


def collect_facts(model: FaceModel, *, licence: str = UNKNOWN_LICENCE) -> dict[str, Any]:
    """Plain values for JSON: what `model_from_dict` needs besides the weights, and the training data. Local paths are
    left out."""
    about = model.about
    pack = Path(str(about["pack"])) if about.get("pack") else None
    names = ", ".join(Path(str(path)).name for path in about.get("packs") or ([pack] if pack else []))
    told = {name: about[name] for name in _TOLD if about.get(name) is not None}
    return {
        "network": model.network,
        "embedding": model.embedding,
        "head": model.head,
        "input": asdict(model.preprocessing),
        "about": {**told, "template": _template(about, pack), **({"pack": names} if names else {})},
        "licence": licence,
        "dataprep": __version__,
    }


def format_card(name: str, facts: Mapping[str, Any]) -> str:
    """The model card of the file `name`, in Markdown."""
    given, about = facts["input"], facts["about"]
    rows = {
        "network": f"{facts['network']} ({find_network(facts['network']).citation})",
        "embedding": f"{facts['embedding']} numbers, compared by cosine similarity",
        "input": f"(n, 3, {given['height']}, {given['width']}) float32",
        "colour order": given["order"],
        "normalisation": f"(value - mean) / std of 0..255; mean {_three(given['mean'])}, std {_three(given['std'])}, "
        f"by channel in {given['order']}",
        "alignment template": about["template"],
        "trained on": _trained(about),
        "weights, or initial weights, from": about.get("source"),
        "metrics": json.dumps(about["metrics"], sort_keys=True) if "metrics" in about else None,
        "licence": facts["licence"],
        "made by": f"dataprep {facts['dataprep']}",
    }
    lines = [
        f"# {name}",
        "",
        "A face recognition model. It maps aligned faces to embeddings.",
        "",
        "| | |",
        "|---|---|",
    ]
    lines += [f"| {what} | {_cell(value)} |" for what, value in rows.items() if value]
    lines += ["", f"The same facts are inside the file, as JSON under the key `{METADATA_KEY}` of its metadata."]
    return "\n".join(lines) + "\n"


def _template(about: Mapping[str, Any], pack: Path | None) -> str:
    """The alignment template recorded by the training, or else read from the pack's pack.json if that still exists."""
    if about.get("template"):
        return str(about["template"])
    try:
        points = json.loads((pack / "pack.json").read_bytes())["template"] if pack else None
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN_LICENCE
    return f"five points at {json.dumps(points)} (x, y) of the face" if points else UNKNOWN_LICENCE


def _trained(about: Mapping[str, Any]) -> str:
    if "images" not in about:
        return UNKNOWN_LICENCE
    return f"{about['images']} images of {about.get('identities', '?')} identities (pack {about.get('pack', '?')})"


def _three(values: Any) -> str:
    return " ".join(f"{value:g}" for value in values)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
