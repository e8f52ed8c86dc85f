"""Options of training as a run's config names them."""

from pathlib import Path

import pytest
import yaml

from recsys.reading import read_config
from recsys.scoring import trust
from recsys.training.options import TrainingOptions


@pytest.mark.parametrize("target", ["recsys.training.Training", "recsys.training.TrainingOptions"])
def test_a_run_of_before_is_read_with_the_name_of_today(tmp_path: Path, target: str) -> None:
    config = {"trainer": {"_target_": target, "max_epochs": 3, "monitor": "ndcg"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    trainer = read_config(tmp_path)["trainer"]
    assert trainer["_target_"] == "recsys.training.TrainingOptions"
    assert trust.build(trainer) == TrainingOptions(max_epochs=3, monitor="ndcg")
