import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.embeddings import files as features
from dataprep.embeddings.dumps import write_features, write_vector
from dataprep.embeddings.files import FeatureFolder, Features, normalise_rows, read_features, read_vector
from dataprep.errors import RecordError

MATRIX = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
NAMES = ["a/1.jpg", "a/2.jpg", "b/1.jpg"]


@pytest.mark.parametrize("name", ["x.parquet", "x.npy", "x.bin", "x.feat", "x.f32"])
def test_what_is_written_is_read_in_every_form(tmp_path: Path, name: str) -> None:
    write_features(tmp_path / name, MATRIX, NAMES)
    found = read_features(tmp_path / name, 4 if name == "x.f32" else None)
    assert len(found) == 3
    assert found.dim == 4
    assert list(found.names or ()) == NAMES
    assert found.take(np.array([2, 0])).tolist() == MATRIX[[2, 0]].tolist()
    found.release()
    assert found.take(np.arange(3)).tolist() == MATRIX.tolist()
    chosen = found.select(["b/1.jpg", "a/1.jpg"])
    assert chosen.take(np.arange(2)).tolist() == MATRIX[[2, 0]].tolist()


def test_the_headers_are_opencvs(tmp_path: Path) -> None:
    write_vector(tmp_path / "one.bin", MATRIX[1])
    assert (tmp_path / "one.bin").read_bytes() == struct.pack("<4i4f", 4, 1, 4, 5, 5, 6, 7, 8)
    assert read_vector(tmp_path / "one.bin").tolist() == [5, 6, 7, 8]
    assert read_features(tmp_path / "one.bin").take(np.arange(1)).tolist() == [[5, 6, 7, 8]]
    write_features(tmp_path / "all.bin", MATRIX)
    assert (tmp_path / "all.bin").read_bytes()[:16] == struct.pack("<4i", 3, 4, 16, 5)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (struct.pack("<4i", 4, 1, 4, 5) + bytes(12), "is shorter than its header says: 28 bytes for 1 x 4"[:38]),
        (struct.pack("<4i", 4, 1, 4, 5) + bytes(20), "is longer than its header says"),
        (struct.pack("<4i", 4, 1, 4, 6) + bytes(32), "type 6 is not a header of float32"),
        (struct.pack("<4i", 4, 1, 8, 5) + bytes(16), "step 8"),
        (struct.pack("<4i", -4, 1, 4, 5), "rows -4"),
        (b"", "too few for the header"),
    ],
)
def test_headers_that_lie_are_named(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x.bin").write_bytes(data)
    for read in (read_features, read_vector):
        with pytest.raises(RecordError, match=said) as error:
            read(tmp_path / "x.bin")
        assert "x.bin" in str(error.value)


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    write_features(tmp_path / "x.npy", MATRIX)
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:-4])
    with pytest.raises(RecordError, match="shorter than its header says"):
        read_features(tmp_path / "x.npy")
    np.save(tmp_path / "o.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(RecordError, match=r"o\.npy"):
        read_features(tmp_path / "o.npy")
    np.save(tmp_path / "i.npy", np.arange(4))
    with pytest.raises(RecordError, match="floats of shape"):
        read_features(tmp_path / "i.npy")
    (tmp_path / "x.f32").write_bytes(bytes(44))
    with pytest.raises(RecordError, match=r"not \.parquet, \.npy or \.bin"):
        read_features(tmp_path / "x.f32")
    with pytest.raises(RecordError, match="not a whole number of float32 rows"):
        read_features(tmp_path / "x.f32", 4)
    (tmp_path / "x.parquet").write_bytes(b"PAR1junk")
    with pytest.raises(RecordError, match="not a readable Parquet"):
        read_features(tmp_path / "x.parquet")
    with pytest.raises(RecordError, match="no such feature file"):
        read_features(tmp_path / "none.npy")
    write_features(tmp_path / "y.npy", MATRIX)
    with pytest.raises(RecordError, match="4 values, not 5"):
        read_features(tmp_path / "y.npy", 5)
    (tmp_path / "y.npy.names.txt").write_text("a\n")
    with pytest.raises(RecordError, match="1 names for the 3 rows"):
        read_features(tmp_path / "y.npy")


def test_parquet_with_nulls_or_ragged_embeddings_is_refused(tmp_path: Path) -> None:
    for name, embeddings in {"ragged": [[1.0], [1.0, 2.0, 3.0]], "null": [[1.0, 2.0], None]}.items():
        pq.write_table(pa.table({"name": ["a", "b"], "embedding": embeddings}), tmp_path / f"{name}.parquet")
        with pytest.raises(RecordError, match=name):
            read_features(tmp_path / f"{name}.parquet")


@pytest.mark.parametrize(
    ("names", "embeddings", "said"),
    [
        (["a"], ["text"], "embedding string"),
        (["a"], [7], "embedding int64"),
        (["a"], [0.5], "embedding double"),
        (["a"], [{"x": 0.5}], "embedding struct"),
        (["a"], [[1, 2]], "embedding list"),
        ([1], [[1.0, 2.0]], "name is int64"),
        (["a", None], [[1.0], [2.0]], "without a name"),
        (["a", "b"], [[1.0, 2.0], [1.0, None]], "hold nulls"),
    ],
)
def test_parquet_columns_of_other_kinds_are_named(tmp_path: Path, names: list, embeddings: list, said: str) -> None:
    pq.write_table(pa.table({"name": names, "embedding": embeddings}), tmp_path / "x.parquet")
    with pytest.raises(RecordError, match=said):
        read_features(tmp_path / "x.parquet")


def test_parquet_without_rows_or_values_is_refused(tmp_path: Path) -> None:
    for width, rows in ((0, 2), (4, 0)):
        column = pa.array([[0.5] * width] * rows, pa.list_(pa.float32()))
        pq.write_table(
            pa.table([pa.array(["a"] * rows, pa.string()), column], ["name", "embedding"]), tmp_path / "x.parquet"
        )
        with pytest.raises(RecordError, match=r"no rows|embeddings are empty"):
            read_features(tmp_path / "x.parquet")


def test_parquet_that_unpacks_to_far_more_than_the_file_is_refused(tmp_path: Path) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(1 << 25, np.float32)), 1 << 15)
    table = pa.table([pa.array(["a"] * (1 << 10)), column], ["name", "embedding"])
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 1 << 18
    with pytest.raises(RecordError, match="unpack to 134217728"):
        read_features(tmp_path / "x.parquet")


def test_parquet_is_read_a_batch_at_a_time_and_its_memory_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_BATCH_BYTES", 7 * 4 * 32)
    rows = np.random.default_rng(0).normal(size=(100, 32)).astype(np.float32)
    column = pa.array(list(rows.astype(np.float64)), pa.list_(pa.float64()))
    names = [f"{i}.jpg" for i in range(100)]
    table = pa.table({"other": list(range(100)), "embedding": column, "name": names})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=30)
    found = read_features(tmp_path / "x.parquet")
    assert found.names == names
    assert found.mapped is not None
    found.release()
    assert found.take(np.array([99, 3])).tolist() == rows[[99, 3]].tolist()


@pytest.mark.parametrize(
    "header", [b"{'descr': '<f4', 'fortran_order': False, 'shape': (", b"{" * 90, b"{1: 2}", b"[" * 5000,
               b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 4), }",
               b"{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 4), }",
               b"{'descr': 7, 'fortran_order': False, 'shape': (4, 4), }",
               b"{'descr': ['<f4', 3], 'fortran_order': False, 'shape': (4, 4), }"],
)  # fmt: skip
def test_odd_headers_of_npy_are_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
    with pytest.raises(RecordError, match=r"x\.npy"):
        read_features(tmp_path / "x.npy")


def test_an_npz_under_the_name_of_an_npy_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=MATRIX)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(RecordError, match="npz of several arrays"):
        read_features(tmp_path / "x.npy")


def test_names_beside_a_file_are_its_own_and_in_utf8(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", MATRIX)
    (tmp_path / "x.txt").write_text("the images it was made of\n")
    assert read_features(tmp_path / "x.npy").names is None
    beside = tmp_path / "x.npy.names.txt"
    beside.write_bytes("a\u2028b\r\nc\r\nd".encode())
    assert read_features(tmp_path / "x.npy").names == ["a\u2028b", "c", "d"]
    beside.write_bytes(b"\xe4\nb\nc\n")
    with pytest.raises(RecordError, match=r"x\.npy\.names\.txt: not a readable list of names in UTF-8"):
        read_features(tmp_path / "x.npy")


def test_other_float_widths_are_read_as_float32(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(MATRIX.astype(np.float64)))
    found = read_features(tmp_path / "x.npy").take(np.array([0, 2]))
    assert found.dtype == np.float32
    assert found.tolist() == MATRIX[[0, 2]].tolist()


def test_rows_without_a_direction_are_named_or_marked() -> None:
    rows = MATRIX.copy()
    rows[1] = 0
    features = Features(Path("x.npy"), rows, NAMES)
    with pytest.raises(RecordError, match=r"x\.npy: row 1 \(a/2\.jpg\) is all zeros"):
        normalise_rows(features, np.arange(3))
    found = normalise_rows(features, np.arange(3), zeros=True)
    assert found.present.tolist() == [True, False, True]
    assert np.linalg.norm(found.rows, axis=1).tolist() == pytest.approx([1, 0, 1])
    rows[2, 3] = np.nan
    with pytest.raises(RecordError, match=r"row 2 \(b/1\.jpg\) holds NaN"):
        normalise_rows(features, np.arange(1, 3), zeros=True)


def test_a_folder_is_read_by_its_list(tmp_path: Path) -> None:
    for name, row in zip(NAMES, MATRIX, strict=True):
        write_vector(tmp_path / f"{name}_net.bin", row)
    found = FeatureFolder(tmp_path, NAMES, "_net.bin")
    assert found.dim == 4
    assert found.take(np.array([2, 1])).tolist() == MATRIX[[2, 1]].tolist()
    write_vector(tmp_path / "b/1.jpg_net.bin", MATRIX[0, :3])
    with pytest.raises(RecordError, match=r"b/1\.jpg_net\.bin: 1 x 3 values, not one feature of 4"):
        found.take(np.array([2]))
    (tmp_path / "a/2.jpg_net.bin").unlink()
    with pytest.raises(RecordError, match=r"a/2\.jpg_net\.bin: No such file"):
        found.take(np.array([1]))


def test_names_that_are_missing_or_double_are_told() -> None:
    with pytest.raises(RecordError, match=r"no feature for 1 of 2 names, the first is 'c'"):
        Features(Path("x"), MATRIX, NAMES).select(["a/1.jpg", "c"])
    with pytest.raises(RecordError, match="occurs twice"):
        Features(Path("x"), MATRIX, ["a", "a", "b"]).select(["a"])
    with pytest.raises(RecordError, match="holds no names"):
        Features(Path("x"), MATRIX).select(["a"])
