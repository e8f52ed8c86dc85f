"""Training: interrupted runs, early stopping, the best epoch, and what is written."""

import logging
import math
from collections.abc import Iterable
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from pytorch_lightning.callbacks import RichProgressBar, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from rich.console import Console
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError, RunError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.models import BPRMF, CountVAE, Popularity
from recsys.nn.distributions import TweedieHead
from recsys.scoring.kinds import Composite
from recsys.scoring.recommender import Progress, Recommender
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard
from recsys.training.callbacks import epoch_seed
from recsys.training.loop import fit, progress_bar
from recsys.training.options import TrainingOptions
from recsys.types import Scores

PROTOCOL = Protocol(ks=(5,))
STEPS_AN_EPOCH = 4  # 60 users in batches of 16


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard())


def training(**options: Any) -> TrainingOptions:
    defaults = {"max_epochs": 6, "batch_size": 16, "monitor": "ndcg@5", "device": "cpu"}
    return TrainingOptions(**{**defaults, **options})


def bpr_mf(split: Split) -> BPRMF:
    return BPRMF(split.num_items, len(split.users), embedding_dim=4)


def sparse_bpr_mf(split: Split) -> BPRMF:
    return BPRMF(split.num_items, len(split.users), embedding_dim=4, sparse=True)


def count_vae(split: Split) -> CountVAE:
    """Has dropout, noise, and a weight that rises with the steps."""
    head = TweedieHead()
    return CountVAE(split.num_items, head=head, embedding_dim=8, latent_dim=4, kl_steps=30)


class Plateau(BPRMF):
    """Its learning rate halves whenever the training loss has not fallen far enough."""

    def optimizer(self, num_steps: int) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.9)
        monitored = {"scheduler": scheduler, "monitor": "train/loss"}
        return {"optimizer": optimizer, "lr_scheduler": monitored}


def plateau(split: Split) -> Plateau:
    return Plateau(split.num_items, len(split.users), embedding_dim=4)


class Killed(Exception):
    pass


class Peak(Recommender):
    """Knows every user's colour in one epoch only, and records whom it is trained on."""

    def __init__(self, best_epoch: int, dies_at_step: int = -1) -> None:
        super().__init__(learning_rate=0.1, weight_decay=0.0)
        self.best_epoch = best_epoch
        self.dies_at_step = dies_at_step
        self.knows = nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def loss(self, part: Part, progress: Progress) -> Tensor:
        if progress.step == self.dies_at_step:
            raise Killed
        self.seen.append(part.history.users.tolist())
        self.knows.data.fill_(progress.step // STEPS_AN_EPOCH == self.best_epoch)
        return 0 * self.knows

    def score(self, batch: BasketBatch) -> Scores:
        same = (torch.arange(batch.num_items) % 2) == (batch.users % 2)[:, None]
        return torch.where(same, self.knows, 0.5)


def curve(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "train.csv")


@pytest.mark.parametrize(
    ("make", "precision"),
    [
        (bpr_mf, "32-true"),
        (sparse_bpr_mf, "32-true"),
        (sparse_bpr_mf, "bf16-mixed"),
        (count_vae, "32-true"),
        (plateau, "32-true"),
        (count_vae, "64-true"),
        (count_vae, "16-true"),
        (count_vae, "bf16-true"),
    ],
)
def test_a_run_that_dies_and_is_started_again_ends_the_same(
    make: Any, precision: str, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = training(precision=precision)
    torch.manual_seed(1)
    model = make(split)
    whole, dying, resumed = model, deepcopy(model), make(split)
    fit(whole, split, options, PROTOCOL, folder=tmp_path / "whole")

    loss = type(dying).loss

    def loss_or_death(self: Recommender, part: Part, progress: Progress) -> Tensor:
        if progress.step == 14:  # in the fourth of six epochs of four steps
            raise Killed
        return loss(self, part, progress)

    with monkeypatch.context() as patch:
        patch.setattr(type(dying), "loss", loss_or_death)
        with pytest.raises(Killed):
            fit(dying, split, options, PROTOCOL, folder=tmp_path / "dead")
    assert curve(tmp_path / "dead")["epoch"].to_list() == [0, 1, 2]
    # A folder may have been moved in between.
    (tmp_path / "dead").rename(tmp_path / "moved")
    torch.manual_seed(2)
    fit(resumed, split, options, PROTOCOL, folder=tmp_path / "moved")

    assert curve(tmp_path / "moved").equals(curve(tmp_path / "whole"))
    for name, tensor in whole.state_dict().items():
        assert tensor.equal(resumed.state_dict()[name]), name
    per_user = [evaluate(m, split.test, PROTOCOL).per_user for m in (whole, resumed)]
    assert per_user[0].equals(per_user[1])
    files = sorted(path.name for path in (tmp_path / "moved").rglob("*"))
    assert files == ["best.ckpt", "checkpoints", "last.ckpt", "train.csv"]


@pytest.mark.parametrize("best_epoch", [0, 2, 5])
def test_the_best_epoch_is_kept(best_epoch: int, split: Split, tmp_path: Path) -> None:
    model = fit(Peak(best_epoch), split, training(), PROTOCOL, folder=tmp_path)
    assert model.state_dict()["knows"] == 1
    scores = curve(tmp_path)["validation/ndcg@5"].to_list()
    assert scores.index(max(scores)) == best_epoch
    assert not model.training


def test_the_best_epoch_survives_a_restart(split: Split, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(Peak(1, dies_at_step=14), split, training(), PROTOCOL, folder=tmp_path)
    model = Peak(1)
    fit(model, split, training(), PROTOCOL, folder=tmp_path)
    assert len(model.seen) == 3 * 4
    assert model.knows == 1


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "bits", "empty", "folder", "other"])
@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_damaged_checkpoint_is_one_line(
    name: str, how: str, split: Split, tmp_path: Path
) -> None:
    fit(bpr_mf(split), split, training(max_epochs=2), PROTOCOL, folder=tmp_path)
    path = tmp_path / "checkpoints" / name
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "bits":
        corrupt(path)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:  # whole, and of another model
        fit(count_vae(split), split, training(max_epochs=1), PROTOCOL, folder=tmp_path / "other")
        path.write_bytes((tmp_path / "other" / "checkpoints" / name).read_bytes())
    with pytest.raises(RunError, match=rf"{name}|there is no {name}") as caught:
        fit(bpr_mf(split), split, training(max_epochs=2), PROTOCOL, folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_an_error_in_training_is_no_fault_of_the_checkpoint(split: Split, tmp_path: Path) -> None:
    fit(Peak(1), split, training(max_epochs=2), PROTOCOL, folder=tmp_path)
    dying = Peak(1, dies_at_step=2 * math.ceil(len(split.train) / 16) + 1)
    with pytest.raises(Killed):
        fit(dying, split, training(max_epochs=6), PROTOCOL, folder=tmp_path)


def test_a_curve_that_cannot_be_read(split: Split, tmp_path: Path) -> None:
    fit(bpr_mf(split), split, training(max_epochs=2), PROTOCOL, folder=tmp_path)
    (tmp_path / "train.csv").write_text("")
    with pytest.raises(RunError, match=r"train\.csv is damaged .*; remove it"):
        fit(bpr_mf(split), split, training(max_epochs=4), PROTOCOL, folder=tmp_path)


@pytest.mark.parametrize(("every", "epochs"), [(1, 4), (2, 6)])
def test_training_stops_when_nothing_improves_and_stays_stopped(
    every: int, epochs: int, split: Split, tmp_path: Path
) -> None:
    """The best evaluation is the one after epoch 1, and two more are waited for."""
    options = training(max_epochs=20, patience=2, evaluate_every=every)
    model = Peak(best_epoch=1)
    fit(model, split, options, PROTOCOL, folder=tmp_path)
    assert curve(tmp_path)["epoch"].to_list() == list(range(epochs))

    again = Peak(best_epoch=1)
    fit(again, split, options, PROTOCOL, folder=tmp_path)
    assert again.seen == []
    assert again.knows == 1
    assert len(curve(tmp_path)) == epochs


def test_every_epoch_has_a_row_and_every_evaluation_its_numbers(
    split: Split, tmp_path: Path
) -> None:
    model = bpr_mf(split)
    fit(model, split, training(max_epochs=5, evaluate_every=2), PROTOCOL, folder=tmp_path)
    rows = curve(tmp_path)
    assert rows["epoch"].to_list() == [0, 1, 2, 3, 4]
    assert rows["train/loss"].is_between(0, 1).all()
    assert rows["validation/ndcg@5"].is_null().to_list() == [True, False, True, False, True]
    best = evaluate(model, split.validation, PROTOCOL).means
    at_best = rows.filter(pl.col("validation/ndcg@5") == best["ndcg@5"])
    assert len(at_best) == 1
    assert {n: at_best[f"validation/{n}"].item() for n in best} == best


def test_rows_that_no_checkpoint_followed_are_written_again(split: Split, tmp_path: Path) -> None:
    fit(Peak(0), split, training(max_epochs=2), PROTOCOL, folder=tmp_path)
    (tmp_path / "checkpoints/last.ckpt").unlink()
    fit(Peak(0), split, training(max_epochs=3), PROTOCOL, folder=tmp_path)
    assert curve(tmp_path)["epoch"].to_list() == [0, 1, 2]


def test_each_epoch_takes_every_user_once_in_an_order_of_its_own(split: Split) -> None:
    model = Peak(0)
    fit(model, split, training(max_epochs=2), PROTOCOL)
    orders = [list(chain.from_iterable(batches)) for batches in (model.seen[:4], model.seen[4:])]
    assert sorted(orders[0]) == sorted(orders[1]) == split.train.history.users.tolist()
    assert orders[0] != orders[1]
    assert len(model.seen) == 8


def test_without_reshuffling_every_epoch_takes_the_same_batches(split: Split) -> None:
    model, progresses = Peak(0), []
    model.on_train_batch_start = lambda part, _: progresses.append(part)  # type: ignore[assignment]
    fit(model, split, training(max_epochs=2, reshuffle=False), PROTOCOL)
    users = list(chain.from_iterable(model.seen[:4]))
    assert sorted(users) == split.train.history.users.tolist() != users
    # The objects themselves, with what they have computed.
    assert progresses[:4] == progresses[4:]
    assert len(progresses) == 8


def test_a_monitor_without_a_length_is_the_mean_over_all(split: Split, tmp_path: Path) -> None:
    protocol = Protocol(ks=(1, 5, 10))
    options = training(max_epochs=4, monitor="recall")
    model = fit(bpr_mf(split), split, options, protocol, folder=tmp_path)
    rows = curve(tmp_path)
    mean = rows.select(pl.mean_horizontal(f"validation/recall@{k}" for k in protocol.ks))
    assert rows["validation/recall"].to_list() == pytest.approx(mean.to_series().to_list())
    means = evaluate(model, split.validation, protocol).means
    best = sum(means[f"recall@{k}"] for k in protocol.ks) / 3
    assert best == pytest.approx(rows["validation/recall"].max())


def test_epochs_and_seeds_draw_differently() -> None:
    seeds = {epoch_seed(seed, epoch) for seed in range(50) for epoch in range(200)}
    assert len(seeds) == 50 * 200


def test_another_seed_trains_otherwise(split: Split) -> None:
    start = bpr_mf(split)
    models = [deepcopy(start) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fit(model, split, training(max_epochs=1, seed=seed), PROTOCOL)
    weights = [model.items.weight for model in models]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


class Both(Composite):
    """The sum of a model with a loss and one in closed form."""

    def __init__(self, split: Split) -> None:
        super().__init__()
        self.first, self.second = bpr_mf(split), Popularity()

    def members(self) -> Iterable[tuple[str, Scorer]]:
        return self.named_children()  # type: ignore[return-value]

    def score(self, batch: BasketBatch) -> Scores:
        return self.first.score(batch) + self.second.score(batch)


def test_members_are_fitted_in_folders_of_their_own(split: Split, tmp_path: Path) -> None:
    model = fit(Both(split), split, training(max_epochs=2), PROTOCOL, folder=tmp_path)
    assert len(curve(tmp_path / "members/first")) == 2
    assert [path.name for path in (tmp_path / "members").iterdir()] == ["first"]
    assert model.score(split.test.history).isfinite().all()


def test_loggers_get_the_loss_and_the_metrics(split: Split, tmp_path: Path) -> None:
    def loggers(folder: Path) -> list[Any]:
        return [CSVLogger(folder, name="log", version="")]

    model = bpr_mf(split)
    fit(model, split, training(max_epochs=2), PROTOCOL, folder=tmp_path, loggers=loggers)
    logged = pl.read_csv(tmp_path / "log/metrics.csv")
    for name in ("train/loss", "validation/recall@5"):
        values = logged[name].drop_nulls().to_list()
        assert values == pytest.approx(curve(tmp_path)[name].to_list(), rel=1e-5)


def test_lightning_says_nothing_of_itself(split: Split, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.addHandler(handler)
    try:
        fit(Peak(0), split, training(max_epochs=1), PROTOCOL)
        assert logger.level == level
    finally:
        logger.removeHandler(handler)
    assert heard == []
    assert capfd.readouterr() == ("", "")


def test_progress_shows_a_bar(split: Split, capfd: pytest.CaptureFixture[str]) -> None:
    fit(Peak(0), split, training(max_epochs=1), PROTOCOL, progress=True)
    assert "Epoch 0/0" in capfd.readouterr().out


def test_a_trained_model_is_free_of_its_trainer(split: Split) -> None:
    model = bpr_mf(split)
    fit(model, split, training(max_epochs=1, gradient_clip=1.0), PROTOCOL)
    copied = deepcopy(model).double()
    history = split.test.history
    assert copied.score(history).allclose(model.score(history).double(), atol=1e-5)


@pytest.mark.parametrize("every", [0, 7])
def test_no_evaluation_is_an_error(every: int) -> None:
    with pytest.raises(ConfigError, match=rf"evaluate_every={every} is not in 1 .. max_epochs=6"):
        training(evaluate_every=every)


def test_an_unmeasured_monitor_is_an_error(split: Split) -> None:
    with pytest.raises(ConfigError, match=r"monitor=ndcg@10 is not measured; choose .*ndcg@5"):
        fit(Peak(0), split, training(monitor="ndcg@10"), PROTOCOL)


@pytest.mark.parametrize("learning_rate", [1e18, 1e20, 1e30])
def test_training_that_diverges_is_an_error(
    learning_rate: float, split: Split, tmp_path: Path
) -> None:
    model = bpr_mf(split)
    model.learning_rate = learning_rate
    message = r"BPRMF: the (loss of epoch \d is (inf|nan)|scores of \w+ \d+ are not finite); .*"
    with pytest.raises(DataError, match=message + "lower learning_rate"):
        fit(model, split, training(), Protocol(ks=(5,)), folder=tmp_path)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_loss_that_is_not_finite_ends_its_epoch(value: float, split: Split) -> None:
    class Diverging(BPRMF):
        def loss(self, part: Part, progress: Progress) -> Tensor:
            loss = super().loss(part, progress)
            return loss + (value if progress.step // STEPS_AN_EPOCH == 2 else 0.0)

    model = Diverging(split.num_items, len(split.users), embedding_dim=8)
    with pytest.raises(DataError, match=rf"Diverging: the loss of epoch 2 is {value}; .* diverged"):
        fit(model, split, training(evaluate_every=3), Protocol(ks=(5,)))


@pytest.mark.gpu
def test_training_on_a_gpu_learns_as_on_the_cpu(cuda: str, split: Split) -> None:
    model = bpr_mf(split)
    fit(model, split, training(device=cuda, max_epochs=20, evaluate_every=5), PROTOCOL)
    best = model.to("cpu").top_k(split.test.history, 5).items
    assert (best % 2 == split.test.history.users[:, None] % 2).double().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"gradient_clip": 1.0},
            r"trainer.gradient_clip=1.0 .*: sparse=true needs null, and 32-tr",
        ),
        ({"precision": "64-true"}, r"trainer.precision=64-true: sparse=true needs null, and 32-tr"),
    ],
)
def test_what_sparse_tables_cannot_do_is_refused(
    options: dict[str, Any], message: str, split: Split
) -> None:
    model = BPRMF(split.num_items, len(split.users), sparse=True)
    with pytest.raises(ConfigError, match=message):
        fit(model, split, training(**options), PROTOCOL)


def test_sparse_tables_are_refused_on_several_ranks(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.ranks.world", lambda: 2)
    model = BPRMF(split.num_items, len(split.users), sparse=True)
    with pytest.raises(ConfigError, match=r"trainer.devices=1: a table with sparse=true trains in"):
        fit(model, split, training(), PROTOCOL)


@pytest.mark.parametrize(("is_jupyter", "bar"), [(False, RichProgressBar), (True, TQDMProgressBar)])
def test_the_bar_is_one_that_a_terminal_or_a_notebook_draws(
    monkeypatch: pytest.MonkeyPatch, is_jupyter: bool, bar: type
) -> None:
    monkeypatch.setattr(Console, "is_jupyter", is_jupyter, raising=False)
    monkeypatch.setattr(Console, "__init__", lambda self: None)
    assert isinstance(progress_bar(), bar)
