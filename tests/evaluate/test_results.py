import json
from pathlib import Path
from typing import Any

import pytest

from dataprep.errors import RecordError
from dataprep.evaluate.results import find_results, format_markdown, format_text, tabulate_results

ODD = json.dumps(
    {"name": "a", "set_name": "b", "verification": {"accuracy": 1, "accuracy_std": 0, "tar_at_far": {"low": 1}}}
)


def result(folder: Path, name: str, kind: str, accuracy: float, **more: Any) -> None:
    folder.mkdir(parents=True)
    scores = {"accuracy": accuracy, "accuracy_std": 0.0031, "tar_at_far": {"0.001": 0.9, "1e-05": 0.5}}
    content = {
        "name": name, "set_name": kind, "set_sha256": f"sha of {kind}", "model_sha256": f"sha of {name}",
        "protocol": "insightface", "flip": "sum", "verification": scores, **more,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(content))


def test_models_are_rows_and_sets_are_columns(tmp_path: Path) -> None:
    result(tmp_path / "a/lfw", "r50", "lfw", 0.9978)
    result(tmp_path / "a/cfp", "r50", "cfp_fp", 0.981)
    result(tmp_path / "b/lfw", "mobile|net", "lfw", 0.99, skipped_pairs=3)
    table = tabulate_results(find_results([tmp_path]))
    assert table.header == (
        "model", "cfp_fp", "lfw", "cfp_fp TAR@1e-3", "cfp_fp TAR@1e-5", "lfw TAR@1e-3", "lfw TAR@1e-5",
    )  # fmt: skip
    assert table.rows == (
        ("r50", "98.10% ± 0.31%", "99.78% ± 0.31%", "90.00%", "50.00%", "90.00%", "50.00%"),
        ("mobile|net", "-", "99.00% ± 0.31%", "-", "-", "90.00%", "50.00%"),
    )
    assert "mobile|net on lfw: 3 pairs were left out" in table.notes
    assert "cfp_fp, lfw: protocol: insightface" in table.notes
    lines = format_markdown(table).splitlines()
    assert lines[0].startswith("| model | cfp_fp | lfw |")
    assert lines[1] == "| --- |" + " ---: |" * 6
    assert lines[3].startswith("| mobile\\|net | - | 99.00% ± 0.31% |")
    text = format_text(table).splitlines()
    assert text[0].index("lfw") + 3 == text[1].index("99.78% ± 0.31%") + 14


def test_what_does_not_compare_is_said(tmp_path: Path) -> None:
    result(tmp_path / "a", "r50", "lfw", 0.99)
    result(tmp_path / "b", "r50", "lfw", 0.98, model_sha256="other weights")
    result(tmp_path / "c", "r100", "lfw", 0.97, set_sha256="another lfw", protocol="face_pytorch")
    table = tabulate_results(find_results([tmp_path / name for name in "abc"]))
    assert [row[0] for row in table.rows] == ["r50 (sha of r)", "r50 (other we)", "r100"]
    assert table.header[1:3] == ("lfw (insightface)", "lfw (face_pytorch)")
    assert [row[1:3] for row in table.rows] == [
        ("99.00% ± 0.31%", "-"), ("98.00% ± 0.31%", "-"), ("-", "97.00% ± 0.31%"),
    ]  # fmt: skip
    assert any("2 different files have this name" in note for note in table.notes)
    result(tmp_path / "d", "r50", "lfw", 0.5)
    again = tabulate_results(find_results([tmp_path / "a", tmp_path / "d"]))
    assert again.rows[0][1].startswith("99.00%")
    assert any("is already in the table" in note for note in again.notes)


def identified(folder: Path, features: str, protocol: str, **figures: Any) -> None:
    folder.mkdir(parents=True)
    content = {
        "features": [f"{features}.npy"], "inputs": {f"{features}.npy": f"sha of {features}", "lists.txt": "sha of lists"},
        "models": {}, "protocol": protocol, "rank": {"1": 0.9, "10": 0.95, "5": 0.93}, **figures,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(content))


def test_templates_and_identification_stand_beside_verification(tmp_path: Path) -> None:
    result(tmp_path / "lfw", "r50", "lfw", 0.9978, model_sha256="weights")
    known = {"models": {"a.npy": {"model_sha256": "weights"}}}
    identified(
        tmp_path / "11", "a", "ijbc 1:1; media mean", tar_at_far={"1e-06": 0.8, "0.0001": 0.96}, pairs_excluded=2,
        faces_excluded=0, **known,
    )  # fmt: skip
    identified(
        tmp_path / "1n", "a", "ijbc 1:N; media mean", tpir_at_fpir_ijb_1n={"0.01": 0.7}, probes_excluded=0,
        gallery_templates_excluded=0, **known,
    )  # fmt: skip
    for name, refined in (("a", " refined (@R)"), ("b", " refined (@R)"), ("c", "")):
        identified(
            tmp_path / f"mega-{name}", name, f"MegaFace{refined}, cosine", tar_at_fpr={"1e-06": 0.5},
            distractors=1_000_000, probes_excluded=0, distractors_excluded=0, **(known if name == "a" else {}),
        )  # fmt: skip
    table = tabulate_results(find_results([tmp_path]))
    cells = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert list(cells) == ["r50", "b", "c"]  # features of known weights are the model's
    assert cells["r50"] == {
        "model": "r50", "lfw": "99.78% ± 0.31%", "lfw TAR@1e-3": "90.00%", "lfw TAR@1e-5": "50.00%",
        "IJB-C 1:1 TAR@1e-4": "96.00%", "IJB-C 1:1 TAR@1e-6": "80.00%",
        "IJB-C 1:N rank-1": "90.00%", "IJB-C 1:N rank-5": "93.00%", "IJB-C 1:N rank-10": "95.00%",
        "IJB-C 1:N TPIR@1e-2": "70.00%",
        "MegaFace refined (@R) 1,000,000 rank-1": "90.00%", "MegaFace refined (@R) 1,000,000 rank-5": "93.00%",
        "MegaFace refined (@R) 1,000,000 rank-10": "95.00%", "MegaFace refined (@R) 1,000,000 TAR@1e-6": "50.00%",
        "MegaFace 1,000,000 rank-1": "-", "MegaFace 1,000,000 rank-5": "-", "MegaFace 1,000,000 rank-10": "-",
        "MegaFace 1,000,000 TAR@1e-6": "-",
    }  # fmt: skip
    assert cells["c"]["MegaFace 1,000,000 rank-1"] == "90.00%"
    assert "r50 on IJB-C 1:1: 2 pairs were left out" in table.notes
    assert "IJB-C 1:1, IJB-C 1:N: protocol: media mean" in table.notes


def test_runs_without_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds no result\.json"):
        find_results([tmp_path])
    for content in ("{}", "[]", "junk", '{"verification": 3}', "[" * 100_000, ODD):
        (tmp_path / "result.json").write_text(content)
        with pytest.raises(RecordError, match="is not a result of a test"):
            find_results([tmp_path / "result.json"])
        with pytest.raises(RecordError, match="found no result of a test"):
            find_results([tmp_path])
