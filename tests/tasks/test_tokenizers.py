"""Texts as tokens and back, whatever is written in them, however they are cut before."""

import sys
from copy import deepcopy
from typing import get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from recsys.errors import ConfigError
from recsys.models.language.decoders import PreSplit
from recsys.tasks import Morphemes, tokenize, train_tokenizer
from recsys.tasks.morphemes import _cut
from recsys.tasks.tokenizers import Cut

MORPHEMES = Morphemes()
CUTS: tuple[PreSplit, ...] = get_args(PreSplit)
SENTENCES = pl.Series(
    [
        "신라면을 구매했습니다",
        "겨울 양말 두 켤레를 장바구니에 담았어요",
        "신라면을 또 구매했습니다",
        "양말을 장바구니에 담았습니다",
    ]
)

SYLLABLES = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
JAMO = st.one_of(
    st.characters(min_codepoint=0x1100, max_codepoint=0x11FF),  # that join to syllables
    st.characters(min_codepoint=0x3131, max_codepoint=0x318E),  # that stand alone
)
LATIN = st.characters(min_codepoint=0x21, max_codepoint=0x24F, exclude_categories=("Cc",))
EMOJI = st.sampled_from([*"🧦👍🏽❤️🇰🇷", "👨‍👩‍👧"])
BLANKS = st.text(" \t\n\u00a0\u3000", min_size=1, max_size=3)
WORDS = st.sampled_from(
    ["했습니다", "샀는데", "좋아욬", "ㅋㅋㅋ", "을", "가", "500ml", "https://a.kr/가"]
)
KOREAN = st.lists(
    st.one_of(st.text(SYLLABLES, max_size=8), JAMO, LATIN, EMOJI, BLANKS, WORDS), max_size=12
).map("".join)


@given(KOREAN, st.sets(st.integers(-2, 60)))
def test_wherever_a_text_is_cut_the_pieces_are_the_text(text: str, starts: set[int]) -> None:
    pieces = _cut(text, starts)
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize("text", ["", "양말", "신라면을 구매했습니다"])
def test_a_text_without_cuts_is_one_piece(text: str) -> None:
    assert _cut(text, {0}) == [text] * bool(text)


def with_kiwi() -> None:
    pytest.importorskip("kiwipiepy")


def test_morphemes_as_they_are_written() -> None:
    """했 is two morphemes in one syllable, which is not cut."""
    with_kiwi()
    assert MORPHEMES.cut(["신라면을 구매했습니다", "", "🧦 샀는데 넘 좋음"]) == [
        ["신라면", "을 ", "구매", "했", "습니다"],
        [],
        ["🧦 ", "샀", "는데 ", "넘 ", "좋", "음"],
    ]


@settings(deadline=None, max_examples=300)
@given(st.lists(KOREAN, max_size=3))
def test_morphemes_joined_are_the_text(texts: list[str]) -> None:
    with_kiwi()
    assert ["".join(pieces) for pieces in MORPHEMES.cut(texts)] == texts


TOKENIZERS: dict[PreSplit, Tokenizer] = {}


def tokenizer_of(cut: PreSplit) -> Tokenizer:
    if cut not in TOKENIZERS:
        words = cut == "whitespace"
        TOKENIZERS[cut] = train_tokenizer(SENTENCES, 400, cut=function(cut), words=words)
    return TOKENIZERS[cut]


def function(cut: PreSplit) -> Cut | None:
    return MORPHEMES.cut if cut == "kiwi" else None


def tokens(cut: PreSplit, *texts: str) -> list[list[int]]:
    """Without the end that closes each."""
    rows = tokenize(
        tokenizer_of(cut), pl.Series(texts, dtype=pl.String), 10**6, 0, cut=function(cut)
    )
    return [row.tolist()[:-1] for row in rows.values.split(rows.lengths.tolist())]


@pytest.mark.parametrize("cut", CUTS)
@settings(deadline=None, max_examples=60)
@given(st.lists(KOREAN, min_size=1, max_size=3))
def test_tokens_are_the_text(cut: PreSplit, texts: list[str]) -> None:
    if cut == "kiwi":
        with_kiwi()
    assert tokenizer_of(cut).decode_batch(tokens(cut, *texts)) == texts


def pieces(cut: PreSplit, text: str) -> list[str]:
    (row,) = tokens(cut, text)
    return [tokenizer_of(cut).decode([token]) for token in row]


def test_what_a_token_may_go_over() -> None:
    text = "신라면을 구매했습니다"
    assert pieces("none", text) == [text]  # it stands in all but one sentence
    assert pieces("whitespace", text) == ["신라면을", " 구매했습니다"]


def test_no_token_goes_over_the_end_of_a_morpheme() -> None:
    with_kiwi()
    assert pieces("kiwi", "신라면을 구매했습니다") == ["신라면", "을 ", "구매", "했", "습니다"]


@pytest.mark.parametrize("cut", CUTS)
def test_the_name_of_a_special_token_is_words(cut: PreSplit) -> None:
    if cut == "kiwi":
        with_kiwi()
    (row,) = tokens(cut, "a<eos>b")
    assert 0 not in row


def test_copies_cut_alike() -> None:
    with_kiwi()
    text = ["신라면을 구매했습니다"]
    assert deepcopy(MORPHEMES).cut(text) == MORPHEMES.cut(text)


def test_kiwi_without_kiwipiepy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    with pytest.raises(ConfigError, match=r"pre_split=kiwi needs kiwipiepy; install recsys\[korea"):
        train_tokenizer(SENTENCES, 400, cut=Morphemes().cut)
