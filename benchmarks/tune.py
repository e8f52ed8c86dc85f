"""Choose a closed-form model's options on the validation users, by their nDCG@10.

    python -m benchmarks.tune dc decayed_personal decay=.6,.8,1 popularity_weight=.01,.1,1

fits every combination of the values given and evaluates it on the validation users; the best, the
first of equals, is then evaluated on the test users, once. `benchmarks/tuning/<model>_<data>.json`
keeps the grid with every point's validation metrics.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from rich.progress import track

from benchmarks.record import ROOT, write
from recsys.batch.examples import Part
from recsys.cli.compose import compose
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.run.config import Sizes, sized
from recsys.run.ranking import prepare
from recsys.scoring import saved_model
from recsys.scoring.scorer import ClosedForm
from recsys.tasks.splits import Split

RESULTS = ROOT / "benchmarks" / "tuning"
CHOSEN_BY = "ndcg@10"
SHOWN = ("recall@10", "ndcg@10", "phr@10")

Options = dict[str, Any]
Metrics = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("grid", nargs="+", type=values, metavar="OPTION=VALUE,VALUE")
    options = parser.parse_args()
    config = compose([f"data={options.data}", f"model={options.model}"])
    task = prepare(config)
    base = OmegaConf.to_container(sized(config, Sizes.of(task.split)).model, resolve=True)
    assert isinstance(base, dict)
    started = time.perf_counter()
    points = search(base, dict(options.grid), task.split, task.protocol.mask_history)
    seconds = time.perf_counter() - started
    best = max(points, key=lambda point: point["validation"][CHOSEN_BY])
    model = fitted({**base, **best["options"]}, task.split)
    best = {**best, "test": ask(model, task.split.test, task.protocol.mask_history)}
    write(
        Path(RESULTS / f"{options.model}_{options.data}.json"),
        {"grid": dict(options.grid), "best": best, "seconds": round(seconds, 1), "points": points},
        packages=["recsys", "torch", "polars"],
        seed=config.seed,
    )
    print(best)


def values(option: str) -> tuple[str, list[Any]]:
    """`alpha=.1,.3` as a name and its values."""
    name, _, texts = option.partition("=")
    return name, [yaml.safe_load(value) for value in texts.split(",")]


def search(
    base: Options, grid: dict[str, list[Any]], split: Split, mask_history: bool
) -> list[dict[str, Any]]:
    """Every combination of the grid with its validation metrics."""
    points = []
    for point_values in track(list(itertools.product(*grid.values()))):
        options = dict(zip(grid, point_values, strict=True))
        model = fitted({**base, **options}, split)
        points.append(
            {"options": options, "validation": ask(model, split.validation, mask_history)}
        )
    return points


def fitted(options: Options, split: Split) -> ClosedForm:
    model = saved_model.build(options)
    assert isinstance(model, ClosedForm), f"{options['_target_']} is trained, not fitted"
    return model.fit(split)


def ask(model: ClosedForm, part: Part, mask_history: bool) -> Metrics:
    means = evaluate(model, part, Protocol(ks=(10,), mask_history=mask_history)).means
    return {name: round(means[name], 6) for name in SHOWN}


if __name__ == "__main__":
    main()
