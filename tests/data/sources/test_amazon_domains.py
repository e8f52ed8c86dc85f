"""Five domains of Amazon: rows of the published file's form, odd ones among them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.sources.amazon_domains import amazon_domains
from recsys.errors import DataError
from recsys.log.event_log import ITEM, TIME, USER
from recsys.log.filters import filtered

DAY = 86_400
COLUMNS = {"user": pl.Int64, "domain": pl.Int64, "item": pl.Int64, "unix_time": pl.Int64}


def written(folder: Path, rows: list[tuple[int, int, int, int]]) -> str:
    path = folder / "events.parquet"
    pl.DataFrame(rows, schema=COLUMNS, orient="row").write_parquet(path)
    return str(path)


def test_events_are_in_order_of_days_and_items_have_a_domain(tmp_path: Path) -> None:
    rows = [(1, 9, 70, 2 * DAY), (1, 5, 60, DAY), (0, 5, 60, DAY), (0, 8, 50, DAY)]
    log = amazon_domains(written(tmp_path, rows))
    assert log.events.select(USER, ITEM, TIME).rows() == [
        (0, 60, datetime(1970, 1, 2)),
        (0, 50, datetime(1970, 1, 2)),  # of one day: as in the file
        (1, 60, datetime(1970, 1, 2)),
        (1, 70, datetime(1970, 1, 3)),
    ]
    assert log.items.rows() == [
        (50, "Toys_and_Games"),
        (60, "Books"),
        (70, "Sports_and_Outdoors"),
    ]


def test_a_domain_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="domain 4 has no name; expected 5, 6"):
        amazon_domains(written(tmp_path, [(0, 4, 1, DAY), (1, 5, 2, DAY)]))


def test_an_item_of_two_domains_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="item 7 is in two domains"):
        amazon_domains(written(tmp_path, [(0, 5, 7, DAY), (1, 6, 7, DAY)]))


def test_a_file_without_a_column_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(path)
    with pytest.raises(DataError, match=r"events.parquet cannot be read: .*domain"):
        amazon_domains(str(path))


@pytest.mark.data
def test_published_sizes(public_data: Path) -> None:
    log = amazon_domains()
    assert (log.num_events, len(log.users), len(log.items)) == (182_044, 5_000, 132_300)
    often = filtered(log, min_item_events=5)
    assert (often.num_events, len(often.items)) == (20_621, 2_593)
    events = often.events.join(often.items, on=ITEM)["domain"].value_counts().sort("domain")
    assert events["count"].to_list() == [5968, 4411, 3152, 4106, 2984]
