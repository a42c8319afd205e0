"""MTCNN against facts from the real facenet-pytorch 2.5.3; `tests/interop/facenet_oracle.py` writes and checks them anew."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dataprep.detection import mtcnn_torch as torch_backend
from dataprep.detection import weights
from dataprep.detection.base import Detector
from dataprep.detection.mtcnn import make_detector, resolve_backend
from dataprep.detection.mtcnn_torch import TorchDetector
from dataprep.errors import ModelError
from dataprep.imaging.codec import decode_image
from dataprep.synth.photos import draw_photo

FACTS = Path(__file__).with_name("facenet_facts.json")


built = pytest.mark.skipif(resolve_backend() != "c", reason="the C detector was not built here")


@pytest.fixture(scope="module", params=["torch", pytest.param("c", marks=built)])
def detector(request: pytest.FixtureRequest) -> Detector:
    return make_detector(request.param)


def check(detector: Detector, pixels: np.ndarray, fact: dict) -> None:
    found = detector.detect([pixels])[0]
    assert len(found) == len(fact["boxes"])
    if len(found):
        assert np.abs(found.boxes - np.array(fact["boxes"])).max() < 0.01
        assert np.abs(found.landmarks - np.array(fact["landmarks"])).max() < 0.01
        assert np.abs(found.probabilities - np.array(fact["probabilities"])).max() < 1e-4


def test_drawn_photos_give_facenets_faces(detector: Detector) -> None:
    facts = json.loads(FACTS.read_text())["synth"]
    assert len(facts) >= 10
    for name, fact in facts.items():
        identity, photo = map(int, name.split("/"))
        check(detector, draw_photo(identity, photo, width=fact["width"], height=fact["height"]).pixels, fact)


def test_real_photos_give_facenets_faces(detector: Detector, shared: Path) -> None:
    facts = json.loads(FACTS.read_text())["shared"]
    assert len(facts) >= 20
    for name, fact in facts.items():
        check(detector, decode_image((shared / name).read_bytes())[0], fact)


@pytest.mark.parametrize("shape", [(1, 1), (5, 11), (11, 5), (12, 12), (19, 40), (20, 20), (1, 400)])
def test_tiny_photos_have_no_faces_and_no_exceptions(detector: Detector, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    photo = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert len(detector.detect([photo])[0]) in (0, 1)


@pytest.mark.parametrize("strip", [2_000, 50_000])
@pytest.mark.parametrize("together", [0, 10**7])
def test_photos_of_one_size_together_and_levels_in_strips_give_the_same_faces(
    monkeypatch: pytest.MonkeyPatch, strip: int, together: int
) -> None:
    sizes = [(250, 250), (200, 333), (250, 250), (250, 250), (200, 333), (123, 77)]
    photos = [draw_photo(number, 2, width=width, height=height).pixels for number, (height, width) in enumerate(sizes)]
    photos.insert(2, np.zeros((250, 250, 3), np.uint8))
    one_by_one = TorchDetector().detect(photos)
    monkeypatch.setattr(torch_backend, "_STRIP", strip)
    for found, expected in zip(TorchDetector(together=together).detect(photos), one_by_one, strict=True):
        assert np.allclose(found.boxes, expected.boxes, atol=0.01)
        assert np.allclose(found.landmarks, expected.landmarks, atol=0.01)
        assert np.allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert sum(map(len, one_by_one)) >= 6


def test_a_gpu_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(ModelError, match="finds no CUDA device") as caught:
        make_detector("cuda")
    assert "--backend torch" in caught.value.hint
    assert resolve_backend("cuda") == "cuda"  # a workspace that was made on one can be looked at


def test_altered_weights_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "facenet_pytorch"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    for name, path in weights.find_weight_files().items():
        (package / "data" / f"{name}.pt").write_bytes(path.read_bytes() + (b"x" if name == "rnet" else b""))
    monkeypatch.syspath_prepend(tmp_path)
    weights.find_weight_files.cache_clear()
    try:
        with pytest.raises(ModelError, match=r"rnet\.pt of facenet-pytorch .* is not the published file") as caught:
            weights.find_weight_files()
        assert "facenet-pytorch==2.5.3" in caught.value.hint
        (package / "data/rnet.pt").unlink()
        with pytest.raises(ModelError, match=r"rnet\.pt .* no file"):
            weights.find_weight_files()
    finally:
        weights.find_weight_files.cache_clear()


def test_weights_that_are_not_installed_are_asked_for_by_name_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)  # as an import sees what is not there
    weights.find_weight_files.cache_clear()
    try:
        with pytest.raises(ModelError, match="facenet-pytorch") as caught:
            weights.find_weight_files()
        assert caught.value.hint == "pip install 'facenet-pytorch==2.5.3'"
    finally:
        weights.find_weight_files.cache_clear()


@built
def test_avx2_and_avx512_agree_to_the_bit_and_generic_closely() -> None:
    from dataprep.detection import _mtcnn
    from dataprep.detection.mtcnn_c import LEVELS, CDetector

    levels = [level for level in LEVELS if _mtcnn.level(level) == level]
    photos = [draw_photo(identity, 7).pixels for identity in range(6)]
    found = {level: CDetector(level=level).detect(photos) for level in levels}
    for one, other in zip(found[levels[-1]], found[levels[-2] if len(levels) > 2 else levels[-1]], strict=True):
        assert one.boxes.tobytes() == other.boxes.tobytes()
        assert one.landmarks.tobytes() == other.landmarks.tobytes()
    for one, other in zip(found[levels[-1]], found["generic"], strict=True):
        assert np.abs(one.landmarks - other.landmarks).max() < 0.01


@built
def test_the_c_detector_needs_no_torch() -> None:
    import subprocess

    code = (
        "import sys; from dataprep.detection.mtcnn import make_detector; import numpy as np;"
        "make_detector('c').detect([np.zeros((40, 40, 3), np.uint8)]); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_panorama_takes_bounded_memory() -> None:
    photo = np.zeros((120, 20_000, 3), np.uint8)
    photo[:, 9_900:10_150] = draw_photo(0, 0, width=250, height=250).pixels[60:180]
    assert make_detector().detect([photo])[0] is not None
