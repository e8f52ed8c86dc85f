"""Plots of return times."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import polars as pl
import pytest

from recsys.report import plots
from recsys.report.plots import Plot

CURVES = pl.DataFrame(
    {
        "time": [0.0, 30.0, 60.0, 90.0],
        **{name: [1.0, 0.5, 0.2, 0.1] for name in ("seen", "mean", "p25", "p50", "p75")},
    }
)


def ends(plot: Plot) -> list[float]:
    """The longest line's x, as shares of the width of the picture."""
    root = ElementTree.fromstring(plot.svg)
    width = float(root.attrib["viewBox"].split()[2])
    paths = [path.attrib["d"] for path in root.iter("{http://www.w3.org/2000/svg}path")]
    numbers = [[float(x) for x in re.findall(r"[ML] ([-\d.]+) ", path)] for path in paths]
    return [max(line) / width for line in numbers if line]


@pytest.mark.parametrize(
    "plot",
    [
        plots.survival_means({"Cox": CURVES, "kaplan_meier": CURVES}, "days"),
        plots.survival_quartiles("Cox", CURVES, "days"),
    ],
    ids=["means", "quartiles"],
)
def test_a_curve_is_shown_as_far_as_it_goes(plot: Plot) -> None:
    """And no line goes on outside of the picture, as behind a limit that was set too early."""
    assert max(ends(plot)) <= 1
