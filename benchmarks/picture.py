"""Draw the README's picture from the records: nDCG@10 of next baskets, three logs, seven models.

    python -m benchmarks.picture          docs/assets/next_baskets.svg

A point is the mean over the test users, each user's metric being the mean over seeds; a line its
95% bootstrap interval over users.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.record import ROOT
from recsys.evaluation.statistics import mean_intervals
from recsys.files import write_text

RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "assets" / "next_baskets.svg"
METRIC = "ndcg@10"
LOGS = {"dc": "DC, 9,010 users", "tafeng": "Ta-Feng, 9,841 users", "tms": "TMS, 15,726 users"}
MODELS = {
    "gloie_plus/{log}_any": "GLOIE, one setting",
    "count_vae_personal/{log}": "count VAE beside personal frequency",
    "up_cf/{log}": "UP-CF",
    "tifuknn/{log}": "TIFUKNN",
    "decayed_personal/{log}": "personal frequency, decayed",
    "gloie/{log}": "GLOIE, the paper's shape",
    "dnntsp/{log}": "DNNTSP",
}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": METRIC,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": "#8a8f98",
    "xtick.color": "#5c6370",
}

Point = tuple[float, float, float]


def main() -> None:
    write_text(PICTURE, drawn({log: points(log) for log in LOGS}))


def points(log: str) -> dict[str, Point]:
    """Of each model the mean, and the ends of its interval."""
    return {model: _point(RESULTS / f"{model.format(log=log)}.parquet") for model in MODELS}


def _point(per_user: Path) -> Point:
    frame = pl.read_parquet(per_user, glob=False).select(METRIC)
    low, high = mean_intervals(frame, level=0.95, resamples=1000, seed=0)[METRIC]
    return frame.mean().item(), low, high


@mpl.rc_context(STYLE)
def drawn(points_of: dict[str, dict[str, Point]]) -> str:
    """The picture as SVG."""
    figure = Figure(figsize=(8.4, 2.6), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(points_of), sharey=True)
    for axes, (log, of_models) in zip(panels, points_of.items(), strict=True):
        _panel(axes, LOGS[log], of_models)
    panels[0].set_yticks(range(len(MODELS)), list(MODELS.values()))
    return as_svg(figure)


def as_svg(figure: Figure) -> str:
    """The same bytes for the same picture."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _panel(axes: Axes, title: str, of_models: dict[str, Point]) -> None:
    for y, (mean, low, high) in enumerate(of_models.values()):
        colour = "#3f51b5" if y == 0 else "#5c6370"
        axes.hlines(y, low, high, color=colour, linewidth=1.6)
        axes.plot(mean, y, "o", color=colour, markersize=4.5)
        axes.text(mean, y - 0.26, shown(mean), ha="center", va="bottom", fontsize=7.5, color=colour)
    axes.set_ylim(len(of_models) - 0.6, -0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e5e8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=8.5)
    axes.set_xlabel("nDCG@10")


def shown(figure: float) -> str:
    """As tables have it: .3521."""
    return f"{figure:.4f}".removeprefix("0")


if __name__ == "__main__":
    main()
