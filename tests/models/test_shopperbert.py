"""ShopperBERT: what a masked basket is told from, and what is a user's vector."""

from dataclasses import fields, replace
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import EventLog
from recsys.models import ShopperBERT
from recsys.models.users.shopperbert import Encoder, Pretext, Product, Windows
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split, last_basket
from recsys.testing.logs import checkerboard

START = Progress(0, 1)

SMALL = Encoder(embedding_dim=8, num_layers=1, ffn_dim=16, max_length=6, dropout=0.0)


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard(num_baskets=8))


def model_of(split: Split, **options: Any) -> ShopperBERT:
    """Prepared, without dropout, with weights large enough to matter."""
    torch.manual_seed(0)
    settings = {"attributes": ["colour", "item_id"], "encoder": SMALL} | options
    for name, kind in (("product", Product), ("pretext", Pretext)):
        settings[name] = kind(
            **{f.name: settings.pop(f.name) for f in fields(kind) if f.name in settings}
        )
    model = ShopperBERT(split.num_items, num_classes=split.num_classes, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.prepare(split)
    return model.eval()


def contexts(model: ShopperBERT, batch: BasketBatch, masked: list[bool]) -> Tensor:
    """(K, D): what the heads are given for each masked basket."""
    inputs: list[Tensor] = []
    hook = model.heads[0].register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    rows, _ = batch.basket_rows()
    model.masked_nll(batch, rows, torch.tensor(masked))
    hook.remove()
    return inputs[0]


def test_a_masked_basket_is_told_from_nothing_of_its_own(split: Split) -> None:
    model = model_of(split)
    masked = [False, True, False]
    context = contexts(model, BasketBatch.from_lists([[[0, 2], [4], [6]]], 40), masked)
    other = contexts(model, BasketBatch.from_lists([[[0, 2], [7, 9, 11], [6]]], 40), masked)
    torch.testing.assert_close(context, other)  # neither what it held nor how much
    unlike = contexts(model, BasketBatch.from_lists([[[0, 3], [4], [6]]], 40), masked)
    assert not torch.allclose(context, unlike)


def test_loss_is_the_mean_of_the_heads_cross_entropies(split: Split) -> None:
    model = model_of(split, mask_rate=1.0)
    part = model.prepare(split).rows(torch.tensor([0]))
    batch = part.history
    context = contexts(model, batch, [True] * int(batch.num_baskets()))
    codes = model.fields(batch)
    rows, offsets = batch.basket_rows()
    expected = []
    for column, size in enumerate(model.fields.sizes.values()):
        table, head, bias = model.tables[column], model.heads[column], model.biases[column]
        logits = head(context) @ table.weight[:size].T + bias  # type: ignore[operator, index]
        once_a_line = column < model.fields.num_product_fields
        row = rows if once_a_line else torch.arange(len(offsets) - 1)
        answer = codes[:, column] if once_a_line else codes[offsets[:-1], column]
        expected.append(F.cross_entropy(logits[row], answer))
    torch.testing.assert_close(model.loss(part, START), torch.stack(expected).mean())


def test_a_pretext_task_that_is_left_out_is_read_but_not_predicted(split: Split) -> None:
    model = model_of(split, mask_rate=1.0, pretext_tasks=["item_id", "weekday"])
    batch = model.prepare(split).rows(torch.tensor([0])).history
    rows, offsets = batch.basket_rows()
    losses = model.masked_nll(batch, rows, torch.ones(len(offsets) - 1, dtype=torch.bool))
    assert list(losses) == ["item_id", "weekday"]
    context = contexts(model, batch, [True] * (len(offsets) - 1))
    weekday = list(model.fields.sizes).index("weekday")
    log_p = F.linear(
        model.heads[1](context), model.tables[weekday].vectors, model.biases[1]
    ).log_softmax(1)
    codes = model.fields(batch)[offsets[:-1], weekday]
    torch.testing.assert_close(losses["weekday"], F.nll_loss(log_p, codes, reduction="none"))
    assert {name.partition("/")[0] for name in model.measure(split, 0)} == {"item_id", "weekday"}
    assert model.score(batch).shape == (1, split.num_items)
    some = [True, *[False] * (len(offsets) - 2)]
    before = contexts(model, batch, some)
    with torch.no_grad():
        model.tables[0].vectors[0] += 1.0  # of a colour
    assert not torch.allclose(contexts(model, batch, some), before)


@pytest.mark.parametrize("name", ["type", "prod.cat", "month", "price", "pop", "keys", "", "_x/ü"])
def test_a_column_may_be_called_anything(name: str) -> None:
    log = checkerboard()
    log = EventLog.from_frames(
        log.events.with_columns(value=pl.lit(2.5)),
        log.items.rename({"colour": name}),
        log.users,
    )
    model = model_of(last_basket(log), attributes=[name], price_buckets=2)
    fields = [name, "price" if name != "price" else "price_"]
    fields += ["month" if name != "month" else "month_", "day", "weekday", "hour"]
    assert list(model.fields.sizes) == model.pretext_tasks == fields
    assert model.fields.sizes[name] == 2
    part = model.prepare(last_basket(log))
    model.loss(part.rows(torch.arange(4)), START).backward()
    again = model_of(last_basket(log), attributes=[name], price_buckets=2)
    again.load_state_dict(model.state_dict())
    history = last_basket(log).test.history
    assert again.score(history).equal(model.score(history))
    assert f"{name}/nll" in model.measure(last_basket(log), 1)


@pytest.mark.parametrize("option", ["attributes", "calendar"])
def test_a_field_is_named_once(split: Split, option: str) -> None:
    name = {"attributes": "colour", "calendar": "day"}[option]
    with pytest.raises(ConfigError, match=f"{option} names {name} twice"):
        model_of(split, **{option: [name, name]})


@pytest.mark.parametrize(
    ("tasks", "message"), [([], "there are none"), (["sky"], "sky is no field")]
)
def test_pretext_tasks_are_fields(split: Split, tasks: list[str], message: str) -> None:
    with pytest.raises(
        ConfigError, match=f"pretext_tasks: {message}; name some of colour, item_id"
    ):
        model_of(split, pretext_tasks=tasks)


def test_next_basket_is_a_masked_one_behind_the_last(split: Split) -> None:
    model = model_of(split)
    fields = model.next_basket(BasketBatch.from_lists([[[0, 2], [4]]], 40))
    whole = BasketBatch.from_lists([[[0, 2], [4], [1]]], 40)
    context = contexts(model, whole, [False, False, True])
    for name in model.fields.sizes:
        torch.testing.assert_close(fields[name], model._log_probabilities(name, context))


def test_a_long_history_is_the_mean_over_its_windows(split: Split) -> None:
    model = model_of(split)
    history = [[i] for i in range(16)]  # windows of 4, 6 and 6 events, counted from the end
    windows = BasketBatch.from_lists([history[:4], history[4:10], history[10:]], 40)
    apart = model.encode_profiles(windows)
    mean = (4 * apart[0] + 6 * apart[1] + 6 * apart[2]) / 16
    whole = model.encode_profiles(BasketBatch.from_lists([history, [], [[3]]], 40))
    torch.testing.assert_close(whole[0], mean)
    assert not whole[1].any()


def test_cls_is_another_vector(split: Split) -> None:
    batch = BasketBatch.from_lists([[[0], [3]]], 40)
    mean, cls = (
        model_of(split, encoder=replace(SMALL, pooling=p)).encode_profiles(batch)
        for p in ("mean", "cls")
    )
    assert mean.shape == cls.shape
    assert not torch.allclose(mean, cls)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any), st.integers(1, 9))
def test_windows_hold_everything_and_are_full(lengths: list[int], max_length: int) -> None:
    history = BasketBatch.from_lists([[[0]] * length for length in lengths], 1)
    stretches = Windows.of(history, max_length)
    num_windows = torch.zeros(sum(lengths), dtype=torch.int64)
    owners = history.owners()
    for start, length in zip(stretches.starts.tolist(), stretches.lengths.tolist(), strict=True):
        num_windows[start : start + length] += 1
        assert owners[start] == owners[start + length - 1]
        assert length <= max(max_length * 3 // 2, 1)
    assert (num_windows > 0).all()
    windows = stretches.rows(torch.arange(len(stretches))).history
    full = torch.tensor(lengths)[owners[stretches.starts]].clamp(max=max_length)
    assert windows.lengths().equal(full)


def test_shuffled_baskets_stay_whole_and_with_their_user(split: Split) -> None:
    model = model_of(split, shuffle_rate=1.0, mask_rate=0.0)
    batches: list[BasketBatch] = []
    model.masked_nll = lambda batch, *_: batches.append(batch) or {"x": torch.zeros(1)}  # type: ignore
    part = model.prepare(split).rows(torch.arange(6))
    model.loss(part, START)
    (shuffled,) = batches
    assert shuffled.offsets.equal(part.history.offsets)
    assert not shuffled.baskets.equal(part.history.baskets)

    def baskets(batch: BasketBatch) -> list[tuple[int, list[int]]]:
        _, offsets = batch.basket_rows()
        owners = batch.owners()[offsets[:-1]].tolist()
        baskets = [items.tolist() for items in batch.items.tensor_split(offsets[1:-1].cpu())]
        return sorted(zip(owners, baskets, strict=True))

    assert baskets(shuffled) == baskets(part.history)


def test_held_out_users_are_not_trained_on_and_measured(split: Split) -> None:
    model = model_of(split, held_out=0.25)
    part = model.prepare(split)
    assert isinstance(part, Windows)
    assert len(part.history) == 0.75 * len(split.training)
    figures = model.measure(split, 1)
    fields = model.fields.sizes
    expected = sum(figures[f"{name}/nll_users"] for name in fields) / len(fields)
    assert figures["log_likelihood"] == pytest.approx(-expected)
    assert {f"{name}/{kind}" for name in fields for kind in ("nll", "nll_next", "nll_user")} < set(
        figures
    )


def test_measures_do_not_depend_on_who_is_asked_together(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(split, held_out=0.5)
    together = model.measure(split, 2)
    monkeypatch.setattr("recsys.models.users.shopperbert.USERS_AT_ONCE", 1)
    assert model.measure(split, 2) == pytest.approx(together, rel=1e-5)


@pytest.mark.parametrize("cells", [1, 100])
def test_many_classes_are_predicted_some_baskets_at_a_time(
    split: Split, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(split, mask_rate=1.0)
    part = model.prepare(split).rows(torch.arange(3))
    at_once: list[int] = []
    log_probabilities = model._log_probabilities

    def counted(name: str, context: Tensor) -> Tensor:
        log_p = log_probabilities(name, context)
        at_once.append(log_p.numel())
        return log_p

    monkeypatch.setattr(model, "_log_probabilities", counted)
    whole = model.loss(part, START)
    whole.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    assert max(at_once) > 100
    at_once.clear()
    monkeypatch.setattr("recsys.models.users.shopperbert.CELLS_AT_ONCE", cells)
    pieces = model.loss(part, START)
    pieces.backward()
    assert max(at_once) <= max(cells, 40)  # the classes of one basket
    torch.testing.assert_close(pieces, whole)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_long_logs_are_encoded_some_windows_at_a_time(
    split: Split, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(split, encoder=replace(SMALL, pooling=pooling))
    whole = model.encode_profiles(split.latest)
    monkeypatch.setattr("recsys.models.users.shopperbert.EVENTS_AT_ONCE", 10)
    sizes: list[int] = []
    model.encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    torch.testing.assert_close(model.encode_profiles(split.latest), whole)
    assert max(sizes) < 10 + SMALL.max_length


def test_items_of_another_log_are_read_by_their_attributes(split: Split) -> None:
    model = model_of(split, attributes=["colour"])
    before = model.encode_profiles(BasketBatch.from_lists([[[0], [3]]], 40))
    items = split.log.items[[5, 0]]  # white, black
    model.read_items(items)
    after = model.encode_profiles(BasketBatch.from_lists([[[1], [0]]], 2))
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("name", ["mask_rate", "shuffle_rate", "held_out"])
def test_rates_are_shares(split: Split, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}=1.5: expected (a share|from 0 to below 1)"):
        model_of(split, **{name: 1.5})


def test_heads_divide_the_dimensions() -> None:
    with pytest.raises(ConfigError, match="num_heads=3 does not divide embedding_dim=8"):
        Encoder(embedding_dim=8, num_heads=3)


def test_words_are_read_where_they_are_wanted(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts_read: list[pl.Series] = []

    def vectors(texts: pl.Series) -> Tensor:
        texts_read.append(texts)
        return torch.stack([torch.full((384,), float(len(text))) for text in texts])

    monkeypatch.setattr("recsys.models.users.shopperbert.sentence_vectors", vectors)
    model = model_of(split, sentences=True)
    batch = BasketBatch.from_lists([[[0], [3]]], 40)
    before = model.encode_profiles(batch)
    assert texts_read[0].to_list() == split.item_table["text"].to_list()
    items = split.item_table.with_columns(
        text=pl.lit("a stone") + pl.col("item_id").cast(pl.String)
    )
    model.read_items(items.with_columns(text=pl.when(pl.col("item_id") > 3).then("text")))
    assert texts_read[1].to_list() == ["", *items["text"][4:]]  # null is no text
    assert not torch.allclose(model.encode_profiles(batch), before)
    with pytest.raises(
        DataError, match=r"items have no column text; set model.product.sentences=false"
    ):
        model.read_items(items.drop("text"))


@pytest.mark.gpu
def test_loss_and_profiles_agree_between_cpu_and_gpu(split: Split, cuda: str) -> None:
    model = model_of(split)
    part = model.prepare(split).rows(torch.arange(6))
    batch = part.history
    rows, offsets = batch.basket_rows()
    masked = torch.arange(len(offsets) - 1) % 3 == 0
    here = model.masked_nll(batch, rows, masked)
    profiles = model.encode_profiles(batch)
    model.to(cuda)
    there = model.masked_nll(batch.to(cuda), rows.to(cuda), masked.to(cuda))
    for name, nll in here.items():
        torch.testing.assert_close(there[name].cpu(), nll, rtol=1e-4, atol=1e-5)
    on_gpu = model.encode_profiles(batch.to(cuda)).cpu()
    torch.testing.assert_close(on_gpu, profiles, rtol=1e-4, atol=1e-5)
    assert model.loss(part.to(cuda), START).isfinite()
