"""identify: from files to result.json, and what is said when the files do not fit."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.command import Run

from dataprep.embeddings.dumps import write_features, write_vector
from dataprep.embeddings.files import read_vector
from dataprep.evaluate.identification.benchmark import (
    _version,
    gallery_result_name,
    ijb_result_name,
    megaface_result_name,
)
from dataprep.evaluate.identification.templates import Pooling

POINTS = "1 2 3 4 5 6 7 8 9 10"


@pytest.fixture
def ijb(tmp_path: Path) -> Path:
    """Thirty people: templates 1 to 30 are their galleries, 31 to 90 probes; two faces each, the features with noise."""
    meta, generator = tmp_path / "meta", np.random.default_rng(0)
    meta.mkdir()
    people = generator.normal(size=(30, 8))
    faces, scores, rows = [], [], []
    for template in range(1, 91):
        for k in (0, 1):
            name = f"{len(rows) + 1}.jpg"
            faces.append(f"{name} {template} {template * 10 + k}\n")
            scores.append(f"{name} {POINTS} 0.9\n")
            rows.append(people[(template - 1) % 30] + 0.3 * generator.normal(size=8))
    (meta / "ijbb_face_tid_mid.txt").write_text("".join(faces))
    (meta / "ijbb_name_5pts_score.txt").write_text("".join(scores))
    pairs = [f"{a} {b} {int((b - 1) % 30 == a - 1)}\n" for a in range(1, 31) for b in range(31, 91)]
    (meta / "ijbb_template_pair_label.txt").write_text("".join(pairs))
    for name, templates in {
        "gallery_S1": range(1, 16),
        "gallery_S2": range(16, 31),
        "probe_mixed": range(31, 91),
    }.items():
        lines = [f"{t},{(t - 1) % 30}\n" for t in templates]
        (meta / f"ijbb_1N_{name}.csv").write_text("T,S\n" + "".join(lines))
    write_features(tmp_path / "faces.npy", np.array(rows))
    return meta


def test_ijb_both_ways(dataprep: Run, ijb: Path, tmp_path: Path) -> None:
    out = dataprep("identify", "ijb", "--meta", ijb, "--features", tmp_path / "faces.npy").stdout
    assert "1800 pairs, 60 of the same person; 90 templates" in out
    saved = json.loads((tmp_path / "ws/identify/faces-ijbb-11/result.json").read_text())
    assert saved["tar_at_far"]["0.01"] > 0.9
    assert f"TAR {saved['tar_at_far']['0.1']:.2%} at FAR 0.1" in out
    assert saved["protocol"].startswith("ijbb 1:1; insightface: one embedding a face, face norms kept")
    digest = hashlib.sha256((tmp_path / "faces.npy").read_bytes()).hexdigest()
    assert saved["inputs"][str(tmp_path / "faces.npy")] == digest
    assert set(saved["versions"]) == {"dataprep", "numpy", "torch"}
    assert saved["models"] == {}
    about = {"model_sha256": "ab" * 32, "input": None, "flip": "sum"}
    (tmp_path / "faces.npy.json").write_text(json.dumps({"identity": {**about, "chunk": 1024}}))
    out = dataprep(
        "identify", "ijb", "--meta", ijb, "--features", tmp_path / "faces.npy", "--one-to-many", "--out", tmp_path / "n"
    ).stdout
    assert "30 mated, 30 not" in out
    saved = json.loads((tmp_path / "n/result.json").read_text())
    assert saved["rank"]["1"] > 0.9
    assert saved["models"] == {str(tmp_path / "faces.npy"): about}
    assert [g["name"] for g in saved["galleries"]] == ["ijbb_1N_gallery_S1", "ijbb_1N_gallery_S2"]


def test_ijb_halves_are_added_and_zero_faces_excluded(dataprep: Run, ijb: Path, tmp_path: Path) -> None:
    rows = np.load(tmp_path / "faces.npy")
    write_features(tmp_path / "halves.npy", np.concatenate([rows, np.zeros_like(rows)], axis=1))
    ask = ("identify", "ijb", "--meta", ijb, "--features")
    results = []
    for arguments in (("faces.npy",), ("halves.npy", "--halves"), ("halves.npy", "--halves", "--no-flip")):
        dataprep(*ask, tmp_path / arguments[0], *arguments[1:], "--out", tmp_path / "o")
        results.append(json.loads((tmp_path / "o/result.json").read_text())["tar_at_far"])
    assert results[0] == results[1] == results[2]
    rows[60:62] = 0  # both faces of template 31
    write_features(tmp_path / "zero.npy", rows)
    assert "row 60 is all zeros" in dataprep(*ask, tmp_path / "zero.npy", code=1).stderr
    out = dataprep(*ask, tmp_path / "zero.npy", "--exclude-missing").stdout
    assert "1770 pairs" in out
    assert "excluded: 30 pairs (1 of the same person), 1 templates, 2 faces" in out


def test_a_library_that_is_not_installed_has_no_version() -> None:
    assert _version("numpy") == np.__version__
    assert _version("no-such-library-at-all") is None


def test_every_way_to_score_has_a_folder_of_its_own(tmp_path: Path, ijb: Path) -> None:
    one = tmp_path / "faces.npy"
    switches = [
        {},
        {"halves": True},
        {"halves": True, "flip": False},
        {"detector_score": False},
        {"normalise_faces": True},
    ]
    names = {
        ijb_result_name(ijb, one, None, pooling, one_to_many=many, exclude_missing=missing)
        for pooling in (
            *(Pooling.from_switches("insightface", **on) for on in switches),
            Pooling.from_switches("vggface2"),
        )
        for many in (False, True)
        for missing in (False, True)
    }
    assert len(names) == 6 * 2 * 2
    names = {
        megaface_result_name(one, Path(other), size, refined=refined, seed=seed, exclude_missing=missing)
        for other in ("d.npy", "e.npy")
        for size in (None, 10, 100)
        for refined, seed in ((False, 0), (True, 0), (True, 1))
        for missing in (False, True)
    }
    assert len(names) == 2 * 3 * 3 * 2
    assert gallery_result_name(one, one, 5, exclude_missing=False) == "faces-in-faces-top5"


def test_ijb_features_with_names_are_placed_by_them(dataprep: Run, ijb: Path, tmp_path: Path) -> None:
    """As `extract loose_crop/` writes them: in the order of names, not of the meta files, and without what failed."""
    rows = np.load(tmp_path / "faces.npy")
    ask = ("identify", "ijb", "--meta", ijb, "--out", tmp_path / "o", "--features")
    dataprep(*ask, tmp_path / "faces.npy")
    expected = json.loads((tmp_path / "o/result.json").read_text())["tar_at_far"]
    names = sorted(f"loose_crop/{i}.png" for i in range(1, len(rows) + 1))
    order = [int(Path(name).stem) - 1 for name in names]
    write_features(tmp_path / "named.parquet", rows[order], names)
    dataprep(*ask, tmp_path / "named.parquet")
    assert json.loads((tmp_path / "o/result.json").read_text())["tar_at_far"] == expected
    kept = [i for i, row in enumerate(order) if row not in (60, 61)]  # both faces of template 31
    write_features(tmp_path / "fewer.parquet", rows[order][kept], [names[i] for i in kept])
    said = dataprep(*ask, tmp_path / "fewer.parquet", code=1).stderr
    assert "no feature for 2 of the 180 faces of the benchmark, the first is '61.jpg'\nhint: --exclude-missing" in said
    out = dataprep(*ask, tmp_path / "fewer.parquet", "--exclude-missing").stdout
    assert "excluded: 30 pairs (1 of the same person), 1 templates, 2 faces" in out


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Six people with four photos each, and 300 distractors; probes in a folder, distractors in a Parquet file."""
    generator = np.random.default_rng(1)
    names = []
    for person in range(6):
        centre = generator.normal(size=16)
        for k in range(4):
            names.append(f"P{person}/P{person}_{k}.png")
            write_vector(tmp_path / f"probes/{names[-1]}_net.bin", centre + 0.4 * generator.normal(size=16))
    (tmp_path / "probes.json").write_text(json.dumps({"path": names, "id": [n.split("/")[0] for n in names]}))
    others = [f"{i % 7}/album/{i}.jpg" for i in range(300)]
    write_features(tmp_path / "distractors.parquet", generator.normal(size=(300, 16)), others)
    (tmp_path / "fs_noises.txt").write_text("# noise\nP0_3.png\n")
    (tmp_path / "mf_noises.txt").write_text("1\t0/album/0.jpg\n0/album/7.jpg\n")
    return tmp_path


def test_megaface_plain_and_refined(dataprep: Run, faces: Path) -> None:
    ask = (
        "identify", "megaface", "--probes", faces / "probes", "--suffix", "_net.bin",
        "--probe-list", faces / "probes.json", "--distractors", faces / "distractors.parquet", "--out", faces / "m",
    )  # fmt: skip
    out = dataprep(*ask).stdout
    assert "24 probes of 6 people, 72 searches, 300 distractors" in out
    assert json.loads((faces / "m/result.json").read_text())["rank"]["100"] == 1
    out = dataprep(*ask, "--refined", "--noises", faces / "fs_noises.txt", faces / "mf_noises.txt").stdout
    assert "2 noisy distractors cannot match" in out
    saved = json.loads((faces / "m/result.json").read_text())
    assert (saved["noisy_probes"], saved["distractors_pushed_away"], saved["negatives"]) == (1, 2, 24 * 300)
    assert "must be used together" in dataprep(*ask, "--refined", code=2).stderr
    (faces / "fs_noises.txt").write_text("other.png\n")
    said = dataprep(*ask, "--refined", "--noises", faces / "fs_noises.txt", faces / "mf_noises.txt", code=1).stderr
    assert "names none of the photos" in said
    (faces / "probes/P2/P2_1.png_net.bin").unlink()
    assert "P2/P2_1.png_net.bin: No such file" in dataprep(*ask, code=1).stderr


def test_the_devkit_gets_the_refined_files(dataprep: Run, faces: Path) -> None:
    ask = (
        "identify", "devkit", "--probes", faces / "probes", "--suffix", "_net.bin", "--probe-list", faces / "probes.json",
        "--distractors", faces / "distractors.parquet", "--algorithm", "r50", "--out", faces / "clean",
    )  # fmt: skip
    noises = ("--noises", faces / "fs_noises.txt", faces / "mf_noises.txt")
    assert "24 probes (1 noisy), 300 distractors of 17 values" in dataprep(*ask, *noises).stdout
    probe = read_vector(faces / "clean/facescrub/P1/P1_0.png_r50.bin")
    own = read_vector(faces / "probes/P1/P1_0.png_net.bin")
    assert probe[:-1] == pytest.approx(own / np.linalg.norm(own), abs=1e-6)
    assert probe[-1] == 0
    last = {i: read_vector(faces / f"clean/megaface/{i % 7}/album/{i}.jpg_r50.bin")[-1] for i in range(300)}
    assert [i for i, value in last.items() if value] == [0, 7]
    assert last[7] == 100
    assert len(list((faces / "clean").rglob("*.bin"))) == 324
    # what was written scores as the refined protocol does: the devkit's distances are those of 17 values
    names = json.loads((faces / "probes.json").read_text())["path"]
    probes = np.stack([read_vector(faces / f"clean/facescrub/{name}_r50.bin") for name in names]).astype(np.float64)
    others = np.stack([read_vector(path) for path in (faces / "clean/megaface").rglob("*.bin")]).astype(np.float64)
    far = np.linalg.norm(probes[:, None] - others[None], axis=2)
    near = np.linalg.norm(probes[:, None] - probes[None], axis=2)
    people = [name.split("/")[0] for name in names]
    ranks = [
        (far[i] <= near[i, j]).sum() for i, one in enumerate(people) for j, other in enumerate(people)
        if i != j and one == other
    ]  # fmt: skip
    dataprep("identify", "megaface", *ask[2:10], "--refined", *noises, "--out", faces / "m")
    assert json.loads((faces / "m/result.json").read_text())["rank"]["1"] == np.mean(np.array(ranks) < 1)
    (faces / "probes.json").write_text(json.dumps({"path": [*names[:23], "../up.png"], "id": people}))
    (faces / "up.png_net.bin").write_bytes((faces / "probes/P1/P1_0.png_net.bin").read_bytes())
    assert "not a safe file name" in dataprep(*ask, code=1).stderr


def test_a_result_of_other_features_is_not_written_over(dataprep: Run, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_features(tmp_path / folder / "g.parquet", np.eye(2), ["a/1.jpg", "b/1.jpg"])
    ask = ("identify", "gallery", "--probes", tmp_path / "one/g.parquet", "--gallery")
    dataprep(*ask, tmp_path / "one/g.parquet")
    dataprep(*ask, tmp_path / "one/g.parquet")
    assert "choose another folder with --out" in dataprep(*ask, tmp_path / "two/g.parquet", code=2).stderr
    dataprep(*ask, tmp_path / "two/g.parquet", "--out", tmp_path / "other")


def test_a_gallery_is_searched(dataprep: Run, tmp_path: Path) -> None:
    names = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg"]
    rows = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0]])
    write_features(tmp_path / "g.parquet", rows, names)
    ask = ("identify", "gallery", "--gallery", tmp_path / "g.parquet", "--probes", tmp_path / "g.parquet", "--top", "2")
    out = dataprep(*ask).stdout
    assert "rank-1 100.00% of 2 probes" in out
    with open(tmp_path / "ws/identify/g-in-g-top2/matches.csv") as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["probe"], line["match"]) for line in lines[:4]] == [
        ("a/1.jpg", "a/2.jpg"), ("a/1.jpg", "b/1.jpg"), ("a/2.jpg", "a/1.jpg"), ("a/2.jpg", "b/1.jpg"),
    ]  # fmt: skip
    assert lines[0]["identity"] == "a"
    assert float(lines[0]["score"]) == pytest.approx(0.9 / np.hypot(0.9, 0.1), abs=1e-6)
    write_features(tmp_path / "p.npy", rows)
    assert "holds no names" in dataprep(*ask[:4], "--probes", tmp_path / "p.npy", code=1).stderr
