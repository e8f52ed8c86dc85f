"""Tables of one's own as feedback: what is read of them, and each mistake in a line."""

from pathlib import Path

import polars as pl
import pytest

from recsys.data import labels_file, shown_file
from recsys.errors import DataError
from recsys.log import EventLog

PHASES = {"validation": "2024-01-04", "test": "2024-01-06"}


def log(*, zone: str | None = None) -> EventLog:
    rows = {
        "user_id": ["ann", "ann", "ben", "ann", "ben"],
        "item_id": [7, 8, 7, 9, 9],
        "timestamp": ["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-07", "2024-01-07"],
        "shop": [1, 1, 2, 2, 2],
    }
    frame = pl.DataFrame(rows)
    if zone is not None:
        time = pl.col("timestamp").str.to_datetime(time_unit="us").dt.replace_time_zone(zone)
        frame = frame.with_columns(time)
    return EventLog.from_frames(frame, name="shop")


def csv(folder: Path, text: str) -> str:
    path = folder / "table.csv"
    path.write_text(text)
    return str(path)


LABELS = """who,item_id,as_of,label
ann,7,2024-01-02,1
ann,9,2024-01-02,0
ben,8,2024-01-05,1
ann,8,2024-01-07,0
"""


@pytest.mark.parametrize("zone", [None, "Asia/Seoul"])
def test_labels_of_a_csv_file(tmp_path: Path, zone: str | None) -> None:
    path = csv(tmp_path, LABELS)
    table = labels_file(log(zone=zone), "own", path=path, columns={"user_id": "who"}, **PHASES)
    assert table.frame().select("user_id", "item_id", "label", "phase").rows() == [
        ("ann", 7, 1, 0),
        ("ann", 9, 0, 0),
        ("ann", 8, 0, 2),
        ("ben", 8, 1, 1),
    ]
    assert table.rows["as_of"].dt.day().to_list() == [2, 7, 5]


def test_what_was_shown_in_a_csv_file(tmp_path: Path) -> None:
    text = "item_id,start,end,shop\n7,2024-01-01,2024-01-03,1\n8,2024-01-01,2024-01-09,1\n"
    path = csv(tmp_path, text + "9,2024-01-04,2024-01-09,2\n")
    table = shown_file(log(), "mailer", path=path, by=["shop"], **PHASES)
    assert table.frame().select("user_id", "item_id", "label", "phase").rows() == [
        ("ann", 7, 1, 0),
        ("ann", 8, 0, 0),
        ("ann", 7, 0, 0),
        ("ann", 8, 1, 0),
        ("ann", 9, 1, 2),
        ("ben", 9, 0, 1),
        ("ben", 9, 1, 2),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LABELS.replace("label", "labels"), "has no column label, but who.*did you mean labels"),
        (LABELS.replace("2024-01-05,1", "2024-01-05,yes"), "label [1y]e?s? ?is neither 0 nor 1"),
        (LABELS.replace("2024-01-05,1", "2024-01-05,0.5"), "label 0.5 is neither 0 nor 1"),
        (LABELS.replace("2024-01-05", "soon"), "as_of: 1 unreadable, the first 'soon' in row 3"),
        (LABELS.replace("2024-01-05", ""), "as_of: row 3 has no time"),
        (LABELS.replace("ben,8", "ben,eight"), "item_id is String, and the log's is Int64"),
        (LABELS.replace("ben", "bea"), "user_id 'bea' is not in the log"),
    ],
)
def test_mistakes_of_a_table_are_a_line(tmp_path: Path, text: str, words: str) -> None:
    path = csv(tmp_path, text)
    with pytest.raises(DataError, match=words):
        labels_file(log(), "own", path=path, columns={"user_id": "who"}, **PHASES)


def test_an_order_is_no_time(tmp_path: Path) -> None:
    ordered = EventLog.from_frames(
        pl.DataFrame({"user_id": ["ann", "ben"], "item_id": [7, 8], "timestamp": [1, 9]})
    )
    path = csv(tmp_path, LABELS)
    with pytest.raises(DataError, match=r"as_of: holds times, and the timestamps of log are int"):
        labels_file(ordered, "own", path=path, columns={"user_id": "who"}, validation=3, test=5)
