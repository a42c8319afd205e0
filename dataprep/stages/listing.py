"""lst (dir2lst): which aligned faces go into the pack, with labels that count up from 0 without gaps."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataprep.errors import Reason, SourceError
from dataprep.params import StageParams, param
from dataprep.samples import Row
from dataprep.stages.base import MergeContext, Merged, MergeStage, Part
from dataprep.storage import folded, plain


@dataclass(frozen=True, kw_only=True)
class ListingParams(StageParams):
    """Which identities are listed, and which are kept for verification."""

    min_images: int = param(2, "drop identities with fewer aligned images", minimum=1)
    holdout: float = param(
        0.0, "share of the identities to keep out of training, as a verification set", minimum=0.0, maximum=0.9
    )
    seed: int = param(0, "which identities are held out")
    exclude: str = param("", "a file with identities to leave out, one per line")

    def excluded(self) -> frozenset[str]:
        if not self.exclude:
            return frozenset()
        try:
            lines = Path(self.exclude).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"--exclude {self.exclude}: {error}") from None
        return frozenset(plain(line.strip()) for line in lines if line.strip() and not line.startswith("#"))


class Listing(MergeStage[ListingParams]):
    name = "lst"
    version = 1
    needs = "align"
    # label is -1 for held-out identities; the face lies at `offset` of shard `source`'s aligned tar
    columns = {"label": "int64", "split": "string", "source": "string", "face_offset": "int64", "face_size": "int64"}
    Params = ListingParams

    def resources(self) -> dict[str, str]:
        excluded = sorted(self.params.excluded())
        return {"exclude": hashlib.sha256("\n".join(excluded).encode()).hexdigest()} if excluded else {}

    def merge(self, parts: Sequence[Part], context: MergeContext) -> Merged:
        images = Counter(row["identity"] for part in parts for row in part.rows)
        excluded = _numbered_too(self.params.excluded(), images)
        kept = sorted(name for name, n in images.items() if n >= self.params.min_images and name not in excluded)
        held_out = held_out_identities(kept, self.params.holdout, self.params.seed)
        labels = {name: label for label, name in enumerate(n for n in kept if n not in held_out)}
        rows = []
        for part in parts:
            for row in part.rows:
                identity = row["identity"]
                values = {
                    "label": labels.get(identity, -1),
                    "split": "holdout" if identity in held_out else "train",
                    "source": part.shard,
                    "face_offset": row["offset"],
                    "face_size": row["size"],
                }
                lost, detail = None, ""
                if identity in excluded:
                    lost = Reason.EXCLUDED
                elif images[identity] < self.params.min_images:
                    lost, detail = Reason.TOO_FEW_IMAGES, f"{images[identity]} of {identity}"
                rows.append(
                    Row(key=row["key"], identity=identity, reason=lost, detail=detail, values={} if lost else values)
                )
        rows.sort(key=lambda row: (row.identity, row.key))
        context.tick(len(rows))
        return Merged(rows=rows, extra={"identities": len(labels), "held_out": len(held_out)})


def _numbered_too(excluded: frozenset[str], names: Iterable[str]) -> frozenset[str]:
    """Also the names that the plan numbered: who asks for `anna` to be left out may be meant by `anna~2`."""
    forms = {folded(name) for name in excluded}
    return excluded | {name for name in names if "~" in name and folded(name.rpartition("~")[0]) in forms}


def held_out_identities(names: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """The share of the names with the smallest seeded hashes: a name's fate hardly depends on who else is there."""
    wanted = round(len(names) * share)
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    return frozenset(ranked[:wanted])
