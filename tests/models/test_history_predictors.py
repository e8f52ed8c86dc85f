"""NewPopularity, NewEASE, OwnPurchases and CandidateSize by hand on a log of three users."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
import pytest
import torch

from recsys.batch.ragged import Ragged
from recsys.log.event_log import EventLog
from recsys.log.vocabulary import Vocabulary
from recsys.models import CandidateSize, NewEASE, NewPopularity, OwnPurchases
from recsys.tasks.labels import LabelTable

EVENTS = [("a", "w", 1), ("a", "w", 4), ("a", "x", 4), ("b", "x", 2), ("b", "y", 4), ("c", "w", 3)]
LATER = [("b", "w", 8), ("c", "z", 9)]


@pytest.fixture
def table() -> LabelTable:
    """On the 6th: three candidates, of w and x, of y, and of z."""
    events = pl.DataFrame(
        [(user, item, datetime(2026, 1, day)) for user, item, day in EVENTS + LATER],
        schema=["user_id", "item_id", "timestamp"],
        orient="row",
    )
    log = EventLog.from_frames(events)
    rows = pl.DataFrame({"user_id": ["a", "b", "c"]}).with_columns(
        as_of=pl.lit(datetime(2026, 1, 6)).cast(log.events["timestamp"].dtype),
        until=pl.lit(datetime(2026, 1, 9)).cast(log.events["timestamp"].dtype),
        phase=pl.lit(2, pl.UInt8),
    )
    return LabelTable(
        "q",
        log,
        rows,
        Vocabulary(pl.Series(["wx", "y", "z"])),
        Ragged.from_lists([[1], [2], [2]]),
        Ragged.from_lists([[], [], []]),
        ranked=True,
        items=Ragged.from_lists([[0, 1], [2], [3]]),
    )


ROWS = torch.arange(3)


def test_users_who_had_a_candidate(table: LabelTable) -> None:
    assert NewPopularity().predict(table, ROWS).tolist() == [[3, 1, 0]] * 3
    # First within two days of the last event, on the 4th: c with w, b with y.
    assert NewPopularity(days=2).predict(table, ROWS).tolist() == [[2, 1, 0]] * 3
    assert NewPopularity(days=1).predict(table, ROWS).tolist() == [[1, 1, 0]] * 3


def test_days_that_begin_when_clocks_were_put_forward(table: LabelTable) -> None:
    """In Santiago the 3rd of September 2023 began at 1:00."""
    hours = [datetime(2023, 9, 2, 23), datetime(2023, 9, 3, 1), datetime(2023, 9, 5)]
    events = pl.DataFrame({"user_id": ["a", "b", "a"], "item_id": ["w", "y", "x"]})
    times = pl.Series("timestamp", hours).dt.replace_time_zone("America/Santiago")
    log = EventLog.from_frames(events.with_columns(times), table.log.items)
    assert NewPopularity(days=2).newcomers(table, log).tolist() == [0, 1, 0]
    users = table.rows["user_id"]
    found = OwnPurchases(days=2).scores(replace(table, log=log), log, users)
    assert (found > 0).tolist() == [[True, False, False], [False, True, False], [False] * 3]


def test_ease_over_candidates_times_the_log_of_newcomers(table: LabelTable) -> None:
    held = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0]], dtype=float)
    inverse = np.linalg.inv(held.T @ held + 0.5 * np.eye(3))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    expected = held @ weights * np.log1p([3, 1, 0])
    found = NewEASE(l2=0.5, days=None).predict(table, ROWS)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_own_events_by_the_log_of_the_size(table: LabelTable) -> None:
    counts = torch.tensor([[3.0, 0, 0], [1, 1, 0], [1, 0, 0]])
    expected = counts / torch.tensor([3.0, 2, 2]).log1p()
    torch.testing.assert_close(OwnPurchases().predict(table, ROWS), expected)
    recent = OwnPurchases(days=1).predict(table, ROWS)
    torch.testing.assert_close(recent[:, 0], torch.tensor([2.0, 0, 1]) / np.log(4))


def test_items_of_a_candidate(table: LabelTable) -> None:
    assert CandidateSize().predict(table, ROWS[:1]).tolist() == [[2, 1, 1]]
