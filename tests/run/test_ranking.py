"""A run's config: composed once, and written with the sizes of its log."""

from pathlib import Path

import polars as pl
import pytest
from omegaconf import DictConfig, OmegaConf

from recsys.cli.compose import compose
from recsys.run import prediction, ranking
from recsys.run.config import Sizes, completed, sized

SIZES = ["num_items", "num_users", "num_classes"]


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    rows = [
        {"user_id": f"u{user}", "item_id": (user + day) % 5, "timestamp": f"2026-03-{day:02}"}
        for user in range(4)
        for day in range(1, 20)
        if user or day < 8
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "shop.csv")
    return ["data=table", f"data.path={tmp_path / 'shop.csv'}"]


def test_a_log_is_read_and_its_config_stays(data: list[str]) -> None:
    config = compose([*data, "model=bpr_mf", "task.ks=[3]"])
    before = OmegaConf.to_container(config)
    task = ranking.prepare(config)
    assert OmegaConf.to_container(config) == before
    assert all(OmegaConf.is_missing(config, name) for name in SIZES)
    assert Sizes.of(task.split) == Sizes(5, 4, {"item_id": 5})


def test_sizes_are_written_where_they_are_missing(data: list[str]) -> None:
    config = compose([*data, "model=bpr_mf"])
    whole = sized(config, Sizes(5, 4, {"item_id": 5}))
    assert (whole.model.num_items, whole.model.num_users) == (5, 4)
    assert list(whole) == list(config)
    assert [name for name in config if OmegaConf.is_missing(config, name)] == SIZES
    assert [whole[name] for name in SIZES] == [5, 4, {"item_id": 5}]


def test_what_more_a_config_says_is_said_of_a_copy() -> None:
    config = DictConfig({"seed": 0, "model": {"seed": "${seed}"}})
    OmegaConf.set_struct(config, True)
    more = completed(config, seed=3, folder=".")
    assert more == {"seed": 3, "model": {"seed": 3}, "folder": "."}
    assert config == {"seed": 0, "model": {"seed": 0}}
    assert OmegaConf.is_struct(more)


def test_tables_are_asked_and_their_config_stays(data: list[str]) -> None:
    moments = [f"task.labels.lapse.{name}" for name in ("train=['2026-03-08']", "test=2026-03-12")]
    days = ["task.labels.lapse.active_days=5", "task.labels.lapse.horizon_days=3"]
    config = compose([*data, "task=lapse", "model=logistic_regression", *moments, *days])
    before = OmegaConf.to_container(config)
    of_tables = prediction.without_other_tasks(config)
    prediction.prepare(of_tables)
    assert OmegaConf.to_container(config) == before
    assert list(of_tables.task) == [n for n in config.task if n not in prediction.OTHER_TASKS]
    assert of_tables.num_items is of_tables.num_users is None
