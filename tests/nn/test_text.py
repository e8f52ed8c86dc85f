"""Items and histories as text, tokens and rows, against plain loops."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from recsys.batch.ragged import Ragged
from recsys.batch.tokens import END, Documents, TokenStream
from recsys.errors import ConfigError, DataError
from recsys.log.words import Template
from recsys.nn.text_vectors import semantic_vectors
from recsys.tasks.tokenizers import tokenize, train_tokenizer

TEXTS = pl.Series(["a red lamp", "두꺼운 겨울 양말 🧦", "lamp, blue 💡", f"a {END} lamp"])
CLOSE = 0


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 300)


def test_columns_in_the_order_of_the_template() -> None:
    items = pl.DataFrame(
        {
            "item_id": [7, 8, 9, 10],
            "title": [" Lamp ", None, "", "Socks"],
            "tags": [["home", "light"], ["wool"], None, []],
            "price": [3, 4, None, None],
        }
    )
    texts = Template(columns=["price", "title", "tags"], separator=" | ").texts(items)
    # An item without words is called by its id.
    assert texts.to_list() == ["3 | Lamp | home light", "4 | wool", "9", "Socks"]


def test_columns_that_are_not_there() -> None:
    items = pl.DataFrame({"item_id": [1], "title": ["a"]})
    with pytest.raises(DataError, match=r"no column name, text \(there are: item_id, title\)"):
        Template(columns=["title", "name", "text"]).texts(items)


def test_what_events_say_stands_behind_their_items() -> None:
    items = pl.DataFrame({"item_id": [7, 8, 9], "title": ["Lamp", None, "Socks"]})
    events = pl.DataFrame(
        {
            "item_id": [9, 7, 9, 8, 9, 7, 9],
            "query": ["겨울 🧦", None, "warm", "", "겨울 🧦", " ", None],
            "stars": [5, None, None, 1, 5, None, 4],
        }
    )
    template = Template(columns=["title"], event_columns=["query", "stars"])
    log_texts = template.write(items, events)
    winter = "Socks. 겨울 🧦. 5"
    texts = [winter, "Lamp", "Socks. warm", "8. 1", winter, "Lamp", "Socks. 4"]
    assert log_texts.texts[log_texts.events].to_list() == texts
    assert log_texts.texts.to_list()[:3] == ["Lamp", "8", "Socks"]
    assert len(log_texts.texts) == log_texts.texts.n_unique() == 3 + 4  # each once
    ids = items["item_id"][log_texts.items[log_texts.events]]
    assert ids.to_list() == events["item_id"].to_list()


def test_events_that_say_nothing_have_their_items_texts() -> None:
    items = pl.DataFrame({"item_id": ["a", "b"], "text": ["Lamp", "Socks"]})
    events = pl.DataFrame({"item_id": ["b", "a", "b"], "query": [None, None, ""]})
    for template in (Template(), Template(event_columns=["query"])):
        log_texts = template.write(items, events)
        assert log_texts.texts.to_list() == ["Lamp", "Socks"]
        assert log_texts.events.to_list() == [1, 0, 1]
        assert log_texts.items.to_list() == [0, 1]


def test_event_columns_that_are_not_there() -> None:
    items = pl.DataFrame({"item_id": [1], "text": ["a"]})
    events = pl.DataFrame({"item_id": [1], "query": ["b"]})
    message = r"events have no column search \(there are: item_id, query\); .*event_columns"
    with pytest.raises(DataError, match=message):
        Template(event_columns=["query", "search"]).write(items, events)


def test_a_template_without_columns() -> None:
    with pytest.raises(ConfigError, match="columns is empty"):
        Template(columns=[])


@pytest.mark.parametrize(("item", "history"), [(0, 64), (63, 64)])
def test_a_template_whose_history_holds_no_item(item: int, history: int) -> None:
    with pytest.raises(ConfigError, match=f"max_item_tokens={item} does not fit into"):
        Template(max_item_tokens=item, max_tokens=history)


@given(st.text(max_size=40))
def test_any_text_comes_back_from_its_tokens(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenize(tokenizer, pl.Series([text]), 10_000, CLOSE)
    assert tokens.values[-1] == CLOSE
    assert (tokens.values[:-1] != CLOSE).all()
    assert tokenizer.decode(tokens.values[:-1].tolist()) == text


def test_tokens_are_cut_and_closed(tokenizer: Tokenizer) -> None:
    long = "x" * 10_000
    rows = tokenize(tokenizer, pl.Series(["", "ab", long]), 5, CLOSE)
    assert rows.lengths.tolist() == [1, 3, 6]
    assert rows.values[rows.offsets[1:] - 1].tolist() == [CLOSE] * 3


def test_a_vocabulary_without_room_for_the_bytes() -> None:
    with pytest.raises(ConfigError, match="vocab_size=256 has no room"):
        train_tokenizer(TEXTS, 256)


item_tokens = st.lists(st.lists(st.integers(1, 9), max_size=4), min_size=1, max_size=5)


@given(item_tokens, st.data(), st.sampled_from([6, 9, None]))
def test_documents_against_a_loop(
    words: list[list[int]], data: st.DataObject, max_tokens: int | None
) -> None:
    item = st.integers(0, len(words) - 1)
    histories = data.draw(st.lists(st.lists(item, max_size=6), min_size=1, max_size=5))
    closed = Ragged.from_lists([[*row, CLOSE] for row in words])
    batch = Documents.of(Ragged.from_lists(histories), closed, CLOSE, max_tokens=max_tokens)
    index = torch.arange(len(batch)).flip(0)
    for documents, rows in ((batch, histories), (batch.rows(index), histories[::-1])):
        for row, history in enumerate(rows):
            tokens, ends, items = written(history, words, max_tokens)
            begin, stop = documents.offsets[row : row + 2].tolist()
            first, last = documents.end_offsets[row : row + 2].tolist()
            assert documents.tokens[begin:stop].tolist() == tokens
            assert (documents.ends[first:last] - begin).tolist() == ends
            assert documents.items[first:last].tolist() == items


def written(
    history: list[int], words: list[list[int]], max_tokens: int | None
) -> tuple[list[int], list[int], list[int]]:
    """A history's tokens, where items end among them, and the items."""
    recent = list(history)
    while max_tokens is not None and 1 + sum(len(words[i]) + 1 for i in recent) > max_tokens:
        recent.pop(0)
    tokens, ends, items = [CLOSE], [0], [len(words)]
    for i in recent:
        tokens += [*words[i], CLOSE]
        ends.append(len(tokens) - 1)
        items.append(i)
    return tokens, ends, items


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(20, 200))
def test_groups_hold_every_document_once_and_little_padding(
    sizes: list[int], max_tokens: int
) -> None:
    words = Ragged.from_lists([[1, 2, CLOSE]])
    documents = Documents.of(Ragged.from_lists([[0] * n for n in sizes]), words, CLOSE)
    tokens_read = []
    for which, group in documents.groups(max_tokens):
        tokens, places = group.padded()
        assert tokens.numel() <= max_tokens or len(group) == 1
        assert (group.lengths >= 0.9 * tokens.shape[1]).all()
        assert tokens.flatten()[places].eq(CLOSE).all()
        assert tokens.count_nonzero() == 2 * sum(sizes[row] for row in which.tolist())
        tokens_read += which.tolist()
    assert sorted(tokens_read) == list(range(len(sizes)))


def test_only_the_last_end_of_each_document() -> None:
    words = Ragged.from_lists([[5, CLOSE], [6, 7, CLOSE]])
    documents = Documents.of(Ragged.from_lists([[0, 1], []]), words, CLOSE).last_ends()
    assert documents.ends.tolist() == [5, 6]
    assert documents.items.tolist() == [1, 2]
    assert documents.end_offsets.tolist() == [0, 1, 2]


@pytest.fixture(params=["in memory", "in a file"])
def stream_of(request: pytest.FixtureRequest) -> Callable[..., TokenStream]:
    limit = 2**28 if request.param == "in memory" else 0

    def make(histories: list[list[int]], row_length: int) -> TokenStream:
        words = Ragged.from_lists([[5, CLOSE], [6, 7, CLOSE]])
        return TokenStream.of(
            Ragged.from_lists(histories), words, CLOSE, row_length, largest_in_memory=limit
        )

    return make


def test_full_rows_with_documents_kept_apart(stream_of: Callable[..., TokenStream]) -> None:
    stream = stream_of([[0, 1], [], [1]], 4)
    # _ 5 _ 6 | 7 _ _ _ | 6 7 _ : the last three tokens fill no row.
    assert len(stream) == 2
    tokens, positions = stream.rows(torch.tensor([1, 0]))
    assert tokens.tolist() == [[7, CLOSE, CLOSE, CLOSE], [CLOSE, 5, CLOSE, 6]]
    assert positions.tolist() == [[0, 1, 0, 0], [0, 1, 2, 3]]


def test_less_text_than_a_row(stream_of: Callable[..., TokenStream]) -> None:
    """One row, of all of it, with padding where nothing is predicted."""
    stream = stream_of([[0], []], 6)
    assert len(stream) == 1
    tokens, positions = stream.rows(torch.tensor([0, 0]))
    assert tokens.tolist() == [[CLOSE, 5, CLOSE, CLOSE, 0, 0]] * 2
    assert positions.tolist() == [[0, 1, 2, 0, 0, 0]] * 2


@given(
    documents=st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=2, max_size=7),
    dim=st.integers(1, 8),
)
def test_semantic_vectors_against_the_whole_decomposition(
    documents: list[list[int]], dim: int
) -> None:
    """Texts of tokens 0-9, of which token 0 closes each; products of vectors know no signs."""
    texts = [[1, 2, 0], [3, 3, 4, 0], [1, 5, 5, 6, 0], [7, 2, 0]]
    counts = np.zeros((len(documents), 10))
    for row, document in zip(counts, documents, strict=True):
        for text in document:
            np.add.at(row, texts[text], 1)
    counts = counts[counts.any(1)]
    shared = (counts > 0).sum(0)
    is_informative = (shared > 1) & (shared < len(counts))
    weights = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0)
    weights = np.where(
        is_informative, weights * np.log(max(len(counts), 1) / np.maximum(shared, 1)), 0
    )
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    weights /= np.where(lengths > 0, lengths, 1)
    _, values, right = np.linalg.svd(weights, full_matrices=False)
    gaps = -np.diff(values, append=0.0)
    if len(values) > dim and gaps[dim - 1] < 1e-3:
        return  # which of two equally strong directions is the last is open
    directions = right[:dim][values[:dim] > 1e-6].T
    directions = np.where(is_informative[:, None], directions, 0)
    vectors_found = semantic_vectors(
        [(Ragged.from_lists(texts), Ragged.from_lists(documents))], 10, dim
    )
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    expected = directions / np.where(lengths > 1e-6, lengths, np.inf)
    has_vector = torch.from_numpy((lengths > 1e-3).squeeze(1))
    assert vectors_found.shape == (10, dim)
    np.testing.assert_allclose(
        (vectors_found @ vectors_found.T)[has_vector][:, has_vector],
        (expected @ expected.T)[has_vector][:, has_vector],
        atol=1e-4,
    )
    assert not vectors_found[torch.from_numpy(~is_informative)].any()
