"""Every `conf/data/*.yaml` composes, names a source, and gives it options that it takes."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

import recsys
from recsys.cli.compose import compose
from recsys.data import sources

CONF = Path(recsys.__file__).parent / "conf" / "data"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def composed(name: str, *overrides: str) -> DictConfig:
    return compose([f"data={name}", *overrides])


@pytest.mark.parametrize("name", NAMES)
def test_source_and_options_agree(name: str) -> None:
    options = OmegaConf.to_container(composed(name, "++data.path=x").data)
    source = get_method(options.pop("_target_"))
    assert source.__module__.startswith("recsys.data.sources.")
    path_is_taken = "path" in inspect.signature(source).parameters
    inspect.signature(source).bind(**(options if path_is_taken else {}))
    assert set(options) <= {*inspect.signature(source).parameters, "path"}


@pytest.mark.parametrize("name", NAMES)
def test_every_log_brings_the_task_that_is_natural_to_it(name: str) -> None:
    expected = {
        "checkins": "last_share",
        "dunnhumby": "last_basket",
        "hm": "last_basket",
        "instacart": "last_basket",
        "uci_retail": "last_basket",
        "complete_journey": "global_time",
        "complete_journey_categories": "global_time",
        "complete_journey_types": "global_time",
        "dc": "user_holdout",
        "online_retail": "last_basket",
        "online_retail_baskets": "global_time",
        "tafeng": "user_holdout",
        "tms": "user_holdout",
    }
    task = composed(name).task
    assert task.split._target_.rpartition(".")[2] == expected.get(name, "leave_last_out")
    assert task.mask_history == (name == "ml100k")
    assert not OmegaConf.missing_keys(task)


@pytest.mark.parametrize("name", NAMES)
def test_every_config_opens_with_a_line_on_what_it_is(name: str) -> None:
    package, line, *_ = (CONF / f"{name}.yaml").read_text().splitlines()
    assert package == "# @package _global_"
    assert line.startswith("# ")
    assert not line.endswith(",")


def test_columns_of_a_table_are_overrides() -> None:
    config = composed("table", "data.path=log.csv", "data.columns.user_id=customer")
    assert config.data.columns.user_id == "customer"
    assert config.data.columns.item_id == "item_id"
    assert OmegaConf.missing_keys(composed("table").data) == {"data.path"}


def test_every_source_has_a_config() -> None:
    files = Path(sources.__file__).parent.glob("*.py")
    modules = {path.stem for path in files} - {"__init__", "files"}
    targets = {composed(name).data._target_ for name in NAMES}
    assert {target.split(".")[-2] for target in targets} == modules


@pytest.mark.parametrize("start", ["2017-11-06", "2017-10-02"])
def test_minima_count_what_lies_before_validation(start: str) -> None:
    config = composed("complete_journey", f"task.split.validation_start='{start}'", "model=ease")
    assert config.task.filters.until == start
    assert composed("complete_journey", "task.filters.until=null").task.filters.until is None
    assert "until" not in composed("dc").task.filters
    assert "until" not in composed("ml100k").task.filters
