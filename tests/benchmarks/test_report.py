"""Tables made of records: p-values are corrected over all rows, and those that miss stay so."""

import polars as pl

from benchmarks.report import _tests


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
