"""Further logs as text."""

from pathlib import Path

import polars as pl
import pytest

from recsys.data.corpus import LogCorpus
from recsys.errors import ConfigError
from recsys.log.words import Template

TITLE = Template(columns=["title"])


def test_the_histories_of_a_log_in_the_words_of_its_items(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    rows = [("b", 7, 1, "lamp"), ("a", 9, 2, "socks 🧦"), ("b", 8, 0, ""), ("b", 9, 3, "socks 🧦")]
    pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "title"], orient="row").write_csv(path)
    options = {"path": str(path), "columns": {"title": "title"}}
    texts, histories = LogCorpus("table.table", TITLE, options=options).read()
    assert texts.to_list() == ["lamp", "8", "socks 🧦"]
    histories_in_words = [texts[row.tolist()].to_list() for row in histories.values.split([1, 3])]
    assert histories.lengths.tolist() == [1, 3]
    assert histories_in_words == [["socks 🧦"], ["8", "lamp", "socks 🧦"]]


def test_the_histories_of_a_log_with_what_its_events_say(tmp_path: Path) -> None:
    rows = [("b", 1, 1, "lamp", None), ("a", 2, 0, "socks", "warm"), ("b", 2, 3, "socks", "warm")]
    names = ["user_id", "item_id", "timestamp", "title", "query"]
    pl.DataFrame(rows, names, orient="row").write_csv(tmp_path / "shop.csv")
    options = {"path": str(tmp_path / "shop.csv")}
    template = Template(columns=["title"], event_columns=["query"])
    texts, histories = LogCorpus("table.table", template, options=options).read()
    assert histories.lengths.tolist() == [1, 2]
    assert texts[histories.values.numpy()].to_list() == ["socks. warm", "lamp", "socks. warm"]


@pytest.mark.parametrize(
    "source", ["nowhere.nothing", "table.nothing", "files.os.system", "table.Path", "files.record"]
)
def test_what_is_no_source_is_not_called(source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"source={source} is no source of"):
        LogCorpus(source, TITLE, options={"command": f"touch {tmp_path / 'called'}"}).read()
    assert not (tmp_path / "called").exists()


def test_a_weight_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"weight=0\.0: expected above 0"):
        LogCorpus("table.table", TITLE, weight=0.0)
