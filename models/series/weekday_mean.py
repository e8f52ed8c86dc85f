"""WeekdayMean: each period as the mean of its weekday over the last weeks.

Of periods that are no days, of the same place in the last seasons.

Shapes: B windows, H periods of the horizon.
"""

from __future__ import annotations

from torch import Tensor

from recsys.batch.series import SeriesTable, Windows
from recsys.models.series._points import PointForecaster
from recsys.models.series.seasonal_naive import check_context, seasons
from recsys.ranges import at_least


class WeekdayMean(PointForecaster):
    """The mean of the last seasons.

    Args:
        num_weeks: seasons that are averaged, or as many of them as the context holds.

    Raises:
        ConfigError: no season, or a context that holds none.
    """

    learns_windows = False

    def __init__(self, *, num_weeks: int = 4) -> None:
        at_least(1, num_weeks=num_weeks)
        self.num_weeks = num_weeks

    def learn(self, past: SeriesTable) -> None:
        check_context(past, past.season)

    def expected(self, windows: Windows, past: SeriesTable) -> Tensor:
        number = min(self.num_weeks, past.context // past.season)
        return seasons(windows, past, number).mean(1)
