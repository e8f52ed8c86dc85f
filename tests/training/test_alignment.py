"""A model while it is aligned: its examples, its reference, its losses and what is logged."""

import logging
from datetime import datetime

import numpy as np
import polars as pl
import pytest
import torch

from recsys.batch import LabelledPart, LabelledPrefixes
from recsys.errors import ConfigError
from recsys.log import EventLog, Template
from recsys.models import EASE, CountVAE, LMRec, SASRec
from recsys.models.language import Decoder, Language
from recsys.models.language import Ranking as LanguageRanking
from recsys.models.sequences import Encoder, Ranking
from recsys.nn import BCE, BCO, DPO, KTO, SFT, MultinomialHead, PreferenceLoss, TweedieHead
from recsys.scoring import Progress, Scorer
from recsys.tasks import FeedbackTable, Split, feedback_table, global_time
from recsys.testing import checkerboard
from recsys.training.alignment import Aligned, examples, odds

STARTS = {"validation_start": "2024-01-04", "test_start": "2024-01-05"}
START = Progress(0, 10)


@pytest.fixture(scope="module")
def split() -> Split:
    return global_time(checkerboard(), **STARTS)


@pytest.fixture(scope="module")
def table(split: Split) -> FeedbackTable:
    """Three items a user and day, those of the user's colour taken up."""
    generator = np.random.default_rng(0)
    rows = [
        (user, int(item), datetime(2024, 1, day), int(item) % 2 == user % 2)
        for user in range(60)
        for day in (2, 3, 4, 5)
        for item in generator.choice(40, 3, replace=False)
    ]
    columns = ["user_id", "item_id", "as_of", "label"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    frame = frame.with_columns(pl.col("as_of").cast(split.log.events["timestamp"].dtype))
    return feedback_table(split.log, "shown", frame, validation="2024-01-04", test="2024-01-05")


def sasrec(split: Split, **options: object) -> SASRec:
    torch.manual_seed(0)
    return SASRec(split.num_items, embedding_dim=8, encoder=Encoder(num_layers=1), **options)  # type: ignore[arg-type]


def lmrec(split: Split) -> LMRec:
    torch.manual_seed(0)
    sizes = Decoder(vocab_size=280, embedding_dim=8, num_layers=1, num_heads=2)
    model = LMRec(
        split.num_items,
        decoder=sizes,
        template=Template(max_item_tokens=12, max_tokens=30),
        language=Language(batch_size=0),
        ranking=LanguageRanking(num_negatives=None),
    )
    model.prepare(split)
    return model


def count_vae(split: Split) -> CountVAE:
    torch.manual_seed(0)
    return CountVAE(split.num_items, head=MultinomialHead(), embedding_dim=8, latent_dim=4)


def batch_of(aligned: Aligned, split: Split) -> LabelledPart:
    part = aligned.prepare(split)
    assert isinstance(part, LabelledPrefixes)
    return part.rows(torch.arange(len(part)))


def test_a_history_holds_what_came_before_and_nothing_else(
    split: Split, table: FeedbackTable
) -> None:
    part = examples(table, split)
    batch = part.rows(torch.arange(len(part)))
    moments = table.rows["as_of"].dt.epoch("s").to_numpy()
    owners = batch.history.owners().numpy()
    assert (batch.history.times.numpy() < moments[owners]).all()
    counts = np.bincount(owners, minlength=len(part))
    starts, ends = table.spans()  # no item is twice in a basket of this log
    assert counts.tolist() == (ends - starts).tolist()


@pytest.mark.parametrize("make", [sasrec, lmrec, count_vae])
def test_log_ratios_begin_at_nothing_and_move_where_they_should(
    split: Split, table: FeedbackTable, make: object
) -> None:
    model = make(split)  # type: ignore[operator]
    aligned = Aligned(model, BCO(beta=1.0), table, learning_rate=0.01)
    batch = batch_of(aligned, split)
    torch.testing.assert_close(
        aligned.preferences(batch).log_ratios,
        torch.zeros(len(batch.target.values)),
        rtol=0,
        atol=1e-4,
    )
    optimizer = aligned.optimizer(10)
    for _ in range(10):
        optimizer.zero_grad()
        aligned.loss(batch, START).backward()
        optimizer.step()
    ratios, up = aligned.preferences(batch).log_ratios, batch.labels.up
    assert ratios[up].mean() > ratios[~up].mean() + 0.01


@pytest.mark.parametrize(
    "loss", [BCE(), BCO(matching=True), KTO(), DPO(), SFT()], ids=lambda loss: type(loss).__name__
)
def test_every_loss_has_a_gradient(
    split: Split, table: FeedbackTable, loss: PreferenceLoss
) -> None:
    aligned = Aligned(sasrec(split), loss, table)
    value = aligned.loss(batch_of(aligned, split), START)
    value.backward()
    gradient = aligned.model.items.id.weight.grad
    assert value.isfinite()
    assert float(gradient.abs().sum()) > 0


def test_the_state_holds_the_shift(split: Split, table: FeedbackTable) -> None:
    aligned = Aligned(sasrec(split), BCO(), table)
    aligned.loss(batch_of(aligned, split), START)
    assert aligned.state_dict()["objective.count"] == len(table.labels_of(0))


def test_dropout_is_off_and_training_is_on(split: Split, table: FeedbackTable) -> None:
    aligned = Aligned(sasrec(split), BCO(), table).eval().train()
    assert aligned.model.training
    assert aligned.objective.training
    assert not aligned.model.encoder.dropout.training


def test_a_reference_is_not_computed_again(split: Split, table: FeedbackTable) -> None:
    column = torch.linspace(-4, -2, len(table.labels))
    aligned = Aligned(sasrec(split), BCO(), table, reference=column)
    part = aligned.prepare(split)
    assert isinstance(part, LabelledPrefixes)
    in_training = table.rows["phase"].to_numpy()[table.shown.owners().numpy()] == 0
    assert part.labels.reference.tolist() == column[torch.from_numpy(in_training)].tolist()


def test_what_users_did_next_is_their_basket_from_the_moment_on() -> None:
    rows = [
        (user, item, f"2024-01-0{day}", 10 * user + day)
        for user, day, items in [
            (1, 1, [7, 8]),
            (1, 3, [8, 9]),  # from the 2nd and the 3rd on
            (1, 6, [7]),  # not before the 5th, which is validated
            (2, 2, [9]),
            (3, 1, [7]),
            (3, 2, [8]),
            (3, 5, [9]),
        ]
        for item in items
    ]
    columns = ["user_id", "item_id", "timestamp", "basket_id"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    log = EventLog.from_frames(frame)
    days = [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3), (1, 5), (1, 6)]
    shown = pl.DataFrame(days, schema=["user_id", "day"], orient="row").with_columns(
        item_id=pl.lit(7, pl.Int64),
        label=pl.int_range(pl.len()) % 2,
        as_of=pl.datetime(2024, 1, "day"),
    )
    shown = shown.with_columns(pl.col("as_of").cast(log.events["timestamp"].dtype)).drop("day")
    table = feedback_table(log, "shown", shown, validation="2024-01-05", test="2024-01-06")
    split = global_time(log, validation_start="2024-01-04", test_start="2024-01-06")
    following = examples(table, split).following
    of = dict(
        zip(table.rows.select("user_id", "as_of").rows(), following.lengths.tolist(), strict=True)
    )
    assert {(user, at.day): count for (user, at), count in of.items()} == {
        (1, 2): 2, (1, 3): 2, (1, 4): 0, (1, 5): 0, (1, 6): 0, (2, 2): 1, (2, 3): 0,
    }  # fmt: skip
    assert split.items.ids[following.values.numpy()].to_list() == [8, 9, 8, 9, 9]


def test_an_anchor_is_added_to_the_loss(split: Split, table: FeedbackTable) -> None:
    plain, anchored = (Aligned(sasrec(split), BCE(), table, anchor=anchor) for anchor in (0.0, 0.5))
    batch = batch_of(anchored, split)
    following = batch.following
    assert 0 < len(following.values) < 10 * len(batch)
    of_all = anchored.model.log_probabilities(batch.history)
    surprise = -of_all[following.owners(), following.values].mean()
    torch.testing.assert_close(
        anchored.loss(batch, START), plain.loss(batch, START) + 0.5 * surprise
    )


def test_an_anchor_holds_what_a_collapse_loses(split: Split, table: FeedbackTable) -> None:
    ratios = []
    for anchor in (0.0, 1.0):
        frame = table.frame().with_columns(
            label=(pl.col("item_id") % 2 == pl.col("user_id") % 2) & (pl.col("item_id") < 4)
        )
        rows = frame.select("user_id", "item_id", "as_of", "label")
        few = feedback_table(split.log, "few", rows, validation="2024-01-04", test="2024-01-05")
        aligned = Aligned(
            sasrec(split), BCO(balanced=False), few, anchor=anchor, learning_rate=0.01
        )
        batch = batch_of(aligned, split)
        optimizer = aligned.optimizer(30)
        for _ in range(30):
            optimizer.zero_grad()
            aligned.loss(batch, START).backward()
            optimizer.step()
        ratios.append(aligned.preferences(batch).log_ratios.mean().item())
    assert ratios[0] < ratios[1]


def test_an_anchor_below_nothing(split: Split, table: FeedbackTable) -> None:
    with pytest.raises(ConfigError, match=r"anchor=-0.1: expected at least 0"):
        Aligned(sasrec(split), BCO(), table, anchor=-0.1)


def test_what_is_measured_is_the_area_under_the_curve_of_the_phase(
    split: Split, table: FeedbackTable
) -> None:
    aligned = Aligned(sasrec(split), BCO(), table).eval()
    figures = aligned.measure(split, 2)
    assert set(figures) == {"auroc", "within_auroc"}
    assert all(0 < figure < 1 for figure in figures.values())


def test_odds_are_of_a_balanced_regression() -> None:
    vectors = torch.tensor([[-1.0], [1.0]])
    lists = torch.tensor([0, 0, 0, 0, 1, 1])
    up = torch.tensor([False, False, False, True, True, True])
    low, high = odds(vectors, lists, up).tolist()
    assert low < 1 < high


def test_a_warning_comes_once(
    split: Split, table: FeedbackTable, caplog: pytest.LogCaptureFixture
) -> None:
    aligned = Aligned(sasrec(split), BCO(balanced=False), table, drift=1e-9)
    aligned.loss(batch_of(aligned, split), START)
    aligned._sums = torch.tensor([-30.0, 10.0, -50.0, 10.0])
    with caplog.at_level(logging.WARNING):
        aligned.warn_of_drift(epoch=2)
        aligned.warn_of_drift(epoch=3)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("epoch 2: the mean log-ratio is -4.0 nats")
    assert "task.loss.balanced=true" in line


def test_models_that_tell_no_probabilities(split: Split, table: FeedbackTable) -> None:
    binary = sasrec(split, ranking=Ranking(softmax=False, num_negatives=1))
    counting = CountVAE(split.num_items, head=TweedieHead(), embedding_dim=8, latent_dim=4)
    cases: list[tuple[Scorer, str]] = [
        (EASE(), "EASE tells no probabilities of items; align a model that"),
        (binary, "softmax=false gives no probabilities"),
        (counting, "TweedieHead tells counts, not probabilities"),
    ]
    for model, words in cases:
        with pytest.raises(ConfigError, match=words):
            Aligned(model, BCO(), table)


def test_pairs_that_there_are_not(split: Split, table: FeedbackTable) -> None:
    frame = table.frame().filter(pl.col("item_id") % 2 == pl.col("user_id") % 2)
    down = (
        table.frame()
        .filter(pl.col("user_id") == 0, pl.col("label") == 0)
        .with_columns(as_of=pl.col("as_of").dt.offset_by("1h"))
    )
    rows = pl.concat([frame, down]).select("user_id", "item_id", "as_of", "label")
    alone = feedback_table(split.log, "shown", rows, validation="2024-01-04", test="2024-01-05")
    with pytest.raises(ConfigError, match=r"DPO compares items of one list, and no list of shown"):
        Aligned(sasrec(split), DPO(), alone).prepare(split)
