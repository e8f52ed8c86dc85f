"""Means and intervals on disk."""

import json
import math
from pathlib import Path

import pytest

from recsys.errors import RunError
from recsys.evaluation.figures import read_figures, write_figures


def test_what_is_no_number_is_null_in_the_files_and_nan_in_python(tmp_path: Path) -> None:
    means = {"test": {"auroc": math.nan, "ap": 0.5}}
    write_figures(tmp_path, means, {"test": {"auroc": (math.nan, math.nan), "ap": (0.25, 0.75)}})
    read = {
        name: json.loads((tmp_path / f"{name}.json").read_text(), parse_constant=pytest.fail)
        for name in ("metrics", "intervals")
    }
    assert read["metrics"] == {"test": {"auroc": None, "ap": 0.5}}
    assert read["intervals"] == {"test": {"auroc": [None, None], "ap": [0.25, 0.75]}}
    means_read, intervals = read_figures(tmp_path)
    assert math.isnan(means_read["test"].pop("auroc"))
    assert all(map(math.isnan, intervals["test"].pop("auroc")))
    assert (means_read, intervals) == ({"test": {"ap": 0.5}}, {"test": {"ap": [0.25, 0.75]}})


def test_the_means_are_written_last(tmp_path: Path) -> None:
    """A folder that has them is whole."""
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(OSError, match=r"metrics\.json"):
        write_figures(tmp_path, {}, {})
    assert (tmp_path / "intervals.json").is_file()


def test_figures_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics\.json"):
        read_figures(tmp_path)
