"""Scores of given pairs, and parts that add up to them."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import recsys.models
from recsys.cli.names import names
from recsys.errors import ConfigError, DataError, UnknownIdError
from recsys.log.event_log import EventLog
from recsys.log.vocabulary import Vocabulary
from recsys.models import (
    EASE,
    IALS,
    TIFUKNN,
    UPCF,
    DecayedPersonal,
    Hybrid,
    ItemKNN,
    Markov,
    PersonalTop,
    Popularity,
    TextTFIDF,
)
from recsys.scoring import SavedModel
from recsys.scoring.explanations import EXPLAINED
from recsys.scoring.ids import UnknownIdWarning
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import all_training, last_basket
from recsys.testing.logs import checkerboard

SPLIT = last_basket(checkerboard(num_users=40, num_items=20))


def saved_model(model: ClosedForm, split: Any = SPLIT) -> SavedModel:
    return SavedModel(model.fit(split), split.item_table, split.users, split.latest, False)


MODELS: list[ClosedForm] = [
    Popularity(decay=0.9),
    PersonalTop(),
    DecayedPersonal(),
    ItemKNN(num_neighbors=5, decay=0.8),
    Markov(),
    EASE(l2=5.0),
    TextTFIDF(),
    UPCF(num_recent=2),
    TIFUKNN(num_neighbors=7),
    Hybrid(
        members={"knn": ItemKNN().fit(SPLIT), "top": PersonalTop().fit(SPLIT)},
        weights={"knn": 0.7, "top": -0.3},
    ),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_parts_add_up_to_the_score(model: ClosedForm) -> None:
    saved = saved_model(model)
    every = pl.DataFrame({"user_id": [3, 8]}).join(
        pl.DataFrame({"item_id": list(range(20))}), how="cross"
    )
    scores = saved.score(every)
    expected = model.score(saved.histories.rows(torch.tensor([3, 8]))).flatten()
    torch.testing.assert_close(torch.from_numpy(scores["score"].to_numpy().copy()), expected)
    for most in (None, 2):
        parts = saved.explain(every, parts=most)
        sums = parts.group_by("user_id", "item_id").agg(
            pl.col("part").sum(), of_item=pl.len(), of_others=(pl.col("kind") == "others").sum()
        )
        both = scores.join(sums, on=["user_id", "item_id"], validate="1:1")
        assert len(both) == len(every)
        assert (both["score"] - both["part"]).abs().max() < 1e-6 * max(both["score"].abs().max(), 1)
        if most is not None:
            assert both["of_item"].max() <= 3
            assert (both["of_others"] == (both["of_item"] > 2).cast(int)).all()


def test_the_models_that_are_named_are_those_that_can() -> None:
    zoo = Path(recsys.models.__path__[0])  # read, for an import of all takes seconds
    text = "".join(path.read_text() for path in zoo.rglob("*.py"))
    known = re.findall(r"^class (\w+)\(Explainable\b", text, re.MULTILINE)
    assert sorted(known) == sorted(type(model).__name__ for model in MODELS)
    named = EXPLAINED.replace(" and ", ", ").split(", ")
    assert len(named) == len(MODELS)
    assert set(named) <= set(names("model"))


SHOP = EventLog.from_frames(
    pl.DataFrame(
        [
            ("ann", "tea", "2024-03-01"),
            ("ann", "tea", "2024-03-05"),
            ("ann", "milk", "2024-03-05"),
            ("bob", "tea", "2024-03-02"),
            ("bob", "milk", "2024-03-03"),
            ("bob", "jam", "2024-03-04"),
            ("eve", "jam", "2024-03-02"),
            ("eve", "tea", "2024-03-04"),
            ("eve", "jam", "2024-03-06"),
        ],
        schema=["user_id", "item_id", "timestamp"],
        orient="row",
    ).with_columns(pl.col("timestamp").str.to_date()),
    pl.DataFrame(
        {
            "item_id": ["tea", "milk", "jam"],
            "title": ["black tea", "oat milk", "red jam"],
            "text": ["black drink", "white drink", "red black"],
        }
    ),
)


def shop(model: ClosedForm) -> SavedModel:
    return saved_model(model, all_training(SHOP, Vocabulary(SHOP.items["item_id"])))


def test_own_purchases_by_count_and_date() -> None:
    parts = shop(PersonalTop(fill=False)).explain(
        pl.DataFrame({"user_id": ["ann"], "item_id": ["tea"]})
    )
    (row,) = parts.iter_rows(named=True)
    assert (row["kind"], row["source"], row["source_title"]) == ("history", "tea", "black tea")
    assert (row["part"], row["events"], str(row["last"])) == (2.0, 2, "2024-03-05")


def test_neighbours_are_training_users_other_than_the_one_asked() -> None:
    parts = shop(UPCF(locality=1.0)).explain(
        pl.DataFrame({"user_id": ["ann"], "item_id": ["jam"]}), parts=None
    )
    assert parts.select("kind", "source", "events").rows() == [
        ("user", "eve", None),
        ("user", "bob", None),
    ]
    # Ann holds tea and milk. Eve shares one of two items, and has jam in two baskets of three; bob
    # shares two of three items, and has it in one of three.
    assert parts["part"].to_list() == pytest.approx([1 / 2 * 2 / 3, 2 / 6**0.5 * 1 / 3])


def test_what_nothing_brought() -> None:
    pairs = pl.DataFrame({"user_id": ["ann", "ann"], "item_id": ["jam", "tea"]})
    parts = shop(PersonalTop(fill=False)).explain(pairs)
    assert parts.select("item_id", "kind", "part").rows() == [
        ("jam", "nothing", 0.0),
        ("tea", "history", 2.0),
    ]


def test_words() -> None:
    parts = shop(TextTFIDF()).explain(pl.DataFrame({"user_id": ["ann"], "item_id": ["jam"]}))
    assert parts.select("kind", "source").rows() == [("word", "black")]


def test_whom_nothing_is_known_of_is_explained_by_popularity() -> None:
    rows = [("ann", "a"), ("ann", "b"), ("bob", "a"), ("bob", "b"), ("odd", "x")]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    log = EventLog.from_frames(frame.with_columns(timestamp=pl.int_range(pl.len())))
    saved = saved_model(ItemKNN(), all_training(log, Vocabulary(log.items["item_id"])))
    pairs = pl.DataFrame({"user_id": ["odd"], "item_id": ["a"]})
    assert saved.score(pairs)["score"].to_list() == saved.recommend("odd", k=1)["score"].to_list()
    (row,) = saved.explain(pairs).iter_rows(named=True)
    assert (row["kind"], row["source"], row["part"]) == ("popularity", "popularity", row["score"])


@pytest.mark.parametrize("model", [EASE(), IALS(embedding_dim=4)], ids=["scores", "vectors"])
def test_scores_are_those_of_lists_in_the_order_of_the_rows(model: ClosedForm) -> None:
    saved = saved_model(model)
    lists = saved.recommend([8, 3, 11], k=6).with_columns(note=pl.lit("x"))
    mixed = lists.sample(fraction=1, shuffle=True, seed=0)
    again = saved.score(mixed.lazy())
    assert again.columns == ["user_id", "rank", "item_id", "title", "note", "score"]
    assert again.drop("score").equals(mixed.drop("score"))
    assert (again["score"] - mixed["score"]).abs().max() < 1e-6


def test_users_and_items_that_are_not_known() -> None:
    saved = saved_model(ItemKNN())
    pairs = pl.DataFrame({"user_id": [3, 99, 3, None], "item_id": ["2", "2", "tea", "4"]})
    with pytest.warns(UnknownIdWarning) as warned:
        scored = saved.score(pairs)
    assert [str(one.message).partition("; ")[2] for one in warned] == ["they have no score"] * 2
    assert scored["score"].is_null().to_list() == [False, True, True, True]
    with pytest.warns(UnknownIdWarning, match="they are not explained"):
        assert set(saved.explain(pairs)["item_id"]) == {"2"}
    for ask in (saved.score, saved.explain):
        with pytest.raises(UnknownIdError, match="pairs: user_id 99 is not among the 40"):
            ask(pairs, unknown="refuse")
        with pytest.raises(UnknownIdError, match="pairs: item_id 'tea' is not among the 20"):
            ask(pl.DataFrame({"user_id": [3], "item_id": ["tea"]}))
        with pytest.raises(DataError, match=r"pairs: no column item_id \(there are: user_id\)"):
            ask(pl.DataFrame({"user_id": [3]}))
        nothing = pairs.clear().cast({"item_id": int})
        assert len(ask(nothing)) == 0


def test_what_cannot_be_explained() -> None:
    pairs = pl.DataFrame({"user_id": [3], "item_id": [2]})
    with pytest.raises(ConfigError, match="IALS does not say what brings a score; popularity, "):
        saved_model(IALS(embedding_dim=4)).explain(pairs)
    with pytest.raises(ConfigError, match="parts=0: expected at least 1"):
        saved_model(EASE()).explain(pairs, parts=0)
