"""A summary of a pack, without decoding its images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dataprep.packs.io import open_pack, pack_files
from dataprep.packs.rec_reader import RecordPack


def describe_pack(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Format, layout, counts, sizes, images per identity, and the origin recorded in pack.json."""
    pack = open_pack(source)
    labels = pack.labels()
    per_identity = np.unique(labels, return_counts=True)[1] if len(labels) else np.zeros(1, np.int64)
    manifest = pack.metadata()
    facts: dict[str, Any] = {
        "path": str(pack.path),
        "layout": pack.layout,
        "images": len(pack),
        "identities": len(np.unique(labels)),
        "size": f"{pack.width}x{pack.height}" if pack.height else "unknown (no property file)",
        "images per identity": {
            "min": int(per_identity.min()),
            "median": float(np.median(per_identity)),
            "max": int(per_identity.max()),
        },
        "bytes": sum(path.stat().st_size for path in pack_files(pack)),
    }
    if isinstance(pack, RecordPack):
        first = pack.record(0) if len(pack) else None
        facts["files"] = [reader.path.name for reader in pack.records.readers]
        facts["records"] = len(pack.index.keys)
        facts["labels"] = "none" if first is None else "in the header" if first.flag == 0 else f"{first.flag} after it"
    for key in ("made_by", "licence", "converted_from", "repaired_from"):
        if manifest.get(key):
            facts[key.replace("_", " ")] = manifest[key]
    return facts
