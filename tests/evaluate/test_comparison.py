import json
from pathlib import Path
from typing import Any

import pytest

from dataprep.errors import RecordError
from dataprep.evaluate.comparison import as_markdown, as_text, find_results, tabulate

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
    table = tabulate(find_results([tmp_path]))
    assert table.header == (
        "model", "cfp_fp", "lfw", "cfp_fp TAR@1e-3", "cfp_fp TAR@1e-5", "lfw TAR@1e-3", "lfw TAR@1e-5",
    )  # fmt: skip
    assert table.rows == (
        ("r50", "98.10% ± 0.31%", "99.78% ± 0.31%", "90.00%", "50.00%", "90.00%", "50.00%"),
        ("mobile|net", "-", "99.00% ± 0.31%", "-", "-", "90.00%", "50.00%"),
    )
    assert "mobile|net on lfw: 3 pairs were left out" in table.notes
    assert "protocol: insightface" in table.notes
    lines = as_markdown(table).splitlines()
    assert lines[0].startswith("| model | cfp_fp | lfw |")
    assert lines[1] == "| --- |" + " ---: |" * 6
    assert lines[3].startswith("| mobile\\|net | - | 99.00% ± 0.31% |")
    text = as_text(table).splitlines()
    assert text[0].index("lfw") + 3 == text[1].index("99.78% ± 0.31%") + 14


def test_what_does_not_compare_is_said(tmp_path: Path) -> None:
    result(tmp_path / "a", "r50", "lfw", 0.99)
    result(tmp_path / "b", "r50", "lfw", 0.98, model_sha256="other weights")
    result(tmp_path / "c", "r100", "lfw", 0.97, set_sha256="another lfw", protocol="face_pytorch")
    table = tabulate(find_results([tmp_path / name for name in "abc"]))
    assert table.header[:2] == ("model", "protocol")
    assert [row[0] for row in table.rows] == ["r50 (sha of r)", "r50 (other we)", "r100"]
    assert any("2 different files of this name" in note for note in table.notes)
    result(tmp_path / "d", "r50", "lfw", 0.5)
    again = tabulate(find_results([tmp_path / "a", tmp_path / "d"]))
    assert again.rows[0][1].startswith("99.00%")
    assert any("stands in the table already" in note for note in again.notes)


def test_runs_without_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds no result\.json"):
        find_results([tmp_path])
    for content in ("{}", "[]", "junk", '{"verification": 3}', "[" * 100_000, ODD):
        (tmp_path / "result.json").write_text(content)
        with pytest.raises(RecordError, match="is no result of `dataprep test`"):
            find_results([tmp_path / "result.json"])
        with pytest.raises(RecordError, match="no result of `dataprep test` is there"):
            find_results([tmp_path])
