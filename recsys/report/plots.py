"""The plots of a run's page, as inline SVG.

Colours become CSS variables and text stays text, so that a plot follows the page's theme and font.
The same numbers give the same bytes. In every plot the first model is the run's, the others are
what it is compared with.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

CATEGORIES = {
    "blue": "#4e79a7",
    "orange": "#f28e2b",
    "red": "#e15759",
    "teal": "#76b7b2",
    "green": "#59a14f",
    "yellow": "#edc948",
    "purple": "#b07aa1",
    "pink": "#ff9da7",
    "brown": "#9c755f",
    "violet": "#7f5af0",
}
"""Colours of groups, readable on light and dark."""

COLOURS = {
    "ink": "#1c1e21",
    "muted": "#63686f",
    "line": "#d8dbdf",
    "model": "#1a66c9",
    "baseline": "#98a0ab",
    **CATEGORIES,
}
"""CSS variable -> its value in the light theme; no two are equal."""

STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a model may be called a$b$
    "font.size": 9,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Plot:
    """An inline SVG, and in words what it shows."""

    svg: str
    words: str


@dataclass(frozen=True)
class Bar:
    """A model's mean with its 95% interval."""

    name: str
    mean: float
    low: float
    high: float


@mpl.rc_context(STYLE)
def bars(metric: str, models: Sequence[Bar], *, limit: float, chance: float | None = None) -> Plot:
    """A horizontal bar per model, on a scale from 0 to `limit`.

    Args:
        metric: its name.
        models: the bars, from above.
        limit: the end of the scale.
        chance: what is reached by chance, where bars then begin.
    """
    figure, axes = _axes(height=0.6 + 0.27 * len(models))
    start = chance or 0.0
    least = min([start, *(bar.low for bar in models if bar.low == bar.low)])
    span = (limit - least) or 1.0
    for y, bar in enumerate(models):
        axes.barh(y, bar.mean - start, left=start, color=_colour(y), height=0.62)
        axes.hlines(y, bar.low, bar.high, color=COLOURS["ink"], linewidth=1.2)
        axes.text(max(bar.mean, bar.high, start) + 0.02 * span, y, f"{bar.mean:.4f}", va="center")
    axes.set_yticks(range(len(models)), [bar.name for bar in models])
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
    axes.set_ylim(len(models) - 0.5, -0.5)
    ticks = MaxNLocator(4).tick_values(least, least + span)
    axes.set_xticks([tick for tick in ticks if least <= tick <= least + span])
    axes.set_xlim(least - (0.03 * span if least else 0), least + 1.22 * span)  # for the numbers
    axes.grid(axis="x")
    axes.set_xlabel(metric)
    if chance is not None:
        axes.axvline(chance, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_title(f"by chance: {chance:.3g}", loc="right", size=9, color=COLOURS["muted"])
    return _plot(figure, f"{metric} of each model")


@mpl.rc_context(STYLE)
def curve(label: str, epochs: pl.Series, values: pl.Series, *, best: float) -> Plot:
    """A value by epoch, with the epoch whose weights were kept."""
    figure, axes = _axes(height=2.4)
    marker = "o" if len(epochs) < 20 else None
    axes.plot(epochs, values, color=COLOURS["model"], linewidth=1.5, marker=marker, ms=3)
    axes.axvline(best, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_title(f"best epoch: {best:.0f}", loc="right", size=9, color=COLOURS["muted"])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    return _plot(figure, f"{label} by epoch")


@mpl.rc_context(STYLE)
def curves(label: str, models: Mapping[str, pl.DataFrame]) -> Plot:
    """A value by epoch, a line per model.

    Args:
        label: of the value.
        models: name -> `epoch` and `value`.
    """
    figure, axes = _axes(height=2.9)
    palette = list(CATEGORIES.values())
    for n, (name, rows) in enumerate(models.items()):
        marker = "o" if len(rows) < 20 else None
        colour = palette[n % len(palette)]
        axes.plot(
            rows["epoch"], rows["value"], color=colour, lw=1.3, marker=marker, ms=3, label=name
        )
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    figure.legend(loc="outside upper left", ncols=1)
    return _plot(figure, f"{label} by epoch of each run")


@mpl.rc_context(STYLE)
def trials(words: str, metric: str, rows: pl.DataFrame) -> Plot:
    """A dot per trial, and the best of the completed ones so far.

    Args:
        words: what it shows.
        metric: what the trials reached.
        rows: `trial`, `state` and `value`, in order.
    """
    figure, axes = _axes(height=2.4)
    for state, colour in (("pruned", "baseline"), ("complete", "model")):
        of = rows.filter(state=state)
        axes.plot(of["trial"], of["value"], "o", color=COLOURS[colour], ms=3)
    axes.plot(of["trial"], of["value"].cum_max(), color=COLOURS["ink"], lw=1, ds="steps-post")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y")
    axes.set_title(words.partition(":")[0], loc="left", size=9)
    axes.set_xlabel("trial")
    axes.set_ylabel(metric)
    return _plot(figure, words)


@mpl.rc_context(STYLE)
def slices(label: str, metric: str, models: Mapping[str, pl.DataFrame], *, unit: int = 1) -> Plot:
    """A metric's mean and standard error in groups of users.

    Args:
        label: by what they are grouped.
        metric: a column of the frames.
        models: name -> `Evaluation.slices`, of the same users.
        unit: by which the ends of the groups are multiplied: 100 for percent.
    """
    figure, axes = _axes(height=2.9)
    shift = 0.12 * (np.arange(len(models)) - (len(models) - 1) / 2)
    for n, (name, groups) in enumerate(models.items()):
        x, error = np.arange(len(groups)) + shift[n], groups["standard_error"].fill_null(0)
        style: Any = {"fmt": "o-", "color": _colour(n), "ms": 4, "lw": 1.2, "clip_on": False}
        axes.errorbar(x, groups[metric], error, label=name, **style)
    ends = groups.select(pl.col("from", "to") * unit).rows()
    axes.set_xticks(range(len(ends)), [_span(low, high) for low, high in ends])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set_xlabel(label)
    axes.set_ylabel(metric)
    figure.legend(loc="outside upper left", ncols=2)
    return _plot(figure, f"{metric} by {label}")


@mpl.rc_context(STYLE)
def survival_means(models: Mapping[str, pl.DataFrame], unit: str) -> Plot:
    """What came, and the mean curve of each model.

    Args:
        models: name -> `time`, `seen` and `mean`.
        unit: of time.
    """
    figure, axes = _of_survival(unit)
    for n, (name, curves) in reversed(list(enumerate(models.items()))):
        axes.plot(curves["time"], curves["mean"], color=_colour(n), linewidth=1.3, label=name)
    first = next(iter(models.values()))
    axes.plot(first["time"], first["seen"], color=COLOURS["ink"], lw=1, ls="--", label="seen")
    figure.legend(loc="outside upper left", ncols=3)
    return _plot(figure, "survival: what came and the mean of each model")


@mpl.rc_context(STYLE)
def survival_quartiles(name: str, curves: pl.DataFrame, unit: str) -> Plot:
    """The curves of the rows at the quartiles: `time`, `p25`, `p50`, `p75`."""
    figure, axes = _of_survival(unit)
    for column, colour in zip(("p25", "p50", "p75"), CATEGORIES.values(), strict=False):
        label = f"row at {column[1:]} %"
        axes.plot(curves["time"], curves[column], color=colour, linewidth=1.3, label=label)
    figure.legend(loc="outside upper left", ncols=3)
    return _plot(figure, f"survival of three rows by {name}")


def calibration(horizon: str, models: Mapping[str, pl.DataFrame]) -> Plot:
    """Of groups of rows what was predicted and what was seen at a horizon.

    Args:
        horizon: in words, with its unit.
        models: name -> `predicted` and `seen`.
    """
    words = f"calibration within {horizon}"
    lines = {
        name: (of["predicted"].to_numpy(), of["seen"].to_numpy()) for name, of in models.items()
    }
    axes = (f"predicted share back within {horizon}", "seen")
    return shares(words, axes, lines, ((0, 1), (0, 1)), marker="o")


@mpl.rc_context(STYLE)
def shares(
    words: str,
    labels: tuple[str, str],
    models: Mapping[str, tuple[np.ndarray, np.ndarray]],
    chance: tuple[Sequence[float], Sequence[float]],
    *,
    marker: str | None = None,
) -> Plot:
    """A line per model from shares to shares, both from 0 to 1.

    Args:
        words: what it shows.
        labels: of x and y.
        models: name -> x and y.
        chance: x and y of a dashed line, beside which the others are read.
        marker: of the points, where each is to be seen.
    """
    figure, axes = _axes(height=2.9)
    axes.plot(*chance, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (4, 3)))
    for n, (name, (x, y)) in reversed(list(enumerate(models.items()))):
        style: Any = {"color": _colour(n), "marker": marker, "ms": 4, "lw": 1.2, "clip_on": False}
        axes.plot(x, y, label=name, **style)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid()
    axes.set_title(words, loc="left", size=9)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    figure.legend(loc="outside upper left", ncols=3)
    return _plot(figure, words)


@mpl.rc_context(STYLE)
def reliability(models: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Plot:
    """Probabilities and how often they came true, both in percent on scales of logarithms.

    Args:
        models: name -> predicted and seen shares of groups of pairs.
    """
    figure, axes = _axes(height=2.9)
    pairs = {name: (x[y > 0] * 100, y[y > 0] * 100) for name, (x, y) in models.items()}
    every = np.concatenate([of for pair in pairs.values() for of in pair])
    ends = every.min() / 1.5, min(100, every.max() * 1.5)
    axes.plot(ends, ends, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (4, 3)))
    palette = list(CATEGORIES.values())
    for n, (name, (x, y)) in reversed(list(enumerate(pairs.items()))):
        colour = COLOURS["model"] if n == 0 else palette[n % len(palette)]
        axes.plot(x, y, "o-", color=colour, ms=4, lw=1.2, label=name)
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", size=0)
    axes.grid()
    axes.set_xlabel("predicted probability, %")
    axes.set_ylabel("came true, %")
    figure.legend(loc="outside upper left", ncols=3)
    return _plot(figure, "probabilities and how often they came true")


def by_horizon(metric: str, models: Mapping[str, pl.DataFrame], unit: str) -> Plot:
    """A metric with its interval by horizon.

    Args:
        metric: its name.
        models: name -> `horizon`, `mean`, `low`, `high`.
        unit: of the horizons.
    """
    names = [f"{horizon:g}" for horizon in next(iter(models.values()))["horizon"]]
    return by_place(metric, models, names, f"horizon in {unit}", "horizon")


@mpl.rc_context(STYLE)
def by_place(
    metric: str, models: Mapping[str, pl.DataFrame], names: Sequence[str], label: str, by: str
) -> Plot:
    """A metric with its interval at some places, one beside the other.

    Args:
        metric: its name.
        models: name -> `mean`, `low`, `high`, a row per place.
        names: of the places.
        label: what they are.
        by: the same in a word.
    """
    figure, axes = _axes(height=2.9)
    for n, (name, rows) in enumerate(models.items()):
        x = np.arange(len(rows)) + 0.08 * (n - (len(models) - 1) / 2)
        ends = np.stack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]]).clip(min=0)
        axes.errorbar(x, rows["mean"], ends, fmt="o-", color=_colour(n), ms=4, lw=1.2, label=name)
    slanted: Any = {"rotation": 30, "ha": "right"} if sum(map(len, names)) > 40 else {}
    axes.set_xticks(range(len(names)), names, **slanted)
    axes.grid(axis="y")
    axes.set_xlabel(label)
    axes.set_ylabel(metric)
    figure.legend(loc="outside upper left", ncols=3)
    return _plot(figure, f"{metric} by {by}")


@mpl.rc_context(STYLE)
def scatter(
    words: str,
    points: np.ndarray,
    groups: np.ndarray,
    colours: Sequence[str],
    titles: Sequence[str],
) -> Plot:
    """A dot per point, without axes: only what is near to what has a meaning.

    Args:
        words: what it shows.
        points: (U, 2).
        groups: (U,) int, places among the colours.
        colours: names in `COLOURS`; those of the last group lie below the others.
        titles: (U,) what is said of a dot under a pointer.
    """
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    drawn: list[str] = []
    for n, colour in reversed(list(enumerate(colours))):
        x, y = points[groups == n].T
        axes.plot(x, y, "o", color=COLOURS[colour], ms=3, mec="none", alpha=0.8)
        drawn += [titles[int(place)] for place in np.flatnonzero(groups == n)]
    axes.set_aspect("equal")
    axes.axis("off")
    plot = _plot(figure, words)
    of_dots = iter(drawn)  # a dot is a <use>, and they stand in the order of drawing
    dot = re.compile(r"(<use [^>]*)/>")
    svg = dot.sub(lambda use: f"{use[1]}><title>{escape(next(of_dots))}</title></use>", plot.svg)
    return Plot(svg, words)


@mpl.rc_context(STYLE)
def samples(words: str, curves: Sequence[np.ndarray], panels: Mapping[str, np.ndarray]) -> Plot:
    """Points that models made, each model's beside the other's, over the curves they learnt.

    Args:
        words: what it shows.
        curves: (T, 2) points along each.
        panels: name of a model -> (S, 2).
    """
    figure = Figure(figsize=(3 * len(panels), 3.4), layout="constrained")
    every = np.concatenate(curves)
    low, high = every.min(0) - 0.5, every.max(0) + 0.5
    for place, (name, points) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for of in curves:
            axes.plot(*of.T, color=COLOURS["line"], linewidth=6)
        axes.plot(*points.T, "o", color=COLOURS["model"], ms=1.6, mec="none")
        axes.set_xlim(low[0], high[0])
        axes.set_ylim(low[1], high[1])
        axes.set_aspect("equal")
        axes.axis("off")
        axes.set_title(name, size=9)
    return _plot(figure, words)


@mpl.rc_context(STYLE)
def heat_map(
    words: str, rows: Sequence[str], columns: Sequence[str], cells: np.ndarray, texts: np.ndarray
) -> Plot:
    """Signed numbers (R, C) as green above and red below zero, the stronger the farther from it.

    Args:
        words: what it shows.
        rows, columns: their names.
        cells: (R, C), NaN where there is none.
        texts: (R, C), what stands in each cell.
    """
    height = 1.3 + 0.34 * len(rows)
    figure = Figure(figsize=(2.2 + 1.0 * len(columns), height), layout="constrained")
    axes = figure.add_subplot()
    largest = float(np.nanmax(np.abs(cells), initial=0.0)) or 1.0
    for (y, x), cell in np.ndenumerate(np.nan_to_num(cells)):
        colour = COLOURS["green" if cell > 0 else "red"]
        strength = 0.75 * abs(cell) / largest
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=colour, alpha=strength, lw=0))
        axes.text(x, y, str(texts[y, x]), ha="center", va="center")
    short = [name if len(name) < 19 else f"{name[:17]}…" for name in (*rows, *columns)]
    axes.set_yticks(range(len(rows)), short[: len(rows)])
    axes.set_xticks(range(len(columns)), short[len(rows) :], rotation=30, ha="left")
    axes.xaxis.tick_top()
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    return _plot(figure, words)


@mpl.rc_context(STYLE)
def fan(name: str, forecast: pl.DataFrame) -> Plot:
    """A series, and the median and the middle halves and nine tenths of its forecasts.

    Args:
        name: of the series.
        forecast: `origin`, `day`, `came` and the quantiles `q05`, `q25`, `q50`, `q75`, `q95`, in
            order.
    """
    figure, axes = _axes(height=2.4)
    axes.plot(forecast["day"], forecast["came"], color=COLOURS["ink"], linewidth=0.9)
    for part in forecast.partition_by("origin", maintain_order=True):
        days = part["day"]
        for low, high, alpha in (("q05", "q95", 0.18), ("q25", "q75", 0.3)):
            band: Any = {"color": COLOURS["model"], "alpha": alpha, "linewidth": 0}
            axes.fill_between(days, part[low], part[high], **band)
        axes.plot(days, part["q50"], color=COLOURS["model"], linewidth=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(DateFormatter("%d %b"))
    axes.set_ylim(bottom=min(0.0, float(forecast["q05"].min())))  # type: ignore[arg-type]
    axes.grid(axis="y")
    axes.set_title(name[:48], loc="left", size=9)
    return _plot(figure, f"forecasts of {name}")


def _span(low: int | float, high: int | float) -> str:
    if low == high:
        return f"{low:.3g}"
    return f"{low}–{high}" if isinstance(low, int) else f"{low:.2g}\nto {high:.2g}"


def _colour(n: int) -> str:
    return COLOURS["baseline" if n else "model"]


def _of_survival(unit: str) -> tuple[Figure, Axes]:
    figure, axes = _axes(height=2.9)
    axes.set_ylim(0, 1)
    axes.set_xmargin(0)  # a limit that is set before the lines would stay
    axes.grid(axis="y")
    axes.set_xlabel(unit)
    axes.set_ylabel("not back yet")
    return figure, axes


def _axes(*, height: float) -> tuple[Figure, Axes]:
    """A figure of its own: pyplot's are global, and kept."""
    figure = Figure(figsize=(3.8, height), layout="constrained")
    return figure, figure.add_subplot()


def _plot(figure: Figure, words: str) -> Plot:
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # The salt makes ids that are the same in every run and differ between the plots of a page.
    with mpl.rc_context({"svg.hashsalt": words}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return Plot(svg, words)
