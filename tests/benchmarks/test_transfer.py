"""The tables of several domains, from a record of known numbers."""

from typing import Any

import polars as pl

from benchmarks.transfer.report import by_domain, claims, diagnostic, means, pairs
from benchmarks.transfer.run import METRIC, ROWS, mean_of, over_seeds


def gain(difference: float, p: float, **more: Any) -> dict[str, Any]:
    return {"difference": difference, "low": difference - 0.01, "high": 0.03, "p_holm": p, **more}


def test_a_domain_counts_as_much_as_another() -> None:
    frame = pl.DataFrame({"user_id": [1, 2, 3], "domain": ["a", "a", "b"], METRIC: [0.0, 0.2, 0.5]})
    assert mean_of(frame) == 0.3
    other = frame.with_columns(pl.lit(1.0).alias(METRIC))
    assert over_seeds([frame, other])[METRIC].to_list() == [0.5, 0.6, 0.75]


def test_tables_of_the_diagnostic() -> None:
    of = {"training": "all", "domain": "a", "beside": None, "users": 1200}
    rows = [gain(0.02, 0.04, **of, alone=0.1, together=0.12)]
    assert diagnostic(rows).splitlines()[-1] == (
        "| a | 1,200 | .1000 | .1200 | **+0.0200** | +0.0100 to +0.0300 | 0.040 |"
    )
    pair = {"training": "pair", "users": 5, "alone": 0.1, "together": 0.1}
    rows += [gain(0.02, 0.2, domain="a", beside="b", **pair)]
    rows += [gain(-0.03, 0.0001, domain="b", beside="a", **pair)]
    assert pairs(rows).splitlines()[-2:] == ["| a |  | **-0.0300** |", "| b | +0.0200 |  |"]


def test_tables_of_five_seeds() -> None:
    spread = {"min": 0.1, "max": 0.3, "values": [0.1, 0.3]}
    record = {
        "users": {"a": 12},
        "newcomers": {"a": 3},
        "rows": {row: {"mean": spread, "a": spread} for row in ROWS},
        "of_mean": [gain(0.02, 0.2, row="x", against="y", seeds=2)],
        "by_domain": {"x": [gain(0.02, 0.0001, domain="a")]},
    }
    assert means(record).splitlines()[2] == f"| {ROWS[0]} | 2 | .2000 (.1000-.3000) | .2000 |"
    assert claims(record).splitlines()[-1] == "| x | y | 2 | +0.0200 | +0.0100 to +0.0300 | 0.200 |"
    assert by_domain(record).splitlines()[-1] == "| x | **+0.0200** (<.001) |"
