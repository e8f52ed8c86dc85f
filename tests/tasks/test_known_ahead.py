"""What is known ahead of series: rows of plans counted by hand, and every error."""

from datetime import date
from typing import Any

import polars as pl
import pytest
import torch

from recsys.errors import ConfigError
from recsys.log.event_log import EventLog
from recsys.tasks.known_ahead import of_plan
from recsys.tasks.sales import Origins, Sales, sales_series

WEDNESDAY = date(2024, 1, 3)
DAYS = [date(2024, 1, number) for number in range(3, 11)]
IDS = pl.Series([7, 9])


def test_rows_of_days_and_what_has_none() -> None:
    plan = pl.DataFrame(
        {
            "kind": ["9", "9", "8"],
            "day": [date(2024, 1, 4), date(2023, 1, 1), WEDNESDAY],
            "off": [3, 5, 7],
            "series": [True, False, True],
        }
    )
    known = of_plan(plan, "kind", IDS, DAYS, "day")
    assert known.shape == (2, 8, 2)
    assert known[1, 1].tolist() == [3, 1]
    assert known.count_nonzero() == 2


def test_rows_of_weeks_hold_on_every_day_of_theirs() -> None:
    plan = pl.DataFrame({"kind": [7, 7], "week": ["2024-01-05", "2024-01-08"], "off": [1.0, 2.0]})
    known = of_plan(plan, "kind", IDS, DAYS, "day")
    assert known[0, :, 0].tolist() == [1, 1, 1, 1, 1, 2, 2, 2]
    weeks = of_plan(plan, "kind", IDS, [date(2024, 1, 1), date(2024, 1, 8)], "week")
    assert weeks[0, :, 0].tolist() == [1, 2]


def test_rows_of_days_are_averaged_over_a_week() -> None:
    plan = pl.DataFrame({"kind": [7, 7], "day": ["2024-01-05", "2024-01-07"], "off": [1.0, 6.0]})
    known = of_plan(plan, "kind", IDS, [date(2024, 1, 1), date(2024, 1, 8)], "week")
    assert known[0, :, 0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"week": "2024-01-01"}, "has the columns kind, day, off, week; expected kind, day or"),
        ({"kind": [1, 2]}, "none of its rows is of a series, kind=7 or another"),
        ({"kind": [7, None]}, "kind is missing in a row"),
        ({"day": ["2024-01-01", "soon"]}, "day is missing in a row, or none"),
        ({"day": [1, 2]}, "day is missing in a row, or none"),
        ({"off": [1.0, float("nan")]}, "off is missing in a row, or none"),
        ({"off": ["much", "little"]}, "off is missing in a row, or none"),
        ({"day": ["2024-01-01"] * 2}, "two rows of kind=7 and the day 2024-01-01; give one"),
    ],
)
def test_plans_that_are_none(columns: dict[str, Any], message: str) -> None:
    rows = {"kind": [7, 7], "day": ["2024-01-01", "2024-01-02"], "off": [1.0, 2.0]}
    with pytest.raises(ConfigError, match=message):
        of_plan(pl.DataFrame(rows).with_columns(**_columns(columns)), "kind", IDS, DAYS, "day")


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    return {n: pl.Series(v) if isinstance(v, list) else pl.lit(v) for n, v in values.items()}


@pytest.mark.parametrize("missing", [["kind"], ["day"], ["off"]])
def test_plans_without_a_column(missing: list[str]) -> None:
    plan = pl.DataFrame({"kind": [7], "day": ["2024-01-01"], "off": [1.0]}).drop(missing)
    with pytest.raises(ConfigError, match="expected kind, day or week, and numbers"):
        of_plan(plan, "kind", IDS, DAYS, "day")


def sales(plan: pl.DataFrame | None) -> Sales:
    days = [f"2024-01-{number:02}" for number in range(1, 11)]
    rows = {"user_id": [1, 2] * 10, "item_id": ["a", "b"] * 10, "timestamp": sorted(days * 2)}
    log = EventLog.from_frames(pl.DataFrame(rows))
    return sales_series(log, Origins(horizon=2, context=2, validation=1, test=1), plan=plan)


def test_a_plan_stands_behind_the_calendar_and_reaches_a_horizon_further() -> None:
    plan = pl.DataFrame({"item_id": ["b"] * 2, "day": ["2024-01-08", "2024-01-12"], "off": [1, 2]})
    table, alike = sales(plan).table, sales(None).table
    assert table.known.shape == (2, 12, alike.known.shape[1] + 1)
    assert table.known[1, :, :-1].equal(alike.known)
    assert table.known[..., -1].nonzero().tolist() == [[1, 7], [1, 11]]
    assert table.last().known[..., -1].tolist() == [[0, 0, 0, 0], [0, 0, 0, 2]]
    assert table.before(6).last().known[..., -1].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    assert table.before(5).known.shape[1] == 7


def test_forecasters_read_what_is_known_of_each_series() -> None:
    """Sales double on the days of a plan, in each series on others."""
    from recsys.batch.series import SeriesTable
    from recsys.models.series.linear_lags import LinearLags

    generator = torch.Generator().manual_seed(0)
    planned = (torch.rand(8, 154, 1, generator=generator) < 0.3).float()
    values = 10 + 10 * planned[:, :140, 0]
    table = SeriesTable(values, planned, 28, 7, 7)
    past = table.before(133)
    forecast = LinearLags(l2=1e-4, read_known=True).fit(past).forecast(past)
    assert (forecast.mean - table.after(133)).abs().mean() < 1
    blind = LinearLags(l2=1e-4).fit(past).forecast(past)
    assert (blind.mean - table.after(133)).abs().mean() > 3
