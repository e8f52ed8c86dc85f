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

The texts are in `_texts`, the decoder's states in `_states`, the two losses in `_objectives`.

Shapes: B users, C candidates, n items, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import polars as pl
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from recsys import ranks
from recsys.batch.bounds import check_tensor
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of
from recsys.batch.tokens import TokenStream
from recsys.errors import ConfigError, RunError
from recsys.log.words import LogTexts, Template
from recsys.models.language._added import Added, FrozenTexts
from recsys.models.language._objectives import Language, Ranking
from recsys.models.language._states import (
    FrozenStates,
    Remembered,
    TextStates,
    WordlessStates,
)
from recsys.models.language._texts import (
    Beginnings,
    Texts,
    check_tokenizer,
    tokenizer_as_bytes,
    tokenizer_of,
)
from recsys.models.language.decoders import (
    Decoder,
    Pretrained,
    blocks_of,
    causal_of,
    checkpointed,
    vocabulary_size,
    write_decoder,
)
from recsys.models.sequences.sasrec import ItemVectorTable
from recsys.nn.buffers import Memo
from recsys.nn.embedding import EmbeddingTable
from recsys.nn.repeats import RepeatWeight
from recsys.nn.text_vectors import semantic_vectors
from recsys.ranges import at_least, share
from recsys.reading import read_json, read_tensors, reading
from recsys.scoring import manifest
from recsys.scoring.kinds import (
    Blockwise,
    Exported,
    LogProbabilities,
    RepeatAware,
    TextEncoder,
    TwoPass,
)
from recsys.scoring.recommender import Progress
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of
from recsys.tasks.tokenizers import tokenize
from recsys.types import ItemVectors, UserVectors


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
        checkpoint_activations: compute each layer's activations again for its gradients: less
            memory, a third more time.
        warmup: share of the steps over which the learning rate rises.

    Raises:
        ConfigError: an option is out of its range.
    """

    start: str | None = None
    freeze: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    warmup: float = 0.01

    def __post_init__(self) -> None:
        share(warmup=self.warmup)


class LMRec(RepeatAware, TextEncoder, LogProbabilities, Exported, Blockwise, TwoPass):
    """Scores are inner products of projected hidden states of a history's and an item's text.

    Args:
        num_items: n.
        decoder: a `Decoder` or a `Pretrained` one.
        template: what is read of an item and a history.
        language, ranking: the two losses.
        ids: vectors of ids, too.
        frozen_texts: vectors of the items' texts from another model, too, or in place of the words.
        tuning: how the decoder is trained.
        learning_rate, weight_decay: of AdamW with betas (.9, .98).

    Raises:
        ConfigError: `freeze` with L1, or with vectors that are added, which are learnt through the
            decoder; neither L1 nor L2; an option is out of its range.
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
        frozen_texts: FrozenTexts = FrozenTexts(),
        tuning: Tuning = Tuning(),
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        decay = ids.id_weight_decay
        self.id_weight_decay = weight_decay if decay is None else decay
        at_least(1, num_items=num_items)
        added = ids.use_ids or frozen_texts.text is not None
        if tuning.freeze and (language.batch_size or added):
            raise ConfigError(
                "freeze=true trains the projections alone; set language.batch_size=0, "
                "use_ids=false and frozen_texts.text=null"
            )
        if not language.batch_size and not ranking.weight:
            raise ConfigError(
                "language.batch_size=0 and ranking.weight=0 leave nothing to train on"
            )
        self.options, self.template = decoder, template
        self.language, self.ranking = language, ranking
        self.repeats = RepeatWeight() if ranking.repeats else None
        self.start, self.frozen, self.warmup = tuning.start, tuning.freeze, tuning.warmup
        self.compiled = tuning.compile
        self.decoder: nn.Module = decoder.build()
        hidden = self.causal.config.hidden_size
        self.items = EmbeddingTable(num_items, hidden) if ids.use_ids else None
        self.reads_words, self.item_texts = frozen_texts.read_words, None
        if (text := frozen_texts.text) is not None:
            self.item_texts = ItemVectorTable(num_items, hidden, text=text, use_id=False)
        self.user_projection = nn.Linear(hidden, hidden, bias=False)
        self.item_projection = nn.Linear(hidden, hidden, bias=False)
        # Both alike: a history starts near the items whose words it shares. States are normalised,
        # the vectors that stand for them where no words are read are small.
        scale = hidden**-0.25 if self.reads_words else 1.0
        for projection in (self.user_projection, self.item_projection):
            with torch.no_grad():
                projection.weight.copy_(torch.eye(hidden) * scale)
        self.num_items = num_items
        if tuning.checkpoint_activations:
            checkpointed(self.causal)
        if tuning.compile:
            self.causal.base_model.compile(dynamic=True)
        self._streams: list[TokenStream] = []
        self._item_vectors: Memo[Tensor] = Memo()
        self._remembered: Remembered | None = None

    @property
    def causal(self) -> PreTrainedModel:
        """The decoder with its language head, without the wrapper of low-rank updates."""
        return causal_of(self.decoder)

    @property
    def texts(self) -> Texts:
        """Of the log that `prepare` read."""
        tokens = Ragged(self.text_tokens, self.text_offsets)
        of_events = self.event_texts if self.template.event_columns else None
        limit = self.template.max_tokens
        return Texts(tokens, self.num_items, self.text_items, of_events, self.end, limit)

    @property
    def states(self) -> TextStates:
        """Of these texts, as the decoder reads them now."""
        added = Added(self.items, self.item_texts)
        decoder, texts, number = self.decoder, self.texts, self.micro_batches
        if self._remembered is not None:
            return FrozenStates(decoder, added, texts, self._remembered, micro_batches=number)
        if self.reads_words:
            return TextStates(decoder, added, texts, micro_batches=number)
        return WordlessStates(decoder, added, texts.without_words(), micro_batches=number)

    @property
    def tokenizer(self) -> Tokenizer:
        """Trained or taken over in `prepare`."""
        return tokenizer_of(self.tokenizer_json)

    def tokens_of(self, texts: pl.Series) -> Ragged:
        """Texts as tokens, each with its closing [EOS]."""
        limit, cut = self.template.max_item_tokens, self.options.cut
        return tokenize(self.tokenizer, texts, limit, int(self.end), cut=cut)

    def prepare(self, split: Split) -> Part:
        """Train the tokenizer, and write items and histories as tokens."""
        history = split.training
        self._item_vectors.clear()
        if self.item_texts is not None:
            self.item_texts.read_texts(split)
        self._remembered = Remembered(history) if self.frozen else None
        written = self.template.write(split.item_table, split.log.events)
        corpora = [corpus.read() for corpus in self.language.corpora.values()]
        # Of what events say, that of the training alone.
        said = tensor_of(written.events)[history.log_rows]
        seen = torch.cat([torch.arange(split.num_items), said]).unique()
        if self.start is not None:
            self._start_from(Path(self.start))
        else:
            words = [written.texts[seen.numpy()], *(texts for texts, _ in corpora)]
            self._train_tokenizer(pl.concat(words))
        self._keep_texts(written)
        counts = torch.bincount(history.items, minlength=split.num_items)
        self.keep("share", counts / counts.sum())
        logs = [(self.texts.tokens, self.texts.of_histories(history))]
        logs += [(self.tokens_of(texts), histories) for texts, histories in corpora]
        if self.start is None:
            alone = Ragged(seen, torch.arange(len(seen) + 1))
            self._start_as_words([(self.texts.tokens, alone), *logs])
        self._streams = self.language.streams(logs, int(self.end))
        if self.frozen:
            self.decoder.requires_grad_(False)
        return Part("train", history, history.ragged)

    def _train_tokenizer(self, words: pl.Series) -> None:
        tokenizer = self.options.tokenizer(words)
        self.keep("tokenizer_json", tokenizer_as_bytes(tokenizer.backend_tokenizer))
        self.keep("end", torch.tensor(tokenizer.eos_token_id))

    def _start_as_words(self, logs: Sequence[tuple[Ragged, Ragged]]) -> None:
        """Start a decoder from what its tokens mean in the texts, where its options say so."""
        if isinstance(self.options, Decoder) and self.options.semantic_start:
            size, dim = self.options.vocab_size, self.options.embedding_dim
            self.options.start_from(semantic_vectors(logs, size, dim), self.causal)

    def _keep_texts(self, written: LogTexts) -> None:
        tokens, none = self.tokens_of(written.texts), torch.tensor([self.num_items])
        self.keep("text_tokens", tokens.values)
        self.keep("text_offsets", tokens.offsets)
        self.keep("text_items", torch.cat([tensor_of(written.items), none]))
        if self.template.event_columns:
            self.keep("event_texts", tensor_of(written.events))

    def _start_from(self, run: Path) -> None:
        """Take the decoder, the tokenizer and the projections of another run."""
        path = run / "model" / "weights.safetensors"
        if not path.is_file():
            raise RunError(f"start={run} holds no finished run: there is no {path.name}")
        manifest.check(path.parent, path.name)
        self._check_pre_split(run)
        weights = read_tensors(path)
        if not weights.keys() >= {"tokenizer_json", "end"}:
            raise ConfigError(f"start={run} is no run of a language model")
        names = ("decoder.", "user_projection.", "item_projection.")
        learnt = {name: value for name, value in weights.items() if name.startswith(names)}
        try:
            # Not strict: what is the log's own stays, and tied weights are saved once.
            self.load_state_dict(learnt, strict=False)
        except RuntimeError as error:
            raise ConfigError(
                f"start={run} has a decoder of another shape; give its own"
            ) from error
        with reading(path):
            self.keep("tokenizer_json", weights["tokenizer_json"])
            self.keep("end", weights["end"])
            check_tokenizer(self.tokenizer_json, self.end, vocabulary_size(self.decoder))

    def _check_pre_split(self, run: Path) -> None:
        """The tokenizer of another run is of use behind the cuts that it was trained with alone."""
        with reading(run / "model" / "recsys.json"):
            decoder = read_json(run / "model" / "recsys.json")["model"].get("decoder", {})
            cut = decoder.get("pre_split", Pretrained.pre_split)
        if cut != self.options.pre_split:
            raise ConfigError(
                f"start={run} has the tokenizer of decoder.pre_split={cut}; set that, not "
                f"{self.options.pre_split}"
            )

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        num_tokens = vocabulary_size(self.decoder)
        self.texts.check(num_tokens, histories)
        check_tensor("share", self.share, torch.float32, self.num_items)
        check_tokenizer(self.tokenizer_json, self.end, num_tokens)

    def loss(self, part: Part, progress: Progress) -> Tensor:
        """L1 + lambda L2, or one of them alone; lambda falls by a cosine to a tenth."""
        return self._joined(self.losses(part), progress)

    def losses(self, part: Part) -> dict[str, Tensor]:
        """`ranking_loss` and `language_loss`, those of them that there are."""
        losses = {}
        if self.ranking.weight:
            losses["ranking_loss"] = self.ranking_loss(part.history)
        if self.language.batch_size:
            losses["language_loss"] = self.language_loss()
        return losses

    def _joined(self, losses: dict[str, Tensor], progress: Progress) -> Tensor:
        if len(losses) == 1:
            return next(iter(losses.values()))
        weight = self.ranking.weight * _cosine(progress.share)
        return losses["language_loss"] + weight * losses["ranking_loss"]

    def language_loss(self) -> Tensor:
        """L1, on rows drawn from the texts."""
        self._streams = [stream.to(self.device) for stream in self._streams]
        return self.language.loss(self._streams, self.states)

    def ranking_loss(self, history: BasketBatch) -> Tensor:
        """L2: each event is predicted from those before it."""
        states = self.states
        beginnings = Beginnings.of(history, states.texts)
        at_ends = states.at_beginnings(beginnings)
        users = self._projected(self.user_projection, at_ends[beginnings.is_whole])
        targets = beginnings.targets[beginnings.is_whole]
        vectors_of = partial(self._vectors_of, states=states)
        repeats = None
        if self.repeats is not None:
            repeats = partial(self.repeats.of_candidates, histories=beginnings.held)
        return self.ranking.loss(users, targets, vectors_of, self.share, repeats)

    def training_step(self, part: Part, batch_index: int) -> Tensor:
        """The loss; where there are two, each is logged, too."""
        losses = self.losses(part)
        if len(losses) > 1:
            each = {f"train/{name}": loss for name, loss in losses.items()}
            num_users = ranks.count(len(part))
            self.log_dict(each, on_step=False, on_epoch=True, batch_size=num_users, sync_dist=True)
        return self._joined(losses, self._progress())

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        """(B, D) of the texts of histories."""
        states = self.states
        documents = states.texts.documents(states.texts.of_histories(batch))
        return self._projected(self.user_projection, states.of_documents(documents))

    def encode_texts(self, histories: Sequence[Sequence[str]]) -> UserVectors:
        if not self.reads_words:
            raise ConfigError(
                "frozen_texts.read_words=false reads the items of its log alone; train with true"
            )
        words = pl.Series([text for history in histories for text in history], dtype=pl.String)
        lengths = torch.tensor([len(history) for history in histories])
        rows = Ragged(torch.arange(len(words)), offsets_of(lengths))
        limit = self.template.max_tokens
        texts = Texts.of_strangers(self.tokens_of(words), self.num_items, self.end, limit)
        documents = texts.documents(rows).to(self.device)
        return self._projected(self.user_projection, self.states.of_documents(documents))

    def encode_items(self) -> ItemVectors:
        """(n, D), in evaluation mode kept until a parameter changes."""
        if self.training:
            return self.item_vectors(self.texts.every_item)
        return self._item_vectors.get(self._catalogue_vectors, self)

    def encode_items_by_rank(self) -> ItemVectors:
        """The same in evaluation mode; each rank reads some of the texts."""
        compute = partial(self._catalogue_vectors, by_rank=True)
        return self._item_vectors.get(compute, self, by_rank=True)

    def item_vectors(self, items: Tensor) -> Tensor:
        """(C, D) of item indices (C,)."""
        return self._vectors_of(items, states=self.states)

    def _vectors_of(self, items: Tensor, *, states: TextStates) -> Tensor:
        return self._with_added(
            self._projected(self.item_projection, states.of_items(items)), states.added, items
        )

    @staticmethod
    def _projected(projection: nn.Linear, states: Tensor) -> Tensor:
        """States of a decoder that may be held in fewer bits than what is learnt on top of it."""
        return projection(states.to(projection.weight.dtype))

    def _catalogue_vectors(self, *, by_rank: bool = False) -> ItemVectors:
        states = self.states
        vectors = self._projected(self.item_projection, states.of_catalogue(by_rank=by_rank))
        return self._with_added(vectors, states.added, self.texts.every_item)

    def _with_added(self, vectors: Tensor, added: Added, items: Tensor) -> Tensor:
        if added.texts is not None and not self.reads_words:
            added = Added(added.ids, None)  # that of the text is the state
        return vectors + added(items) if added else vectors

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

    def blocks(self) -> list[nn.Module]:
        """The decoder's layers."""
        if self.frozen or self.compiled:
            raise ConfigError(
                f"freeze={self.frozen} compile={self.compiled}: a decoder that ranks divide is "
                "trained, and not compiled; set both to false, or trainer.strategy=auto"
            )
        return blocks_of(self.decoder)

    def refuse_no_softmax(self) -> None:
        if not (self.ranking.softmax and self.ranking.weight):
            raise ConfigError(
                "ranking.softmax=false, or ranking.weight=0, gives no probabilities of items; "
                "train with a softmax"
            )

    def export(self, folder: Path) -> None:
        """The decoder and its tokenizer as Hugging Face's `from_pretrained` reads them.

        With `pre_split=kiwi` that tokenizer takes the pieces of `recsys.tasks.Morphemes`.
        """
        write_decoder(folder, self.decoder, self.tokenizer, int(self.end))


def _cosine(progress: float) -> float:
    """From 1 to 0.1 as training goes from 0 to 1."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _rate(step: int, *, steps: int, warmup: float) -> float:
    rising = min(1.0, (step + 1) / max(1.0, warmup * steps))
    return rising * _cosine(step / steps)
