"""Profiles of users as of a moment, and as of the end of what a model was trained on."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import EventLog
from recsys.models import ShopperBERT
from recsys.models.users.shopperbert import Encoder
from recsys.scoring.profiles import Profile, everyone, of_training, profiles
from recsys.tasks.as_of import before
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard(num_baskets=6))


def model_of(split: Split, **options: object) -> ShopperBERT:
    torch.manual_seed(0)
    sizes = Encoder(embedding_dim=8, num_layers=1, ffn_dim=16, max_length=6, dropout=0.0)
    settings = {"attributes": ["colour"], "encoder": sizes} | options
    model = ShopperBERT(split.num_items, num_classes=split.num_classes, **settings)  # type: ignore[arg-type]
    model.prepare(split)
    return model


def test_training_users_are_shown_by_their_training_events(split: Split) -> None:
    model = model_of(split)
    frame = of_training(model, split)
    assert frame.columns[:3] == ["user_id", "as_of", "vector"]
    assert frame.drop("as_of", "vector").equals(split.log.users)
    vectors = profiles(model, split.log, frame.select("user_id", "as_of"))
    np.testing.assert_allclose(frame["vector"].to_numpy(), vectors, rtol=1e-5, atol=1e-6)
    # Two baskets, for validation and test, come after.
    after = split.log.events.join(frame.select("user_id", "as_of"), on="user_id")
    after = after.filter(pl.col("timestamp") >= pl.col("as_of")).group_by("user_id")
    assert set(after.agg(pl.col("basket_id").n_unique())["basket_id"]) == {2}


def test_a_profile_of_training_is_as_of_after_its_last_event() -> None:
    """Which may be of an item that its basket holds already."""
    events = pl.DataFrame(
        {
            "user_id": [[0] * 6, [1] * 6],
            "item_id": [[0, 1, 2, 1, 3, 4]] * 2,
            "basket_id": [[0, 1, 1, 1, 2, 3]] * 2,
            "timestamp": [[datetime(2024, 1, day) for day in range(1, 7)]] * 2,
        }
    ).explode(pl.all())
    items = pl.DataFrame({"item_id": range(5), "colour": list("abcab")})
    split = last_basket(EventLog.from_frames(events, items))
    model = model_of(split, calendar=[])
    frame = of_training(model, split)
    assert (frame["as_of"] - datetime(2024, 1, 4)).dt.total_microseconds().to_list() == [1, 1]
    assert model.trained_until == datetime(2024, 1, 4, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("as_of", ["2024-01-03", "2024-01-03T00:00:00"])
def test_everyone_with_an_event_before_a_moment(split: Split, as_of: str) -> None:
    rows = everyone(split.log, as_of)
    assert rows["as_of"].unique().to_list() == [datetime(2024, 1, 3)]
    assert rows["user_id"].to_list() == split.log.users["user_id"].to_list()
    assert everyone(split.log)["as_of"][0] > split.log.events["timestamp"].max()  # type: ignore[operator]
    with pytest.raises(DataError, match="no event lies before as_of=2024-01-01; give a later"):
        everyone(split.log, "2024-01-01")
    with pytest.raises(ConfigError, match="as_of='soon': the timestamps of checkerboard ask for"):
        everyone(split.log, "soon")


def test_dates_are_not_read_from_an_order(split: Split) -> None:
    log = split.log
    events = log.events.with_columns(timestamp=pl.int_range(pl.len()))
    ordered = type(log)("ordered", events, log.items, log.users)
    rows = pl.DataFrame({"user_id": log.users["user_id"][:2], "as_of": [90, 90]})
    with pytest.raises(DataError, match="ordered: timestamps are an order, not dates"):
        profiles(model_of(split), ordered, rows)
    profiles(model_of(split, calendar=[]), ordered, rows)


def test_items_are_read_as_they_were_described_at_the_moment() -> None:
    plain = checkerboard(num_baskets=6)
    early = pl.col("timestamp") < datetime(2024, 1, 4)
    colour = pl.when(early).then(None).otherwise("colour").alias("colour")
    events = plain.events.join(plain.items, on="item_id", maintain_order="left")
    log = EventLog.from_frames(events.with_columns(colour), item_columns=["colour"])
    model = model_of(last_basket(plain))
    moments = [datetime(2024, 1, 4), datetime(2024, 1, 6)]
    rows = pl.DataFrame({"user_id": log.users["user_id"][:9].extend(log.users["user_id"][:9])})
    kind = log.events["timestamp"].dtype
    rows = rows.with_columns(as_of=pl.Series([moments[n % 2] for n in range(18)]).cast(kind))
    vectors = profiles(model, log, rows)
    for number, moment in enumerate(moments):
        rows_then = rows.filter(pl.col("as_of") == moment)
        again = profiles(model, before(log, moment), rows_then)
        np.testing.assert_allclose(vectors[number::2], again, rtol=1e-5, atol=1e-6)
    unlike = (vectors - profiles(model, plain, rows)).abs().amax(1)
    assert (unlike[::2] > 1e-3).all()  # on the 4th nothing had said a colour
    late = unlike[1::2]
    assert (late < 1e-3).any()


def test_what_users_are_called_as_ours_is_left_out(split: Split) -> None:
    log = split.log
    users = log.users.with_columns(as_of=pl.lit(1), vector=pl.lit("v"), age=pl.lit(30))
    new_split = last_basket(replace(log, users=users))
    frame = of_training(model_of(new_split), new_split)
    assert frame.columns == ["user_id", "as_of", "vector", *log.users.columns[1:], "age"]
    assert frame["as_of"].dtype == log.events["timestamp"].dtype


class Counting(ShopperBERT):
    """That counts the histories that it encodes."""

    encoded = 0

    def encode_profiles(self, batch: BasketBatch) -> Tensor:
        Counting.encoded += len(batch)
        return super().encode_profiles(batch)


def test_tables_of_one_log_share_the_profiles_of_a_run(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the users whom both ask; a log that is cut, or another log, has none yet."""
    model = model_of(split)
    model.__class__ = Counting
    monkeypatch.setattr(Counting, "encoded", 0)
    monkeypatch.setattr(Profile, "model", model)
    log, run = checkerboard(num_baskets=6), str(tmp_path)
    rows = everyone(log)
    some, most = rows[:10], rows[5:40]
    first = Profile(run)(log, some)
    assert Counting.encoded == 10
    np.testing.assert_array_equal(Profile(run)(log, some), first)
    assert Counting.encoded == 10
    second = Profile(run)(log, most)
    assert Counting.encoded == 40
    np.testing.assert_array_equal(second[:5], first[5:])
    cut = before(log, rows["as_of"][0])
    assert not cut.memo
    np.testing.assert_allclose(Profile(run)(cut, some), first, rtol=1e-5, atol=1e-6)
    assert Counting.encoded == 50
