"""ShopperBERT: one vector of a user for every task, from what it bought when.

Paper: Shin, Kwak, Kim, Ramström, Jeong, Ha & Kim, "One4all user representation for recommender
systems in e-commerce", 2021 (arXiv 2106.00573).

Kept: an event is a token, the sum of its item's vector (those of its categories and of its words,
joined and projected), of the vectors of its date's parts, and of that of its place; a [CLS] token
leads; a bidirectional Transformer; tokens are masked, and a head per field predicts the field's
class; the loss is the mean of the heads' cross-entropies; a user's vector is the state of [CLS] or
the mean of all states. The paper calls an event a behaviour.
Changed: baskets are masked whole and become one token, whose lines are its answers: another line of
the basket would give its date away, and their number how large it was. The heads also read [CLS],
which no task would train otherwise. A head's classes share the vectors by which the field is read.
Beyond the paper: users with more behind them than a window are the mean over their windows.
Ranking: a masked basket is put after a user's last; an item's score is its share of all events,
times how much likelier than usual each of its attributes is there, a user without a history's too.

Shapes: B users, E events, R tokens, T tokens with [CLS], K masked baskets, A events of these, n
items, D dimensions, F fields, C classes. A suffix gives those of a tensor: `states_RD` is (R, D).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, cast

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.checkpoint import checkpoint

from recsys.batch.bounds import check_index, check_tensor
from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.ragged import Ragged, offsets_of, pieces, ranges
from recsys.errors import ConfigError, DataError
from recsys.models.users.event_fields import EventFields, count_nll
from recsys.nn.attention import Layout
from recsys.nn.embedding import EmbeddingTable
from recsys.nn.sentences import sentence_vectors
from recsys.precision import wide
from recsys.ranges import at_least, heads, proper_share, share
from recsys.scoring.kinds import Measured, ProfileEncoder
from recsys.scoring.recommender import Progress, Recommender
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of
from recsys.types import Scores, UserVectors

USERS_AT_ONCE = 128
EVENTS_AT_ONCE = 2**18
"""Of which the encoder holds the states at once."""
CELLS_AT_ONCE = 2**25
"""Log-probabilities of contexts and classes that are held at once."""
COUNT_STRENGTH = 30.0
SENTENCE_DIM = 384


@dataclass(frozen=True)
class Encoder:
    """The Transformer.

    Attributes:
        embedding_dim: D.
        num_layers, num_heads, ffn_dim: of the blocks.
        max_length: events of a window.
        dropout: of the embeddings and of what each layer adds.
        pooling: which states are a user's vector.

    Raises:
        ConfigError: `num_heads` does not divide `embedding_dim`, or an option is out of its range.
    """

    embedding_dim: int = 64
    num_layers: int = 2
    num_heads: int = 2
    ffn_dim: int = 128
    max_length: int = 256
    dropout: float = 0.1
    pooling: Literal["cls", "mean"] = "mean"

    def __post_init__(self) -> None:
        heads(num_heads=self.num_heads, embedding_dim=self.embedding_dim)
        at_least(0, num_layers=self.num_layers)
        at_least(1, ffn_dim=self.ffn_dim, max_length=self.max_length)
        proper_share(dropout=self.dropout)


@dataclass(frozen=True)
class Product:
    """What is read of a product beside its attributes.

    Attributes:
        price_buckets: quantiles of value per unit; 0 reads no price.
        sentences: whether its `text` is read, by the encoder of the extra `sentences`.
    """

    price_buckets: int = 0
    sentences: bool = False


@dataclass(frozen=True)
class Pretext:
    """What is learnt: to predict masked baskets.

    Attributes:
        pretext_tasks: fields that heads predict; None is all of them. A field is called as its
            attribute, or `price`, or a part of the date, with a `_` behind it where there is an
            attribute of that name.
        mask_rate: share of the baskets that are masked.
        shuffle_rate: share of the windows whose baskets are shuffled before.
        held_out: share of the training users on whom the masked baskets are measured instead.

    Raises:
        ConfigError: an option is out of its range.
    """

    pretext_tasks: Sequence[str] | None = None
    mask_rate: float = 0.3
    shuffle_rate: float = 0.0
    held_out: float = 0.0

    def __post_init__(self) -> None:
        share(mask_rate=self.mask_rate, shuffle_rate=self.shuffle_rate)
        proper_share(held_out=self.held_out)

    def among(self, fields: Iterable[str]) -> list[str]:
        """The tasks, of all fields that there are.

        Raises:
            ConfigError: there are none, or one is no field.
        """
        names = list(fields)
        tasks = list(dict.fromkeys(names if self.pretext_tasks is None else self.pretext_tasks))
        wrong = [name for name in tasks if name not in names]
        if wrong or not tasks:
            problem = f"{wrong[0]} is no field" if wrong else "there are none"
            raise ConfigError(f"pretext_tasks: {problem}; name some of {', '.join(names)}")
        return tasks


class ShopperBERT(ProfileEncoder, Measured, Recommender):
    """Predicts masked baskets from the rest of a user's log, and so learns what a user is.

    Args:
        num_items: n.
        attributes: columns of the items that become fields of an event; `item_id` may be one.
        num_classes: how many values each column of the items takes.
        product: what else is read of a product.
        calendar: parts of the date.
        encoder: sizes.
        pretext: what is predicted.
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: no attribute, one that the items do not have, a pretext task that is no field,
            or an option is out of its range.
    """

    measures = ("log_likelihood",)
    until: Tensor
    item_share: Tensor
    texts: Tensor
    text_of: Tensor

    def __init__(
        self,
        num_items: int,
        *,
        attributes: Sequence[str],
        num_classes: Mapping[str, int],
        product: Product = Product(),
        calendar: Sequence[str] = ("month", "day", "weekday", "hour"),
        encoder: Encoder = Encoder(),
        pretext: Pretext = Pretext(),
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)
        at_least(1, num_items=num_items)
        self.fields = EventFields(
            num_items,
            attributes=attributes,
            num_classes=num_classes,
            price_buckets=product.price_buckets,
            calendar=calendar,
        )
        sizes = self.fields.sizes
        self.pretext_tasks = pretext.among(sizes)
        self.mask_rate, self.shuffle_rate = pretext.mask_rate, pretext.shuffle_rate
        self.held_out, self.pooling = pretext.held_out, encoder.pooling
        self.register_buffer("until", torch.tensor(0))
        self.register_buffer("item_share", torch.full((num_items,), 1 / num_items))
        self.max_length = encoder.max_length
        dim = encoder.embedding_dim
        # Lists: the columns of a log may be called what a module's own parts are.
        self.tables = nn.ModuleList(EmbeddingTable(c, dim, std=0.1) for c in sizes.values())
        self.from_text = nn.Linear(SENTENCE_DIM, dim, bias=False) if product.sentences else None
        num_parts = self.fields.num_product_fields + product.sentences
        self.product = nn.Linear(num_parts * dim, dim)
        self.heads = nn.ModuleList(nn.Linear(dim, dim) for _ in self.pretext_tasks)
        self.biases = nn.ParameterList(torch.zeros(sizes[name]) for name in self.pretext_tasks)
        self.encoder = BidirectionalEncoder(encoder)
        self.mask_token = nn.Parameter(torch.randn(dim) * 0.02)
        with torch.no_grad():
            # An item of the history is likely to come again: an event starts as the sum of its
            # vectors, [CLS] as the mean of events, and heads look for the classes nearest to it.
            self.product.weight.copy_(torch.eye(dim).repeat(1, num_parts))
            for head in self.heads:
                nn.init.eye_(cast(nn.Linear, head).weight)

    def prepare(self, split: Split) -> Part:
        """Windows of the training users, but of those who are held out."""
        self.fields.fit(split)
        self._read_texts(split.item_table)
        history = split.training
        self.until.fill_(split.trained_until)
        counts = torch.bincount(history.items, minlength=split.num_items) + 0.5
        self.item_share = (counts / counts.sum()).to(self.device)
        _, training_rows = self._divided(len(history))
        return Windows.of(history.rows(training_rows), self.max_length)

    def _divided(self, num_users: int) -> tuple[Tensor, Tensor]:
        """The training users who are held out, and the others."""
        order = torch.randperm(num_users, generator=torch.Generator().manual_seed(0))
        count = round(self.held_out * num_users)
        return order[:count].sort().values, order[count:].sort().values

    @property
    def trained_until(self) -> int:
        return int(self.until)

    @property
    def reads_dates(self) -> bool:
        return bool(self.fields.calendar)

    def read_items(self, items: pl.DataFrame) -> None:
        self.fields.read_items(items)
        self.item_share = torch.full((len(items),), 1 / len(items), device=self.device)
        self._read_texts(items)

    def check_kept(self, histories: BasketBatch) -> None:
        super().check_kept(histories)
        check_tensor("until", self.until, torch.int64)
        check_tensor("item_share", self.item_share, torch.float32, histories.num_items)
        if self.from_text is not None:
            check_tensor("text_of", self.text_of, torch.int64, histories.num_items)
            check_index("text_of", self.text_of, len(self.texts))
            check_tensor("texts", self.texts, torch.float32, len(self.texts), SENTENCE_DIM)

    def _read_texts(self, items: pl.DataFrame) -> None:
        """A vector of each text that items have, and which of them is an item's."""
        if self.from_text is None:
            return
        if "text" not in items.columns:
            raise DataError("items have no column text; set model.product.sentences=false")
        texts = items["text"].fill_null("")
        each = texts.unique(maintain_order=True)
        rows = texts.replace_strict(each, range(len(each)), return_dtype=pl.Int64)
        self.keep("texts", sentence_vectors(each).to(self.device))
        self.keep("text_of", tensor_of(rows).to(self.device))

    def loss(self, part: Part, progress: Progress) -> Tensor:
        """The mean over fields of the cross-entropy of what the masked baskets held."""
        batch = _shuffled(part.history, self.shuffle_rate)
        rows, offsets = batch.basket_rows()
        is_masked = torch.rand(len(offsets) - 1, device=batch.device) < self.mask_rate
        if not is_masked.any():
            is_masked[torch.randint(len(is_masked), (1,), device=batch.device)] = True
        losses = self.masked_nll(batch, rows, is_masked)
        return torch.stack([nll.mean() for nll in losses.values()]).mean()

    def masked_nll(self, batch: BasketBatch, rows: Tensor, is_masked: Tensor) -> dict[str, Tensor]:
        """Per field the negative log-likelihoods of what masked baskets held, where it is known.

        Those of the date are taken once a basket, those of the products once a line.

        Args:
            batch: E events of B users, each at most `max_length`.
            rows: (E,) the basket of each event, as `batch.basket_rows` gives it.
            is_masked: (baskets,) bool.
        """
        codes_EF = self.fields(batch)
        hidden_E = is_masked[rows]
        first_E = F.pad(rows.diff() > 0, (1, 0), value=True)
        is_token_E = ~hidden_E | first_E
        owners_R = batch.owners()[is_token_E]
        tokens_RD = self._embed(codes_EF[is_token_E], batch.items[is_token_E], hidden_E[is_token_E])
        of_users = Ragged(tokens_RD, _offsets(owners_R, len(batch)))
        states_RD, cls_BD = self.encoder(tokens_RD, of_users)
        is_mask_R = hidden_E[is_token_E]
        context_KD = states_RD[is_mask_R] + cls_BD[owners_R[is_mask_R]]
        number = is_masked.long().cumsum(0) - 1
        codes_AF, basket_A = codes_EF[hidden_E], number[rows[hidden_E]]
        firsts_KF = codes_EF[hidden_E & first_E]
        every_K = torch.arange(len(firsts_KF), device=codes_EF.device)
        nll = {}
        for column, name in self._tasks():
            if column < self.fields.num_product_fields:
                row, code = basket_A, codes_AF[:, column]
            else:
                row, code = every_K, firsts_KF[:, column]
            is_known = code < self.fields.sizes[name]
            nll[name] = self._nll(name, context_KD, row[is_known], code[is_known])
        return nll

    def _nll(self, name: str, context: Tensor, row: Tensor, code: Tensor) -> Tensor:
        """(A,) of codes (A,) of a field, given in which of the contexts (K, D) each is, ascending.

        Where there are many classes, the log-probabilities (K, C) are made some rows at a time, and
        a second time for the gradient.
        """
        step = max(CELLS_AT_ONCE // self.fields.sizes[name], 1)
        if len(context) <= step:
            return -self._log_probabilities(name, context)[row, code]
        losses = []
        for begin in range(0, len(context), step):
            here = (row >= begin) & (row < begin + step)
            piece = name, context[begin : begin + step], row[here] - begin, code[here]
            losses.append(checkpoint(self._nll, *piece, use_reentrant=False))
        return torch.cat(losses)

    def _tasks(self) -> list[tuple[int, str]]:
        """Every pretext task, with the column of its codes."""
        columns = list(self.fields.sizes)
        return [(columns.index(name), name) for name in self.pretext_tasks]

    def _tokens(self, batch: BasketBatch) -> Tensor:
        """(E, D) of events as they are."""
        return self._embed(self.fields(batch), batch.items, torch.zeros_like(batch.items).bool())

    def _embed(self, codes: Tensor, items: Tensor, is_masked: Tensor) -> Tensor:
        """(R, D) of codes (R, F): the product and its date, or what stands for a masked basket."""
        codes = self.fields.as_seen(codes)
        vectors = [table(codes[:, f]) for f, table in enumerate(self.tables)]
        num_products = self.fields.num_product_fields
        of_product = vectors[:num_products]
        if self.from_text is not None:
            texts = self.texts[self.text_of[items]].to(self.from_text.weight.dtype)
            of_product.append(self.from_text(texts))
        x = self.product(torch.cat(of_product, 1))
        for vector in vectors[num_products:]:
            x = x + vector
        return torch.where(is_masked[:, None], self.mask_token, x)

    def _log_probabilities(self, name: str, context: Tensor) -> Tensor:
        """(K, C) of a field, from contexts (K, D)."""
        task = self.pretext_tasks.index(name)
        table = cast(EmbeddingTable, self.tables[list(self.fields.sizes).index(name)])
        bias = self.biases[task]
        head = wide(self.heads[task](context))
        return F.linear(head, wide(table.vectors), wide(bias)).log_softmax(1)

    def encode_profiles(self, batch: BasketBatch) -> UserVectors:
        """(B, D): a vector of everything that is known of a user; zeros where that is nothing."""
        windows, owners = _windows(batch, self.max_length)
        vectors = wide(self.mask_token).new_zeros(len(batch), len(self.mask_token))
        if not len(windows.items):
            return vectors
        for index in pieces(windows.lengths(), EVENTS_AT_ONCE):
            some = windows.rows(index)
            states, cls = map(wide, self.encoder(self._tokens(some), some.ragged))
            if self.pooling == "cls":
                lengths = some.lengths()[:, None].to(cls.dtype)
                vectors = vectors.index_add(0, owners[index], cls * lengths)
            else:
                vectors = vectors.index_add(0, owners[index][some.owners()], states)
        return vectors / batch.lengths().clamp(min=1)[:, None]

    def next_basket(self, batch: BasketBatch) -> dict[str, Tensor]:
        """(B, C) log-probabilities of each field in the basket after the last."""
        events, offsets = _last_events(batch, self.max_length - 1)
        last = batch.take(events, offsets, batch.users)
        tokens_ED = self._tokens(last)
        # A masked token behind each user's last event.
        ends_B = offsets[1:] + torch.arange(len(batch), device=batch.device)
        is_mask_R = torch.zeros(len(tokens_ED) + len(batch), dtype=torch.bool, device=batch.device)
        is_mask_R[ends_B] = True
        tokens_RD = tokens_ED.new_empty(len(is_mask_R), tokens_ED.shape[1])
        tokens_RD[~is_mask_R] = tokens_ED
        tokens_RD[is_mask_R] = self.mask_token.expand(len(batch), -1)
        rows = Ragged(tokens_RD, offsets + torch.arange(len(offsets), device=batch.device))
        states_RD, cls_BD = self.encoder(tokens_RD, rows)
        context_BD = states_RD[is_mask_R] + cls_BD
        return {name: self._log_probabilities(name, context_BD) for name in self.pretext_tasks}

    @torch.inference_mode()
    def measure(self, split: Split, phase: int) -> dict[str, float]:
        """Negative log-likelihoods in nats of what users did in a phase, a figure per field.

        `<field>/nll`: the baskets of the phase masked, a few at a time, the rest of the log given.
        `<field>/nll_next`: from the log before the phase alone, as if each basket were the next;
        `nll_user` and `nll_unigram` are those of the user's own counts there and of everybody's.
        `<field>/nll_users`: where users are held out from training, of their masked baskets before
        the first phase; `log_likelihood` is minus the mean of these over the fields.
        """
        was_training = self.training
        self.eval()
        events, is_new = split.window(phase)
        events, is_new = events.to(self.device), is_new.to(self.device)
        figures = self._next_nll(events.where(~is_new), events.where(is_new))
        figures |= self._cloze_nll(events, is_new, "nll")
        held_out_rows, _ = self._divided(len(split.training))
        if len(held_out_rows):
            held_out_history = split.training.rows(held_out_rows).to(self.device)
            cloze = self._cloze_nll(
                held_out_history, torch.ones_like(held_out_history.items).bool(), "nll_users"
            )
            figures |= cloze | {"log_likelihood": -fmean(cloze.values())}
        self.train(was_training)
        return figures

    def _next_nll(self, history: BasketBatch, after: BasketBatch) -> dict[str, float]:
        before, codes = self.fields(history), self.fields(after)
        first, first_after = (_firsts(batch) for batch in (history, after))
        targets, figures = {}, {}
        for column, name in self._tasks():
            size = self.fields.sizes[name]
            is_known, is_counted = codes[:, column] < size, torch.ones_like(first)
            if column >= self.fields.num_product_fields:
                is_known, is_counted = is_known & first_after, first
            targets[name] = code, owner = codes[is_known, column], after.owners()[is_known]
            counts = before[is_counted, column], history.owners()[is_counted], code, owner, size
            for key, strength in (("user", COUNT_STRENGTH), ("unigram", float("inf"))):
                figures[f"{name}/nll_{key}"] = count_nll(*counts, strength=strength).mean().item()
        nll: dict[str, list[Tensor]] = {name: [] for name in targets}
        for rows in torch.arange(len(history), device=history.device).split(USERS_AT_ONCE):
            for name, log_p in self.next_basket(history.rows(rows)).items():
                code, owner = targets[name]
                here = (owner >= rows[0]) & (owner <= rows[-1])
                nll[name].append(-log_p[owner[here] - rows[0], code[here]])
        return figures | {f"{name}/nll_next": torch.cat(nll[name]).mean().item() for name in nll}

    def _cloze_nll(self, history: BasketBatch, is_target: Tensor, suffix: str) -> dict[str, float]:
        """The baskets of the events at `is_target` (E,) bool, each masked once, turn by turn."""
        windows, _ = _windows(history, self.max_length)
        losses: dict[str, list[Tensor]] = {name: [] for name in self.pretext_tasks}
        turns = max(round(1 / max(self.mask_rate, 0.01)), 2)
        for index in windows.owners()[is_target].unique().split(USERS_AT_ONCE):
            batch = windows.rows(index)
            events, _ = ranges(windows.offsets[index], windows.lengths()[index])
            rows, offsets = batch.basket_rows()
            is_target_basket = is_target[events][offsets[:-1]]
            owners = batch.owners()[offsets[:-1]]
            before = _offsets(owners[is_target_basket], len(batch))[owners]
            number = is_target_basket.long().cumsum(0) - before
            for turn in range(turns):
                is_masked = is_target_basket & (number % turns == turn)
                if is_masked.any():
                    for name, nll in self.masked_nll(batch, rows, is_masked).items():
                        losses[name].append(nll)
        return {f"{name}/{suffix}": torch.cat(nll).mean().item() for name, nll in losses.items()}

    def optimizer(self, num_steps: int) -> Any:
        """AdamW; the rate rises over a tenth of the steps and falls by a cosine."""
        optimizer = AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        rate = OneCycleLR(optimizer, self.learning_rate, total_steps=num_steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def score(self, batch: BasketBatch) -> Scores:
        """An item's share of all events, times how much likelier its attributes are than usual."""
        log_probabilities = self.next_basket(batch)
        total = self.item_share.log().expand(len(batch), -1)
        for column, name in self._tasks():
            if name not in self.fields.attributes:
                continue
            code = self.fields.item_codes[:, column]
            usual = torch.zeros(self.fields.sizes[name] + 1, device=total.device)
            usual = usual.index_add(0, code, self.item_share)[:-1]
            lift = F.pad(
                log_probabilities[name] - usual.clamp(min=1e-12).log(), (0, 1)
            )  # 0 where unknown
            total = total + lift[:, code]
        return total


class BidirectionalEncoder(nn.Module):
    """States of tokens, each a function of all tokens of its row and of [CLS] before them."""

    def __init__(self, sizes: Encoder) -> None:
        super().__init__()
        dim = sizes.embedding_dim
        self.cls = nn.Parameter(torch.randn(dim) * 0.02)
        self.positions = nn.Embedding(sizes.max_length + 1, dim)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.embedding_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(sizes.dropout)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.num_layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens_RD: Tensor, rows: Ragged) -> tuple[Tensor, Tensor]:
        """States (R, D) of the tokens, and of [CLS] (B, D) of B rows of at most `max_length`."""
        device = tokens_RD.device
        at_front_B = rows.offsets[:-1] + torch.arange(len(rows), device=device)
        is_cls_T = torch.zeros(len(tokens_RD) + len(rows), dtype=torch.bool, device=device)
        is_cls_T[at_front_B] = True
        (place_R,) = (~is_cls_T).nonzero(as_tuple=True)
        summed = wide(tokens_RD)
        summed = summed.new_zeros(len(rows), summed.shape[1]).index_add(0, rows.owners(), summed)
        cls_BD = self.cls + (summed / rows.lengths.clamp(min=1)[:, None]).to(tokens_RD.dtype)
        x_TD = tokens_RD.new_empty(len(is_cls_T), tokens_RD.shape[1])
        x_TD = x_TD.index_copy(0, place_R, tokens_RD).index_copy(0, at_front_B, cls_BD)
        offsets = rows.offsets + torch.arange(len(rows) + 1, device=device)
        layout = Layout.of(Ragged(x_TD, offsets))
        x_TD = self.dropout(self.embedding_norm(x_TD + self.positions(layout.position)))
        for block in self.blocks:
            x_TD = block(x_TD, layout)
        x_TD = self.norm(x_TD)
        return x_TD[place_R], x_TD[at_front_B]


class Block(nn.Module):
    """Attention and a feed-forward layer, each on a normalised input and added to it."""

    def __init__(self, sizes: Encoder) -> None:
        super().__init__()
        dim = sizes.embedding_dim
        self.num_heads = sizes.num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.projections = nn.Linear(dim, 3 * dim)
        self.joint = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, sizes.ffn_dim),
            nn.GELU(),
            nn.Linear(sizes.ffn_dim, dim),
        )
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(R, D) to (R, D)."""
        outputs = layout.attention(self.projections(self.attention_norm(x)), self.num_heads)
        x = x + self.dropout(self.joint(outputs))
        return x + self.dropout(self.feed_forward(x))


@dataclass(frozen=True, eq=False)
class Windows(Part):
    """Stretches of users' logs, which a batch crops to windows at random.

    Attributes:
        history: all events of the users.
        starts, lengths: (R,) int64, where each stretch lies among the events.
        max_length: events of a window.
    """

    starts: Tensor
    lengths: Tensor
    max_length: int

    @classmethod
    def of(cls, history: BasketBatch, max_length: int) -> Windows:
        """Stretches that overlap by half a window, together all that users did."""
        lengths = history.lengths()
        count = (lengths / max_length).ceil().long()
        owners = torch.arange(len(history)).repeat_interleave(count)
        number = ranges(torch.zeros_like(count), count)[0]
        begin = number * max_length
        # The last window of a user ends with the log: it may begin before the others end.
        begin = torch.minimum(begin, (lengths[owners] - max_length).clamp(min=0))
        stretch = torch.minimum(lengths[owners] - begin, torch.tensor(max_length * 3 // 2))
        starts = history.offsets[owners] + begin
        none = Ragged(history.items[:0], torch.zeros(len(starts) + 1, dtype=torch.int64))
        return cls("train", history, none, starts, stretch, max_length)

    def __len__(self) -> int:
        return len(self.starts)

    def to(self, device: torch.device | str, **_: object) -> Windows:
        return Windows(
            self.name,
            self.history.to(device),
            self.target.to(device),
            self.starts.to(device),
            self.lengths.to(device),
            self.max_length,
        )

    def rows(self, index: Tensor) -> Part:
        """Windows of the stretches at `index` (B,) int64, each as a user of its own."""
        spare = (self.lengths[index] - self.max_length).clamp(min=0)
        shift = (torch.rand(len(index), device=index.device) * (spare + 1)).long()
        lengths = self.lengths[index].clamp(max=self.max_length)
        events, offsets = ranges(self.starts[index] + shift, lengths)
        users = torch.full_like(index, -1)
        return Part(self.name, self.history.take(events, offsets, users), self.target.rows(index))


def _shuffled(batch: BasketBatch, rate: float) -> BasketBatch:
    """The baskets of a share of the users in random order."""
    if not rate or not len(batch.items):
        return batch
    rows, offsets = batch.basket_rows()
    owners, device = batch.owners(), batch.device
    of_basket = owners[offsets[:-1]]
    place = torch.arange(len(of_basket), device=device).double() / len(of_basket)
    random_places = torch.rand(len(of_basket), device=device, dtype=torch.float64)
    is_shuffled = (torch.rand(len(batch), device=device) < rate)[of_basket]
    key = of_basket + torch.where(is_shuffled, random_places, place)
    order = key[rows].argsort(stable=True)
    return batch.take(order, batch.offsets, batch.users)


def _firsts(batch: BasketBatch) -> Tensor:
    """(E,) bool: the first event of every basket."""
    _, offsets = batch.basket_rows()
    first = torch.zeros_like(batch.items, dtype=torch.bool)
    first[offsets[:-1]] = True
    return first


def _offsets(owners: Tensor, num_rows: int) -> Tensor:
    return offsets_of(torch.bincount(owners, minlength=num_rows))


def _last_events(batch: BasketBatch, count: int) -> tuple[Tensor, Tensor]:
    lengths = batch.lengths().clamp(max=count)
    return ranges(batch.offsets[1:] - lengths, lengths)


def _windows(batch: BasketBatch, length: int) -> tuple[BasketBatch, Tensor]:
    """Users cut into windows counted from their last event, and the user (W,) of each window.

    The events stay in their order.
    """
    lengths = batch.lengths()
    count = (lengths + length - 1) // length
    owners = torch.arange(len(batch), device=batch.device).repeat_interleave(count)
    number = ranges(torch.zeros_like(count), count)[0]
    first = lengths[owners] - (count[owners] - 1) * length
    sizes = torch.where(number == 0, first, length)
    users = torch.full_like(owners, -1)
    positions = torch.arange(len(batch.items), device=batch.device)
    return batch.take(positions, offsets_of(sizes), users), owners
