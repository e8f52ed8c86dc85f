"""LMRec against Hugging Face's own forward pass and loss, and sums written as loops."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError, DataError, RunError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.log.event_log import EventLog
from recsys.log.words import Template
from recsys.models import LMRec
from recsys.models.language import (
    Decoder,
    FrozenTexts,
    Ids,
    Language,
    Pretrained,
    Ranking,
    Tuning,
)
from recsys.models.language._texts import Beginnings
from recsys.nn.text_vectors import semantic_vectors
from recsys.scoring import manifest, saved_model
from recsys.scoring.other_logs import known_parts
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split, leave_last_out
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

START = Progress(0, 1)

WORDS = [
    "red lamp",
    "",
    "겨울 양말 🧦",
    "a lamp, blue",
    " ".join(map(str, range(3_000))),
    None,
    "wool",
]
N = len(WORDS)
HISTORIES = [[0, 2, 3, 0, 6], [4, 4, 4, 4, 1, 5], [3, 6, 5, 1], [5, 1, 2], [1], [2, 0, 3, 6]]
TINY = Decoder(num_layers=2, embedding_dim=16, num_heads=2, ffn_dim=32, vocab_size=300)

TRAINING = TrainingOptions(max_epochs=1, device="cpu", monitor="ndcg@3")


def log() -> EventLog:
    rows = [(u, i, t) for u, items in enumerate(HISTORIES) for t, i in enumerate(items)]
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": range(N), "text": WORDS})
    return EventLog.from_frames(events, items, name="shop")


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(log())


def model_of(split: Split, **options: Any) -> LMRec:
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "decoder": TINY,
        "template": Template(max_item_tokens=12, max_tokens=30),
        "language": Language(batch_size=0),
        "ranking": Ranking(),
    }
    given = {**parts, **options}
    for name, kind in (("ids", Ids), ("frozen_texts", FrozenTexts), ("tuning", Tuning)):
        given[name] = kind(**{f.name: given.pop(f.name) for f in fields(kind) if f.name in given})
    model = LMRec(split.num_items, **given)
    model.prepare(split)
    if model.items is not None:
        with torch.no_grad():
            model.items.vectors.normal_()
    return model


def hidden(model: LMRec, tokens: list[int]) -> Tensor:
    """(L, D): Hugging Face's last hidden states of one text."""
    found = model.causal(input_ids=torch.tensor([tokens]), output_hidden_states=True)
    return found.hidden_states[-1][0]


def words(model: LMRec, item: int) -> list[int]:
    first, stop = model.text_offsets[item : item + 2].tolist()
    return model.text_tokens[first:stop].tolist()


def test_the_vector_of_every_beginning_is_that_of_its_text_alone(split: Split) -> None:
    model = model_of(split)
    documents = model.texts.documents(Ragged.from_lists(HISTORIES))
    states = iter(model.states.at_ends(documents))
    for history in HISTORIES:
        kept = list(history)
        while 1 + sum(len(words(model, item)) for item in kept) > 30:
            kept.pop(0)
        for count in range(len(kept) + 1):
            text = [0, *(token for item in kept[:count] for token in words(model, item))]
            torch.testing.assert_close(next(states), hidden(model, text)[-1], rtol=1e-4, atol=1e-5)
    assert not list(states)


@torch.no_grad()
@pytest.mark.parametrize("use_ids", [False, True])
@pytest.mark.parametrize("num_negatives", [0, 3, None])
def test_softmax_against_a_loop(split: Split, use_ids: bool, num_negatives: int | None) -> None:
    ranking = Ranking(num_negatives=num_negatives)
    model = model_of(split, ranking=ranking, use_ids=use_ids)
    history = split.training
    torch.manual_seed(1)
    loss = model.ranking_loss(history)
    torch.manual_seed(1)
    drawn = [] if not num_negatives else torch.randint(N, (num_negatives,)).tolist()
    users, targets = predictions(model, history)
    candidates = range(N) if num_negatives is None else sorted({*targets, *drawn})
    items = model.item_vectors(torch.arange(N))
    counts = torch.bincount(history.items, minlength=N)
    share = (counts / counts.sum()).tolist()
    total = 0.0
    for user, target in zip(users, targets, strict=True):
        logits = {}
        for item in candidates:
            absent = math.exp(-len(targets) * share[item]) * (1 - 1 / N) ** len(drawn)
            logits[item] = float(user @ items[item])
            if num_negatives is not None:
                logits[item] -= math.log(1 - absent)
        total += math.log(sum(map(math.exp, logits.values()))) - logits[target]
    assert float(loss) == pytest.approx(total / len(targets), rel=1e-4)


def test_over_the_whole_catalogue_it_is_torchs_cross_entropy() -> None:
    users, items, targets = torch.randn(5, 4), torch.randn(N, 4), torch.tensor([0, 3, 3, 6, 1])
    loss = Ranking(num_negatives=None).loss(users, targets, items.__getitem__, torch.ones(N) / N)
    torch.testing.assert_close(loss, F.cross_entropy(users @ items.T, targets))


@torch.no_grad()
def test_the_papers_binary_cross_entropy_against_a_loop(split: Split) -> None:
    model = model_of(split, ranking=Ranking(softmax=False, num_negatives=4))
    torch.manual_seed(1)
    loss = model.ranking_loss(split.training)
    torch.manual_seed(1)
    drawn = torch.randint(N, (4,)).tolist()
    users, targets = predictions(model, split.training)
    items = model.item_vectors(torch.arange(N))
    total = 0.0
    for user, target in zip(users, targets, strict=True):
        total += float(F.softplus(-user @ items[target]))
        total += sum(float(F.softplus(user @ items[j])) for j in drawn if j != target) / 4
    assert float(loss) == pytest.approx(total / len(targets), rel=1e-4)


def predictions(model: LMRec, history: BasketBatch) -> tuple[list[Tensor], list[int]]:
    """User vectors of all beginnings that stand whole in their text, and what came next."""
    users, targets = [], []
    for row in history.ragged.values.split(history.lengths().tolist()):
        items = row.tolist()
        before = model.texts.documents(Ragged.from_lists([items[:-1]]))
        vectors = model.user_projection(model.states.at_ends(before))
        cut = len(items) - len(vectors)
        users += list(vectors[1 if cut else 0 :])
        targets += items[cut + 1 if cut else 0 :]
    return users, targets


@torch.no_grad()
def test_some_history_is_cut(split: Split) -> None:
    model = model_of(split)
    users, _ = predictions(model, split.training)
    assert 0 < len(users) < len(split.training.items)


@torch.no_grad()
def test_language_modelling_of_less_text_than_a_row(split_of: Callable[..., Split]) -> None:
    split = split_of([[[0], [1]]], 2)
    options = {"template": Template(columns=["item_id"])}
    model = model_of(split, language=Language(batch_size=3, row_length=64), **options)
    text = torch.tensor([[0, *words(model, 0), *words(model, 1)]])
    assert text.numel() < 64
    expected = model.causal(input_ids=text, labels=text).loss
    torch.testing.assert_close(model.language_loss(), expected)


@pytest.mark.parametrize(
    "training",
    [[[[0], [0]]], [[[0], [0]], [[0]], [[0]]], [[[0], [1]]], [[[0, 1], [1]], [[0]]]],
    ids=["one item", "one event of most users", "two items", "two items in baskets"],
)
def test_hardly_any_text_trains_by_default(
    training: list[list[list[int]]], split_of: Callable[..., Split]
) -> None:
    split = split_of(training, 1 + max(i for user in training for b in user for i in b))
    model = LMRec(
        split.num_items,
        decoder=Decoder(),
        template=Template(columns=["item_id"]),
        language=Language(),
        ranking=Ranking(),
    )
    fit(model, split, replace(TRAINING, monitor="ndcg@1"), Protocol(ks=(1,)))
    assert evaluate(model, split.test, Protocol(ks=(1,))).means["ndcg@1"] >= 0.0
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@torch.no_grad()
def test_language_modelling_against_hugging_faces_loss(split: Split) -> None:
    model = model_of(split, language=Language(batch_size=3, row_length=16))
    torch.manual_seed(1)
    loss = model.language_loss()
    torch.manual_seed(1)
    torch.multinomial(torch.ones(1), 3, replacement=True)
    (stream,) = model._streams
    total, count = 0.0, 0
    for row in torch.randint(len(stream), (3,)).tolist():
        tokens = stream.tokens[row * 16 : (row + 1) * 16].long()
        begins = [
            0,
            *(b - row * 16 for b in stream.begins.tolist() if row * 16 < b < row * 16 + 16),
        ]
        for begin, stop in zip(begins, [*begins[1:], 16], strict=True):
            text = tokens[None, begin:stop]
            if stop - begin > 1:
                mean = model.causal(input_ids=text, labels=text).loss
                total, count = total + float(mean) * (stop - begin - 1), count + stop - begin - 1
    assert float(loss) == pytest.approx(total / count, rel=1e-4)


def test_the_joint_loss_adds_up(split: Split) -> None:
    options = {"language": Language(batch_size=3, row_length=16), "ranking": Ranking(weight=0.5)}
    model = model_of(split, **options)
    part = model.prepare(split)
    torch.manual_seed(1)
    loss = model.loss(part, START)
    torch.manual_seed(1)
    ranking, language = model.ranking_loss(part.history), model.language_loss()
    torch.testing.assert_close(loss, language + 0.5 * ranking)


def test_language_alone(split: Split) -> None:
    options = {"language": Language(batch_size=3, row_length=16), "ranking": Ranking(weight=0.0)}
    model = model_of(split, **options)
    part = model.prepare(split)
    torch.manual_seed(1)
    loss = model.loss(part, START)
    torch.manual_seed(1)
    assert loss.equal(model.language_loss())
    with pytest.raises(ConfigError, match="nothing to train on"):
        model_of(split, ranking=Ranking(weight=0.0))


class Sentences:
    """A corpus of sentences, each a history of its own."""

    weight = 3.0

    def read(self) -> tuple[pl.Series, Ragged]:
        sentences = pl.Series([f"sentence {i} of another place" for i in range(20)])
        return sentences, Ragged.from_lists([[i] for i in range(20)])


def test_further_text_is_read_in_proportion_to_its_weight(split: Split) -> None:
    language = Language(batch_size=400, row_length=8, corpora={"sentences": Sentences()})
    model = model_of(split, language=language)
    _, sentences = model._streams
    decoded = model.tokenizer.decode(sentences.tokens.tolist())
    assert "sentence 7 of an" in decoded  # the rest is cut off
    tokens, _ = model.language.draw(model._streams, model.device)
    there = {tuple(row.tolist()) for row in sentences.rows(torch.arange(len(sentences)))[0]}
    share = sum(tuple(row.tolist()) in there for row in tokens) / 400
    assert 0.68 < share < 0.82


def test_typed_histories_are_read_as_those_of_the_log(split: Split) -> None:
    model = model_of(split).eval()
    histories = [[3, 0], [], [6]]
    typed = model.encode_texts([[WORDS[i] or "" for i in history] for history in histories])
    batch = BasketBatch.from_lists([[[i] for i in history] for history in histories], N)
    torch.testing.assert_close(typed, model.encode_users(batch))


SEARCHES = [None, "light 💡", "", "따뜻한 양말", "q " * 3_000]
SEARCHED = {"template": Template(event_columns=["search"], max_item_tokens=40, max_tokens=400)}


def searched(later: str = "") -> Split:
    """The same log, with what was searched for before an event; `later`, after the training."""
    split = leave_last_out(log())
    search = pl.Series("search", (SEARCHES * 5)[: split.log.num_events])
    events = split.log.events.with_columns(search, after=split.events["phase"] > 0)
    said = pl.when("after").then(pl.lit(later) + pl.col("search")).otherwise("search")
    events = events.select(*log().events.columns, said.alias("search"))
    return leave_last_out(replace(split.log, events=events))


@pytest.mark.parametrize("phase", ["training", "latest"])
def test_a_history_is_read_with_what_was_searched_for(phase: str) -> None:
    split = searched()
    model = model_of(split, **SEARCHED).eval()
    history = getattr(split, phase)
    typed = []
    for user, length in zip(history.users.tolist(), history.lengths().tolist(), strict=True):
        events = split.log.events.filter(user_id=user).head(length)
        own = [WORDS[item] or str(item) for item in events["item_id"]]
        beside = zip(own, events["search"], strict=True)
        typed.append([". ".join(filter(None, said)) for said in beside])
    torch.testing.assert_close(model.encode_users(history), model.encode_texts(typed))


def test_an_item_stays_what_it_is_in_its_own_words() -> None:
    model = model_of(searched(), **SEARCHED, use_ids=True)
    own = model.tokens_of(pl.Series([text or str(i) for i, text in enumerate(WORDS)]))
    assert torch.tensor([token for i in range(N) for token in words(model, i)]).equal(own.values)
    history = searched().training
    documents = model.texts.documents(model.texts.of_histories(history))
    ends = documents.items != N
    assert documents.items[ends].tolist() == history.items.tolist()
    strangers = BasketBatch.from_lists([[[3], [0]]], N)
    told = model.encode_texts([[WORDS[3] or "", WORDS[0] or ""]])
    model.items = None
    torch.testing.assert_close(model.encode_users(strangers), told)


def test_what_is_searched_for_later_changes_nothing_before() -> None:
    now, then = (searched(later) for later in ("", "no, "))
    models = [model_of(split, **SEARCHED).eval() for split in (now, then)]
    assert models[0].tokenizer_json.equal(models[1].tokenizer_json)
    losses = [m.ranking_loss(s.training) for m, s in zip(models, (now, then), strict=True)]
    assert losses[0].equal(losses[1])
    asked = [m.score(s.validation.history) for m, s in zip(models, (now, then), strict=True)]
    assert asked[0].equal(asked[1])
    # The test's history holds the validation's event, and what was searched for before it.
    asked = [m.score(s.test.history) for m, s in zip(models, (now, then), strict=True)]
    assert not asked[0].equal(asked[1])


def test_a_saved_model_knows_what_was_searched_for(tmp_path: Path) -> None:
    split = searched()
    config = config_of(language={"batch_size": 2, "row_length": 16})
    config["template"]["event_columns"] = ["search"]
    model = saved_model.build(config)
    fit(model, split, TRAINING, Protocol(ks=[3]), folder=tmp_path)
    saved_model.save(tmp_path / "model", model, split, config, mask_history=False)
    saved = saved_model.load(tmp_path)
    with torch.no_grad():
        expected = model.eval().encode_users(split.latest)
    found = torch.tensor(saved.vectors()[1]["vector"].to_list())
    torch.testing.assert_close(found, expected)
    nowhere = torch.full_like(split.latest.items, -1)
    silent = saved.model.encode_users(replace(split.latest, log_rows=nowhere))
    assert not torch.allclose(found, silent, atol=1e-4)


def test_vectors_of_ids_reach_users_and_items(split: Split) -> None:
    model = model_of(split, use_ids=True)
    assert model.items is not None
    model.ranking_loss(split.training).backward()
    seen = split.training.items.unique()
    assert (model.items.weight.grad[seen] != 0).any(1).all()
    with torch.no_grad():
        before = model.item_vectors(torch.arange(N))
        model.items.vectors[3] += 1
        moved = (model.item_vectors(torch.arange(N)) != before).any(1)
    assert moved.tolist() == [i == 3 for i in range(N)]


class Codes:
    """Of each text a vector that no other has."""

    dim = N

    def read(self, texts: pl.Series) -> Tensor:
        return torch.eye(len(texts), N)


@torch.no_grad()
def test_vectors_of_frozen_texts_reach_users_and_items(split: Split) -> None:
    model, plain = model_of(split, text=Codes()), model_of(split)
    assert model.item_texts is not None
    assert model.item_texts.from_text is not None
    every = torch.arange(N)
    model.item_texts.from_text.weight.zero_()
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(model.item_vectors(every), plain.item_vectors(every))
    before, users = model.item_vectors(every), model.encode_users(split.latest)
    model.item_texts.from_text.weight[:, 3].normal_()
    moved = (model.item_vectors(every) != before).any(1)
    assert moved.tolist() == [i == 3 for i in range(N)]
    moved = (model.encode_users(split.latest) - users).abs().amax(1) > 1e-3
    assert moved.tolist() == [3 in history for history in HISTORIES]


@torch.no_grad()
@pytest.mark.parametrize("added", [{"use_ids": True}, {"text": Codes()}])
def test_a_user_is_read_as_training_reads_a_beginning(split: Split, added: Any) -> None:
    model = model_of(split, **added)
    history = split.training
    before = Beginnings.of(history, model.texts)
    states = model.states.at_beginnings(before)[before.documents.end_offsets[1:] - 1]
    keep = torch.ones_like(history.items, dtype=torch.bool)
    keep[history.offsets[1:] - 1] = False
    users = model.encode_users(history.where(keep))
    torch.testing.assert_close(users, model.user_projection(states), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_words_a_history_is_a_row_of_ends_with_vectors(split: Split) -> None:
    model = model_of(split, text=Codes(), read_words=False, use_ids=True)
    assert model.items is not None
    assert model.item_texts is not None
    texts, causal = model.item_texts(), model.causal
    torch.testing.assert_close(
        model.item_vectors(torch.arange(N)),
        texts @ model.item_projection.weight.T + model.items.vectors,
    )
    end = causal.get_input_embeddings().weight[int(model.end)]
    for history in HISTORIES:
        batch = BasketBatch.from_lists([[[item] for item in history]], N)
        added = (texts + model.items.vectors)[torch.tensor(history)]
        row = torch.cat([end[None], end + added])[None]
        state = causal(inputs_embeds=row, output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(
            model.encode_users(batch)[0], model.user_projection(state), rtol=1e-4, atol=1e-5
        )


def test_without_words_the_language_modelling_still_reads_them(split: Split) -> None:
    options = {"text": Codes(), "read_words": False}
    model = model_of(split, language=Language(batch_size=4, row_length=8), **options)
    model.language_loss().backward()
    tokens = model.causal.get_input_embeddings().weight.grad
    assert tokens is not None
    assert tokens[model.text_tokens.unique().long()].any(1).all()
    with pytest.raises(ConfigError, match="read_words=false reads the items of its log alone"):
        model.encode_texts([["a red lamp"]])


def test_frozen_texts_need_vectors_and_a_decoder_that_learns(split: Split) -> None:
    with pytest.raises(ConfigError, match="read_words=false with text=null"):
        FrozenTexts(read_words=False)
    with pytest.raises(ConfigError, match=r"frozen_texts\.text=null"):
        model_of(split, text=Codes(), freeze=True)


@torch.no_grad()
@pytest.mark.parametrize("num_negatives", [0, None])
def test_the_weight_of_repeats_against_a_loop(split: Split, num_negatives: int | None) -> None:
    ranking = Ranking(num_negatives=num_negatives, repeats=True)
    model = model_of(split, ranking=ranking, template=Template(max_item_tokens=2, max_tokens=30))
    assert model.repeats is not None
    history = split.training
    loss = model.ranking_loss(history)
    vectors, losses = model.item_vectors(torch.arange(N)), []
    rows = [HISTORIES[user][: int(n)] for user, n in enumerate(history.lengths())]
    targets = torch.tensor([item for row in rows for item in row]).unique()
    scored = torch.arange(N) if num_negatives is None else targets
    correction = ranking.log_inclusion(model.share[scored], sum(map(len, rows)), N)
    for row in rows:
        for place, target in enumerate(row):
            batch = BasketBatch.from_lists([[[item] for item in row[:place]]], N)
            scores = vectors @ model.encode_users(batch)[0]
            scores[list(set(row[:place]))] += model.repeats.value
            scores = scores[scored] - correction
            losses.append(-scores.log_softmax(0)[int(torch.searchsorted(scored, target))])
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("given", "of_ids"), [({}, 0.5), ({"id_weight_decay": 4.0}, 4.0)])
def test_ids_decay_by_themselves(split: Split, given: dict[str, float], of_ids: float) -> None:
    model = model_of(split, use_ids=True, weight_decay=0.5, **given)
    (ordinary, ids) = model.optimizer(num_steps=10)["optimizer"].param_groups
    assert ordinary["weight_decay"] == 0.5
    assert ids["weight_decay"] == of_ids
    assert model.items is not None
    assert [id(p) for p in ids["params"]] == [id(model.items.weight)]
    every = [*ordinary["params"], *ids["params"]]
    assert {id(p) for p in every} == {id(p) for p in model.parameters()}
    assert len(every) == len(list(model.parameters()))


def test_item_vectors_are_computed_again_when_the_weights_have_moved(split: Split) -> None:
    model = model_of(split).eval()
    with torch.no_grad():
        first = model.encode_items()
        assert model.encode_items() is first
        model.item_projection.weight.mul_(2)
        torch.testing.assert_close(model.encode_items(), 2 * first)


LANGUAGE = Language(batch_size=4, row_length=16)


@pytest.mark.parametrize(
    "options",
    [
        {"language": LANGUAGE, "ranking": Ranking(weight=0.0)},
        {"language": LANGUAGE, "ranking": Ranking(weight=0.0), "use_ids": True},
        {"decoder": replace(TINY, dropout=0.5), "freeze": True},
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_item_vectors_are_those_of_the_weights_after_every_step(
    split: Split, options: dict[str, Any], fused: bool
) -> None:
    model = model_of(split, **options)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    part = Part("train", split.training, split.training.ragged)
    optimiser = torch.optim.AdamW(learnt, lr=0.1, fused=fused)
    for _ in range(3):
        model.train()
        optimiser.zero_grad()
        model.loss(part, START).backward()
        optimiser.step()
        model.eval()
        afresh = model_of(split, **options).eval()
        afresh.load_state_dict(model.state_dict())
        with torch.inference_mode():
            assert model.encode_items().equal(afresh.encode_items())
            assert model.score(split.test.history).equal(afresh.score(split.test.history))


def test_each_epoch_is_validated_as_its_checkpoint_is(split: Split, tmp_path: Path) -> None:
    model = model_of(split, language=LANGUAGE, ranking=Ranking(weight=0.0), learning_rate=0.1)
    fit(model, split, replace(TRAINING, max_epochs=4), Protocol(ks=[3]), folder=tmp_path)
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    afresh = model_of(split, language=LANGUAGE, ranking=Ranking(weight=0.0))
    afresh.load_state_dict(last)
    found = evaluate(afresh, split.validation, Protocol(ks=[3])).means
    told = pl.read_csv(tmp_path / "train.csv").row(-1, named=True)
    assert told["validation/ndcg@3"] == pytest.approx(found["ndcg@3"], abs=1e-12)


@pytest.fixture(scope="module")
def run(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was trained for an epoch."""
    folder = tmp_path_factory.mktemp("run")
    config = config_of(language={"batch_size": 2, "row_length": 16})
    model = saved_model.build(config)
    fit(model, split, TRAINING, Protocol(ks=[3]), folder=folder)
    saved_model.save(folder / "model", model, split, config, mask_history=False)
    return folder


def config_of(**options: Any) -> dict[str, Any]:
    def part(name: str, values: dict[str, Any]) -> dict[str, Any]:
        return {"_target_": f"recsys.models.language.{name}", **values}

    tiny = {"num_layers": 2, "embedding_dim": 16, "num_heads": 2, "ffn_dim": 32, "vocab_size": 300}
    template = {"max_item_tokens": 12, "max_tokens": 30}
    return {
        "_target_": "recsys.models.LMRec",
        "num_items": N,
        "decoder": part("Decoder", tiny),
        "template": {"_target_": "recsys.log.Template", **template},
        "language": part("Language", options.pop("language", {"batch_size": 0})),
        "ranking": part("Ranking", options.pop("ranking", {})),
        "tuning": part("Tuning", options.pop("tuning", {})),
        **options,
    }


def test_hugging_face_reads_what_was_saved(run: Path, split: Split) -> None:
    model = saved_model.load(run).model
    assert isinstance(model, LMRec)
    causal = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    text = "<eos>red lamp<eos>"
    tokens = tokenizer(text, return_tensors="pt").input_ids
    assert tokens.tolist() == [[0, *words(model, 0)]]
    with torch.no_grad():
        torch.testing.assert_close(causal(tokens).logits, model.causal(tokens).logits)
        written = causal.generate(tokens, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(written[0]).startswith(text)


def test_a_frozen_decoder_is_read_once_and_stays(run: Path, split: Split) -> None:
    started = saved_model.build(
        config_of(tuning={"start": str(run), "freeze": True}, learning_rate=0.1)
    )
    assert isinstance(started, LMRec)
    part = started.prepare(split)
    loss = started.ranking_loss(part.history)
    some = torch.tensor([4, 1])
    few = started.ranking_loss(part.history.rows(some))
    remembered, started._remembered = started._remembered, None
    torch.testing.assert_close(started.ranking_loss(part.history), loss)
    torch.testing.assert_close(started.ranking_loss(part.history.rows(some)), few)
    started._remembered = remembered
    fit(started, split, TRAINING, Protocol(ks=[3]))
    before, after = load_file(run / "model/weights.safetensors"), started.state_dict()
    moved = {name for name in before if not after[name].equal(before[name])}
    assert moved == {"user_projection.weight", "item_projection.weight"}


def test_without_training_another_runs_weights_rank(run: Path, split: Split) -> None:
    config = config_of(tuning={"start": str(run), "freeze": True}, learning_rate=0.0)
    model = fit(saved_model.build(config), split, TRAINING, Protocol(ks=[3]))
    history = split.test.history
    with torch.no_grad():
        there = saved_model.load(run).model.score(history)
        torch.testing.assert_close(model.score(history), there)


def test_no_run_to_start_from(split: Split, tmp_path: Path) -> None:
    model = saved_model.build(config_of(tuning={"start": str(tmp_path)}))
    with pytest.raises(RunError, match=r"holds no finished run: there is no weights\.safetensors"):
        model.prepare(split)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_low_rank_updates_of_a_pretrained_model(run: Path, split: Split, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    options = Pretrained(path=str(run / "model"), lora_rank=2)
    model = model_of(split, decoder=options, language=Language(batch_size=2, row_length=16))
    model.loss(model.prepare(split), START).backward()
    learnt = {name for name, p in model.decoder.named_parameters() if p.grad is not None}
    assert learnt
    assert all("lora" in name for name in learnt)
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.1)
    model.eval().export(tmp_path)
    tokens = torch.tensor([[0, 5, 9]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path)(tokens).logits
        torch.testing.assert_close(merged, model.causal(tokens).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
@pytest.mark.parametrize("lora_rank", [None, 2])
def test_what_was_pretrained_is_whole_in_its_run(
    lora_rank: int | None, run: Path, split: Split, tmp_path: Path
) -> None:
    """Where it came from may be gone, and is not looked for."""
    if lora_rank is not None:
        pytest.importorskip("peft")
    source = shutil.copytree(run / "model", tmp_path / "source")
    decoder = {
        "_target_": "recsys.models.language.Pretrained",
        "path": str(source),
        "lora_rank": lora_rank,
    }
    config = config_of(decoder=decoder, language={"batch_size": 0})
    model = fit(saved_model.build(config), split, TRAINING, Protocol(ks=[3]))
    saved_model.save(tmp_path / "model", model, split, config, mask_history=False)
    shutil.rmtree(source)
    loaded = saved_model.load(tmp_path).model
    history = split.test.history
    with torch.no_grad():
        assert loaded.score(history).equal(model.score(history))


PRETRAINED: list[tuple[str, Any, str]] = [
    ("config.json", {"auto_map": {"AutoConfig": "evil.Evil"}}, "auto_map=.* asks for code"),
    ("config.json", {"text_config": {"auto_map": {}}}, "auto_map=.* asks for code of others"),
    ("config.json", {"attn_implementation": "org/kernel"}, "attn_implementation=org/kernel asks"),
    ("config.json", {"x": [{"_attn_implementation": "flash_attention_2"}]}, "asks for code"),
    ("config.json", {"quantization_config": {"quant_method": "x"}}, "quantization_config=.* asks"),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.E", None]}}, "asks for code"),
    ("adapter_config.json", {"base_model_name_or_path": "org/model"}, "is an adapter of another"),
]


@pytest.mark.parametrize("read_weights", [True, False])
@pytest.mark.parametrize(("name", "more", "words"), PRETRAINED)
def test_a_pretrained_folder_that_asks_for_more_than_its_weights(
    name: str, more: dict[str, Any], words: str, read_weights: bool, run: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run / "model", tmp_path / "model"))
    known = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps({**known, **more}))
    (folder / "evil.py").write_text("raise SystemExit('it was imported')")
    decoder = Pretrained(str(folder), read_weights=read_weights)
    for asked in (decoder.build, lambda: decoder.tokenizer(pl.Series(["x"]))):
        with pytest.raises(ConfigError, match=words):
            asked()


@pytest.mark.parametrize("path", ["gpt2", "org/model", "/nowhere", "https://host/model", ""])
def test_a_pretrained_model_is_a_folder_and_no_name(path: str) -> None:
    with pytest.raises(ConfigError, match=r"path=.+ is no folder of a pre-trained model: no conf"):
        Pretrained(path).build()


def test_a_pretrained_models_weights_are_no_pickle(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "model", tmp_path / "model"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        Pretrained(str(folder)).build()


def test_a_run_to_start_from_that_is_damaged(run: Path, split: Split, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    path = copy / "model" / "weights.safetensors"
    whole = load_file(path)
    model = saved_model.build(config_of(tuning={"start": str(copy)}))
    tokens = torch.tensor(list(b'{"version": "1.0"}'), dtype=torch.uint8)
    for name, tensor in (("end", torch.tensor(300)), ("tokenizer_json", tokens)):
        save_file({**whole, name: tensor}, path)
        with pytest.raises(RunError, match="is not the file that was written"):
            model.prepare(split)
        manifest.write(copy / "model")
        with pytest.raises(RunError, match=r"weights\.safetensors is damaged"):
            model.prepare(split)


def test_words_of_events_are_those_of_the_models_own_log(split: Split, tmp_path: Path) -> None:
    """In another log another event has the row: its words are not looked up."""
    told = pl.format("said {}", pl.int_range(pl.len()).cast(pl.String))
    said = log().events.with_columns(said=told)
    own = leave_last_out(EventLog.from_frames(said, log().items))
    template = {"_target_": "recsys.log.Template", "event_columns": ["said"]}
    config = config_of(template={**template, "max_item_tokens": 12, "max_tokens": 30})
    model = fit(saved_model.build(config), own, TRAINING, Protocol(ks=[3]))
    saved_model.save(tmp_path / "model", model, own, config, mask_history=False)
    saved = saved_model.load(tmp_path)
    rows = [(-1, item, item, "x") for item in range(4)]
    others = pl.concat([pl.DataFrame(rows, said.schema, orient="row"), said])
    other = leave_last_out(EventLog.from_frames(others, log().items))
    with torch.no_grad():
        expected = model.score(own.test.history)
        part, known = known_parts(saved, other)[1]
        strange = other.users.ids_of(pl.Series(part.history.users.numpy())) == -1
        found = saved.model.score(known.history)
        assert found[torch.from_numpy((~strange).to_numpy())].equal(expected)
        bare = replace(part.history, log_rows=torch.full_like(part.history.log_rows, -1))
        assert found[0].equal(saved.model.score(bare)[0])
        assert not found[1:].equal(saved.model.score(bare)[1:])


def test_trained_in_bfloat16_it_ranks_in_float32(split: Split) -> None:
    config = config_of(
        language={"batch_size": 2, "row_length": 16},
        ids={"_target_": "recsys.models.language.Ids", "use_ids": True},
    )
    training = TrainingOptions(
        max_epochs=1, device="cpu", monitor="ndcg@3", precision="bf16-mixed", gradient_clip=0.1
    )
    model = fit(saved_model.build(config), split, training, Protocol(ks=[3]))
    with torch.no_grad():
        scores = model.score(split.test.history)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


@pytest.fixture
def validated_distributions() -> Iterator[None]:
    """The compiler turns the checks of all of torch's distributions off."""
    yield
    Distribution.set_default_validate_args(True)


@pytest.mark.slow
@pytest.mark.usefixtures("validated_distributions")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_it_gives_the_same_states(split: Split) -> None:
    documents = model_of(split).texts.documents(Ragged.from_lists(HISTORIES))
    plain, compiled = model_of(split), model_of(split, compile=True)
    torch.testing.assert_close(
        compiled.states.at_ends(documents), plain.states.at_ends(documents), rtol=1e-4, atol=1e-5
    )


def test_llama_shaped(split: Split) -> None:
    shape = Decoder("llama", num_layers=1, embedding_dim=16, num_heads=2, vocab_size=300)
    model = model_of(split, decoder=shape)
    text = [0, *words(model, 0)]
    states = model.states.at_ends(model.texts.documents(Ragged.from_lists([[0]])))
    torch.testing.assert_close(states[-1], hidden(model, text)[-1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt_neox", "llama", "hyperclovax"])
def test_a_text_starts_as_the_mean_of_what_its_tokens_mean(split: Split, family: Any) -> None:
    """Attention adds about the mean of its input, and tokens in like company start alike."""
    shape = replace(TINY, family=family, embedding_dim=64)
    model = model_of(split, decoder=shape)
    base: Any = model.causal.base_model
    seen = []
    attention = getattr(base.layers[0], "attention", None) or base.layers[0].self_attn
    attention.register_forward_hook(
        lambda _, args, kwargs, out: seen.append((kwargs.get("hidden_states", *args), out[0])),
        with_kwargs=True,
    )
    model.states.at_ends(model.texts.documents(Ragged.from_lists([[0, 3]])))
    ((given, added),) = seen
    mean = given.cumsum(1) / torch.arange(1, given.shape[1] + 1)[:, None]
    assert F.cosine_similarity(mean, added, dim=-1).min() > 0.9

    # Documents: each item alone, then the training histories.
    alone = Ragged.from_lists([[item] for item in range(N)])
    tokens = Ragged(model.text_tokens, model.text_offsets)
    vectors = semantic_vectors([(tokens, alone), (tokens, split.training.ragged)], 300, 64)
    told = vectors.any(1)
    table = base.get_input_embeddings().weight
    started = F.normalize(table[told], dim=1)
    torch.testing.assert_close(started @ started.T, vectors[told] @ vectors[told].T)
    assert 0 < told.sum() < 300
    assert table[told].norm(dim=1).mean() == pytest.approx(table[~told].norm(dim=1).mean())


@pytest.mark.parametrize(
    "ranking", [Ranking(), Ranking(num_negatives=3), Ranking(softmax=False, num_negatives=2)]
)
def test_a_catalogue_of_one_item(ranking: Ranking) -> None:
    rows = [(user, 5, time) for user in range(2) for time in range(5)]
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": [5], "text": ["red tea cup"]})
    alone = leave_last_out(EventLog.from_frames(events, items))
    model = model_of(alone, ranking=ranking)
    loss = model.loss(Part("train", alone.training, alone.training.ragged), START)
    loss.backward()
    assert loss.isfinite()
    assert model.top_k(alone.test.history, 1).items.tolist() == [[0], [0]]


@pytest.mark.parametrize("options", [{"freeze": True}, {"compile": True}])
def test_decoders_that_ranks_do_not_divide(options: dict[str, bool], split: Split) -> None:
    with pytest.raises(ConfigError, match=r"freeze=.* compile=.*: .* or trainer.strategy=auto"):
        model_of(split, **options).blocks()


def test_every_layer_is_a_block(split: Split) -> None:
    model = model_of(split)
    assert model.blocks() == list(model.causal.base_model.layers)


def test_options_that_contradict_each_other(split: Split) -> None:
    with pytest.raises(ConfigError, match="freeze=true trains the projections alone"):
        model_of(split, freeze=True, use_ids=True)
    with pytest.raises(ConfigError, match="num_negatives=0 with softmax=false"):
        Ranking(softmax=False)
    with pytest.raises(ConfigError, match=r"dropout=0\.1: blocks of llama have none"):
        Decoder("llama", dropout=0.1)


def test_columns_that_the_events_do_not_have(split: Split) -> None:
    with pytest.raises(DataError, match="events have no column search"):
        model_of(split, **SEARCHED)


def test_columns_that_the_items_do_not_have(split: Split) -> None:
    with pytest.raises(DataError, match="no column brand"):
        model_of(split, template=Template(columns=["brand"]))
