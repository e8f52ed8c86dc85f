"""Tables of finished runs: what their folders say, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recsys.errors import ConfigError, RunError
from recsys.run.overview import overview, runs_below, shown


def finished(folder: Path, model: str, **figures: float | None) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"model: {{_target_: recsys.models.{model}}}\n")
    (folder / "metrics.json").write_text(json.dumps({"test": figures, "validation": {}}))
    (folder / "log.json").write_text(json.dumps({"name": "shop"}))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    lists = {"recall@20": 0.4, "ndcg@20": 0.2}
    finished(tmp_path / "a", "EASE", **{"recall@5": 0.1, "ndcg@5": 0.05, "mrr@5": 0.07}, **lists)
    finished(tmp_path / "b" / "0", "Popularity", **{"recall@5": 0.2, "ndcg@5": 0.01})
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("model: {}")
    return tmp_path


def test_a_row_for_every_finished_run(runs: Path) -> None:
    table = overview(runs_below(runs))
    assert table["run"].to_list() == [str(runs / "a"), str(runs / "b" / "0")]
    assert table["model"].to_list() == ["EASE", "Popularity"]
    assert table["log"].to_list() == ["shop", "shop"]
    assert table["mrr@5"].to_list() == [0.07, None]


def test_shown_are_the_shortest_lists_and_what_is_wanted(runs: Path) -> None:
    table = overview(runs_below(runs))
    assert shown(table).columns[4:] == ["recall@5", "ndcg@5"]
    ordered = shown(table, ["mrr@5"], by="recall@5")
    assert ordered.columns[4:] == ["recall@5", "mrr@5"]
    assert ordered["recall@5"].to_list() == [0.2, 0.1]
    by_name = shown(table.reverse(), by="model")
    assert by_name["model"].to_list() == ["EASE", "Popularity"]
    assert by_name.columns[4:] == ["recall@5", "ndcg@5"]
    with pytest.raises(ConfigError, match="no run has recall@7; there is recall@5, ndcg@5"):
        shown(table, by="recall@7")


def test_runs_without_lists_show_their_first_figures(runs: Path) -> None:
    finished(runs / "c", "Cox", concordance=0.7, log_likelihood=-0.2)
    columns = shown(overview(runs_below(runs))).columns[4:]
    assert columns == ["recall@5", "ndcg@5", "concordance", "log_likelihood"]


def test_no_run_makes_lists(tmp_path: Path) -> None:
    finished(tmp_path / "a", "Cox", concordance=0.7, recall=0.1)
    assert shown(overview(runs_below(tmp_path))).columns[4:] == ["concordance", "recall"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no folder"):
        runs_below(tmp_path / "none")
