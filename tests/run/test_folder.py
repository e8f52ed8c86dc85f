"""Tables of a run as a terminal shows them: no word of them is cut, however narrow it is."""

from __future__ import annotations

from io import StringIO

import polars as pl
import pytest
from rich.console import Console

from recsys.report import tables
from recsys.run import folder

METRICS = ["log_likelihood", "concordance", "concordance_ipcw", "calibration@30", "calibration@7"]


def shown(monkeypatch: pytest.MonkeyPatch, table: pl.DataFrame, width: int) -> str:
    out = StringIO()
    monkeypatch.setattr(folder, "console", Console(file=out, width=width))
    folder.show(tables.frame(table, title="runs/second - runs/first (test)"))
    return out.getvalue()


@pytest.mark.parametrize("width", [30, 80, 200])
def test_no_name_and_no_number_is_cut(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    columns = ["first", "second", "difference", "low", "high", "p_value", "p_holm"]
    numbers = {name: [-0.123456 - place] * 5 for place, name in enumerate(columns)}
    text = shown(monkeypatch, pl.DataFrame({"metric": METRICS, **numbers}), width)
    assert "…" not in text
    for word in (*METRICS, *columns, "-0.1235", "-6.1235"):
        assert word in text


def test_a_table_that_fits_has_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pl.DataFrame({"metric": METRICS, "first": [0.5] * 5})
    assert "┃ metric" in shown(monkeypatch, table, 80)
    assert "┃" not in shown(monkeypatch, table, 24)
