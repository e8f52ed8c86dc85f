"""A model fitted from Python is what the command line would have fitted; what one does with it."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import recsys
from recsys.errors import ConfigError, DataError, RunError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.interactive import FittedModel
from recsys.models import EASE, Hybrid, ItemKNN, SASRec
from recsys.models.sequences import Encoder
from recsys.scoring import trust
from recsys.scoring.made_of import config_of
from recsys.tasks.splits import last_basket, leave_last_out, whole
from recsys.testing.logs import checkerboard

LOG = checkerboard()
SMALL: dict[str, Any] = {"embedding_dim": 8, "encoder": {"num_layers": 1, "max_length": 10}}


@pytest.fixture(scope="module")
def trained() -> FittedModel:
    trainer = {"max_epochs": 3, "batch_size": 16}
    return recsys.fit(LOG, "sasrec", trainer=trainer, ks=5, **SMALL)


def test_a_frame_a_log_and_a_split_are_the_same_data() -> None:
    split = leave_last_out(LOG)
    protocol = Protocol(ks=(10, 20))
    expected = evaluate(ItemKNN(shrink=5.0).fit(split), split.test, protocol)
    for data in (LOG.events.to_pandas(), LOG, split):
        result = recsys.fit(data, "item_knn", shrink=5.0).evaluate()
        assert result.per_user.drop("target_popularity").equals(
            expected.per_user.drop("target_popularity")
        )
    by_object = recsys.fit(LOG, ItemKNN(shrink=5.0)).evaluate("validation")
    assert by_object.means == recsys.fit(LOG, "item_knn", shrink=5.0).evaluate("validation").means


def test_the_task_decides_on_the_split_and_the_mask() -> None:
    model = recsys.fit(LOG, "ease", task="next_basket", ks=[3, 5], mask_history=True)
    assert model.task.split.test.target.lengths.max() > 1
    assert {"recall@3", "recall@5"} <= set(model.evaluate().means)
    had = {*LOG.events.filter(user_id=3)["item_id"]}
    assert not had & {*model.recommend(3)["item_id"]}


def test_a_seed_of_the_models_own_is_that_of_the_fit() -> None:
    """IALS starts at random, by `seed: ${seed}` in its config."""
    users, _ = recsys.fit(LOG, "ials", embedding_dim=4, seed=1).vectors()
    assert users.equals(recsys.fit(LOG, "ials", embedding_dim=4, seed=1).vectors()[0])
    assert not users.equals(recsys.fit(LOG, "ials", embedding_dim=4, seed=2).vectors()[0])


def test_a_saved_model_comes_back(trained: FittedModel, tmp_path: Path) -> None:
    assert trained.save(tmp_path / "mine") == tmp_path / "mine"
    assert recsys.load(tmp_path / "mine").recommend([3]).equals(trained.recommend([3]))
    own = recsys.fit(LOG, EASE(l2=3.0))
    own.save(tmp_path / "mine")
    assert recsys.load(tmp_path / "mine").recommend([3]).equals(own.recommend([3]))
    (tmp_path / "config.yaml").touch()
    with pytest.raises(RunError, match="holds a run, with a model of its own; name another"):
        own.save(tmp_path)


def test_refitted_it_has_learnt_from_what_was_held_out(
    trained: FittedModel,
) -> None:
    for model in (trained, recsys.fit(LOG, EASE())):
        again = model.refit()
        assert len(again.recommend([3, 4], k=3)) == 6
        for part in ("validation", "test"):
            with pytest.raises(
                ConfigError, match=f"has learnt from the whole log, and has no {part}"
            ):
                again.evaluate(part)
    assert isinstance(again.model, EASE)
    expected = EASE().fit(whole(leave_last_out(LOG)))
    torch.testing.assert_close(again.model.item_weights, expected.item_weights)
    assert isinstance(model.model, EASE)
    assert not again.model.item_weights.equal(model.model.item_weights)


def test_refitted_it_takes_as_many_epochs_as_the_best_one_came_after() -> None:
    epochs = 4
    model = recsys.fit(LOG, "sasrec", trainer={"max_epochs": epochs, "evaluate_every": 2}, **SMALL)
    assert model.epochs in (2, 4)
    once, twice = (model.refit().recommend(3) for _ in range(2))
    assert once.equals(twice)


def test_trained_members_are_not_refitted() -> None:
    parts = {"a": EASE(), "b": SASRec(40, embedding_dim=4, encoder=Encoder(num_layers=1))}
    hybrid = Hybrid(members=parts, weights={"a": 1.0, "b": 1.0})
    model = recsys.fit(LOG, hybrid, trainer={"max_epochs": 1})
    with pytest.raises(ConfigError, match="Hybrid is made of b, which is trained"):
        model.refit()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "sasrek"}, "model=sasrek does not exist; did you mean sasrec"),
        ({"model": "sasrec", "embedding_dimm": 3}, "no option model.embedding_dimm; did you mean"),
        ({"model": "sasrec", "embedding_dim": "x"}, "model.embedding_dim=x: expected an integer"),
        ({"model": "sasrec", "encoder": 3}, "model.encoder has options of its own: _target_, num"),
        ({"model": "lightgbm"}, "LightGBM predicts labels"),
        ({"model": EASE(), "l2": 3}, "l2: EASE is made already; give its options to itself"),
        ({"model": 3}, "model=3: give a name in the zoo"),
        ({"task": "lapse"}, "task=lapse predicts labels; recsys train does that"),
        ({"task": "next_basket_time"}, "task.split.test_start is not set"),
        ({"trainer": {"epochs": 3}}, "no option trainer.epochs; did you mean trainer.max_epochs"),
        ({"ks": [100]}, "k=100 exceeds the 40 items"),
        ({"ks": []}, r"ks=\[\]: expected distinct lengths from 1"),
        ({"device": "tpu"}, "device=tpu: there is cpu"),
        ({"overrides": ["task.kss=3"]}, "there is no option task.kss; did you mean task.ks"),
    ],
)
def test_mistakes_are_told_in_a_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recsys.fit(LOG, **given)


def test_mistakes_of_a_question_are_told_in_a_line(trained: FittedModel) -> None:
    with pytest.raises(ConfigError, match="part='tset'; choose among validation, test"):
        trained.evaluate("tset")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a history is None; give a list of ids"):
        trained.recommend(histories=[None])  # type: ignore[list-item]
    with pytest.raises(DataError, match="log: events: NoneType is no table; give a frame"):
        recsys.fit(None, "ease")  # type: ignore[arg-type]


def test_overrides_reach_what_has_no_argument() -> None:
    overrides = ["task.filters.min_item_events=20", "task.split._target_=recsys.tasks.last_basket"]
    model = recsys.fit(LOG, "popularity", overrides=overrides)
    counts = LOG.events.group_by("item_id").len().filter(pl.col("len") < 20)
    assert len(model.item_table) <= 40 - len(counts) + 1
    assert model.task.split.test.target.lengths.max() > 1


def test_the_config_of_an_object_makes_its_like() -> None:
    model = SASRec(40, embedding_dim=4, encoder=Encoder(num_layers=1))
    config = config_of(model)
    assert config["_target_"] == "recsys.models.SASRec"
    assert config["num_items"] == 40
    assert config["encoder"]["_target_"] == "recsys.models.sequences.Encoder"
    again = trust.build(config, "model")
    assert {n: p.shape for n, p in again.state_dict().items()} == {
        n: p.shape for n, p in model.state_dict().items()
    }
    hybrid = Hybrid(members={"a": EASE(l2=3.0)}, weights={"a": 1.0})
    assert config_of(hybrid)["members"] == {"a": {"_target_": "recsys.models.EASE", "l2": 3.0}}


def test_an_object_with_what_no_config_can_say_is_not_saved(tmp_path: Path) -> None:
    class Odd(ItemKNN):
        def __init__(self, what: object) -> None:
            super().__init__()

    model = recsys.fit(last_basket(LOG), Odd(object()))
    with pytest.raises(ConfigError, match=r"Odd\.what is a object, which no config can say"):
        model.save(tmp_path)
