"""SASRec against torch's own encoder on padded sequences, and what its losses are made of."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import EventLog
from recsys.models import SASRec
from recsys.models.neighbours.text_tfidf import tfidf
from recsys.models.sequences.sasrec import (
    CausalEncoder,
    Encoder,
    Ranking,
    SideBySide,
    SingularVectors,
    leading_vectors,
)
from recsys.nn import losses, negatives
from recsys.nn.attention import Layout
from recsys.scoring.recommender import Progress
from recsys.scoring.similar import similar_items
from recsys.tasks.splits import Split, leave_last_out

START = Progress(0, 1)

N, D = 11, 8
SEQUENCES = [[3, 1, 4, 1, 5, 9, 2], [6, 5], [3, 5, 8], [9, 7, 9, 3, 2, 3, 8], [4, 6, 2, 6]]


def in_sections(options: dict[str, Any]) -> dict[str, Any]:
    """Each option in the section that has it."""
    remaining = dict(options)
    return {
        name: kind(**{f.name: remaining.pop(f.name) for f in fields(kind) if f.name in remaining})
        for name, kind in (("encoder", Encoder), ("ranking", Ranking))
    } | remaining


def model_of(**options: Any) -> SASRec:
    """In double precision, without dropout, and with vectors large enough to matter."""
    torch.manual_seed(0)
    settings = {"embedding_dim": D, "num_heads": 2, "max_length": 6, "dropout": 0.0} | options
    model = SASRec(N, **in_sections(settings)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def part_of(sequences: list[list[int]]) -> Part:
    history = BasketBatch.from_lists([[[i] for i in row] for row in sequences], N)
    return Part("train", history, history.ragged)


def padded_states(model: SASRec, sequences: list[list[int]]) -> Tensor:
    """(B, L, D) by torch's own layers, sequences padded at the right."""
    encoder = model.encoder
    width = max(map(len, sequences))
    items = model.items()
    x = items.new_zeros(len(sequences), width, D)
    padding = torch.ones(len(sequences), width, dtype=torch.bool)
    for u, row in enumerate(sequences):
        for t, item in enumerate(row):
            x[u, t] = items[item] * D**0.5 + encoder.positions.weight[t]
            padding[u, t] = False
    causal = torch.ones(width, width, dtype=torch.bool).triu(1)
    for block in encoder.blocks:
        theirs = nn.TransformerEncoderLayer(
            D, 2, dim_feedforward=D, dropout=0.0, batch_first=True, norm_first=True
        ).double()
        first, _, _, second = block.feed_forward
        for name, ours in (
            ("self_attn.in_proj_weight", block.projections.weight),
            ("self_attn.in_proj_bias", block.projections.bias),
            ("self_attn.out_proj.weight", block.joint.weight),
            ("self_attn.out_proj.bias", block.joint.bias),
            ("linear1.weight", first.weight),
            ("linear1.bias", first.bias),
            ("linear2.weight", second.weight),
            ("linear2.bias", second.bias),
            ("norm1.weight", block.attention_norm.weight),
            ("norm1.bias", block.attention_norm.bias),
            ("norm2.weight", block.feed_forward_norm.weight),
            ("norm2.bias", block.feed_forward_norm.bias),
        ):
            owner, _, leaf = name.rpartition(".")
            module = theirs.get_submodule(owner)
            del module._parameters[leaf]
            setattr(module, leaf, ours)  # the same tensor, so that gradients reach it
        x = theirs(x, src_mask=causal, src_key_padding_mask=padding)
    return encoder.norm(x)


def padded_loss(model: SASRec, sequences: list[list[int]]) -> Tensor:
    states = padded_states(model, [row[:-1] for row in sequences])
    scores = states @ model.items().T
    terms = [
        F.cross_entropy(scores[u, t], torch.tensor(item))
        for u, row in enumerate(sequences)
        for t, item in enumerate(row[1:])
    ]
    return torch.stack(terms).mean()


def gradients(model: SASRec, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"text": SingularVectors(3)}, {"text": SingularVectors(3), "use_id": False}]
)
@pytest.mark.parametrize("num_groups", [1, 3, 8])
def test_loss_and_gradients_are_those_of_padded_sequences(
    options: dict[str, Any], num_groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.models.sequences.sasrec.NUM_GROUPS", num_groups)
    monkeypatch.setattr(losses, "_CELLS", {"cpu": 1})
    monkeypatch.setattr(losses, "_ROWS", 4)
    model = model_of(**options)
    if options:
        model.items.text.normal_()
    loss, expected = model.loss(part_of(SEQUENCES), START), padded_loss(model, SEQUENCES)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(model, loss), gradients(model, expected))


def test_a_users_vector_is_the_state_after_the_last_item() -> None:
    model = model_of()
    batch = part_of(SEQUENCES).history
    cut = [row[-6:] for row in SEQUENCES]  # max_length
    states = padded_states(model, cut)
    expected = torch.stack([states[u, len(row) - 1] for u, row in enumerate(cut)])
    torch.testing.assert_close(model.encode_users(batch), expected)
    torch.testing.assert_close(model.score(batch), expected @ model.items.id.vectors.T)  # type: ignore[union-attr]


def test_later_items_and_other_users_change_no_earlier_state() -> None:
    model = model_of()
    items = model.encode_items()
    long = Ragged.from_lists([[1, 2, 3, 4, 5], [7, 8]])
    states = model.encoder(items, long)
    for t in range(1, 6):
        alone = model.encoder(items, Ragged.from_lists([[1, 2, 3, 4, 5][:t]]))
        torch.testing.assert_close(states[:t], alone)
    torch.testing.assert_close(
        states[5:], model.encoder(items, Ragged.from_lists([[], [7, 8], [], [6]]))[:2]
    )


def test_users_without_a_history_have_zeros() -> None:
    model = model_of()
    some = model.encode_users(BasketBatch.from_lists([[], [[1]], []], N))
    assert some.any(1).tolist() == [False, True, False]
    assert model.encode_users(BasketBatch.from_lists([[], []], N)).equal(torch.zeros(2, D).double())


def test_training_takes_the_last_events_of_users_with_two() -> None:
    log = EventLog.from_frames(
        pl.DataFrame(
            {
                "user_id": [1, 2, 2, *[3] * 9, *[4] * 4],
                "item_id": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 5, 6, 7, 8],
                "timestamp": range(16),
            }
        )
    )
    part = SASRec(N, encoder=Encoder(max_length=4)).prepare(leave_last_out(log))
    # Of user 3 the last two events are asked for later, of 4 too.
    assert [row.tolist() for row in part.history.ragged.values.split([2, 5, 2])] == [
        [1, 2],
        [5, 6, 7, 8, 9],
        [5, 6],
    ]
    assert part.history.users.tolist() == [1, 2, 3]
    assert part.history.times.tolist() == [1, 2, 5, 6, 7, 8, 9, 12, 13]


def test_attention_pays_for_few_empty_cells() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 51, 128)
    rows = Ragged.from_lists([[0] * n for n in lengths])
    layout = Layout.of(rows, 8)
    assert len(layout.token) < 1.15 * len(rows.values)
    assert layout.token[layout.cell].equal(torch.arange(len(rows.values)))
    assert sum(users * width for users, width in layout.shapes) == len(layout.token)


def test_the_papers_loss_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """-log sigmoid(x . target) - log(1 - sigmoid(x . negative)), one negative a position."""
    negative_items = torch.tensor([0, 7, 7, 0, 8, 10, 2, 1, 2, 2]).unsqueeze(1)
    calls: list[Any] = []

    def uniform(own: Ragged, num_items: int, num_negatives: int, *, rows: Tensor) -> Tensor:
        calls.append((own.values.tolist(), num_items, num_negatives, rows.tolist()))
        return negative_items

    monkeypatch.setattr(negatives, "uniform", uniform)
    model = model_of(softmax=False, num_negatives=1)
    sequences = [*SEQUENCES[:3], [9, 7]]
    loss = model.loss(part_of(sequences), START)
    states, items = padded_states(model, [row[:-1] for row in sequences]), model.items()
    places = [(u, t, item) for u, row in enumerate(sequences) for t, item in enumerate(row[1:])]
    terms = [
        -(states[u, t] @ items[item]).sigmoid().log()
        - (1 - (states[u, t] @ items[j]).sigmoid()).log()
        for (u, t, item), j in zip(places, negative_items[:, 0].tolist(), strict=True)
    ]
    torch.testing.assert_close(loss, torch.stack(terms).mean())
    own = [1, 2, 3, 4, 5, 9, 5, 6, 3, 5, 8, 7, 9]
    assert calls == [(own, N, 1, [0] * 6 + [1] + [2] * 2 + [3])]


def test_a_user_who_had_everything_has_no_negative() -> None:
    model = model_of(softmax=False, num_negatives=2, max_length=N)
    part = part_of([list(range(N))])
    states = padded_states(model, [list(range(N - 1))])[0]
    expected = F.softplus(-(states * model.items()[1:]).sum(1)).mean()
    torch.testing.assert_close(model.loss(part, START), expected)


def test_with_every_item_drawn_the_sampled_softmax_is_the_full_one() -> None:
    sampled, full = model_of(num_negatives=N), model_of()
    part = part_of(SEQUENCES)
    torch.testing.assert_close(sampled.loss(part, START), full.loss(part, START))


@pytest.mark.parametrize("softmax", [True, False])
def test_a_sparse_table_has_the_gradient_of_a_dense_one(softmax: bool) -> None:
    gradients = []
    for sparse in (False, True):
        model, part = model_of(softmax=softmax, num_negatives=3, sparse=sparse), part_of(SEQUENCES)
        torch.manual_seed(1)
        model.loss(part, START).backward()
        assert model.items.id is not None
        gradient = model.items.id.weight.grad
        assert gradient is not None
        assert gradient.is_sparse == sparse
        gradients.append(gradient.to_dense())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "options",
    [
        {"sparse": True},
        {"sparse": True, "num_negatives": 2, "shard": True},
        {"sparse": True, "num_negatives": 2, "text": SingularVectors(2)},
    ],
)
def test_a_sparse_table_needs_a_loss_of_some_rows(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sparse=true .*; set ranking.num_negatives, text=null"):
        model_of(**options)


def test_the_sampled_softmax_estimates_the_full_one() -> None:
    """The sums over the catalogue agree in the mean over draws."""
    model = model_of(num_negatives=3)
    states = torch.randn(4, D).double()
    targets = torch.tensor([0, 3, 3, 10])
    items = model.items().detach()
    vectors_of = partial(F.embedding, weight=items)
    scores = states @ items.T
    positive = scores.gather(1, targets[:, None])[:, 0]
    negative_items = torch.stack(
        [model._sampled_softmax(states, vectors_of, targets) for _ in range(20_000)]
    )  # log(sum / positive)
    sums = (negative_items + positive).exp().mean(0)
    torch.testing.assert_close(sums, scores.exp().sum(1), rtol=0.03, atol=0.0)


WORDS = ("red", "blue", "soap", "comb", "towel", "mirror", "small", "large", "new")
TEXTS = [
    " ".join(np.random.default_rng(i).choice(WORDS, 3, replace=False).tolist()) for i in range(12)
]


@pytest.mark.parametrize("dim", [3, 9])
def test_leading_vectors_are_those_of_the_whole_decomposition(dim: int) -> None:
    texts = pl.Series([*TEXTS, None])
    ours = leading_vectors(texts, dim).numpy()
    left, values, _ = np.linalg.svd(tfidf(texts).toarray())
    expected = left[:, :dim] * values[:dim]
    expected *= np.sign((ours * expected).sum(0))  # a singular vector's sign is open
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert not ours[-1].any()


def test_leading_vectors_of_equal_weight_are_the_same_every_time() -> None:
    texts = pl.Series(["black a", "black b", "white c", "white d"])
    assert leading_vectors(texts, 1).equal(leading_vectors(texts, 1))


def test_items_without_a_text_have_their_id_alone(texts_of: Callable[..., Split]) -> None:
    split = texts_of([*TEXTS[:-1], None])
    model = SASRec(len(TEXTS), text=SingularVectors(3))
    model.prepare(split)
    assert model.items.id is not None
    assert model.items()[-1].equal(model.items.id.vectors[-1])
    assert model.items.from_text is not None
    expected = model.items.id.vectors + model.items.text @ model.items.from_text.weight.T
    torch.testing.assert_close(model.items(), expected)
    assert model.items.text[:-1].any(1).all()


def test_the_question_for_similar_items_reads_the_texts_once(
    texts_of: Callable[..., Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SASRec(len(TEXTS), text=SingularVectors(3))
    model.prepare(texts_of(TEXTS))
    read, blocks = [], model.items.in_blocks
    monkeypatch.setattr(model.items, "in_blocks", lambda **by: read.append(by) or blocks(**by))
    first, again = (similar_items(model, torch.tensor([0, 2]), len(TEXTS), 2) for _ in range(2))
    assert first.items.equal(again.items)
    assert len(read) == 1


def test_vectors_of_two_kinds_stand_side_by_side(texts_of: Callable[..., Split]) -> None:
    class Lengths:
        dim = 1

        def read(self, texts: pl.Series) -> Tensor:
            return torch.from_numpy(texts.str.len_chars().to_numpy(writable=True))[:, None].float()

    both = SideBySide({"lengths": Lengths(), "words": SingularVectors(3)})
    assert both.dim == 4
    model = SASRec(len(TEXTS), text=both)
    model.prepare(texts_of(TEXTS))
    assert model.items.text[:, 0].tolist() == [len(text) for text in TEXTS]
    assert model.items.text[:, 1:].equal(leading_vectors(pl.Series(TEXTS), 3))


@pytest.fixture
def texts_of() -> Callable[..., Split]:
    """Makes a split where two users took all items, which have these texts."""

    def make(texts: list[str | None] | None) -> Split:
        items = list(range(len(TEXTS)))
        events = pl.DataFrame(
            {"user_id": [0] * len(items) + [1] * len(items), "item_id": items * 2}
        )
        events = events.with_columns(timestamp=pl.int_range(pl.len()))
        table = None if texts is None else pl.DataFrame({"item_id": items, "text": texts})
        return leave_last_out(EventLog.from_frames(events, table, name="mine"))

    return make


def test_more_text_dimensions_than_the_texts_have(texts_of: Callable[..., Split]) -> None:
    with pytest.raises(ConfigError, match=r"dim=10; 12 texts of 9 words .* span 9"):
        SASRec(len(TEXTS), text=SingularVectors(10)).prepare(texts_of(list(TEXTS)))


def test_a_log_without_text(texts_of: Callable[..., Split]) -> None:
    with pytest.raises(DataError, match="mine: items have no text"):
        SASRec(len(TEXTS), text=SingularVectors(2)).prepare(texts_of(None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_id": False}, "use_id=false and text=null"),
        ({"softmax": False}, "softmax=false needs num_negatives"),
        ({"num_negatives": 0}, f"num_negatives=0; expected 1 .. {N}"),
        ({"num_negatives": N + 1}, f"num_negatives={N + 1}; expected 1 .. {N}"),
        ({"num_heads": 3}, "num_heads=3 does not divide embedding_dim=64"),
    ],
)
def test_options_that_make_no_model(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SASRec(N, **in_sections(options))


@pytest.mark.parametrize(("decays", "of_ids"), [({}, 0.5), ({"id_weight_decay": 4.0}, 4.0)])
def test_ids_decay_by_themselves(decays: dict[str, float], of_ids: float) -> None:
    model = model_of(learning_rate=0.1, weight_decay=0.5, **decays)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.optimizer(num_steps=1).step()
    for name, parameter in model.named_parameters():
        rate = of_ids if name.startswith("items.id.") else 0.5
        torch.testing.assert_close(parameter, before[name] * (1 - 0.1 * rate))


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    encoder = CausalEncoder(D, Encoder(num_layers=1, num_heads=2, max_length=6, dropout=0.5))
    items, rows = torch.randn(N, D), Ragged.from_lists(SEQUENCES[1:3])
    assert not encoder(items, rows).equal(encoder(items, rows))
    encoder.eval()
    assert encoder(items, rows).equal(encoder(items, rows))


@torch.no_grad()
def test_the_weight_of_repeats_is_in_the_loss_of_every_position() -> None:
    model = model_of(repeats=True)
    assert model.repeats is not None
    losses, items = [], model.encode_items()
    for sequence in SEQUENCES:
        sequence = sequence[-7:]
        states = model.encoder(items, Ragged.from_lists([sequence[:-1]]))
        for place, state in enumerate(states):
            scores = items @ state
            scores[list(set(sequence[: place + 1]))] += model.repeats.value
            losses.append(-scores.log_softmax(0)[sequence[place + 1]])
    loss = model.loss(part_of(SEQUENCES), START)
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_repeats_need_the_whole_catalogue() -> None:
    with pytest.raises(ConfigError, match=r"ranking\.repeats=true with num_negatives=3"):
        Ranking(num_negatives=3, repeats=True)
