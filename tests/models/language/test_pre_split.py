"""A model whose texts are cut into Korean morphemes: saved, restored and started from."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys.errors import ConfigError
from recsys.log.event_log import EventLog
from recsys.models import LMRec
from recsys.scoring import saved_model
from recsys.tasks.splits import Split, last_basket
from recsys.testing import checkerboard

WORDS = ["신라면을 끓였다", "겨울 양말 🧦", "유기농 우유를 샀습니다", "무선 이어폰"]


@pytest.fixture(scope="module")
def split() -> Split:
    log = checkerboard(num_items=4, num_users=12)
    items = pl.DataFrame({"item_id": range(4), "text": WORDS})
    return last_basket(EventLog.from_frames(log.events, items))


def config_of(split: Split, cut: str, **tuning: Any) -> dict[str, Any]:
    def part(name: str, **options: Any) -> dict[str, Any]:
        return {"_target_": f"recsys.models.language.{name}", **options}

    shape = {"num_layers": 1, "embedding_dim": 16, "ffn_dim": 32, "vocab_size": 300}
    return {
        "_target_": "recsys.models.LMRec",
        "num_items": split.num_items,
        "decoder": part("Decoder", pre_split=cut, **shape),
        "template": {"_target_": "recsys.log.Template"},
        "language": part("Language", batch_size=2, row_length=32),
        "ranking": part("Ranking"),
        "tuning": part("Tuning", **tuning),
    }


def prepared(split: Split, cut: str, **tuning: Any) -> LMRec:
    model = saved_model.build(config_of(split, cut, **tuning))
    assert isinstance(model, LMRec)
    model.prepare(split)
    return model.eval()


def saved(folder: Path, split: Split, cut: str) -> LMRec:
    model = prepared(split, cut)
    config = config_of(split, cut)
    saved_model.save(folder / "model", model, split, config, mask_history=False)
    return model


@torch.no_grad()
def test_what_is_typed_is_cut_as_the_texts_of_training_were(split: Split, tmp_path: Path) -> None:
    pytest.importorskip("kiwipiepy")
    model = saved(tmp_path, split, "kiwi")
    loaded = saved_model.load(tmp_path, device="cpu").model
    assert isinstance(loaded, LMRec)
    written = loaded.tokens_of(pl.Series(WORDS))
    assert written.values.equal(model.text_tokens)
    assert loaded.encode_texts([WORDS]).equal(model.encode_texts([WORDS]))


def test_another_runs_tokenizer_goes_with_its_cuts(split: Split, tmp_path: Path) -> None:
    saved(tmp_path, split, "none")
    start = {"start": str(tmp_path)}
    assert prepared(split, "none", **start).tokenizer_json.numel()
    with pytest.raises(ConfigError, match=r"has the tokenizer of decoder\.pre_split=none; set"):
        prepared(split, "whitespace", **start)


def test_a_run_of_before_pre_splits_was_cut_at_blanks(split: Split, tmp_path: Path) -> None:
    saved(tmp_path, split, "whitespace")
    path = tmp_path / "model" / "recsys.json"
    description = json.loads(path.read_text())
    del description["model"]["decoder"]["pre_split"]
    path.write_text(json.dumps(description))
    (tmp_path / "model" / "manifest.json").unlink()
    assert prepared(split, "whitespace", start=str(tmp_path)).tokenizer_json.numel()
    assert saved_model.load(tmp_path, device="cpu").model.options.pre_split == "whitespace"
