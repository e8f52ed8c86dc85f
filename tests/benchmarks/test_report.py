"""Tables made of records: p-values are corrected over all rows, and those that miss stay so."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks import report
from benchmarks.report import _log, _paired, _tests


def test_p_values_are_corrected_over_the_whole_table() -> None:
    rows = pl.DataFrame(
        {
            "name": ["a", "a", "b"],
            "metric": ["x", "y", "x"],
            "difference": [0.1, -0.2, 0.3],
            "low": [0.05, None, 0.2],
            "high": [0.15, None, 0.4],
            "p_value": [0.01, None, 0.04],
            "pairs": [50, 50, 50],
            "detectable": [0.0280, None, None],
            "p_holm": [0.01, None, 0.04],  # over fewer
        }
    )
    title, _, *lines = _tests(["predictor"], rows).splitlines()
    assert title == "| predictor | metric | difference | 95% interval | p | p (Holm) | detectable |"
    assert lines == [
        "| a | x | +0.1000 | +0.0500 to +0.1500 | 0.01 | 0.02 | 0.0310 |",
        "| a | y | -0.2000 |  |  |  |  |",
        "| b | x | +0.3000 | +0.2000 to +0.4000 | 0.04 | 0.04 |  |",
    ]


@pytest.mark.parametrize(
    ("variant", "log"),
    [
        ("dc_any_without_gate", "dc"),
        ("complete_journey_any", "complete_journey"),
        ("complete_journey_types", "complete_journey_types"),
        ("complete_journey_types_any", "complete_journey_types"),
        ("online_retail_baskets_any", "online_retail_baskets"),
    ],
)
def test_a_variant_is_of_the_longest_log_that_it_begins_with(variant: str, log: str) -> None:
    assert _log(variant) == log


def test_one_setting_is_held_against_every_other_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    names = ["gloie_plus/dc_any", "tifuknn/dc", "up_cf/dc"]
    records = [kept_record(tmp_path / "results", name, float(i)) for i, name in enumerate(names)]
    _, _, _, *lines = _paired("dc", records).splitlines()
    pairs = [line.split(" | ")[:2] for line in lines]
    assert pairs == [["| `gloie_plus/dc_any`", f"`{other}`"] for other in names[1:]]


def kept_record(folder: Path, name: str, ndcg: float) -> dict[str, Any]:
    """A record of three users, as the table reads it, with its users' figures beside it."""
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"experiment": name, "test": {"ndcg@10": {"mean": ndcg, "std": 0.0}}}
    path.write_text(json.dumps(record))
    users = pl.DataFrame({"user_id": [1, 2, 3], "ndcg@10": [ndcg, ndcg + 1, ndcg * 2]})
    users.write_parquet(path.with_suffix(".parquet"))
    return record
