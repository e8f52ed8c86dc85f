"""Tables of a run as a terminal shows them: no word of them is cut, however narrow it is."""

from __future__ import annotations

from io import StringIO

import polars as pl
import pytest
from rich.console import Console

from recsys.report import screen

METRICS = ["log_likelihood", "concordance", "concordance_ipcw", "calibration@30", "calibration@7"]


def shown(monkeypatch: pytest.MonkeyPatch, table: pl.DataFrame, width: int) -> str:
    out = StringIO()
    monkeypatch.setattr(screen, "console", Console(file=out, width=width))
    screen.show(screen.table_of(table, title="runs/second - runs/first (test)"))
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


def test_a_table_of_many_columns_goes_on_below(monkeypatch: pytest.MonkeyPatch) -> None:
    table = screen.WideTable(title="back, test")
    for name in ("model", *METRICS):
        table.add_column(name, justify="right")
    for model in ("cox", "hazard_gradient_penalty"):
        table.add_row(model, *["0.1234 0.1 to 0.2"] * len(METRICS))
    out = StringIO()
    monkeypatch.setattr(screen, "console", Console(file=out, width=80))
    screen.show(table)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("hazard_gradient_penalty" in line for line in lines) == 3
    assert sum("back, test" in line for line in lines) == 1
    assert sum(line.count("0.1234 0.1 to 0.2") for line in lines) == 2 * len(METRICS)


def test_columns_of_several_words_are_not_cut_where_the_kind_of_table_is_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["brier", "log_loss", "size_error", "calibration_error"]
    names += [f"{way} a half: ndcg@10" for way in ("without", "with")]
    frame = pl.DataFrame({"model": ["GLOIE", "decayed_personal"], **{n: [0.5, 1.5] for n in names}})
    out = StringIO()
    monkeypatch.setattr(screen, "console", Console(file=out, width=80))
    screen.show(screen.table_of(frame, kind=screen.WideTable))
    text = out.getvalue()
    assert "…" not in text
    assert all(name in text for name in [*names, "decayed_personal"])
    assert max(map(len, text.splitlines())) <= 80
