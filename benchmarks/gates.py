"""What the gate of users who are alike weighs, by how many baskets a user has had and repeats.

    python -m benchmarks.gates dc tafeng tms complete_journey

Each log's `gloie_plus/<log>_any` is trained with seed 0 as `runs/gates/<log>`, unless that run is
there. The test users are divided into `PARTS` equal parts, once by the number of their baskets and
once by their repeat share, the events of a history that are not the first of their item. Of each
part the record, `benchmarks/gates.json`, holds the mean weight of the evidence at each locality;
`docs/assets/gates.svg` draws them.
"""

from __future__ import annotations

import sys
from typing import Any

import matplotlib as mpl
import polars as pl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.picture import LOGS, STYLE, as_svg
from benchmarks.record import ROOT, write
from recsys.batch.graphs import NodeBatch
from recsys.batch.histories import BasketBatch
from recsys.cli import main as command
from recsys.cli.compose import compose
from recsys.errors import RunError
from recsys.files import write_text
from recsys.models.graphs.gloie import GLOIE, AlikeUsers
from recsys.run.ranking import prepare
from recsys.scoring import saved_model

RECORD = ROOT / "benchmarks" / "gates.json"
PICTURE = ROOT / "docs" / "assets" / "gates.svg"
RUNS = ROOT / "runs" / "gates"
PARTS = 8
PROPERTIES = {"baskets": "baskets of the history", "repeat_share": "share of repeats in it"}
TITLES = {log: title.split(",")[0] for log, title in LOGS.items()}  # less the users of the log
TITLES |= {"complete_journey": "Complete Journey"}
COLOURS = ("#3f51b5", "#c2185b")

Points = dict[str, list[dict[str, Any]]]


def main() -> None:
    logs = sys.argv[1:]
    arguments = list(sys.argv)
    points = {log: of_log(log) for log in logs}
    sys.argv = arguments  # Hydra's were others
    write(RECORD, {"logs": points}, packages=["recsys", "torch"], seed=0)
    write_text(PICTURE, drawn(points))


def of_log(log: str) -> Points:
    folder, options = RUNS / log, [f"experiment=gloie_plus/{log}_any", "seed=0"]
    is_there = (folder / "model").is_dir()
    if not is_there and command.main(["train", *options, f"hydra.run.dir={folder}"]):
        raise RunError(f"gloie_plus/{log}_any did not train; see {folder}")
    model = saved_model.load(folder, device="cpu").model
    assert isinstance(model, GLOIE)
    assert model.alike is not None
    users = prepare(compose(options)).split.test.history
    return means(weights(model.alike, users))


@torch.no_grad()
def weights(alike: AlikeUsers, users: BasketBatch) -> pl.DataFrame:
    """A row a user: its baskets, its repeat share and the weight at each locality."""
    nodes = NodeBatch.of(users)
    repeat_share = 1 - nodes.node_offsets.diff() / nodes.lengths().clamp(min=1)
    columns = {"baskets": nodes.num_baskets(), "repeat_share": repeat_share}
    gates_BK = alike.gates(nodes)
    columns |= {
        f"locality_{locality}": gates_BK[:, k] for k, locality in enumerate(alike.localities)
    }
    return pl.DataFrame({name: column.double().numpy() for name, column in columns.items()})


def means(users: pl.DataFrame) -> Points:
    """By property, the users in equal parts, of which ties make fewer: means of each."""
    weight = pl.col("^locality_.*$").mean().round(4)
    return {
        name: users.group_by(part=pl.col(name).rank("max") * PARTS // (pl.len() + 1))
        .agg(pl.col(name).mean().round(4), weight, users=pl.len())
        .sort("part")
        .drop("part")
        .to_dicts()
        for name in PROPERTIES
    }


@mpl.rc_context(STYLE | {"axes.spines.left": True})
def drawn(points: dict[str, Points]) -> str:
    """The picture as SVG: a column of panels for each log."""
    figure = Figure(figsize=(8.4, 4.0), layout="constrained", facecolor="white")
    panels = figure.subplots(len(PROPERTIES), len(points), squeeze=False, sharey="col")
    for column, (log, of_properties) in enumerate(points.items()):
        panels[0, column].set_title(TITLES[log], fontsize=8.5)
        for row, (name, label) in enumerate(PROPERTIES.items()):
            _panel(panels[row, column], name, of_properties[name])
            panels[row, column].set_xlabel(label)
    panels[0, 0].legend(frameon=False, fontsize=7.5)
    for row in range(len(PROPERTIES)):
        panels[row, 0].set_ylabel("mean weight")
    return as_svg(figure)


def _panel(axes: Axes, name: str, rows: list[dict[str, Any]]) -> None:
    localities = [key for key in rows[0] if key.startswith("locality_")]
    for locality, colour in zip(localities, COLOURS, strict=True):
        label = locality.replace("_", " ")
        x, y = [row[name] for row in rows], [row[locality] for row in rows]
        axes.plot(x, y, "o-", color=colour, label=label, markersize=3.5, linewidth=1.2)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.6)
    axes.set_axisbelow(True)
    if name == "baskets":
        axes.set_xscale("log")
        ends = [rows[0][name], rows[len(rows) // 2][name], rows[-1][name]]
        axes.set_xticks(ends, [f"{baskets:.0f}" for baskets in ends])
        axes.minorticks_off()


if __name__ == "__main__":
    main()
