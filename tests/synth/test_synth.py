import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from dataprep.detection.base import choose_face
from dataprep.detection.mtcnn import make_detector
from dataprep.evaluate.verification.baselines import colour_accuracy, pixel_accuracy
from dataprep.imaging.codec import decode_image, encode_jpeg
from dataprep.imaging.geometry import box_iou, estimate_similarity, scale_template, warp_image
from dataprep.packs.pair_sampling import level_folds, make_pairs
from dataprep.synth.faults import FAULTS
from dataprep.synth.photos import SyntheticSource, draw_folder, draw_photo
from dataprep.synth.web import SiteParams, publish_site


def test_the_same_seeds_draw_the_same_bytes() -> None:
    one, two = (draw_photo(3, 4, seed=5) for _ in range(2))
    assert one.pixels.tobytes() == two.pixels.tobytes()
    assert np.array_equal(one.landmarks, two.landmarks)
    others = [draw_photo(4, 4, seed=5), draw_photo(3, 5, seed=5), draw_photo(3, 4, seed=6)]
    assert all(other.pixels.tobytes() != one.pixels.tobytes() for other in others)


def test_the_detector_finds_the_drawn_faces_where_they_are() -> None:
    """A fiftieth of what the benchmark measures: there, 99.5 % must be found."""
    detector = make_detector()
    found, errors = 0, []
    for number in range(80):
        drawn = draw_photo(1000 + number, number)
        pixels = decode_image(encode_jpeg(drawn.pixels, quality=drawn.quality))[0]
        faces = detector.detect([pixels])[0]
        chosen = choose_face(faces, "overlap", width=250, height=250, published=drawn.box)
        if chosen is not None and box_iou(faces.box(chosen), drawn.box) > 0.5:
            found += 1
            errors.append(np.linalg.norm(faces.landmarks[chosen] - drawn.landmarks, axis=1).mean())
    assert found >= 79
    assert np.mean(errors) < 3.0


def test_neither_colour_nor_pixels_tell_who_it_is() -> None:
    photos, faces = {}, {}
    for identity in range(40):
        for number in range(6):
            drawn = draw_photo(2000 + identity, number)
            face = warp_image(drawn.pixels, estimate_similarity(drawn.landmarks, scale_template(112, 112)), 112, 112)
            photos.setdefault(str(identity), []).append(f"{identity}/{number}")
            faces[f"{identity}/{number}"] = encode_jpeg(face)
    pairs = level_folds(make_pairs(photos), at_most=1000)
    images = [faces[name] for two in zip(pairs.left, pairs.right, strict=True) for name in two]
    assert colour_accuracy(images, pairs.issame) < 0.65
    assert pixel_accuracy(images, pairs.issame) < 0.75


def test_a_drawn_folder_knows_its_truth(tmp_path: Path) -> None:
    assert draw_folder(tmp_path, identities=2, photos=3) == 6
    samples = list(SyntheticSource(tmp_path).samples())
    assert [s.key for s in samples] == [f"Person_{i:05d}/{j:04d}" for i in range(2) for j in range(3)]
    assert all(s.box is not None and Path(s.path).is_file() for s in samples)
    with open(tmp_path / "truth.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(rows[0][edge]) for edge in ("left", "top", "right", "bottom")] == list(samples[0].box or ())


def test_a_site_holds_every_fault_and_knows_it(tmp_path: Path) -> None:
    params = SiteParams(identities=20, photos=20, faults=0.5, duplicates=0.03)
    truth = publish_site(tmp_path / "a", params)
    planted = Counter(truth["faults"].values())
    assert set(FAULTS) <= set(planted)
    assert truth["lines"] == 400
    assert sum(truth["reasons"].values()) == sum(n for f, n in planted.items() if f in FAULTS and FAULTS[f].ends_as)
    lines = [line for path in (tmp_path / "a/lists/files").iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == 400
    assert len({line.split()[1] for line in lines}) < 400  # some URLs stand there twice
    publish_site(tmp_path / "b", params, jobs=2)

    def content(root: Path) -> dict[str, str]:
        paths = [p for p in root.rglob("*") if p.is_file()]
        return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}

    assert content(tmp_path / "a") == content(tmp_path / "b")
