"""Windows of series by index arithmetic, and tables that end at an origin."""

import torch

from recsys.batch.series import SeriesTable


def table(*, of_each: bool = False) -> SeriesTable:
    """Two series of ten periods, known two further by their number."""
    values = torch.arange(20.0).view(2, 10)
    known = torch.arange(12.0)[:, None]
    if of_each:
        known = torch.stack([known, known + 100])
    return SeriesTable(values, known, context=3, horizon=2, season=1)


def test_windows_are_numbered_by_series_and_start() -> None:
    series = table()
    assert (series.starts, series.num_windows) == (6, 12)
    windows = series.windows(torch.tensor([0, 5, 6]))
    assert windows.past.tolist() == [[0, 1, 2], [5, 6, 7], [10, 11, 12]]
    assert series.futures(torch.tensor([0, 5, 6])).tolist() == [[3, 4], [8, 9], [13, 14]]
    assert windows.known[:, :, 0].tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [0, 1, 2, 3, 4]]
    assert windows.ahead[:, :, 0].tolist() == [[3, 4], [8, 9], [3, 4]]
    assert windows.series.tolist() == [0, 0, 1]


def test_the_last_window_ends_at_the_origin_and_knows_what_is_ahead() -> None:
    windows = table(of_each=True).last()
    assert windows.past.tolist() == [[7, 8, 9], [17, 18, 19]]
    assert windows.ahead[:, :, 0].tolist() == [[10, 11], [110, 111]]


def test_a_scale_lies_between_the_window_and_the_series() -> None:
    windows = table().windows(torch.tensor([0]))
    assert windows.scale.tolist() == [(1 + 4.5) / 2]
    assert windows.rows(torch.tensor([0])).scaled.tolist() == (windows.past / 2.75).tolist()
    zeros = SeriesTable(torch.zeros(1, 5), torch.zeros(6, 0), 2, 1, 1)
    assert zeros.last().scaled.tolist() == [[0, 0]]


def test_a_table_before_an_origin_holds_nothing_of_what_came() -> None:
    series = table(of_each=True)
    before = series.before(6)
    assert before.values.equal(series.values[:, :6])
    assert before.known.shape == (2, 8, 1)
    assert series.after(6).tolist() == [[6, 7], [16, 17]]
    assert before.level.tolist() == [2.5, 12.5]
