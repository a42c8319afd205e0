"""Are dataprep's aligned faces as good as those of facenet-pytorch's detections with a plain similarity warp?

A fixed recogniser (MobileFaceNet, 99.4 % on LFW) scores balanced pairs of the real photos in ../shared/data/lfw: every
positive pair and as many negatives, ten folds by identity, flip fusion, several seeds of negatives. The photos go
through the command line twice, as a folder and as a VGG-Face-style list served over HTTP on loopback with boxes.
The control is the face's box cropped without alignment.

    python tests/benchmarks/fidelity.py --facenet .venv-facenet/bin/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from aiohttp import web  # noqa: E402
from webserver import serving  # noqa: E402

from dataprep.evaluate.embed import OnnxEmbedder  # noqa: E402
from dataprep.evaluate.verification import ACCURACY_THRESHOLDS, distances, fold_accuracy  # noqa: E402
from dataprep.imaging.faces import Faces, choose  # noqa: E402
from dataprep.imaging.geometry import similarity, template, warp  # noqa: E402
from dataprep.imaging.photo import decode, encode_jpeg  # noqa: E402
from dataprep.records.pairs import make_pairs  # noqa: E402

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
ALLOWED = 0.0005  # dataprep may be at most 0.05 points below
DETECT = """
import json, sys
import numpy as np, torch
from facenet_pytorch import MTCNN
from PIL import Image
torch.set_num_threads(2)
mtcnn = MTCNN(keep_all=True, select_largest=False)
for path in sys.stdin.read().split("\\n"):
    found = mtcnn.detect(Image.open(path).convert("RGB"), landmarks=True)
    print(json.dumps([[] if part is None else np.asarray(part, float).tolist() for part in found]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facenet", required=True, help="a Python in which facenet_pytorch imports")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    if not SHARED.is_dir():
        print(f"the real photos are not there ({SHARED}): nothing compared")
        return
    photos = sorted((SHARED / "lfw").glob("*/*.jpg"))
    names = [f"{path.parent.name}/{path.stem}" for path in photos]
    oracle, control = facenets_faces(options.facenet, photos)
    with tempfile.TemporaryDirectory() as scratch:
        sets: dict[str, Mapping[str, np.ndarray]] = {
            "facenet-pytorch + similarity warp": dict(zip(names, oracle, strict=True)),
            "facenet-pytorch, box crop, not aligned": dict(zip(names, control, strict=True)),
            "dataprep, folder": from_folder(Path(scratch) / "folder", names),
            "dataprep, list over HTTP": from_list(Path(scratch) / "list", photos, names),
        }
    people: dict[str, list[str]] = {}
    for name in names:
        people.setdefault(name.partition("/")[0], []).append(name)
    means = {}
    for title, faces in sets.items():
        scores = score(faces, people, options.seeds)
        means[title] = float(np.mean(scores))
        print(f"{title:<40} {np.mean(scores):.4%}  (seeds: {' '.join(f'{s:.2%}' for s in scores)})", flush=True)
    best = means["facenet-pytorch + similarity warp"]
    for title in ("dataprep, folder", "dataprep, list over HTTP"):
        assert means[title] >= best - ALLOWED, f"{title} is {best - means[title]:.4%} below facenet-pytorch's faces"
    assert means["facenet-pytorch, box crop, not aligned"] < best - 0.005, "the control should be visibly worse"
    print("dataprep's faces are as good as facenet-pytorch's; the unaligned crop is visibly worse")


def facenets_faces(python: str, photos: list[Path]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Aligned faces and box crops from the real facenet-pytorch's detections, JPEG-encoded like ours and decoded."""
    done = subprocess.run(
        [python, "-c", DETECT], input="\n".join(map(str, photos)), capture_output=True, text=True, check=True
    )
    aligned, cropped = [], []
    for path, line in zip(photos, done.stdout.splitlines(), strict=True):
        boxes, probabilities, landmarks = json.loads(line)
        faces = Faces(
            boxes=np.array(boxes, np.float32),
            probabilities=np.array(probabilities, np.float32),
            landmarks=np.array(landmarks, np.float32),
        )
        pixels, header = decode(path.read_bytes())
        chosen = choose(faces, "area-centre", width=header.width, height=header.height)
        assert chosen is not None, f"facenet-pytorch finds no face in {path}"
        aligned.append(reencoded(warp(pixels, similarity(faces.landmarks[chosen], template(112, 112)), 112, 112)))
        left, top, right, bottom = (max(0, round(float(edge))) for edge in faces.boxes[chosen])
        cropped.append(reencoded(np.asarray(cv2.resize(pixels[top:bottom, left:right], (112, 112)), np.uint8)))
    return aligned, cropped


def reencoded(face: np.ndarray) -> np.ndarray:
    return decode(encode_jpeg(face))[0]


def dataprep(workspace: Path, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dataprep", "-w", str(workspace), *map(str, arguments)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    print(f"$ dataprep {' '.join(map(str, arguments[:3]))} ...\n{done.stdout.rstrip()}", flush=True)


def exported(workspace: Path, names: list[str]) -> dict[str, np.ndarray]:
    dataprep(workspace, "export", "--to", "folder", workspace / "faces")
    found = {str(p.relative_to(workspace / "faces").with_suffix("")): p for p in (workspace / "faces").glob("*/*.jpg")}
    missed = [name for name in names if name not in found]
    assert not missed, f"no face in {missed}"
    return {name: decode(found[name].read_bytes())[0] for name in names}


def from_folder(workspace: Path, names: list[str]) -> dict[str, np.ndarray]:
    dataprep(workspace, "import", "folder", SHARED / "lfw")
    dataprep(workspace, "align", "--size", "112")
    return exported(workspace, names)


def from_list(workspace: Path, photos: list[Path], names: list[str]) -> dict[str, np.ndarray]:
    """The same photos behind URLs; the published box is where LFW's funnelled faces are."""
    by_path = {f"/{name}.jpg": path for name, path in zip(names, photos, strict=True)}

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=by_path[request.path].read_bytes())

    lists = workspace / "lists" / "files"
    lists.mkdir(parents=True)
    with serving(answer) as base:
        for person in sorted({path.parent.name for path in photos}):
            lines = [
                f"{name.partition('/')[2]} {base}/{name}.jpg 75.00 70.00 175.00 185.00 3.00 2.31 1\n"
                for name in names
                if name.startswith(f"{person}/")
            ]
            (lists / f"{person}.txt").write_text("".join(lines))
        dataprep(workspace, "download", "vggface", "--lists", lists.parent, "--allow-private", "--per-host", 64)
    dataprep(workspace, "align", "--size", "112")
    return exported(workspace, names)


def score(faces: Mapping[str, np.ndarray], people: Mapping[str, list[str]], seeds: int) -> list[float]:
    embedder = OnnxEmbedder(SHARED / "weights/mobilefacenet_foamliu.onnx", **IMAGENET)
    stack = np.stack(list(faces.values()))
    embedded = embedder(stack) + embedder(np.ascontiguousarray(stack[:, :, ::-1]))
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    place = {name: i for i, name in enumerate(faces)}
    scores = []
    for seed in range(seeds):
        pairs = make_pairs(people, seed=seed)
        left, right = (embedded[[place[name] for name in side]] for side in (pairs.left, pairs.right))
        accuracy, _ = fold_accuracy(distances(left, right), pairs.same, pairs.fold, ACCURACY_THRESHOLDS)
        scores.append(float(accuracy.mean()))
    return scores


if __name__ == "__main__":
    main()
