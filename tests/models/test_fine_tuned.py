"""A network of users trained for one table, on a run's weights or from scratch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recsys import checkpoint
from recsys.classification import auroc
from recsys.data.questions import profiling
from recsys.errors import LeakError
from recsys.evaluate import Protocol
from recsys.features import computed
from recsys.models import FineTuned
from recsys.profiles import Profile
from recsys.questions import folds
from recsys.splits import Split, last_basket
from recsys.testing import checkerboard, colour_question
from recsys.training import Training, fit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pre-trained run on the whole checkerboard."""
    folder = tmp_path_factory.mktemp("run")
    split: Split = last_basket(checkerboard())
    config: dict[str, Any] = {
        "_target_": "recsys.models.ShopperBERT",
        "num_items": split.num_items,
        "attributes": ["item_id"],
        "num_classes": split.num_classes,
        "calendar": ["weekday"],
        "encoder": {
            "_target_": "recsys.models.shopperbert.Encoder",
            "embedding_dim": 8,
            "num_layers": 1,
            "ffn_dim": 16,
            "max_length": 16,
        },
        "learning_rate": 0.02,
    }
    torch.manual_seed(0)
    model = checkpoint.build(config)
    training = Training(max_epochs=1, batch_size=16, monitor="ndcg@5", accelerator="cpu")
    fit(model, split, training, Protocol(ks=(5,)))
    checkpoint.save(folder / "model", model, split, config, mask_history=False)
    return folder


@pytest.mark.parametrize("from_scratch", [False, True])
def test_it_learns_what_tells_users_apart(run: Path, from_scratch: bool) -> None:
    questions = colour_question()
    train, test = next(folds(questions))
    options: dict[str, Any] = {"learning_rate": 0.03, "batch_size": 12, "max_epochs": 8}
    model = FineTuned(run=str(run), from_scratch=from_scratch, **options).fit(questions, train)
    scores = model.predict(questions, test)
    assert scores.shape == (len(test), 1)
    labels = questions.labels(test)[:, 0].numpy()
    assert auroc(scores[:, 0].numpy(), labels)[0] > 0.95
    model.check_leaks(questions, test)
    again = FineTuned(run=str(run), from_scratch=from_scratch, **options).fit(questions, train)
    assert again.predict(questions, test).equal(scores)


def test_from_scratch_forgets_what_the_run_learnt(run: Path) -> None:
    questions = colour_question()
    train, _ = next(folds(questions))
    learnt, forgot = (
        FineTuned(run=str(run), from_scratch=f, max_epochs=0).fit(questions, train)
        for f in (False, True)
    )
    saved = checkpoint.load(run).model.state_dict()
    for name, value in learnt.encoder.state_dict().items():
        if name != "fields.item_codes" and name != "item_share":
            assert value.equal(saved[name]), name
    weight = "encoder.blocks.0.projections.weight"
    assert not forgot.encoder.state_dict()[weight].equal(saved[weight])
    assert forgot.encoder.state_dict()["fields.classes_json"].equal(saved["fields.classes_json"])


def test_what_was_trained_on_later_events_is_refused(run: Path) -> None:
    white = {"white": ["white"]}
    log = checkerboard()
    questions = profiling(log, "white", column="colour", classes=white, as_of="2024-01-03")
    with pytest.raises(LeakError, match="was trained on events up to second"):
        FineTuned(run=str(run)).fit(questions, torch.arange(9))
    with pytest.raises(LeakError, match="train it on earlier events"):
        computed(questions, Profile(str(run)))
