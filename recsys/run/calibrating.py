"""A run's models calibrated: probabilities fitted on validation users, and judged on test users.

It adds to a run's folder

    model/calibration.json                  see `recsys.scoring.calibration`
    baselines/<name>/model/calibration.json the same of each baseline
    calibration.json                        what they reached on the test users

and to its page how probabilities compare with what came.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from recsys.batch.examples import Part
from recsys.errors import RunError
from recsys.evaluation.calibration import reliability
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.files import write_text
from recsys.report import ranking_page
from recsys.report.page import name_of
from recsys.run.ranking import Task
from recsys.scoring import saved_model
from recsys.scoring.calibration import Calibrated, Calibration, calibrate
from recsys.scoring.completion import Companions, Completing, fit_basket_weight, half_known
from recsys.scoring.scorer import Scorer
from recsys.scoring.trained_model import asking
from recsys.tasks.splits import Split

FIGURES = "calibration.json"


def calibration_of(model: Scorer, split: Split, *, mask_history: bool = False) -> Calibration:
    """What makes a model's scores probabilities, from a split's validation users.

    Args:
        model: fitted on the split.
        split: with validation users.
        mask_history: whether lists leave out what a user has had.

    Raises:
        DataError: there are no such users with targets.
    """
    model.eval()
    fitted = calibrate(model, split.validation, mask_history=mask_history)
    return fit_basket_weight(
        Calibrated(model, fitted),
        Companions.of(split.training),
        split.validation,
        mask_history=mask_history,
    )


def calibrate_run(
    run: Path, config: Mapping[str, Any], task: Task, trusted: Sequence[str], device: str
) -> dict[str, Any]:
    """Calibrate a run's model and its baselines, and write what they reach.

    Args:
        run: its folder.
        config: of the run.
        task: that it was trained on.
        trusted: packages whose classes the config may build.
        device: where models are asked.

    Returns:
        What `calibration.json` holds.

    Raises:
        RunError: a model is missing or damaged, or is outside of the folder.
    """
    protocol, names = task.protocol, {name_of(config["model"]): run}
    names |= {str(name): run / "baselines" / str(name) for name in config["baselines"] or {}}
    models: dict[str, Any] = {}
    for name, folder in names.items():
        if not (folder / "model").resolve().is_relative_to(run.resolve()):
            raise RunError(f"{folder / 'model'} leads out of {run}; calibrate the run it is of")
        saved = saved_model.load(folder, device=device, trusted=trusted)
        with asking(saved.model):
            fitted = calibration_of(saved.model, task.split, mask_history=protocol.mask_history)
            models[name] = figures(Calibrated(saved.model, fitted), task.split, protocol)
        saved_model.write_calibration(folder / "model", fitted)
    whole = {"models": models, "sizes": dict(size_errors(task.split)), "k": protocol.ks[0]}
    write_text(run / FIGURES, json.dumps(whole, indent=2))
    ranking_page.write(run)
    return whole


def figures(model: Calibrated, split: Split, protocol: Protocol) -> dict[str, Any]:
    """What a calibrated model reaches on the test users, as numbers for JSON."""
    masked = protocol.mask_history
    result = reliability(model.eval(), split.test, mask_history=masked)
    of_model: dict[str, Any] = {
        "means": result.means,
        "intervals": result.intervals(),
        "groups": result.groups.to_dict(as_series=False),
    }
    half = half_known(split.test)
    if model.calibration.basket_weight is not None and len(half):
        of_model["completion"] = completion_figures(model, split, half, protocol)
    return of_model


def completion_figures(
    model: Calibrated, split: Split, half: Part, protocol: Protocol
) -> dict[str, Any]:
    """What lists reach on the other half of a basket: without a look at the first, and with one."""
    companions, k = Companions.of(split.training), protocol.ks[0]
    of_half: dict[str, Any] = {"users": len(half)}
    for name, one in (("without", without_companions(model)), ("with", model)):
        means = evaluate(Completing(one, companions).eval(), half, replace(protocol, ks=(k,))).means
        of_half[name] = {metric: means[metric] for metric in (f"recall@{k}", f"ndcg@{k}")}
    return of_half


def without_companions(model: Calibrated) -> Calibrated:
    """The model for which what is in the basket already says nothing of the rest."""
    return Calibrated(model.model, replace(model.calibration, basket_weight=0.0)).eval()


def size_errors(split: Split) -> Iterator[tuple[str, float]]:
    """How far from the size of a test user's basket some simple guesses are, mean over users."""
    history, size = split.test.history, split.test.target.lengths.double()
    if len(history) != len(size):  # several targets a user, each by itself
        return
    mean = float(split.validation.target.lengths.double().mean())
    of_user = history.lengths() / history.num_baskets().clamp(min=1)
    yield "mean of all", float((size - mean).abs().mean())
    yield "mean of the user", float((size - of_user).abs().mean())


def table_of_figures(whole: Mapping[str, Any]) -> pl.DataFrame:
    """A row per model, for the screen."""
    rows = []
    for name, of in whole["models"].items():
        half = of.get("completion", {})
        metric = f"ndcg@{whole['k']}"
        lists = {
            f"{way} a half: {metric}": half[way][metric] for way in ("without", "with") if half
        }
        rows.append({"model": name, **of["means"], **lists})
    return pl.DataFrame(rows)
