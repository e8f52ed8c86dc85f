"""Vectors of texts from a file of one's own."""

from pathlib import Path

import polars as pl
import pytest
import torch

from recsys.errors import ConfigError, RunError
from recsys.nn import FileVectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three texts, one of them twice and one that no item has."""
    texts = ["a red brick", "a bolt", "a nut", "a bolt"]
    vectors = [[1.0, 0.0], [3.0, 4.0], [9.0, 9.0], [7.0, 7.0]]
    path = tmp_path / "vectors.parquet"
    pl.DataFrame({"text": texts, "vector": vectors}).write_parquet(path)
    return path


def test_items_get_the_vectors_of_their_texts_less_the_mean(path: Path) -> None:
    texts = pl.Series(["a bolt", None, "a red brick", " "])
    vectors = FileVectors(str(path), 2).read(texts)
    assert vectors.tolist() == [[1.0, 2.0], [0.0, 0.0], [-1.0, -2.0], [0.0, 0.0]]
    assert vectors.dtype == torch.float32


def test_arrays_and_whole_numbers_are_vectors(tmp_path: Path) -> None:
    path = tmp_path / "arrays.parquet"
    array = pl.Series([[1, 2, 3], [3, 2, 1]], dtype=pl.Array(pl.Int64, 3))
    pl.DataFrame({"text": ["one", "two"], "vector": array}).write_parquet(path)
    vectors = FileVectors(str(path), 3).read(pl.Series(["two", "one", "two"]))
    assert (vectors[0] - vectors[1]).tolist() == [2.0, 0.0, -2.0]


def test_items_without_words_have_zeros(path: Path) -> None:
    assert not FileVectors(str(path), 2).read(pl.Series([None, ""], dtype=pl.String)).any()
    assert FileVectors(str(path), 2).read(pl.Series([], dtype=pl.String)).shape == (0, 2)


def test_a_text_without_a_vector_is_named(path: Path) -> None:
    with pytest.raises(ConfigError, match="no vector of 1 of 2 texts, such as 'a washer'"):
        FileVectors(str(path), 2).read(pl.Series(["a bolt", "a washer"]))


def test_vectors_of_another_length_are_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dim=3, but vectors of .* have 2 numbers"):
        FileVectors(str(path), 3).read(pl.Series(["a bolt"]))
    with pytest.raises(ConfigError, match="dim"):
        FileVectors(str(path), 0)


def test_what_is_no_such_table_is_one_line(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.parquet: no such file"):
        FileVectors(str(tmp_path / "none.parquet"), 2).read(pl.Series(["a"]))
    (tmp_path / "words.parquet").write_text("words")
    with pytest.raises(RunError, match=r"words\.parquet"):
        FileVectors(str(tmp_path / "words.parquet"), 2).read(pl.Series(["a"]))
    pl.DataFrame({"text": ["a"], "vector": ["b"]}).write_parquet(path)
    with pytest.raises(RunError, match="has no vectors of numbers"):
        FileVectors(str(path), 2).read(pl.Series(["a"]))
