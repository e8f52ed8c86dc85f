"""A run's folder may come from a stranger: what its config may call, and what it may not."""

from argparse import Namespace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recsys import commands
from recsys.errors import ConfigError, RecsysError, RunError

CONFIG = {
    "data": {"_target_": "recsys.data.sources.table.table", "path": "log.csv"},
    "task": {"split": {"_target_": "recsys.splits.last_basket", "_partial_": True}},
    "retrieval": {"index": {"_target_": "recsys.retrieval.ExactIndex", "_partial_": True}},
}


def evaluate(folder: Path, config: object) -> None:
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    commands.evaluate(Namespace(run=folder, overrides=[], output=None))


def test_functions_and_classes_of_logs_splits_and_indices_may_be_called(tmp_path: Path) -> None:
    # The config passes; what is missing is the model.
    with pytest.raises(RunError, match="there is no model/"):
        evaluate(tmp_path, CONFIG)


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "recsys.splits.torch.os.mkdir",
        "recsys.data.sources.table.Path.mkdir",
        "recsys.checkpoint.save",
        "recsys.splitsandmore.run",
    ],
)
@pytest.mark.parametrize("part", ["data", "task", "retrieval"])
def test_nothing_else_may_be_called(part: str, target: str, tmp_path: Path) -> None:
    marker = tmp_path / "called"
    bad = {"_target_": target, "path": str(marker)}
    given = bad if part == "data" else {"split": bad, "index": bad}
    with pytest.raises(ConfigError, match=f"_target_: {target} is nothing that a folder's"):
        evaluate(tmp_path, {**CONFIG, part: given})
    assert not marker.exists()


def test_an_interpolation_is_refused(tmp_path: Path) -> None:
    hidden = {**CONFIG["data"], "path": "${oc.create:{_target_: os.getcwd}}"}
    with pytest.raises(ConfigError, match="is an interpolation"):
        evaluate(tmp_path, {**CONFIG, "data": hidden})


@pytest.mark.parametrize("part", ["data", "task", "retrieval"])
def test_a_config_with_a_part_missing_is_one_line(part: str, tmp_path: Path) -> None:
    rest = {name: value for name, value in CONFIG.items() if name != part}
    with pytest.raises(RecsysError) as caught:
        evaluate(tmp_path, rest)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
