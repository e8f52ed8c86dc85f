"""LMRec: one language model reads what users did and what items are.

Paper: Shin, Kwak, Kim, Ryu, Park, Jeong, Kim, "Pivotal Role of Language Modeling in Recommender
Systems: Enriching Task-specific and Task-agnostic Representation Learning", ACL 2023.

Kept: histories and items are text for one decoder, trained from scratch on a byte-level BPE; the
vector of a text is the decoder's last hidden state at its closing [EOS]; a score is
<W_u z_u, W_i z_i>; the loss is L1 + lambda L2 (eq. 6), L1 the language modelling of histories, also
of further logs (eq. 7), L2 the recommendation; the two have batches of their own; learning rate and
lambda fall by a cosine; AdamW; with a frozen decoder only W_u and W_i are trained.
Changed: [EOS] also stands between the items and before the first, so that one pass gives the vector
of every beginning of a history and each predicts the next item; the paper reads one vector a
history. L2 may be the paper's binary cross-entropy on sampled items or a softmax, over the targets
of the batch and drawn items (corrected by the probability with which a batch holds an item) or over
the whole catalogue. A user without a history is the [EOS] before a first item, from which the first
items are learnt. Unless asked otherwise, tokens start as their latent semantic vectors in the log's
own texts and the first layer as their mean, not at random: a history then starts near the items of
which it tells. Vectors of item ids may be added: to the [EOS] that closes an item, and to the
item's vector.

Shapes: B users, P predictions, C candidates, n items, M item ends, R rows of L tokens, D dims.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, cast, runtime_checkable

import polars as pl
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from recsys.batch.bounds import check_index, check_offsets, check_tensor
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, gather_positions, offsets_of
from recsys.batch.tokens import Documents, TokenStream
from recsys.errors import ConfigError, RunError
from recsys.log.words import Template
from recsys.models.language.decoders import Decoder, Pretrained
from recsys.nn.buffers import Memo
from recsys.nn.embedding import EmbeddingTable
from recsys.nn.losses import linear_cross_entropy
from recsys.nn.text_vectors import semantic_vectors
from recsys.precision import wide
from recsys.ranges import at_least, share
from recsys.reading import read_tensors, reading
from recsys.scoring import manifest
from recsys.scoring.kinds import Exported, TextEncoder
from recsys.scoring.recommender import Progress, Recommender
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of
from recsys.tasks.tokenizers import tokenize
from recsys.types import ItemVectors, UserVectors

T = TypeVar("T")

TOKENS_AT_ONCE = 2**15


@runtime_checkable
class Corpus(Protocol):
    """Further text to model: a log's (`recsys.data.LogCorpus`), or anything of this form."""

    weight: float

    def read(self) -> tuple[pl.Series, Ragged]:
        """Texts, and histories of them: rows of places among the texts, oldest first."""
        ...


@dataclass(frozen=True)
class Language:
    """The language modelling beside the recommendation, L1.

    Attributes:
        batch_size: R, rows a step; 0 leaves L1 out.
        row_length: L, tokens a row.
        corpora: further text beside the training histories, by name. A row is drawn from each in
            proportion to its `weight`; that of the training histories is 1.

    Raises:
        ConfigError: an option is out of its range.
    """

    batch_size: int = 16
    row_length: int = 256
    corpora: Mapping[str, Corpus] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(0, batch_size=self.batch_size)
        at_least(2, row_length=self.row_length)  # a token, and one that follows it


@dataclass(frozen=True)
class Ranking:
    """The recommendation loss, L2.

    Attributes:
        weight: lambda; 0 leaves L2 out.
        softmax: cross-entropy among the candidates; otherwise the paper's binary cross-entropy of
            each target and of the drawn items.
        num_negatives: items drawn for a batch; None takes the whole catalogue.

    Raises:
        ConfigError: binary cross-entropy without anything that is no target, or an option is out of
            its range.
    """

    weight: float = 1.0
    softmax: bool = True
    num_negatives: int | None = 0

    def __post_init__(self) -> None:
        at_least(0, weight=self.weight, num_negatives=self.num_negatives)
        if not self.softmax and self.num_negatives == 0:
            raise ConfigError("ranking.num_negatives=0 with softmax=false; draw at least one")


@dataclass(frozen=True)
class Ids:
    """Vectors of item ids beside those of texts.

    Attributes:
        use_ids: add a vector of each item's id to its text's.
        id_weight_decay: of these, where it is another: a large one keeps them to what the words do
            not say.

    Raises:
        ConfigError: an option is out of its range.
    """

    use_ids: bool = False
    id_weight_decay: float | None = None

    def __post_init__(self) -> None:
        at_least(0, id_weight_decay=self.id_weight_decay)


@dataclass(frozen=True)
class Tuning:
    """How the decoder is trained.

    Attributes:
        start: folder of a run of LMRec, whose decoder, tokenizer and projections are taken.
        freeze: keep the decoder as it is; its hidden states are then computed once.
        compile: run it through `torch.compile`.
        warmup: share of the steps over which the learning rate rises.

    Raises:
        ConfigError: an option is out of its range.
    """

    start: str | None = None
    freeze: bool = False
    compile: bool = False
    warmup: float = 0.01

    def __post_init__(self) -> None:
        share(warmup=self.warmup)


class LMRec(TextEncoder, Exported, Recommender):
    """Scores are inner products of projected hidden states of a history's and an item's text.

    Args:
        num_items: n.
        decoder: a `Decoder` or a `Pretrained` one.
        template: what is read of an item and a history.
        language, ranking: the two losses.
        ids: vectors of ids, too.
        tuning: how the decoder is trained.
        learning_rate, weight_decay: of AdamW with betas (.9, .98).

    Raises:
        ConfigError: `freeze` with L1, or with id vectors, which are learnt through the decoder;
            neither L1 nor L2; an option is out of its range.
        DataError: in preparation, the template names columns that the items or events do not have.
    """

    text_tokens: Tensor
    text_offsets: Tensor
    text_items: Tensor
    event_texts: Tensor
    tokenizer_json: Tensor
    end: Tensor
    share: Tensor

    def __init__(
        self,
        num_items: int,
        *,
        decoder: Decoder | Pretrained,
        template: Template,
        language: Language,
        ranking: Ranking,
        ids: Ids = Ids(),
        tuning: Tuning = Tuning(),
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        decay = ids.id_weight_decay
        self.id_weight_decay = weight_decay if decay is None else decay
        at_least(1, num_items=num_items)
        if tuning.freeze and (language.batch_size or ids.use_ids):
            raise ConfigError(
                "freeze=true trains the projections alone; set language.batch_size=0 and "
                "use_ids=false"
            )
        if not language.batch_size and not ranking.weight:
            raise ConfigError(
                "language.batch_size=0 and ranking.weight=0 leave nothing to train on"
            )
        self.options, self.template = decoder, template
        self.language, self.ranking = language, ranking
        self.start, self.frozen, self.warmup = tuning.start, tuning.freeze, tuning.warmup
        self.decoder: nn.Module = decoder.build()
        hidden = self.causal.config.hidden_size
        self.items = EmbeddingTable(num_items, hidden) if ids.use_ids else None
        self.user_projection = nn.Linear(hidden, hidden, bias=False)
        self.item_projection = nn.Linear(hidden, hidden, bias=False)
        for projection in (self.user_projection, self.item_projection):
            # Both alike: a history starts near the items whose words it shares.
            with torch.no_grad():
                projection.weight.copy_(torch.eye(hidden) * hidden**-0.25)
        self.num_items = num_items
        if tuning.compile:
            self.causal.base_model.compile(dynamic=True)
        self._streams: list[TokenStream] = []
        self._trained_on = BasketBatch.from_lists([], num_items)
        self._item_vectors: Memo[Tensor] = Memo()
        self._frozen_histories: Memo[Ragged] = Memo()
        self._frozen_items: Memo[Tensor] = Memo()

    def prepare(self, split: Split) -> Part:
        """Train the tokenizer, and write items and histories as tokens."""
        for memo in (self._item_vectors, self._frozen_histories, self._frozen_items):
            memo.clear()
        history = split.training
        written = self.template.write(split.item_table, split.log.events)
        text_of = tensor_of(written.events)
        corpora = [corpus.read() for corpus in self.language.corpora.values()]
        # Of what events say, that of the training alone.
        seen = torch.cat([torch.arange(split.num_items), text_of[history.log_rows]]).unique()
        if self.start is not None:
            self._start_from(Path(self.start))
        else:
            texts = written.texts[seen.numpy()]
            words = pl.concat([texts, *(more for more, _ in corpora)])
            tokenizer = self.options.tokenizer(words)
            self._keep_tokenizer(tokenizer.backend_tokenizer.to_str(), tokenizer.eos_token_id)
        tokens = self.tokens_of(written.texts)
        self.keep("text_tokens", tokens.values)
        self.keep("text_offsets", tokens.offsets)
        self.keep(
            "text_items", torch.cat([tensor_of(written.items), torch.tensor([split.num_items])])
        )
        if self.template.event_columns:
            self.keep("event_texts", text_of)
        counts = torch.bincount(history.items, minlength=split.num_items)
        self.keep("share", counts / counts.sum())
        logs = [(tokens, self._texts(history))]
        logs += [(self.tokens_of(more), histories) for more, histories in corpora]
        if self.start is None and isinstance(self.options, Decoder) and self.options.semantic_start:
            alone = Ragged(seen, torch.arange(len(seen) + 1))
            size, dim = self.options.vocab_size, self.options.embedding_dim
            vectors = semantic_vectors([(tokens, alone), *logs], size, dim)
            self.options.start_from(vectors, self.causal)
        if self.language.batch_size:
            self._streams = [
                TokenStream.of(histories, items, int(self.end), self.language.row_length)
                for items, histories in logs
            ]
        if self.frozen:
            self.decoder.requires_grad_(False)
            self._trained_on = history
        return Part("train", history, history.ragged)

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        num_items, num_texts = self.num_items, len(self.text_offsets) - 1
        num_tokens = cast(Tensor, self.causal.get_input_embeddings().weight).shape[0]
        check_index("text_tokens", self.text_tokens, num_tokens, dtype=torch.int32)
        check_offsets("text_offsets", self.text_offsets, num_texts, len(self.text_tokens))
        check_tensor("text_items", self.text_items, torch.int64, num_texts + 1)
        check_index("text_items", self.text_items, num_items + 1)
        begin, last = self.text_items[:num_items], int(self.text_items[-1])
        if not begin.equal(torch.arange(num_items)) or last != num_items:
            raise ValueError("text_items does not begin with all items and end with none")
        if not (self.text_offsets.diff() > 0).all():
            raise ValueError("text_offsets: a text without its end")
        check_tensor("share", self.share, torch.float32, num_items)
        if self.template.event_columns:
            check_index("event_texts", self.event_texts, num_texts)
            check_index("log_rows", histories.log_rows + 1, len(self.event_texts) + 1)
        self._check_tokenizer()

    def _check_tokenizer(self) -> None:
        num_tokens = cast(Tensor, self.causal.get_input_embeddings().weight).shape[0]
        check_tensor("end", self.end, torch.int64)
        check_tensor("tokenizer_json", self.tokenizer_json, torch.uint8, len(self.tokenizer_json))
        tokenizer = self.tokenizer
        known = torch.tensor(list(tokenizer.get_vocab().values()))
        check_index("tokens", torch.cat([known, self.end.flatten()]), num_tokens)
        if tokenizer.id_to_token(int(self.end)) is None:
            raise ValueError(f"end={int(self.end)} is no token")

    def _keep_tokenizer(self, json: str, end: int) -> None:
        # In the weights, so that a saved model is whole without another file.
        self.keep("tokenizer_json", torch.tensor(list(json.encode()), dtype=torch.uint8))
        self.keep("end", torch.tensor(end))

    def _start_from(self, run: Path) -> None:
        """Take the decoder, the tokenizer and the projections of another run."""
        path = run / "model" / "weights.safetensors"
        if not path.is_file():
            raise RunError(f"start={run} holds no finished run: there is no {path.name}")
        manifest.check(path.parent, path.name)
        found = read_tensors(path)
        if not found.keys() >= {"tokenizer_json", "end"}:
            raise ConfigError(f"start={run} is no run of a language model")
        learnt = ("decoder.", "user_projection.", "item_projection.")
        taken = {name: value for name, value in found.items() if name.startswith(learnt)}
        try:
            # Not strict: what is the log's own stays, and tied weights are saved once.
            self.load_state_dict(taken, strict=False)
        except RuntimeError as error:
            raise ConfigError(
                f"start={run} has a decoder of another shape; give its own"
            ) from error
        with reading(path):
            self.keep("tokenizer_json", found["tokenizer_json"])
            self.keep("end", found["end"])
            self._check_tokenizer()

    @property
    def tokenizer(self) -> Tokenizer:
        """Trained or taken over in `prepare`."""
        return Tokenizer.from_str(bytes(self.tokenizer_json.tolist()).decode())

    def tokens_of(self, texts: pl.Series) -> Ragged:
        """Texts as tokens, each with its closing [EOS]."""
        return tokenize(self.tokenizer, texts, self.template.max_item_tokens, int(self.end))

    def loss(self, part: Part, progress: Progress) -> Tensor:
        """L1 + lambda L2, or one of them alone; lambda falls by a cosine to a tenth."""
        return self._joined(self.losses(part), progress)

    def losses(self, part: Part) -> dict[str, Tensor]:
        """`ranking_loss` and `language_loss`, those of them that there are."""
        found = {}
        if self.ranking.weight:
            found["ranking_loss"] = self.ranking_loss(part.history)
        if self.language.batch_size:
            found["language_loss"] = self.language_loss()
        return found

    def _joined(self, losses: dict[str, Tensor], progress: Progress) -> Tensor:
        if len(losses) == 1:
            return next(iter(losses.values()))
        weight = self.ranking.weight * _cosine(progress.share)
        return losses["language_loss"] + weight * losses["ranking_loss"]

    def training_step(self, part: Part, batch_index: int) -> Tensor:
        """The loss; where there are two, each is logged, too."""
        losses = self.losses(part)
        if len(losses) > 1:
            each = {f"train/{name}": loss for name, loss in losses.items()}
            self.log_dict(each, on_step=False, on_epoch=True, batch_size=len(part))
        return self._joined(losses, self._progress())

    def language_loss(self) -> Tensor:
        """L1: mean cross-entropy of the next token, on rows drawn from the streams."""
        weights = [1.0, *(corpus.weight for corpus in self.language.corpora.values())]
        rows = self.language.batch_size
        drawn = torch.multinomial(torch.tensor(weights), rows, replacement=True)
        counts = drawn.bincount(minlength=len(weights)).tolist()
        self._streams = [stream.to(self.device) for stream in self._streams]
        read = []
        for stream, count in zip(self._streams, counts, strict=True):
            index = torch.randint(len(stream), (count,), device=self.device)
            read.append(stream.rows(index))
        tokens, positions = (torch.cat(pieces) for pieces in zip(*read, strict=True))
        states, targets = self.token_states(tokens, positions)
        return linear_cross_entropy(states, self.language_head, targets)

    def token_states(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """States (T, D) of the rows (R, L) that a token of their own document follows, and it."""
        states = self._base(input_ids=tokens, position_ids=positions)
        follows = positions[:, 1:] > 0
        return states[:, :-1][follows], tokens[:, 1:][follows]

    @property
    def language_head(self) -> Tensor:
        """(vocabulary, D), whose products with a state are the logits of the next token."""
        return self.causal.get_output_embeddings().weight

    def ranking_loss(self, history: BasketBatch) -> Tensor:
        """L2: each event is predicted from those before it."""
        states, targets = self._predictions(history)
        users = self.user_projection(states)
        candidates, drawn = self._candidates(targets)
        scores = wide(users) @ wide(self.item_vectors(candidates)).T
        hit = torch.searchsorted(candidates, targets)
        if self.ranking.softmax:
            return F.cross_entropy(wide(scores) - self._log_inclusion(candidates, len(hit)), hit)
        positive = scores.gather(1, hit[:, None]).squeeze(1)
        negative = F.softplus(scores[:, torch.searchsorted(candidates, drawn)])
        return (F.softplus(-positive) + (negative * (drawn != targets[:, None])).mean(1)).mean()

    def _candidates(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(C,) items to score, ascending, and those among them that are drawn."""
        if self.ranking.num_negatives is None:
            return self._every_item(), self._every_item()
        count = (self.ranking.num_negatives,)
        drawn = torch.randint(self.num_items, count, device=targets.device)
        return torch.cat([targets, drawn]).unique(), drawn

    def _log_inclusion(self, candidates: Tensor, num_targets: int) -> Tensor:
        """(C,): log probability that an item is a target of a batch or drawn for it."""
        if (drawn := self.ranking.num_negatives) is None:
            return torch.zeros(len(candidates), device=candidates.device)
        # The only item of a catalogue is in every draw.
        missed = math.log1p(-1 / self.num_items) if self.num_items > 1 else -math.inf
        absent = -num_targets * self.share[candidates] + (drawn * missed if drawn else 0.0)
        return torch.log(-torch.expm1(absent))

    def _predictions(self, history: BasketBatch) -> tuple[Tensor, Tensor]:
        """States (P, D) of the beginnings of histories, and the items (P,) that came next."""
        before = _all_but_last(history)
        documents = self._documents(self._texts(before))
        targets = documents.items.roll(-1)
        targets[documents.end_offsets[1:] - 1] = history.items[history.offsets[1:] - 1]
        # A history that was cut does not begin where its document does.
        told = torch.ones_like(targets, dtype=torch.bool)
        cut = documents.end_offsets.diff() <= before.lengths()
        told[documents.end_offsets[:-1][cut]] = False
        states = self._frozen_states(history.users) if self.frozen else self.states(documents)
        return states[told], targets[told]

    def _frozen_states(self, users: Tensor) -> Tensor:
        """As `states`, looked up: a frozen decoder reads the training histories once."""
        states = self._frozen(self._frozen_histories, self._training_states)
        rows = torch.searchsorted(self._trained_on.users.to(users.device), users)
        return states.rows(rows).values

    def _training_states(self) -> Ragged:
        before = _all_but_last(self._trained_on.to(self.device))
        documents = self._documents(self._texts(before))
        return Ragged(self.states(documents), documents.end_offsets)

    def _frozen(self, memo: Memo[T], compute: Callable[[], T]) -> T:
        """What a frozen decoder makes of the texts."""
        return memo.get(compute, self.decoder, *self.buffers(recurse=False))

    def _texts(self, history: BasketBatch) -> Ragged:
        """Histories as texts: of an event of the log its own, of any other its item's."""
        if not self.template.event_columns:
            return history.ragged
        rows = history.log_rows
        texts = torch.where(rows < 0, history.items, self.event_texts[rows])
        return Ragged(texts, history.offsets)

    def _documents(self, texts: Ragged) -> Documents:
        tokens = Ragged(self.text_tokens, self.text_offsets)
        limit = self.template.max_tokens
        documents = Documents.of(texts, tokens, int(self.end), max_tokens=limit)
        return replace(documents, items=self.text_items[documents.items])

    def states(self, documents: Documents) -> Tensor:
        """(M, D): the last hidden state at each end."""
        found, places = [], []
        for which, group in documents.groups(TOKENS_AT_ONCE):
            tokens, ends = group.padded()
            embedded = self.causal.get_input_embeddings()(tokens)
            if self.items is not None:
                flat = embedded.flatten(0, 1)
                ids = self.items(group.items).to(flat.dtype)
                embedded = flat.index_add(0, ends, ids).view_as(embedded)
            # Padding stands at the right, where a causal decoder does not look.
            found.append(self._base(inputs_embeds=embedded).flatten(0, 1)[ends])
            places.append(gather_positions(documents.end_offsets, which)[0])
        states = torch.cat(found)
        return torch.empty_like(states).index_copy(0, torch.cat(places), states)

    @property
    def causal(self) -> PreTrainedModel:
        """The decoder with its language head, without the wrapper of low-rank updates."""
        decoder: Any = self.decoder
        return decoder.get_base_model() if hasattr(decoder, "get_base_model") else decoder

    def _base(self, **inputs: Tensor) -> Tensor:
        return self.causal.base_model(**inputs, use_cache=False).last_hidden_state

    def item_vectors(self, items: Tensor) -> Tensor:
        """(C, D) of item indices (C,)."""
        vectors = self.item_projection(self._item_states(items))
        return vectors if self.items is None else vectors + self.items(items)

    def _item_states(self, items: Tensor) -> Tensor:
        if self.frozen:
            return self._frozen(self._frozen_items, self._every_state)[items]
        return self._states_of(items)

    def _states_of(self, items: Tensor) -> Tensor:
        single = Ragged(items, torch.arange(len(items) + 1, device=items.device))
        return self.states(self._documents(single))[1::2]

    def _every_state(self) -> Tensor:
        """(n, D); items of the same words have the same state, to the last digit."""
        items = self._every_item()
        if self.items is not None:  # the state is of the id, too
            return self._states_of(items)
        tokens = Ragged(self.text_tokens, self.text_offsets).rows(items)
        column = torch.arange(int(tokens.lengths.max()), device=items.device)
        words = tokens.values.new_full((len(items), len(column)), -1)
        words[column < tokens.lengths[:, None]] = tokens.values
        _, which = words.unique(dim=0, return_inverse=True)
        first = torch.full_like(items, self.num_items).scatter_reduce(0, which, items, "amin")
        each = first[: int(which.max()) + 1]
        return self._states_of(each)[which]

    def _encoded_items(self) -> ItemVectors:
        every = self._every_item()
        states = self._item_states(every) if self.frozen else self._every_state()
        vectors = self.item_projection(states)
        return vectors if self.items is None else vectors + self.items.vectors

    def _every_item(self) -> Tensor:
        return torch.arange(self.num_items, device=self.device)

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        """(B, D) of the texts of histories."""
        return self._encode(self._documents(self._texts(batch)))

    def encode_texts(self, histories: Sequence[Sequence[str]]) -> UserVectors:
        texts = pl.Series([text for history in histories for text in history], dtype=pl.String)
        words = self.tokens_of(texts)
        rows = Ragged(
            torch.arange(len(texts)),
            offsets_of(torch.tensor([len(history) for history in histories])),
        )
        limit = self.template.max_tokens
        documents = Documents.of(rows, words, int(self.end), max_tokens=limit)
        strangers = replace(documents, items=torch.full_like(documents.items, self.num_items))
        return self._encode(strangers.to(self.device))

    def _encode(self, documents: Documents) -> UserVectors:
        last = documents.last_ends()
        return self.user_projection(self.states(last))

    def encode_items(self) -> ItemVectors:
        """(n, D), in evaluation mode kept until a parameter changes."""
        if self.training:
            return self.item_vectors(self._every_item())
        return self._item_vectors.get(self._encoded_items, self)

    def train(self, mode: bool = True) -> Self:
        """Training mode forgets the vectors of the items, which training may change."""
        if mode:
            self._item_vectors.clear()
        return super().train(mode)

    def optimizer(self, num_steps: int) -> Any:
        """AdamW; the rate rises over the warm-up and falls by a cosine to a tenth."""
        ids = [] if self.items is None else [self.items.weight]
        others = [p for p in self.parameters() if p.requires_grad and all(p is not i for i in ids)]
        groups = [
            {"params": others, "weight_decay": self.weight_decay},
            {"params": ids, "weight_decay": self.id_weight_decay},
        ]
        optimizer = AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.98), eps=1e-6)
        rate = LambdaLR(optimizer, partial(_rate, steps=num_steps, warmup=self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def export(self, folder: Path) -> None:
        """The decoder and its tokenizer as Hugging Face's `from_pretrained` reads them."""
        decoder: Any = self.decoder
        if hasattr(decoder, "merge_and_unload"):
            decoder = deepcopy(decoder).merge_and_unload()
        with _without_bars():
            decoder.save_pretrained(folder)
        end = self.tokenizer.id_to_token(int(self.end))
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer, bos_token=end, eos_token=end
        )
        tokenizer.save_pretrained(folder)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without Hugging Face's own progress bars."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _all_but_last(history: BasketBatch) -> BasketBatch:
    """The same users without the last event of each."""
    keep = torch.ones(len(history.items), dtype=torch.bool, device=history.device)
    keep[history.offsets[1:] - 1] = False
    return history.where(keep)


def _cosine(progress: float) -> float:
    """From 1 to 0.1 as training goes from 0 to 1."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _rate(step: int, *, steps: int, warmup: float) -> float:
    rising = min(1.0, (step + 1) / max(1.0, warmup * steps))
    return rising * _cosine(step / steps)
