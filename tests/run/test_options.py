"""Every option of every config against what it is for, before anything is read or trained."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from recsys.cli.compose import compose
from recsys.cli.names import names
from recsys.errors import ConfigError
from recsys.run import alignment, forecasting, prediction, ranking, return_times
from recsys.run.config import as_values
from recsys.run.options import argument, check_options

TABLE = ("data=table", "data.path=log.csv")
LABELS = ("task=new_items", "data=table", "data.path=log.csv", "task.labels.new_items.test=x")
NEEDED = {
    "model=fine_tuned": ["model.run=runs/x"],
    "task=next_basket_time": [
        "task.split.validation_start=2026-01-01",
        "task.split.test_start=2026-02-01",
    ],
    "task=lapse": ["task.labels.lapse.train=[]", "task.labels.lapse.test=x"],
    "task=profiling": [
        "task.labels.profile.column=age",
        "+task.labels.profile.classes.old=[a]",
    ],
    "plan@task.series.plan=table": ["task.series.plan.path=x"],
    "decoder@model.decoder=pretrained": ["model.decoder.path=x"],
    "+text@model.text=file": ["model.text.path=x", "model.text.dim=8"],
    "feedback=likes": ["task.feedback.validation=x", "task.feedback.test=x"],
}
NEEDED |= {
    f"feedback={name}": ["task.feedback.path=x", *NEEDED["feedback=likes"]]
    for name in ("labels", "shown")
}
ALIGN = (*TABLE, "task=align", "start=runs/x")
OF_LABELS = (
    "blend",
    "candidate_size",
    "fine_tuned",
    "lightgbm",
    "logistic_regression",
    "mlp",
    "new_ease",
    "new_popularity",
    "own_purchases",
)

OF_RETURN_TIMES = (
    "cox",
    "deephit",
    "gap",
    "hazard_net",
    "hazard_ode",
    "kaplan_meier",
    "lightgbm_hazard",
    "logistic_hazard",
    "weibull_aft",
)
OF_SERIES = (
    "deepar",
    "forecast_mean",
    "lightgbm_lags",
    "linear_lags",
    "mlp_lags",
    "seasonal_naive",
    "tide",
    "weekday_mean",
)
TASK_OF = {
    **dict.fromkeys(OF_LABELS, LABELS),
    **dict.fromkeys(OF_RETURN_TIMES, (*TABLE, "task=return_time")),
    **dict.fromkeys(OF_SERIES, (*TABLE, "task=sales_forecast")),
}


def runs() -> Iterator[tuple[str, ...]]:
    """Overrides of runs that have every config but the experiments between them."""
    at_a_path = {"table", "prepared", "recbole"}
    yield from ((f"data={name}",) for name in names("data") if name not in at_a_path)
    yield ("data=prepared", "data.path=log")
    for name in names("model"):
        yield (*TASK_OF.get(name, TABLE), f"model={name}", *NEEDED.get(f"model={name}", []))
    for name in ("next_basket_time", "next_basket", "next_basket_holdout", "lapse", "profiling"):
        yield (*TABLE, f"task={name}", *NEEDED.get(f"task={name}", []))
    for name in ("coupon", "downstream", "lapse", "new_items", "profiling", "targeting"):
        yield ("data=complete_journey", f"task={name}", "model=candidate_size")
    for name in names("plan"):
        override = f"plan@task.series.plan={name}"
        yield (*TABLE, "task=sales_forecast", override, "model=tide", *NEEDED.get(override, []))
    for name in names("feedback"):
        yield (*ALIGN, f"feedback={name}", *NEEDED.get(f"feedback={name}", []))
    yield from ((*ALIGN, "feedback=mailers", f"loss={name}") for name in names("loss"))
    yield from ((*TABLE, f"retrieval={name}") for name in names("retrieval"))
    yield from ((*TABLE, f"logger={name}") for name in names("logger"))
    for group, model in {"head": "count_vae", "decoder": "lmrec", "+text": "sasrec"}.items():
        name = group.removeprefix("+")
        for choice in names(name):
            if not choice.startswith("forecast_"):
                override = f"{group}@model.{name}={choice}"
                yield (*TABLE, f"model={model}", override, *NEEDED.get(override, []))
    for choice in (choice for choice in names("head") if choice.startswith("forecast_")):
        yield (*TASK_OF["deepar"], "model=deepar", f"head@model.head={choice}")


RUNS = list(runs())
MODELS = [(*TABLE, f"model={name}") for name in names("model") if name not in TASK_OF]
MODELS += [
    overrides for overrides in RUNS if {task[-1] for task in TASK_OF.values()} & {*overrides}
]


def check(config: dict[str, Any]) -> None:
    """As the command line does before a run."""
    if "labels" in config["task"]:
        check_options(config, prediction.KINDS, prediction.EXTRAS)
    elif "returns" in config["task"]:
        check_options(config, return_times.KINDS)
    elif "feedback" in config["task"]:
        check_options(config, alignment.KINDS)
    elif "origins" in config["task"]:
        check_options(config, forecasting.KINDS, forecasting.EXTRAS)
    else:
        check_options(config, ranking.KINDS)


EXPERIMENTS = [
    pytest.param((f"experiment={name}",), marks=pytest.mark.slow) for name in names("experiment")
]


@pytest.mark.parametrize("overrides", [*RUNS, *EXPERIMENTS], ids=" ".join)
def test_what_the_configs_say_is_what_is_expected(overrides: tuple[str, ...]) -> None:
    check(as_values(compose(overrides)))


def leaves(config: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every option that is a value or a list: its name with dots, its section, its own name."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{place}{name}.")
        elif not name.startswith("_"):
            yield f"{place}{name}", config, name


STRANGE = {"neither": {"a value": 1}}
WRONG: dict[type, list[Any]] = {
    bool: ["maybe", 1, None, [True], STRANGE],
    int: ["three", 1.5, True, [1], STRANGE],
    float: ["much", True, [0.5], float("nan"), float("inf"), STRANGE],
    str: [5, 1.5, True, ["a"], STRANGE],
    list: ["a", 5, True, STRANGE],
    type(None): [STRANGE],
}


MOMENTS = ("test", "validation", "validation_start", "test_start", "until", "as_of")
"""Integers, where a log knows only an order."""
OR_NONE = ("calendar",)
"""Yes, no, or as the log has it."""


@pytest.mark.parametrize("overrides", MODELS, ids=" ".join)
def test_a_value_of_another_type_is_one_line_that_names_it(overrides: tuple[str, ...]) -> None:
    config = as_values(compose(overrides))
    found_out = ("num_items", "num_users", "folder")
    # What all runs have is tried once.
    tried = ("",) if overrides is MODELS[0] else ("model.", "task.labels.")
    options = [at for at in leaves(config) if at[0].startswith(tried) and at[0] not in found_out]
    for name, section, own in options:
        right = section[own]
        for wrong in WRONG[type(right)]:
            if (own in MOMENTS and wrong == 5) or (own in OR_NONE and wrong is None):
                continue
            section[own] = wrong
            with pytest.raises(ConfigError, match=rf"^{name}\b.*expected ") as caught:
                check(config)
            assert "\n" not in str(caught.value)
        section[own] = right
    check(config)


def test_a_value_that_is_not_set_and_an_option_that_nothing_takes() -> None:
    config = as_values(compose([*TABLE, "model=ease"]))
    for place, name in (("data", "path"), ("task", "ks"), ("model", "_target_"), ("", "seed")):
        section = config[place] if place else config
        value = section.pop(name)
        with pytest.raises(
            ConfigError, match=f"^{place}.*{name}.* is not set; give it as|expected"
        ):
            check(config)
        section[name] = value
    config["model"]["l3"] = 1
    with pytest.raises(ConfigError, match=r"^model.l3: EASE has no such option; it has l2$"):
        check(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed=-1: expected an integer from 0 to 4294967295"),
        ("task.ks=5", r"task.ks=5: expected a list of integers, \[VALUE,…\]"),
        ("task.ks=[a]", r"task.ks=\[a\]: expected a list of integers"),
        ("task.mask_history=maybe", "task.mask_history=maybe: expected true or false"),
        ("task.filters=5", "task.filters=5: expected options by name"),
        ("+task.filters.most=5", "task.filters.most: filtered has no such option; it has"),
        ("trainer.max_epochs=three", "trainer.max_epochs=three: expected an integer"),
        ("trainer.precision=8", "trainer.precision=8: expected 32-true or 16-mixed"),
        ("trainer.gradient_clip=x", "trainer.gradient_clip=x: expected a number or null"),
        (
            "data.columns.user_id=5",
            r"expected text or null; quote it: 'data.columns.user_id=\"5\"'",
        ),
        ("data.path=[a,b]", r"expected text; quote it: 'data.path=\"\[a,b\]\"'"),
        ("model._target_=recsys.no", "model._target_=recsys.no cannot be found"),
        ("model._target_=no.such", "model._target_=no.such cannot be found .*No module named 'no'"),
        ("model._target_=5", "model._target_=5 cannot be found"),
        ("model._target_=recsys.models", "model._target_=recsys.models is no class or function"),
        (
            "retrieval.index=5",
            "retrieval.index=5: expected options with _partial_: true",
        ),
        ("baselines=5", "baselines=5: expected options by name"),
        ("+baselines.a=5", "baselines.a=5: expected options with a _target_"),
        ("+model.head=5", "model.head: Popularity has no such option; it has targets_only, decay"),
    ],
)
def test_what_is_said(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(as_values(compose([*TABLE, override])))


def test_what_a_task_of_labels_may_have_besides() -> None:
    config = as_values(compose([*LABELS, "model=new_popularity"]))
    config["model"] |= {"tables": ["new_items"], "folds": {"num_folds": 3}}
    check(config)
    config["model"]["folds"] = {"num": 3}
    with pytest.raises(
        ConfigError, match=r"model.folds.num: Folds has no such option; it has num_"
    ):
        check(config)
    config["model"] |= {"folds": {}, "tables": 5}
    with pytest.raises(ConfigError, match=r"model\.tables=5: expected a list of texts"):
        check(config)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_text_is_quoted_so_that_it_comes_back(text: str) -> None:
    (word,) = shlex.split(argument("data.path", text))
    (override,) = OverridesParser.create().parse_overrides([word])
    assert override.key_or_group == "data.path"
    config = OmegaConf.create({"path": override.value()})
    assert OmegaConf.to_container(config, resolve=True) == {"path": text}


def annotated(*, tensor: Nowhere, size: int = 1) -> None:  # type: ignore[name-defined]
    """A function whose annotations are known to type checkers alone."""


def test_what_is_known_to_type_checkers_alone_is_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "own", sys.modules[__name__])
    check_options({"model": {"_target_": "own.annotated", "tensor": 5}}, {})
    check_options({"model": {"_target_": "builtins.dict", "anything": 5}}, {})
    with pytest.raises(
        ConfigError, match=r"^model.shape: annotated has no such option; it has tens"
    ):
        check_options({"model": {"_target_": "own.annotated", "shape": 5}}, {})
    with pytest.raises(ConfigError, match=r"^model.tensor is not set"):
        check_options({"model": {"_target_": "own.annotated"}}, {})
