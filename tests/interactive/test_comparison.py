"""Several models on one log: from a frame of pandas to a table, its figures and its words."""

from typing import Any

import polars as pl
import pytest

import recsys
from recsys.errors import ConfigError
from recsys.evaluation.statistics import compare, holm
from recsys.interactive import Benchmark
from recsys.models import EASE, Popularity
from recsys.testing.logs import checkerboard

LOG = checkerboard()


@pytest.fixture(scope="module")
def result() -> Benchmark:
    small = ("sasrec", {"embedding_dim": 8})
    models: dict[str, Any] = {"popular": "popularity", "ease": EASE(l2=10.0), "small": small}
    return recsys.benchmark(LOG, models, task="next_basket", ks=[5, 10], trainer={"max_epochs": 1})


def test_the_table_is_of_means_intervals_and_paired_tests(result: Benchmark) -> None:
    assert result.metrics == ("recall@5", "ndcg@5", "mrr@5")
    assert result.table.select("model", "metric").is_unique().all()
    assert len(result.table) == 9
    for row in result.table.iter_rows(named=True):
        of_model = result.evaluations[row["model"]]
        assert row["mean"] == of_model.means[row["metric"]]
        assert (row["low"], row["high"]) == of_model.intervals()[row["metric"]]
        if row["model"] == result.best:
            assert row["difference"] is row["p_value"] is row["p_holm"] is None
            continue
        pair = compare(result.evaluations[result.best], of_model, names=[row["metric"]])
        assert row["difference"] == pair["difference"].item()
        assert row["p_value"] == pair["p_value"].item()
    tested = result.table.drop_nulls("p_value")
    assert len(tested) == 6
    assert tested["p_holm"].to_list() == holm(tested["p_value"].to_numpy()).tolist()


def test_the_best_is_chosen_by_the_validation_users(result: Benchmark) -> None:
    reached = {n: m.evaluate("validation").means["ndcg@5"] for n, m in result.models.items()}
    assert result.best == max(reached, key=lambda name: reached[name]) == "ease"


def test_figures_of_users_are_by_their_ids(result: Benchmark) -> None:
    frame = result.per_user
    assert frame.columns[:2] == ["model", "user_id"]
    assert len(frame) == 3 * 60
    means = frame.group_by("model").agg(pl.col("recall@10").mean())
    for model, mean in means.iter_rows():
        assert mean == pytest.approx(result.evaluations[model].means["recall@10"])


def test_it_is_shown_in_full(result: Benchmark) -> None:
    shown, page = repr(result), result._repr_html_()
    row = result.table.filter(model="popular", metric="recall@5").row(0, named=True)
    words = f"{row['mean']:.4f} ({row['low']:.4f}–{row['high']:.4f}) p={row['p_holm']:.3f}"
    assert words in shown
    assert words in page
    assert "…" not in shown
    assert "60 test users, 95% intervals; p of the difference from ease" in shown
    assert result.to_pandas().shape == result.table.shape


def test_a_frame_of_pandas_to_three_models_in_fewer_than_fifteen_lines() -> None:
    pd = pytest.importorskip("pandas")
    lines = """
import pandas as pd
import recsys
frame = pd.read_csv(path)
frame = frame.rename(columns={"customer": "user_id", "sku": "item_id", "day": "timestamp"})
result = recsys.benchmark(frame, ["popularity", "item_knn", "ease"])
print(result)
"""
    assert lines.count("\n") < 15
    frame = LOG.events.select("user_id", "item_id", "timestamp").to_pandas()
    columns = {"user_id": "customer", "item_id": "sku", "timestamp": "day"}
    pd.read_csv, read_csv = (lambda path: frame.rename(columns=columns)), pd.read_csv
    names: dict[str, Any] = {
        "path": "log.csv",
        "print": lambda shown: names.update(shown=str(shown)),
    }
    try:
        exec(lines, names)
    finally:
        pd.read_csv = read_csv
    assert names["result"].table["model"].n_unique() == 3
    assert "ndcg@10" in names["shown"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], r"models=\[\]: expected several"),
        ("ease", "models='ease': expected several"),
        ([EASE(), EASE(l2=3.0)], "models: EASE twice; give them names"),
        ([Popularity(), "popularty"], "model=popularty does not exist; did you mean popularity"),
    ],
)
def test_mistakes_are_told_in_a_line(models: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recsys.benchmark(LOG, models)
