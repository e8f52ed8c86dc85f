"""Numeric options out of their range: one line each, for every option of every model."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

import recsys
from recsys import ranges
from recsys.cli.compose import compose
from recsys.errors import ConfigError, RecsysError
from recsys.evaluation.ranking import Protocol
from recsys.scoring.forecaster import Forecaster
from recsys.scoring.scorer import Scorer
from recsys.scoring.survival import SurvivalPredictor
from recsys.scoring.trust import build
from recsys.tasks.splits import last_basket
from recsys.testing.forecasters import weekly_series
from recsys.testing.logs import checkerboard, colour_table, new_item_table
from recsys.testing.survival import gaps_and_noise
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

NAMES = sorted(p.stem for p in (Path(recsys.__file__).parent / "conf/model").glob("*.yaml"))
MORE = {
    "hybrid": [
        "+model@model.members.ease=ease",
        "+model.weights.ease=1.0",
        "+model@model.members.popular=popularity",
        "+model.weights.popular=0.5",
    ],
    "sasrec": ["+text@model.text=tfidf", "model.text.dim=1"],
    "shopperbert": ["model.calendar=[weekday]"],
    "conditional_autoencoder": ["model.column=colour"],
    "cross_domain": ["model.column=colour"],
    "encgan": ["model.column=colour"],
    "fine_tuned": ["model.run=none"],
}
FEATURES = [{"_target_": "recsys.tasks.Counts", "column": "colour", "days": 30}]
OPTIONAL: dict[str, dict[str, Any]] = {
    "item_knn": {"num_neighbors": 3},
    "popularity": {"decay": 0.5},
    "new_popularity": {"days": 28},
    "sasrec": {"ranking": {"num_negatives": 3}, "id_weight_decay": 0.1},
    "lmrec": {"ids": {"id_weight_decay": 0.1}},
    "hazard_net": {"steps": {"max_epochs": 2}},
    "hazard_ode": {"steps": {"max_epochs": 2}},
}
"""Options that are null by default, and what they are otherwise; and those of a short training."""


@cache
def model_config(name: str) -> dict[str, Any]:
    """Of a model on the checkerboard, every option set."""
    sizes = ["num_items=40", "num_users=60", "num_classes={item_id: 40, colour: 2}"]
    overrides = ["data=table", "data.path=x", f"model={name}", *sizes]
    config = compose([*overrides, *MORE.get(name, [])])
    for member in (config.model, *config.model.get("members", {}).values()):
        if "features" in member:
            member.features = FEATURES
    options_of_model = OmegaConf.to_container(config.model, resolve=True)
    for options in (options_of_model, *options_of_model.get("members", {}).values()):
        options.pop("search", None)  # of a run, which tries them
    optional = OmegaConf.merge(options_of_model, OPTIONAL.get(name, {}))
    return OmegaConf.to_container(optional)  # type: ignore[return-value]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def numbers(section: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every numeric option: its name with dots, and where it is."""
    for key, value in section.items() if isinstance(section, dict) else enumerate(section):
        if isinstance(value, (dict, list)):
            yield from numbers(value, f"{place}{key}.")
        elif is_number(value):
            yield f"{place}{key}", section, key


def cases(name: str, *wrong: float) -> list[tuple[str, float]]:
    """The options of a model, each with wrong values of the option's own type."""
    return [
        (option, type(section[key])(value))
        for option, section, key in numbers(model_config(name))
        for value in wrong
        if isinstance(section[key], float) or value in (-1, 0)
    ]


def refusal(name: str, option: str, value: float, act: Callable[[str, str, float], Any]) -> str:
    """The line by which a value is refused, "" for one that is taken."""
    message = ""
    try:
        act(name, option, value)
    except RecsysError as error:
        message = str(error)
    except Exception as error:
        error.add_note(f"{name}: {option}={value}")
        raise
    assert "\n" not in message, f"{name}: {option}={value}"
    return message


def config_with(name: str, option: str, value: float) -> dict[str, Any]:
    config = deepcopy(model_config(name))
    ((section, key),) = [(s, k) for o, s, k in numbers(config) if o == option]
    section[key] = value
    return config


def fitted(name: str, option: str, value: float) -> Tensor:
    """Scores, forecasts or curves of a model that was trained a little."""
    torch.manual_seed(0)
    model, split = build(config_with(name, option, value)), last_basket(checkerboard())
    if isinstance(model, Scorer):
        training = TrainingOptions(max_epochs=1, monitor="ndcg@5", device="cpu")
        fit(model, split, training, Protocol(ks=(5,)))
        with torch.inference_mode():
            return model.score(split.test.history)
    if isinstance(model, Forecaster):
        return model.fit(weekly_series()).forecast(weekly_series()).mean
    if isinstance(model, SurvivalPredictor):
        rows = gaps_and_noise(60)
        return model.learn(rows, rows).curves(rows.covariates).survival
    ranks = name in ("candidate_size", "new_ease", "new_popularity", "own_purchases")
    table, rows = new_item_table() if ranks else colour_table(), torch.arange(30)
    return model.fit(table, rows).predict(table, rows)


# A test per model and not per option: what composes the configs would run in every process that
# collects the tests.
@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_taken_or_refused_in_a_line(name: str) -> None:
    def make(*case: Any) -> None:
        build(config_with(*case))

    for option, value in cases(name, -1, 0, nan, inf):
        last_name = option.rpartition(".")[2]
        message = refusal(name, option, value, make)
        is_named = f"{last_name}={value}" in message
        assert is_named if message else value in (-1, 0), f"{name}: {option}={value}: {message}"


def test_most_models_have_numbers() -> None:
    assert sum(bool(cases(name, -1)) for name in NAMES) > len(NAMES) / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "fine_tuned"])
def test_numbers_train_or_are_refused_in_a_line(name: str) -> None:
    def train(*case: Any) -> None:
        assert fitted(*case).isfinite().all()

    for option, value in cases(name, -1, 0):
        refusal(name, option, value, train)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("sasrec", "embedding_dim", -1),
        ("sasrec", "encoder.max_length", 0),
        ("sasrec", "encoder.max_length", -3),
        ("sasrec", "learning_rate", -1.0),
        ("count_vae", "kl_steps", 0),
        ("gloie", "ranking.num_targets", 0),
        ("dnntsp", "embedding_dim", 0),
        ("bpr_mf", "num_negatives", -1),
        ("ials", "embedding_dim", 0),
    ],
)
def test_what_no_model_can_be(name: str, option: str, value: float) -> None:
    last_name = option.rpartition(".")[2]
    with pytest.raises(
        ConfigError, match=rf"^{last_name}={value}: expected at least [01]; leave it"
    ):
        build(config_with(name, option, value))


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("sasrec", "encoder.num_heads"),
        ("dnntsp", "num_heads"),
        ("gloie", "graph.num_heads"),
        ("shopperbert", "encoder.num_heads"),
        ("lmrec", "decoder.num_heads"),
    ],
)
def test_heads_divide_the_dimensions(name: str, option: str) -> None:
    message = r"^num_heads=3 does not divide embedding_dim=\d+; choose another, such as [24]$"
    with pytest.raises(ConfigError, match=message):
        build(config_with(name, option, 3))


def test_each_bound_at_its_ends() -> None:
    ranges.at_least(0, x=0, y=0.0, z=None)
    ranges.above(0, low=1e-9, x=None)  # any name will do
    ranges.share(x=0, y=1.0, z=None)
    ranges.proper_share(x=0, y=0.999)
    ranges.decays(x=1, y=1e-9)
    ranges.heads(num_heads=4, embedding_dim=8)
    for bound in (ranges.at_least, ranges.above):
        for value in (-1, nan, inf, -inf):
            with pytest.raises(ConfigError, match=rf"^x={value}: expected (at least|above) 0; "):
                bound(0, x=value)
    with pytest.raises(ConfigError, match=r"^x=0: expected above 0; "):
        ranges.above(0, x=0)
    for value in (-0.1, 1.1, nan):
        with pytest.raises(ConfigError, match=f"^x={value}: expected a share, 0 to 1; "):
            ranges.share(x=value)
    for value in (-0.1, 1, nan):
        with pytest.raises(ConfigError, match=f"^x={value}: expected from 0 to below 1; "):
            ranges.proper_share(x=value)
    for value in (0, 1.1, nan):
        with pytest.raises(ConfigError, match=f"^x={value}: expected above 0, to 1; "):
            ranges.decays(x=value)


def test_a_list_names_nothing_twice() -> None:
    ranges.distinct(x=[1, 2], y="ab", z=None, empty=[])
    with pytest.raises(ConfigError, match=r"^task\.x=\[7,5,7\] names 7 twice; name each once$"):
        ranges.distinct(**{"task.x": [7, 5, 7]})


def test_what_is_no_number_is_a_line() -> None:
    for check, message in (
        (lambda: ranges.at_least(1, k="5"), "k='5': expected a number"),
        (lambda: ranges.above(0, k=[5]), r"k=\[5\]: expected a number"),
        (lambda: ranges.share(k="a"), "k='a': expected a number"),
        (lambda: ranges.decays(k="a"), "k='a': expected a number"),
        (lambda: ranges.integers(k=None), "k=None: expected an integer, such as k=10"),
        (lambda: ranges.integers(k=True), "k=True: expected an integer"),
    ):
        with pytest.raises(ConfigError, match=message):
            check()
    ranges.integers(k=torch.arange(3).numpy()[1])
