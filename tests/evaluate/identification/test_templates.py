from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import normalize

from dataprep.embeddings.files import Features
from dataprep.errors import RecordError, UsageError
from dataprep.evaluate.identification import templates as module
from dataprep.evaluate.identification.ijb import TemplateMedia
from dataprep.evaluate.identification.templates import Pooling, order_by_image, pool_templates


def faces(template: list[int], media: list[int], score: list[float] | None = None) -> TemplateMedia:
    return TemplateMedia(
        template=np.array(template, np.int32),
        media=np.array(media, np.int32),
        score=np.array(score or [1.0] * len(template), np.float32),
    )


def features(rows: object) -> Features:
    return Features(Path("faces.npy"), np.array(rows, np.float32))


def drawn(count: int = 700, dim: int = 8) -> tuple[np.ndarray, TemplateMedia]:
    generator = np.random.default_rng(0)
    listed = TemplateMedia(
        template=generator.integers(5, 60, count).astype(np.int32),
        media=generator.integers(0, 9, count).astype(np.int32),
        score=generator.uniform(0.1, 1, count).astype(np.float32),
    )
    return generator.normal(size=(count, 2 * dim)).astype(np.float32), listed


def insightface(rows: np.ndarray, listed: TemplateMedia, *, norm: bool, score: bool, flip: bool) -> np.ndarray:
    """ijb_11.py's switches and image2template_feature, from their description, one template at a time."""
    half = rows.shape[1] // 2
    rows = rows[:, :half] + rows[:, half:] if flip else rows[:, :half]
    rows = rows.astype(np.float64)
    if not norm:
        rows = rows / np.sqrt((rows**2).sum(-1, keepdims=True))
    if score:
        rows = rows * listed.score[:, None]
    out = []
    for template in np.unique(listed.template):
        here = listed.template == template
        out.append(sum(rows[here & (listed.media == media)].mean(axis=0) for media in np.unique(listed.media[here])))
    return normalize(np.array(out))


@pytest.mark.parametrize("chunk", [8192, 50, 1])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("score", [True, False])
@pytest.mark.parametrize("flip", [True, False])
def test_templates_are_insightfaces(
    monkeypatch: pytest.MonkeyPatch, chunk: int, norm: bool, score: bool, flip: bool
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    rows, listed = drawn()
    how = Pooling(halves=True, flip=flip, detector_score=score, normalise_faces=not norm)
    found = pool_templates(features(rows), listed, how)
    assert found.number.tolist() == np.unique(listed.template).tolist()
    assert np.allclose(found.vectors, insightface(rows, listed, norm=norm, score=score, flip=flip), atol=1e-6)


def test_vggface2_sums_media_and_normalises_them() -> None:
    rows, listed = drawn()
    found = pool_templates(features(rows), listed, Pooling.from_switches("vggface2"))
    unit = normalize(rows.astype(np.float64))
    expected = []
    for template in np.unique(listed.template):
        here = listed.template == template
        medias = [unit[here & (listed.media == media)].sum(axis=0) for media in np.unique(listed.media[here])]
        expected.append(normalize(np.array(medias)).sum(axis=0))
    assert np.allclose(found.vectors, normalize(np.array(expected)), atol=1e-6)
    with pytest.raises(UsageError, match="uses no detector scores"):
        Pooling.from_switches("vggface2", detector_score=False)


def test_a_template_by_hand() -> None:
    """Media 7 has the faces (2, 0) and (0, 2) with scores 1 and 0.5: mean (1, 0.5). Media 9 adds (0, 1): (1, 1.5)."""
    listed = faces([3, 3, 3], [7, 9, 7], [1.0, 1.0, 0.5])
    found = pool_templates(features([[2, 0], [0, 1], [0, 2]]), listed, Pooling())
    assert found.vectors[0] == pytest.approx(np.array([1, 1.5]) / np.hypot(1, 1.5))
    # VGGFace2: media 7 is (1, 1) / sqrt 2, media 9 (0, 1)
    found = pool_templates(features([[2, 0], [0, 1], [0, 2]]), listed, Pooling.from_switches("vggface2"))
    total = np.array([0.5**0.5, 0.5**0.5 + 1])
    assert found.vectors[0] == pytest.approx(total / np.linalg.norm(total))


def test_equal_media_numbers_of_two_templates_are_two_media() -> None:
    found = pool_templates(features([[1, 0], [0, 1]]), faces([1, 2], [7, 7]), Pooling())
    assert found.vectors.tolist() == [[1, 0], [0, 1]]


def test_zero_faces_and_empty_templates_stop_or_are_counted() -> None:
    rows, listed = [[0, 0], [1, 1], [0, 0]], faces([1, 1, 2], [7, 7, 8])
    with pytest.raises(RecordError, match=r"faces\.npy: row 0 is all zeros"):
        pool_templates(features(rows), listed, Pooling())
    found = pool_templates(features(rows), listed, Pooling(), exclude_missing=True)
    assert found.zero_faces == 2
    assert found.present.tolist() == [True, False]
    assert found.vectors[0] == pytest.approx([0.5**0.5, 0.5**0.5])
    assert found.rows(np.array([1, 2, 3, 0], np.int32)).tolist() == [0, -1, -1, -1]
    far = pool_templates(
        features([[0, 0], [1, 1], [0, 1]]), faces([-5, 1, 2**31 - 1], [7, 7, 8]), Pooling(), exclude_missing=True
    )
    assert far.rows(np.array([-5, 1, 2, 2**31 - 1], np.int32)).tolist() == [-1, 1, -1, 2]
    opposite = faces([1, 1], [7, 8])
    with pytest.raises(RecordError, match="template 1 and of 0 others sum to zero"):
        pool_templates(features([[1, 0], [-1, 0]]), opposite, Pooling())


def test_an_excluded_face_does_not_count_in_the_average_of_its_media() -> None:
    listed = faces([1, 1, 1], [7, 7, 8])
    found = pool_templates(features([[0, 0], [1, 0], [0, 1]]), listed, Pooling(), exclude_missing=True)
    assert found.vectors[0] == pytest.approx([0.5**0.5, 0.5**0.5])


def test_features_are_found_by_the_names_of_the_images() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    for names, images in [
        (["10.png", "1.png", "2.png"], ["1.jpg", "2.jpg", "10.jpg"]),
        (["crop/10", "crop/1", "crop/2"], ["1.jpg", "2.jpg", "10.jpg"]),
        (["b/1.jpg", "a/1.jpg", "a/2.jpg"], ["a/1.jpg", "a/2.jpg", "b/1.jpg"]),
    ]:
        found = order_by_image(Features(Path("x"), rows, names), images)
        assert found.take(np.arange(3)).tolist() == rows[[1, 2, 0]].tolist()
        assert found.names == images
    found = order_by_image(
        Features(Path("x"), rows, ["3.jpg", "1.jpg", "4.jpg"]), ["1.jpg", "2.jpg"], exclude_missing=True
    )
    assert found.take(np.arange(2)).tolist() == [[2, 3], [0, 0]]
    with pytest.raises(RecordError, match="for other images"):
        order_by_image(Features(Path("x"), rows, ["a", "b", "c"]), ["1.jpg"], exclude_missing=True)
    with pytest.raises(RecordError, match="occurs twice"):
        order_by_image(Features(Path("x"), rows, ["1.jpg", "1.png", "2.jpg"]), ["1.jpg", "2.jpg"])


def test_features_that_do_not_fit_the_faces_are_named() -> None:
    with pytest.raises(RecordError, match="2 features for the 1 faces"):
        pool_templates(features([[1, 0], [0, 1]]), faces([1], [1]), Pooling())
    with pytest.raises(RecordError, match="cannot be split into two halves"):
        pool_templates(features([[1, 0, 1]]), faces([1], [1]), Pooling(halves=True))
    with pytest.raises(UsageError, match="in two halves"):
        pool_templates(features([[1, 0]]), faces([1], [1]), Pooling(flip=False))
    with pytest.raises(RecordError, match="row 0 holds NaN"):
        pool_templates(features([[np.nan, 0]]), faces([1], [1]), Pooling(), exclude_missing=True)
