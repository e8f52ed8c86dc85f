"""What a predictor reaches: by hand, beside other formulas, and with every mistake refused."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.errors import LeakError, RunError
from recsys.evaluation.prediction import (
    Folds,
    Predictions,
    TableResult,
    cross_validate,
    leads,
    user_intervals,
)
from recsys.evaluation.statistics import compare_folds, holm
from recsys.log.event_log import EventLog
from recsys.log.vocabulary import Vocabulary
from recsys.scoring.predictor import Predictor
from recsys.tasks.labels import LabelTable
from recsys.testing.logs import colour_table, new_item_table


class Given(Predictor):
    """The same scores for every row, or none that are numbers."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.given = torch.tensor(scores)

    def fit(self, table: LabelTable, rows: Tensor) -> Self:
        return self

    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        return self.given.expand(len(rows), -1)


class Ahead(Given):
    """How long the log is, whatever the moment."""

    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        return torch.full((len(rows), len(table.candidates)), len(table.log.events))


class OwnNumber(Given):
    """The user's own number, which is odd for the white ones."""

    def predict(self, table: LabelTable, rows: Tensor) -> Tensor:
        user = torch.from_numpy(table.rows["user_id"].to_numpy(writable=True))[rows]
        return (user % 2 + 0.01 * (user % 3)).float()[:, None]


def ranking(labels: list[list[int]], excluded: list[list[int]], candidates: int) -> LabelTable:
    events = pl.DataFrame({"user_id": [0, 1], "item_id": [0, 1], "timestamp": [1, 2]})
    rows = pl.DataFrame(
        {"user_id": range(len(labels)), "as_of": 9, "until": 10, "phase": 2},
        schema_overrides={"phase": pl.UInt8},
    )
    return LabelTable(
        "q",
        EventLog.from_frames(events),
        rows,
        Vocabulary(pl.Series(range(candidates))),
        Ragged.from_lists(labels),
        Ragged.from_lists(excluded),
        ranked=True,
        items=Ragged.from_lists([[]] * candidates),
    )


def test_ranking_metrics_by_hand() -> None:
    """Candidate 0 first, 1 second … of 12; the first row may not be given the first two."""
    table = ranking([[2, 3], [10], [11, 0]], [[0, 1], [], []], 12)
    scores = torch.arange(12.0).flip(0).expand(3, -1)
    by_row = Predictions(table, torch.arange(3), scores).row_metrics()
    assert by_row["hr@10"].to_list() == [1, 0, 1]
    one = 1 / (1 + 1 / math.log2(3))
    assert by_row["ndcg@10"].to_list() == pytest.approx([1, 0, one])
    assert by_row["mrr"].to_list() == pytest.approx([1, 1 / 11, 1])


def test_equal_scores_go_to_the_lower_candidate() -> None:
    table = ranking([[1]], [[]], 3)
    predictions = Predictions(table, torch.arange(1), torch.zeros(1, 3))
    assert predictions.row_metrics()["mrr"].to_list() == [0.5]


def test_a_table_without_order_has_folds_alone() -> None:
    result = cross_validate(colour_table(), lambda: OwnNumber([0.0]), Folds(num_folds=3, repeats=2))
    assert list(result.means) == ["test"]
    assert len(result.folds) == 6
    assert result.means["test"]["auroc"] == pytest.approx(result.folds["auroc"].mean())
    low, high = result.intervals["test"]["auroc"]
    assert low <= result.means["test"]["auroc"] <= high
    assert len(result.predictions) == 2 * 60
    columns = ["user_id", "as_of", "part", "fold", "score/white", "label/white"]
    assert result.predictions.columns == columns


def test_a_table_in_order_has_every_part() -> None:
    scores = np.random.default_rng(0).random(40).tolist()
    result = cross_validate(new_item_table(), lambda: Given(scores), Folds(num_folds=3, repeats=1))
    assert list(result.means) == ["validation", "test", "folds"]
    test = result.predictions.filter(part="test")
    for metric, mean in result.means["test"].items():
        assert mean == pytest.approx(test[metric].mean())
        low, high = result.intervals["test"][metric]
        assert low < mean < high


def test_intervals_of_a_mean_are_as_wide_as_theory_says() -> None:
    scores = np.random.default_rng(0).random(40).tolist()
    result = cross_validate(new_item_table(), lambda: Given(scores), Folds(num_folds=2, repeats=1))
    values = result.predictions.filter(part="test")["mrr"]
    low, high = result.intervals["test"]["mrr"]
    error = values.std() / len(values) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_prediction_that_changes_with_what_comes_later_is_refused() -> None:
    with pytest.raises(LeakError, match="Ahead knows what comes after 2024-01-05"):
        cross_validate(new_item_table(), lambda: Ahead([0.0]))
    table = colour_table()
    early = table.rows.with_columns(as_of=pl.lit(datetime(2024, 1, 4)).cast(pl.Datetime("us")))
    with pytest.raises(LeakError, match="Ahead knows what comes after 2024-01-04"):
        cross_validate(replace(table, rows=early), lambda: Ahead([0.0]))


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(RunError, match=r"Given gives row \d+ of white a score that is not finite"):
        cross_validate(colour_table(), lambda: Given([float("nan")]))


def folds_of(values: Sequence[float]) -> pl.DataFrame:
    about = {"repeat": 0, "fold": range(len(values)), "train": 80, "test": 20}
    return pl.DataFrame({**about, "auroc": values})


def a_result(folds: pl.DataFrame) -> TableResult:
    return TableResult({}, {}, folds, pl.DataFrame())


def test_the_leads_of_a_run_are_corrected_together() -> None:
    best, near, far = [0.7, 0.72, 0.71], [0.69, 0.715, 0.7], [0.5, 0.6, 0.4]
    none = a_result(folds_of(best).clear())
    found = leads(
        {
            "kids": {"m": a_result(folds_of(best)), "near": a_result(folds_of(near)), "none": none},
            "lapse": {
                "m": a_result(folds_of(best)),
                "far": a_result(folds_of(far)),
                "nan": a_result(folds_of([math.nan, 0.5, 0.5])),
                "other": a_result(folds_of(best[:2])),
            },
            "alone": {"m": a_result(folds_of(best))},
        }
    )
    assert found.select("table", "against").rows() == [
        ("kids", "near"),
        ("lapse", "far"),
        ("lapse", "nan"),
    ]
    one, two = (compare_folds(folds_of(v), folds_of(best))["p_value"][0] for v in (near, far))
    assert found["p_value"].to_list() == [one, two, None]
    assert found["p_holm"].to_list() == [*holm(np.array([one, two])), None]
    assert (found["difference"] > 0).all()
    assert leads({"alone": {"m": a_result(folds_of(best))}}).is_empty()


def test_a_resample_without_users_of_the_fold_does_not_count() -> None:
    """One user alone is in the fold: the interval is that user's figure, not down to 0."""
    table = ranking([[0], [1], [2]], [[], [], []], 3)
    one = Predictions(table, torch.tensor([1]), torch.tensor([[0.5, 0.4, 0.3]]))
    assert user_intervals([one])["mrr"] == [0.5, 0.5]
    draws = np.array([[1, 1, 1], [2, 0, 1]])
    mrr = one.resampled(draws)[:, one.metrics.index("mrr")]
    assert mrr == pytest.approx([0.5, math.nan], nan_ok=True)


@pytest.mark.parametrize("ranked", [True, False])
def test_of_nobody_there_is_no_figure(ranked: bool) -> None:
    table = ranking([[0], [1]], [[], []], 3) if ranked else colour_table()
    nobody = Predictions(table, torch.arange(0), torch.zeros(0, len(table.candidates)))
    assert all(math.isnan(mean) for mean in nobody.means().values())
    assert all(map(math.isnan, user_intervals([nobody])["mrr" if ranked else "ap"]))


def test_what_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    result = replace(
        cross_validate(colour_table(), lambda: OwnNumber([0.0]), Folds(num_folds=2, repeats=1)),
        means={"test": {"auroc": math.nan, "ap": 0.5}},
        intervals={"test": {"auroc": [math.nan, math.nan], "ap": [0.25, 0.75]}},
    )
    result.write(tmp_path / "white")
    text = (tmp_path / "white" / "metrics.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"test": {"auroc": None, "ap": 0.5}}
    again = TableResult.read(tmp_path / "white")
    assert math.isnan(again.means["test"]["auroc"])
    assert all(map(math.isnan, again.intervals["test"]["auroc"]))
    assert again.intervals["test"]["ap"] == [0.25, 0.75]


def test_a_column_without_a_pair_is_left_out_of_the_mean(tmp_path: Path) -> None:
    """In a fold where every user is of one class there is no AUROC."""
    table = colour_table()
    rows = table.labels.lengths.nonzero()[:, 0]
    predictions = Predictions(table, rows, torch.rand(len(rows), 1))
    assert math.isnan(predictions.means()["auroc"])
    assert predictions.means()["ap"] == 1


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    result = cross_validate(colour_table(), lambda: OwnNumber([0.0]), Folds(num_folds=2, repeats=1))
    result.write(tmp_path / "white")
    again = TableResult.read(tmp_path / "white")
    assert again.means == result.means
    assert again.folds.equals(result.folds)
    assert again.predictions.equals(result.predictions)
    assert json.loads((tmp_path / "white" / "metrics.json").read_text()) == result.means
    assert datetime(2024, 1, 6) < again.predictions["as_of"][0]
