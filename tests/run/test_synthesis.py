"""Drawn users: where they come from, what is checked of them, and the command."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys.batch.histories import BasketBatch
from recsys.cli import main
from recsys.errors import ConfigError, RunError
from recsys.evaluation.ranking import Protocol
from recsys.evaluation.synthetic import nearest_distances, shares_of_classes, two_sample_auc
from recsys.models import EASE, CountVAE, EncGAN
from recsys.nn import MultinomialHead
from recsys.run.synthesis import (
    Synthesis,
    check_place,
    checks,
    generative,
    memorisation,
    synthetic_log,
    write,
)
from recsys.scoring.kinds import Generative
from recsys.tasks.splits import Split, all_training, last_basket
from recsys.testing.logs import checkerboard

PROTOCOL = Protocol(ks=(5,))


class Colours(EASE, Generative):
    """Draws users of one colour each, as those of the checkerboard are."""

    def draw_preferences(self, num_users: int) -> torch.Tensor:
        is_black = torch.rand(num_users, 1) < 0.5
        black = (torch.arange(40) % 2 == 0).float()
        return torch.where(is_black, black, 1 - black) / 20


class Anything(EASE, Generative):
    def draw_preferences(self, num_users: int) -> torch.Tensor:
        return torch.ones(num_users, 40) / 40


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard(num_users=200))


def test_users_are_like_those_that_the_model_draws(split: Split) -> None:
    options = Synthesis(num_users=300, column="colour", seed=1)
    log = synthetic_log(Colours(), split, options)
    assert len(log.users) == 300
    colours = log.events.group_by("user_id").agg((pl.col("item_id") % 2).n_unique())["item_id"]
    assert colours.unique().to_list() == [1]
    assert log.events["timestamp"].is_between(*_ends(split)).all()
    assert log.items["colour"].to_list() == ["black", "white"] * 20
    assert not log.events.select("basket_id", "item_id").is_duplicated().any()
    again = synthetic_log(Colours(), split, options)
    assert log.events.equals(again.events)


def test_a_folder_of_something_else_is_not_replaced(split: Split, tmp_path: Path) -> None:
    log = synthetic_log(Colours(), split, Synthesis())
    classes = pl.DataFrame({"class": ["black"]})
    for _ in range(2):  # what it wrote itself is
        write(tmp_path / "drawn", log, {"users": 1}, classes)
    mine = tmp_path / "mine"
    mine.mkdir()
    check_place(mine)
    (mine / "checks.json").touch()
    (mine / "thesis.tex").write_text("years")
    for place in (mine, mine / "thesis.tex"):
        with pytest.raises(RunError, match=f"^{place} is there and no synthetic log; name another"):
            write(place, log, {}, classes)
    assert (mine / "thesis.tex").read_text() == "years"


def _ends(split: Split) -> tuple[object, object]:
    times = split.log.events["timestamp"]
    return times.min(), times.max()


def test_a_good_log_passes_and_a_bad_one_is_told(split: Split) -> None:
    options = Synthesis(num_users=200, column="colour")
    good, bad = (
        checks(split, synthetic_log(model, split, options), options, PROTOCOL)
        for model in (Colours(), Anything())
    )
    assert good["two_sample"]["classes"] < 0.65 < 0.95 < bad["two_sample"]["classes"]
    assert good["total_variation"] < 0.1
    assert good["order"]["synthetic"]["EASE"] > bad["order"]["synthetic"]["EASE"]
    assert good["order"]["real"] == bad["order"]["real"]
    assert good["nearest"]["reference"] == "training users to each other"


def test_copies_are_found(split: Split) -> None:
    training = split.training
    copied = memorisation(split, training.rows(torch.arange(50)))
    assert copied["synthetic"] == pytest.approx(0, abs=1e-6)
    assert copied["real"] > 0.01
    assert copied["share_below_first_percentile"] > 0.9


def test_distances_by_hand() -> None:
    rows = BasketBatch.from_lists([[[0]], [[1]], [[0, 1]]], 3)
    alone = nearest_distances(rows, rows.rows(torch.tensor([0])))
    torch.testing.assert_close(alone, torch.tensor([0, 1, 1 - 0.5**0.5]).double())
    others = nearest_distances(rows, rows, leave_out=True)
    torch.testing.assert_close(others, torch.full((3,), 1 - 0.5**0.5).double())
    shares = shares_of_classes(rows, torch.tensor([0, 1, 1]))
    assert shares.tolist() == [[1, 0], [0, 1], [0.5, 0.5]]
    same = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)).numpy()
    assert 0.35 < two_sample_auc(same[:200], same[200:]) < 0.65


def test_models_draw_probabilities(split: Split) -> None:
    torch.manual_seed(0)
    options = {"num_classes": split.num_classes, "column": "colour"}
    for model in (
        EncGAN(split.num_items, **options, embedding_dim=8, latent_dim=4),
        CountVAE(split.num_items, head=MultinomialHead(), embedding_dim=8, latent_dim=4),
    ):
        model.prepare(split)
        with torch.no_grad():
            drawn = model.eval().draw_preferences(50)
        torch.testing.assert_close(drawn.sum(1), torch.ones(50))
        assert (drawn >= 0).all()
    # All users have one colour: drawn shares are almost all of one, too.
    encgan = EncGAN(split.num_items, **options, embedding_dim=8, latent_dim=4)
    encgan.prepare(split)
    black = encgan.eval().draw_preferences(200)[:, ::2].sum(1)
    assert ((black < 0.05) | (black > 0.95)).float().mean() > 0.9
    assert 0.35 < (black > 0.5).float().mean() < 0.65


def test_all_of_a_log_is_training(split: Split) -> None:
    whole = all_training(split.log, split.items)
    assert whole.training.items.equal(split.latest.items)
    assert len(whole.test) == len(whole.validation) == 0


def test_errors(split: Split) -> None:
    with pytest.raises(ConfigError, match="EASE draws no users; train encgan or count_vae"):
        generative(EASE())
    with pytest.raises(ConfigError, match="num_users=3"):
        Synthesis(num_users=3)
    options = Synthesis(column="aisle")
    log = synthetic_log(Colours(), split, Synthesis(num_users=20))
    with pytest.raises(ConfigError, match="column=aisle: items have no such column"):
        checks(split, log, options, PROTOCOL)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["recsys"])
    log = checkerboard()
    log.events.write_parquet("events.parquet")
    log.items.write_parquet("items.parquet")
    table = ["data=table", "data.path=events.parquet", "data.items_path=items.parquet"]
    model = ["model=encgan", "model.column=colour", "model.embedding_dim=8", "model.latent_dim=4"]
    run = ["trainer.max_epochs=2", "task=next_basket", "task.ks=[5]", "trainer.monitor=ndcg@5"]
    assert main.main(["train", *table, *model, *run, "hydra.run.dir=run"]) == 0
    assert main.main(["synthesise", "run", "--users", "40", "--column", "colour"]) == 0
    assert "told from real users" in capsys.readouterr().out
    found = json.loads(Path("run/synthetic/checks.json").read_text())
    assert found["users"] == 40
    assert set(found["order"]["real"]) == {"Popularity", "ItemKNN", "EASE"}
    classes = pl.read_parquet("run/synthetic/classes.parquet", glob=False)
    assert classes.select("real", "synthetic").sum().row(0) == pytest.approx((1.0, 1.0))
    # What was written is a log of one's own.
    drawn = [
        "data.path=run/synthetic/events.parquet",
        "data.items_path=run/synthetic/items.parquet",
    ]
    assert main.main(["data", "describe", "table", *drawn]) == 0
    popular = ["model=popularity", "task=next_basket", "task.ks=[5]", "hydra.run.dir=popular"]
    assert main.main(["train", *table, *popular]) == 0
    assert main.main(["synthesise", "popular"]) == 2
    assert "Popularity draws no users" in capsys.readouterr().err
