"""`metrics.json` and `intervals.json`: a run's means and their intervals, by part and metric.

What is no number in Python is null in the files, so that any reader of JSON takes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys.files import write_text
from recsys.reading import read_json


def write_figures(folder: Path, means: Mapping[str, Any], intervals: Mapping[str, Any]) -> None:
    """Write both, the means last: a folder that has them is whole."""
    for name, values in (("intervals", intervals), ("metrics", means)):
        figures = _replaced(values, lambda v: None if v != v else v)
        write_text(folder / f"{name}.json", json.dumps(figures, indent=2))


def read_figures(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The means and the intervals, NaN where there is no number.

    Raises:
        RunError: a file is missing or damaged.
    """
    means, intervals = (
        _replaced(read_json(folder / f"{name}.json"), lambda v: np.nan if v is None else v)
        for name in ("metrics", "intervals")
    )
    return means, intervals


def _replaced(values: Any, by: Callable[[Any], Any]) -> Any:
    """The same dicts and lists with other values in them."""
    match values:
        case Mapping():
            return {name: _replaced(value, by) for name, value in values.items()}
        case list() | tuple():
            return [_replaced(value, by) for value in values]
    return by(values)
