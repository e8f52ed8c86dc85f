from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.sources.cdnow import cdnow
from recsys.errors import DataError

HEAD = " customer_id  date number_of_cds  dollar_value\r\n"


def test_a_purchase_of_two_customers(tmp_path: Path) -> None:
    path = tmp_path / "purchases.txt"
    path.write_text(f"{HEAD} 00002 19970112  5   77.00\r\n 00001 19970101  1   11.77\r\n")
    assert cdnow(str(path)).events.rows() == [
        (1, "cd", datetime(1997, 1, 1), 1, 11.77),
        (2, "cd", datetime(1997, 1, 12), 5, 77.0),
    ]


def test_a_line_that_is_no_purchase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "purchases.txt"
    path.write_text(f"{HEAD} 00002 19970112  5   77.00\r\n 00001 yesterday  1   11.77\r\n")
    with pytest.raises(DataError, match="user_id"):
        cdnow(str(path))


@pytest.mark.data
def test_published_sizes(public_data: Path) -> None:
    if not (public_data / "cdnow" / "CDNOW_master.txt").is_file():
        pytest.skip("no cdnow/CDNOW_master.txt below RECSYS_DATA")
    log = cdnow()
    assert (log.num_events, len(log.users)) == (69_659, 23_570)
    assert log.events["timestamp"].max() == datetime(1998, 6, 30)
    assert log.events["value"].sum() == pytest.approx(2_500_315.63)
    assert log.events.select(pl.col("quantity").sum()).item() == 167_881
