"""The Korean sentences, and how their tokens are weighed."""

import json
import math

import polars as pl
import pytest
import torch

from benchmarks.language.pre_split import RESULT, bits_per_character, documents
from benchmarks.language.report import page
from benchmarks.language.sentences import _towards, _with, sentences
from recsys.models.language import Decoder


def test_sentences_are_different_korean_and_the_same_each_time() -> None:
    drawn = sentences(300)
    assert len(set(drawn)) == 300
    assert drawn == sentences(300)
    assert all(any("가" <= letter <= "힣" for letter in sentence) for sentence in drawn)


@pytest.mark.parametrize(
    ("word", "particle"), [("우유", "우유를"), ("양말", "양말을"), ("라면", "라면을")]
)
def test_particles_follow_the_last_sound(word: str, particle: str) -> None:
    assert _with(word, "을", "를") == particle


def test_towards() -> None:
    assert [_towards(word) for word in ("우유", "양말", "라면")] == ["우유로", "양말로", "라면으로"]


def test_a_decoder_that_knows_nothing_needs_the_bits_of_its_tokens() -> None:
    texts = ["우유를 샀다", "양말"]
    decoder = Decoder(num_layers=1, embedding_dim=8, ffn_dim=8, vocab_size=300, pre_split="none")
    of = documents(decoder, texts, pl.Series(["x"]))
    model = decoder.build()
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    tokens = sum(len(text.encode()) + 1 for text in texts)  # no merges: bytes, and an end each
    expected = tokens * math.log2(300) / sum(map(len, texts))
    assert bits_per_character(model, of, range(2), texts) == pytest.approx(expected, rel=1e-5)


def test_the_page_is_that_of_the_record() -> None:
    folder = RESULT.parents[1]
    assert (folder / "README.md").read_text() == page(json.loads(RESULT.read_text()))
