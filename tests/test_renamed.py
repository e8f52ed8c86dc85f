"""Names that targets had before: a folder that was saved under them loads and recommends."""

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml

from recsys.models import CountVAE
from recsys.nn import TweedieHead
from recsys.reading import read_config
from recsys.renamed import TARGETS, renamed
from recsys.scoring import load, save
from recsys.tasks import last_basket
from recsys.testing import checkerboard


@pytest.mark.parametrize(("old", "new"), TARGETS.items())
def test_what_moved_is_there(old: str, new: str) -> None:
    assert old != new
    assert callable(resolve_name(new))


def test_names_inside_of_a_config() -> None:
    old = {
        "_target_": "recsys.models.GLOIE",
        "head": {"_target_": "recsys.distributions.TweedieHead", "power": 1.2},
        "others": [{"_target_": "recsys.features.RFM"}, "recsys.features.RFM", None],
    }
    found = renamed(old)
    assert found["head"] == {"_target_": "recsys.nn.TweedieHead", "power": 1.2}
    assert found["others"] == [{"_target_": "recsys.tasks.RFM"}, "recsys.features.RFM", None]
    assert old["head"]["_target_"] == "recsys.distributions.TweedieHead"
    assert renamed(found) == found


def test_a_folder_that_was_saved_under_other_names(tmp_path: Path) -> None:
    split = last_basket(checkerboard())
    model = CountVAE(split.num_items, head=TweedieHead(power=1.3)).eval()
    config: dict[str, Any] = {
        "_target_": "recsys.models.CountVAE",
        "num_items": split.num_items,
        "head": {"_target_": "recsys.nn.TweedieHead", "power": 1.3},
    }
    save(tmp_path / "model", model, split, config, mask_history=False)
    lists = load(tmp_path).recommend(histories=[[0, 2]], k=5)
    (tmp_path / "model/manifest.json").unlink()
    described = tmp_path / "model/recsys.json"
    old = described.read_text().replace("recsys.nn.", "recsys.distributions.")
    assert json.loads(old) != json.loads(described.read_text())
    described.write_text(old)
    assert load(tmp_path).recommend(histories=[[0, 2]], k=5).equals(lists)


def test_a_runs_config_of_before(tmp_path: Path) -> None:
    split = {"split": {"_target_": "recsys.splits.last_basket", "_partial_": True}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"task": split}))
    assert read_config(tmp_path)["task"]["split"]["_target_"] == "recsys.tasks.last_basket"
