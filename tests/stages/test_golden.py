"""What each stage made of a few drawn photos when its version was set: output that changes must come with a new version.

After a change that is meant, bump the stage's `version` and write the facts anew:
    python tests/stages/test_golden.py
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FACTS = Path(__file__).with_name("golden.json")


def observe(folder: Path) -> dict[str, Any]:
    """Versions of the stages, and what their ledgers (and the aligned faces, coarsely) hold."""
    from dataprep.imaging.codec import decode_image, encode_png
    from dataprep.pipeline.pipeline import Pipeline
    from dataprep.pipeline.runner import run_pipeline
    from dataprep.synth.photos import draw_photo
    from dataprep.types import Sample
    from dataprep.workspace.workspace import Workspace

    samples = []
    for number in range(4):
        drawn = draw_photo(number // 2, number % 2, seed=11)
        path = folder / f"{number}.png"
        path.write_bytes(encode_png(drawn.pixels))
        samples.append(
            Sample(key=f"p{number // 2}/{number}", identity=f"p{number // 2}", path=str(path), box=drawn.box)
        )
    workspace = Workspace(folder / "ws", create=True)
    workspace.plan().add({"kind": "golden"}, "golden", samples)
    chain = Pipeline(workspace, {}, until="pack")
    run_pipeline(chain, jobs=0)
    seen: dict[str, Any] = {}
    for link in chain.nodes[1:]:
        rows = [row for marker in link.store.markers().values() for row in link.store.rows(marker)]
        kept = [
            {k: row[k] for k in ("key", "verdict", *link.stage.counted_columns()) if k != "photo_sha256"}
            for row in rows
        ]
        seen[link.name] = {"version": link.stage.version, "rows": kept}
        if link.name == "align":
            for row, out in zip(rows, kept, strict=True):
                (marker,) = link.store.markers().values()
                face = decode_image(link.store.payloads(marker).read(row["offset"], row["size"]))[0]
                out["thumbnail"] = face.reshape(8, 14, 8, 14, 3).mean(axis=(1, 3, 4)).ravel().tolist()
    return seen


def differences(known: Any, found: Any, path: str = "") -> list[str]:
    """Where two observations differ by more than other versions of the libraries may explain."""
    if isinstance(known, dict) and isinstance(found, dict) and known.keys() == found.keys():
        return [d for key in known for d in differences(known[key], found[key], f"{path}/{key}")]
    if isinstance(known, list) and isinstance(found, list) and len(known) == len(found):
        return [d for i, pair in enumerate(zip(known, found, strict=True)) for d in differences(*pair, f"{path}/{i}")]
    if isinstance(known, float) and isinstance(found, float):
        allowed = 2.0 if "thumbnail" in path else 0.02 * known if "sharpness" in path else 0.05
        return [] if abs(known - found) <= allowed else [f"{path}: {known} -> {found}"]
    exempt = path.endswith(("bytes", "face_size", "face_offset"))  # PNG and JPEG encoders differ in size
    return [] if known == found or exempt else [f"{path}: {known} -> {found}"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_stage_changed_its_output_under_the_same_version(tmp_path: Path) -> None:
    assert differences(json.loads(FACTS.read_text()), json.loads(json.dumps(observe(tmp_path)))) == []


def test_a_difference_is_seen() -> None:
    known = json.loads(FACTS.read_text())
    changed = json.loads(FACTS.read_text())
    changed["align"]["rows"][0]["scale"] += 0.2
    changed["crop"]["rows"][1]["verdict"] = "dropped"
    changed["align"]["rows"][2]["thumbnail"] = (np.array(changed["align"]["rows"][2]["thumbnail"]) + 5).tolist()
    assert len(differences(known, changed)) == 2 + 8 * 8


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    with tempfile.TemporaryDirectory() as scratch:
        FACTS.write_text(json.dumps(observe(Path(scratch)), indent=0) + "\n")
