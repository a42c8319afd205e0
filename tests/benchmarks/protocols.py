"""The protocols at full size on random features: seconds, peak memory, and how near they come to the matrix product.

python tests/benchmarks/protocols.py                     # all, at the sizes of IJB-C and MegaFace
python tests/benchmarks/protocols.py megaface --distractors 100000 --device cuda

Every protocol runs in a process of its own, so that its memory is its own. The features (2 GB for MegaFace) are written
to a temporary folder first; `--folder` chooses another place and keeps them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataprep.embeddings.files import Features, normalise_rows, read_features
from dataprep.evaluate.identification.ijb import Subjects, TemplateMedia, read_template_media, read_template_pairs
from dataprep.evaluate.identification.megaface import identify_probes
from dataprep.evaluate.identification.one_to_many import search_templates
from dataprep.evaluate.identification.one_to_one import verify_templates
from dataprep.evaluate.identification.templates import Pooling, pool_templates

PROTOCOLS = ("ijb-files", "ijb-1:1", "ijb-1:N", "megaface")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocols", nargs="*", help=f"of {', '.join(PROTOCOLS)}; all if none is named")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--faces", type=int, default=469_375)
    parser.add_argument("--templates", type=int, default=23_124)
    parser.add_argument("--galleries", type=int, default=3531)
    parser.add_argument("--pairs", type=int, default=15_658_489)
    parser.add_argument("--probes", type=int, default=3530)
    parser.add_argument("--distractors", type=int, default=1_000_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", choices=PROTOCOLS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        RUN[given.one](given, given.folder)
        print(f"  peak memory of the process {peak():.2f} GB", flush=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{len(os.sched_getaffinity(0))} cores", flush=True)
        for name in given.protocols or PROTOCOLS:
            MAKE[name](given, folder)
            arguments = [a for a in sys.argv[1:] if a not in given.protocols]
            command = [sys.executable, __file__, *arguments, "--one", name, "--folder", str(folder)]
            subprocess.run(command, check=True)


def make_faces(given: argparse.Namespace, folder: Path) -> None:
    write_random(folder / "faces.npy", given.faces, given.dim)


def make_distractors(given: argparse.Namespace, folder: Path) -> None:
    write_random(folder / "distractors.npy", given.distractors, given.dim)


def make_meta(given: argparse.Namespace, folder: Path) -> None:
    faces, left, right, same = drawn_meta(given)
    with open(folder / "ijbc_face_tid_mid.txt", "w") as one, open(folder / "ijbc_name_5pts_score.txt", "w") as other:
        for i, (template, media) in enumerate(zip(faces.template.tolist(), faces.media.tolist(), strict=True), 1):
            one.write(f"{i}.jpg {template} {media}\n")
            other.write(f"{i}.jpg 46.060 62.026 87.785 60.323 68.851 77.656 52.162 99.875 86.450 98.648 0.999\n")
    with open(folder / "ijbc_template_pair_label.txt", "w") as stream:
        for begin in range(0, len(left), 1_000_000):
            some = slice(begin, begin + 1_000_000)
            lines = zip(left[some].tolist(), right[some].tolist(), same[some].tolist(), strict=True)
            stream.writelines(f"{a} {b} {int(c)}\n" for a, b, c in lines)


def run_files(given: argparse.Namespace, folder: Path) -> None:
    began = time.perf_counter()
    faces = read_template_media(folder / "ijbc_face_tid_mid.txt", folder / "ijbc_name_5pts_score.txt")
    middle = time.perf_counter()
    pairs = read_template_pairs(folder / "ijbc_template_pair_label.txt")
    ended = time.perf_counter()
    print(f"IJB meta files: {len(faces)} faces in {middle - began:.1f} s, {len(pairs)} pairs in {ended - middle:.1f} s")


def run_one_to_one(given: argparse.Namespace, folder: Path) -> None:
    from dataprep.evaluate.identification.ijb import TemplatePairs

    faces, left, right, same = drawn_meta(given)
    features = read_features(folder / "faces.npy")
    began = time.perf_counter()
    templates = pool_templates(features, faces, Pooling())
    middle = time.perf_counter()
    verify_templates(templates, TemplatePairs(left=left, right=right, issame=same))
    ended = time.perf_counter()
    product = float64_seconds(len(np.unique(left)), len(np.unique(right)), given.dim)
    print(
        f"IJB 1:1: {given.faces} faces to {given.templates} templates in {middle - began:.1f} s, "
        f"{given.pairs} pairs in {ended - middle:.1f} s (the float64 product of their templates: {product:.1f} s)"
    )


def run_one_to_many(given: argparse.Namespace, folder: Path) -> None:
    faces, *_ = drawn_meta(given)
    templates = pool_templates(read_features(folder / "faces.npy"), faces, Pooling())
    numbers, half = np.arange(1, given.templates + 1, dtype=np.int32), given.galleries // 2
    subjects = np.where(numbers <= given.galleries, numbers, numbers % given.galleries + 1).astype(np.int32)
    cuts = [slice(0, half), slice(half, given.galleries), slice(given.galleries, None)]
    first, second, probes = (Subjects(name="", template=numbers[cut], subject=subjects[cut]) for cut in cuts)
    began = time.perf_counter()
    search_templates(templates, [first, second], probes)
    spent = time.perf_counter() - began
    product = float64_seconds(len(probes.template), given.galleries, given.dim)
    print(f"IJB 1:N: {len(probes.template)} probes in {given.galleries} gallery templates in {spent:.1f} s "
          f"(the float64 product: {product:.1f} s)")  # fmt: skip


def run_megaface(given: argparse.Namespace, folder: Path) -> None:
    generator = np.random.default_rng(1)
    features = read_features(folder / "distractors.npy")
    people = 80
    centres = generator.standard_normal((people, given.dim))
    drawn = centres[np.arange(given.probes) % people] + 1.5 * generator.standard_normal((given.probes, given.dim))
    probes = normalise_rows(Features(Path("probes"), drawn.astype(np.float32)), np.arange(given.probes)).rows
    identities = [str(i % people) for i in range(given.probes)]
    # the product alone before and after, half of its size each: on a shared machine a peak would be no fair measure
    alone = product_alone(given, given.distractors // 2)
    began = time.perf_counter(), time.process_time()
    found = identify_probes(probes, identities, features, device=given.device)
    spent = time.perf_counter() - began[0], time.process_time() - began[1]
    after = product_alone(given, given.distractors - given.distractors // 2)
    alone = alone[0] + after[0], alone[1] + after[1]
    operations = 2 * given.probes * given.distractors * given.dim / 1e9
    print(
        f"MegaFace: {given.probes} probes, {given.distractors} distractors of {given.dim} on {given.device} in "
        f"{spent[0]:.1f} s, {operations / spent[0]:.0f} GFLOP/s; the float32 product alone {alone[0]:.1f} s, "
        f"{operations / alone[0]:.0f} GFLOP/s: {alone[0] / spent[0]:.2f} of its rate (by CPU seconds, which others on the "
        f"machine do not lengthen: {alone[1]:.1f} / {spent[1]:.1f} = {alone[1] / spent[1]:.2f})"
    )
    print(f"  rank {found.rank}, TAR {found.tar_at_fpr} at FPR")


def drawn_meta(given: argparse.Namespace) -> tuple[TemplateMedia, np.ndarray, np.ndarray, np.ndarray]:
    """Faces in templates of uneven size, medias of one to some faces; pairs of gallery with probe templates."""
    generator = np.random.default_rng(0)
    sizes = generator.geometric(given.templates / given.faces, given.templates).astype(float)
    ends = np.round(np.cumsum(sizes) / sizes.sum() * (given.faces - given.templates)).astype(int)
    counts = np.diff(ends, prepend=0) + 1
    template = np.repeat(np.arange(1, given.templates + 1), counts).astype(np.int32)
    media = np.cumsum(generator.random(len(template)) < 0.4).astype(np.int32)
    score = generator.uniform(0.5, 1, len(template)).astype(np.float32)
    others = given.templates - given.galleries
    # in no order: a list that is sorted already would hide what it costs to bring the pairs into one
    chosen = generator.permutation(
        generator.choice(given.galleries * others, given.pairs, replace=False, shuffle=False)
    )
    left = (chosen // others + 1).astype(np.int32)
    right = (chosen % others + given.galleries + 1).astype(np.int32)
    same = generator.random(given.pairs) < 0.00125
    return TemplateMedia(template=template, media=media, score=score), left, right, same


def write_random(path: Path, rows: int, dim: int) -> None:
    """Normal features, a block at a time."""
    if path.exists() and np.load(path, mmap_mode="r").shape == (rows, dim):
        return
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    generator = np.random.default_rng(2)
    for begin in range(0, rows, 65536):
        out[begin : begin + 65536] = generator.standard_normal((min(65536, rows - begin), dim), np.float32)
    out.flush()


def product_alone(given: argparse.Namespace, rows: int) -> tuple[float, float]:
    """Wall and CPU seconds of the float32 product of the probes with so many rows, in blocks of 16,384."""
    generator = np.random.default_rng(0)
    block, probes = (generator.random((n, given.dim), np.float32) for n in (16384, given.probes))
    out = np.empty((len(block), len(probes)), np.float32)
    if given.device != "cpu":
        import torch

        block, probes = (torch.from_numpy(matrix).to(given.device) for matrix in (block, probes))
    began = time.perf_counter(), time.process_time()
    for begin in range(0, rows, 16384):
        part = block[: min(16384, rows - begin)]
        if given.device == "cpu":
            np.matmul(part, probes.T, out=out[: len(part)])
        else:
            part @ probes.T
    if given.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def float64_seconds(rows: int, columns: int, dim: int) -> float:
    """Seconds of a float64 product, from a part of it."""
    generator = np.random.default_rng(0)
    left, right = generator.random((min(rows, 1024), dim)), generator.random((columns, dim))
    left @ right.T
    began = time.perf_counter()
    left @ right.T
    return (time.perf_counter() - began) * rows / len(left)


def peak() -> float:
    """GB; not getrusage's, in which a process inherits the peak of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1e6


MAKE = {"ijb-files": make_meta, "ijb-1:1": make_faces, "ijb-1:N": make_faces, "megaface": make_distractors}
RUN = {"ijb-files": run_files, "ijb-1:1": run_one_to_one, "ijb-1:N": run_one_to_many, "megaface": run_megaface}

if __name__ == "__main__":
    main()
