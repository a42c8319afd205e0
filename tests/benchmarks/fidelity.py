"""Are dataprep's aligned faces as good as those of facenet-pytorch's detections with a plain similarity warp?

A fixed recogniser (MobileFaceNet, 99.4 % on LFW) scores balanced pairs of the real photos in ../shared/data/lfw: every
positive pair and as many negatives, ten folds by identity, flip fusion, ten seeds of negatives, the same pairs for all.
The photos go through the command line as a folder, with both backends, looking for the meant face and for all, and as a
VGG-Face-style list served over HTTP on loopback with boxes. The control is the face's box cropped without alignment.

The folds' thresholds make the figure jumpy: facenet-pytorch's own one changes by up to 0.08 points if its landmarks are
moved by a thousandth of a pixel, which no eye and no trainer can tell. So the peer's level is the mean of its faces as
they are and of some draws with its landmarks so moved; each is printed. Fails if a mean is more than 0.05 points below
that level, or a photo's face is missed.

    python tests/benchmarks/fidelity.py --facenet .venv-facenet/bin/python
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from aiohttp import web  # noqa: E402
from helpers.webserver import serving  # noqa: E402
from peers import facenet_faces  # noqa: E402

from dataprep.detection.base import Detections, choose_face  # noqa: E402
from dataprep.embeddings.embedder import OnnxEmbedder  # noqa: E402
from dataprep.evaluate.verification.kfold import ACCURACY_THRESHOLDS, fold_accuracy, squared_distances  # noqa: E402
from dataprep.imaging.codec import decode_image, encode_jpeg  # noqa: E402
from dataprep.imaging.geometry import estimate_similarity, scale_template, warp_image  # noqa: E402
from dataprep.packs.pair_sampling import make_pairs  # noqa: E402

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
ALLOWED = 0.05  # points that dataprep may be below
MOVED = 0.001  # pixels, standard deviation
PEER, CONTROL = "facenet-pytorch + similarity warp", "facenet-pytorch, box crop, not aligned"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facenet", required=True, help="a Python in which facenet_pytorch imports")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--draws", type=int, default=5, help="of the peer with moved landmarks")
    parser.add_argument("--backends", default="c,torch", help="of the detector: %(default)s")
    options = parser.parse_args()
    if not SHARED.is_dir():
        print(f"the real photos are not there ({SHARED}): nothing compared")
        return
    photos = sorted((SHARED / "lfw").glob("*/*.jpg"))
    names = [f"{path.parent.name}/{path.stem}" for path in photos]
    found = facenet_faces(options.facenet, photos)
    with tempfile.TemporaryDirectory() as scratch:
        sets: dict[str, Mapping[str, np.ndarray]] = {PEER: dict(zip(names, aligned(photos, found), strict=True))}
        for draw in range(options.draws):
            moved = aligned(photos, found, generator=np.random.default_rng(draw))
            sets[f"{PEER}, moved, draw {draw}"] = dict(zip(names, moved, strict=True))
        sets[CONTROL] = dict(zip(names, cropped(photos, found), strict=True))
        for backend in options.backends.split(","):
            for faces in ("target", "all"):
                workspace = Path(scratch) / f"{backend}-{faces}"
                sets[f"dataprep, folder, {backend}, {faces}"] = from_folder(workspace, backend, faces)
        sets["dataprep, list over HTTP"] = from_list(Path(scratch) / "list", photos, names)
    failures = compare(sets, names, options.seeds)
    if failures:
        sys.exit("; ".join(failures))
    print("dataprep's faces are as good as facenet-pytorch's; the unaligned crop is visibly worse")


def compare(sets: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str], seeds: int) -> list[str]:
    """Score the sets, print the figures, and say what is not as it should be."""
    failures = []
    levels: list[float] = []
    for title, faces in sets.items():
        missed = [name for name in names if name not in faces]
        if missed:
            failures.append(f"{title}: no face in {', '.join(missed)}")
            continue
        scores = score(faces, names, seeds)
        mean = float(np.mean(scores))
        if title.startswith(PEER):
            levels.append(mean)
        points, first = 100 * (mean - np.mean(levels)), 100 * (mean - levels[0])
        print(
            f"{title:<51} {mean:.4%}  {first:+.4f} points to the peer as it is, {points:+.4f} to its level  "
            f"(seeds: {' '.join(f'{s:.2%}' for s in scores)})",
            flush=True,
        )
        if title == CONTROL and points > -0.5:
            failures.append("the control should be visibly worse")
        if title.startswith("dataprep") and points < -ALLOWED:
            failures.append(f"{title} is {-points:.4f} points below facenet-pytorch's faces")
    return failures


def aligned(
    photos: Sequence[Path], found: Sequence[Detections], *, generator: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Faces by facenet-pytorch's landmarks, moved at random if asked, JPEG-encoded like ours and decoded."""
    made = []
    for path, faces in zip(photos, found, strict=True):
        pixels, chosen = chosen_face(path, faces)
        landmarks = faces.landmarks[chosen]
        if generator:
            landmarks = (landmarks + generator.normal(0, MOVED, landmarks.shape)).astype(np.float32)
        made.append(reencoded(warp_image(pixels, estimate_similarity(landmarks, scale_template(112, 112)), 112, 112)))
    return made


def cropped(photos: Sequence[Path], found: Sequence[Detections]) -> list[np.ndarray]:
    """The same faces' boxes, not aligned."""
    made = []
    for path, faces in zip(photos, found, strict=True):
        pixels, chosen = chosen_face(path, faces)
        left, top, right, bottom = (max(0, round(float(edge))) for edge in faces.boxes[chosen])
        made.append(reencoded(np.asarray(cv2.resize(pixels[top:bottom, left:right], (112, 112)), np.uint8)))
    return made


def chosen_face(path: Path, faces: Detections) -> tuple[np.ndarray, int]:
    """A photo's pixels, and which of its faces is meant."""
    pixels, header = decode_image(path.read_bytes())
    chosen = choose_face(faces, "area-centre", width=header.width, height=header.height)
    assert chosen is not None, f"facenet-pytorch finds no face in {path}"
    return pixels, chosen


def reencoded(face: np.ndarray) -> np.ndarray:
    return decode_image(encode_jpeg(face))[0]


def dataprep(workspace: Path, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dataprep", "-w", str(workspace), *map(str, arguments)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    print(f"$ dataprep {' '.join(map(str, arguments[:7]))} ...\n{done.stdout.rstrip()}", flush=True)


def exported(workspace: Path) -> dict[str, np.ndarray]:
    dataprep(workspace, "export", "--format", "folder", workspace / "faces")
    found = {str(p.relative_to(workspace / "faces").with_suffix("")): p for p in (workspace / "faces").glob("*/*.jpg")}
    return {name: decode_image(path.read_bytes())[0] for name, path in found.items()}


def from_folder(workspace: Path, backend: str, faces: str) -> dict[str, np.ndarray]:
    dataprep(workspace, "import", "folder", SHARED / "lfw")
    dataprep(workspace, "align", "--size", "112", "--backend", backend, "--faces", faces)
    return exported(workspace)


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
    return exported(workspace)


def score(faces: Mapping[str, np.ndarray], names: Sequence[str], seeds: int) -> list[float]:
    """The mean accuracy of the ten folds, for each seed."""
    people: dict[str, list[str]] = {}
    for name in names:
        people.setdefault(name.partition("/")[0], []).append(name)
    embedded = np.stack([_embedded(face.tobytes()) for face in faces.values()])
    place = {name: i for i, name in enumerate(faces)}
    scores = []
    for seed in range(seeds):
        pairs = make_pairs(people, seed=seed)
        left, right = (embedded[[place[name] for name in side]] for side in (pairs.left, pairs.right))
        accuracy, _ = fold_accuracy(squared_distances(left, right), pairs.issame, pairs.fold, ACCURACY_THRESHOLDS)
        scores.append(float(accuracy.mean()))
    return scores


@functools.cache
def _embedder() -> OnnxEmbedder:
    return OnnxEmbedder(SHARED / "weights/mobilefacenet_foamliu.onnx", **IMAGENET)


@functools.cache  # most faces are the same to the bit in several sets
def _embedded(face: bytes) -> np.ndarray:
    pixels = np.frombuffer(face, np.uint8).reshape(1, 112, 112, 3)
    found = _embedder()(pixels) + _embedder()(np.ascontiguousarray(pixels[:, :, ::-1]))
    return np.asarray((found / np.linalg.norm(found, axis=1, keepdims=True))[0])


if __name__ == "__main__":
    main()
