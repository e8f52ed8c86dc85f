"""TextTFIDF."""

import numpy as np
import polars as pl
import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.log.event_log import EventLog
from recsys.models import TextTFIDF
from recsys.models.neighbours.text_tfidf import tfidf
from recsys.tasks.splits import Split, leave_last_out

TEXTS = ["Red nail polish", "red RED lipstick, polish!", "Blue soap", None, "soap; nail", "unique"]


def split_with(texts: list[str | None] | None) -> Split:
    """Users who took all items, and items with these texts."""
    items = list(range(len(TEXTS)))
    events = pl.DataFrame({"user_id": [0] * 6 + [1] * 6, "item_id": items * 2})
    events = events.with_columns(timestamp=pl.int_range(pl.len()))
    table = None if texts is None else pl.DataFrame({"item_id": items, "text": texts})
    return leave_last_out(EventLog.from_frames(events, table, name="mine"))


def weights() -> np.ndarray:
    """Rows of length 1 over nail, polish, red, soap, by hand: 5 texts, each word in 2 of them."""
    twice = 1 + np.log(2)
    rows = [[1, 1, 1, 0], [0, 1, twice, 0], [0, 0, 0, 1], [0] * 4, [1, 0, 0, 1], [0] * 4]
    matrix = np.log(5 / 2) * np.array(rows, dtype=float)
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)


def test_words_are_weighed_by_count_and_rarity() -> None:
    np.testing.assert_allclose(tfidf(pl.Series(TEXTS)).toarray(), weights(), atol=1e-12)


def test_rarer_words_weigh_more_and_those_of_every_item_nothing() -> None:
    matrix = tfidf(pl.Series(["a b c", "a b c", "a b", "a d"])).toarray()
    b, c = np.log(4 / 3), np.log(4 / 2)
    expected = np.array([[b, c], [b, c], [b, 0], [0, 0]])
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(matrix, expected, atol=1e-12)


def test_scores_are_cosines_with_the_decayed_history() -> None:
    model = TextTFIDF(decay=0.5).fit(split_with(TEXTS))
    score = model.score(BasketBatch.from_lists([[[0], [1], [2]]], 6))[0]
    rows = weights()
    profile = 0.25 * rows[0] + 0.5 * rows[1] + rows[2]
    expected = rows @ profile / np.linalg.norm(profile)
    np.testing.assert_allclose(score.numpy(), expected, atol=1e-6)


def test_without_a_text_or_a_history_there_are_zeros() -> None:
    model = TextTFIDF().fit(split_with(TEXTS))
    scores = model.score(BasketBatch.from_lists([[], [[3]], [[2]]], 6))
    assert scores[:2].count_nonzero() == 0
    assert (scores[2] > 0).tolist() == [False, False, True, False, True, False]


def test_an_item_that_nobody_took_in_training_is_found() -> None:
    split = split_with(TEXTS)
    assert 4 not in split.training.items
    best = TextTFIDF().fit(split).top_k(BasketBatch.from_lists([[[2]]], 6), 2).items
    assert best.tolist() == [[2, 4]]


@pytest.mark.parametrize("texts", [None, [None] * 6])
def test_a_log_without_text(texts: list[None] | None) -> None:
    split = split_with(texts)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="mine: items have no text; give them a column `text`"):
        TextTFIDF().fit(split)


def test_texts_that_share_no_word() -> None:
    model = TextTFIDF().fit(split_with(["a", "b", "c", "d", "e", "f"]))
    scores = model.score(BasketBatch.from_lists([[[0]], []], 6))
    assert scores.equal(torch.zeros(2, 6))


@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ConfigError, match=f"decay={decay}"):
        TextTFIDF(decay=decay)


def test_nothing_tells_of_a_target_but_its_own_event() -> None:
    """Each item occurs once, and its event's words are its user's: no list can know the target."""
    users, each = 40, 6
    events = pl.DataFrame(
        {
            "user_id": [user for user in range(users) for _ in range(each)],
            "item_id": range(users * each),
            "timestamp": list(range(each)) * users,
            "text": [f"voice{user} phrase{user}" for user in range(users) for _ in range(each)],
        }
    )
    split = leave_last_out(EventLog.from_frames(events, item_columns=["text"]))
    model = TextTFIDF().fit(split)
    for part in (split.validation, split.test):
        evaluation = evaluate(model, part, Protocol(ks=(1,), mask_history=True))
        assert evaluation.means["recall@1"] <= 2 / users
    # With a table of items, which is known before anyone took them, every target is found first.
    table = EventLog.from_frames(events.drop("text"), events.select("item_id", "text"))
    known_split = leave_last_out(table)
    evaluation = evaluate(
        TextTFIDF().fit(known_split), known_split.test, Protocol(ks=(1,), mask_history=True)
    )
    assert evaluation.means["recall@1"] == 1
