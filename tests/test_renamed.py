"""Names and options that runs had before: what was saved under them loads and recommends."""

import json
from dataclasses import fields
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
import yaml

from recsys.models import CountVAE
from recsys.nn import TweedieHead
from recsys.reading import read_config
from recsys.renamed import OPTIONS, SECTIONS, TARGETS, renamed, renamed_tables
from recsys.scoring import load, save, saved_model, trust
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

FLAT: dict[str, dict[str, Any]] = {
    "LMRec": {
        "decoder": {
            "_target_": "recsys.models.lmrec.Decoder",
            "num_layers": 1,
            "embedding_dim": 16,
            "num_heads": 2,
            "ffn_dim": 32,
            "vocab_size": 300,
        },
        "template": {"_target_": "recsys.text.Template"},
        "language": {"_target_": "recsys.models.lmrec.Language", "batch_size": 2},
        "ranking": {"_target_": "recsys.models.lmrec.Ranking"},
        "use_ids": True,
        "id_weight_decay": 2.0,
        "start": None,
        "freeze": False,
        "compile": False,
        "warmup": 0.1,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
    },
    "ShopperBERT": {
        "attributes": ["colour", "item_id"],
        "num_classes": {"colour": 2, "item_id": 40},
        "price_buckets": 0,
        "calendar": ["weekday"],
        "pretext_tasks": ["colour"],
        "sentences": False,
        "encoder": {"_target_": "recsys.models.shopperbert.Encoder", "embedding_dim": 8},
        "mask_rate": 0.5,
        "shuffle_rate": 0.1,
        "held_out": 0.1,
        "pooling": "cls",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
    },
    "GLOIE": {
        "head": {"_target_": "recsys.distributions.TweedieHead", "power": 1.2},
        "embedding_dim": 8,
        "latent_dim": 4,
        "decay": 0.8,
        "dropout": 0.4,
        "kl_weight": 0.3,
        "kl_steps": 10,
        "num_layers": 1,
        "num_heads": 2,
        "max_events": 64,
        "use_global": True,
        "use_local": True,
        "attention": False,
        "softmax": True,
        "elbo_weight": 0.01,
        "personal": True,
        "calendar": True,
        "num_targets": None,
        "latest_popularity": True,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
    },
    "SASRec": {
        "embedding_dim": 8,
        "num_layers": 1,
        "num_heads": 2,
        "max_length": 9,
        "dropout": 0.3,
        "softmax": False,
        "num_negatives": 2,
        "text": None,
        "use_id": True,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "id_weight_decay": None,
    },
}


def flat(name: str) -> dict[str, Any]:
    return {"_target_": f"recsys.models.{name}", "num_items": 40, **FLAT[name]}


@pytest.mark.parametrize("target", OPTIONS)
def test_every_option_is_in_a_section_that_has_it(target: str) -> None:
    options = FLAT[target.rpartition(".")[2]]
    config = renamed({"_target_": target, **options})
    for place in OPTIONS[target].values():
        section, option = place.split(".")
        kind = resolve_name(SECTIONS[target][section])
        assert option in {field.name for field in fields(kind)}
        assert option in config[section]
        assert SECTIONS[target][section] in trust.LISTED["model"]
    assert renamed(config) == config


def test_sections_inside_of_others_and_of_today_stay() -> None:
    config = renamed({"members": {"one": flat("SASRec")}, "other": [flat("GLOIE")]})
    assert config["members"]["one"]["encoder"] == {
        "_target_": "recsys.models.sequences.Encoder",
        "num_layers": 1,
        "num_heads": 2,
        "max_length": 9,
        "dropout": 0.3,
    }
    assert config["other"][0]["autoencoder"]["head"]["_target_"] == "recsys.nn.TweedieHead"


@pytest.mark.parametrize("name", FLAT)
def test_a_folder_of_before_recommends_the_same(name: str, tmp_path: Path) -> None:
    split = last_basket(checkerboard())
    torch.manual_seed(0)
    model = saved_model.build(renamed(flat(name)))
    model.prepare(split)  # type: ignore[operator]
    saved_model.save(tmp_path / "model", model, split, flat(name), mask_history=False)
    loaded = saved_model.load(tmp_path).model
    with torch.inference_mode():
        assert loaded.score(split.test.history).equal(model.eval().score(split.test.history))


@pytest.mark.parametrize(("old", "new"), TARGETS.items())
def test_what_moved_is_there(old: str, new: str) -> None:
    assert old != new
    assert callable(resolve_name(new))


def test_names_inside_of_a_config() -> None:
    old = {
        "_target_": "recsys.models.CountVAE",
        "head": {"_target_": "recsys.distributions.TweedieHead", "power": 1.2},
        "others": [{"_target_": "recsys.features.RFM"}, "recsys.features.RFM", None],
    }
    config = renamed(old)
    assert config["head"] == {"_target_": "recsys.nn.TweedieHead", "power": 1.2}
    assert config["others"] == [{"_target_": "recsys.tasks.RFM"}, "recsys.features.RFM", None]
    assert old["head"]["_target_"] == "recsys.distributions.TweedieHead"
    assert renamed(config) == config


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


def test_label_tables_of_before(tmp_path: Path) -> None:
    lapse = {"_target_": "recsys.data.questions.lapse", "test": "2026-03-20"}
    config = {"task": {"questions": {"lapse": lapse}, "folds": {"seed": 0}}, "questions": 1}
    found = renamed(config)
    made = {"_target_": "recsys.tasks.lapse", "test": "2026-03-20"}
    assert found == {"task": {"labels": {"lapse": made}, "folds": {"seed": 0}}, "questions": 1}
    assert renamed(found) == found
    log = {"sha256": "s", "questions/lapse": "f", "questions": 1}
    assert renamed_tables(log) == {"sha256": "s", "labels/lapse": "f", "questions": 1}
    assert renamed_tables(renamed_tables(log)) == renamed_tables(log)
