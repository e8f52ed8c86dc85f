"""Text views: items and histories as words, and words as tokens.

A `Template` says which columns of an item are its words, and which of an event (a search, a review)
are said beside them. A tokenizer, trained on the log's own words or taken from a pretrained model,
turns them into tokens. The tokens of an item are closed by
the end-of-text token, and a history is the tokens of its items, oldest first, behind one more:

    <eos> words of the first item, of its event <eos> words of the second item <eos> ...

so that every beginning of a history, and every item by itself, is a text that ends with <eos>.
`Documents` holds many such texts end to end, `TokenStream` cuts them into full rows for language
modelling. All of it is index arithmetic on flat tensors.

Shapes: n items, E events, m texts, B documents, T tokens in all, M ends of items, R rows of L
tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from tempfile import NamedTemporaryFile

import polars as pl
import torch
from scipy.sparse import csr_array
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from torch.nn.functional import normalize, pad

from recsys.errors import ConfigError, DataError
from recsys.events import ITEM
from recsys.ragged import Ragged, gather_positions, offsets_of, ranges
from recsys.sparse import right_singular_vectors
from recsys.vocab import Vocabulary

END = "<eos>"
DOCUMENTS_AT_ONCE = 2**16
NO_STRENGTH = 1e-6  # of a singular value relative to the largest: rounding


@dataclass(frozen=True)
class Template:
    """How items and events are written, and how much of a history is read.

    Attributes:
        columns: of the items, in the order in which they are read; lists are joined by spaces.
        event_columns: of the events, read behind the item in a history. What an item is compared
            with, and what is recommended, is the item in its own words.
        separator: between the columns.
        max_item_tokens: of a longer item, or an item with its event, the rest is cut off.
        max_tokens: of a longer history the oldest items are cut off, whole.

    Raises:
        ConfigError: no column, or a history that would not hold one item.
    """

    columns: Sequence[str] = ("text",)
    event_columns: Sequence[str] = ()
    separator: str = ". "
    max_item_tokens: int = 64
    max_tokens: int = 512

    def __post_init__(self) -> None:
        if not self.columns:
            raise ConfigError(
                "template.columns is empty; name the columns that hold an item's words"
            )
        # An item with its end, behind the token that opens a history.
        if not 1 <= self.max_item_tokens <= self.max_tokens - 2:
            raise ConfigError(
                f"max_item_tokens={self.max_item_tokens} does not fit into max_tokens="
                f"{self.max_tokens}; an item takes two tokens more than its words"
            )

    def texts(self, items: pl.DataFrame) -> pl.Series:
        """(n,) strings: the words of each item, or its id where it has none.

        Args:
            items: a row per item, with `item_id`.

        Raises:
            DataError: a column that the items do not have.
        """
        own = self._joined(items, "items", self.columns)
        ids = items[ITEM].cast(pl.String)
        return pl.select(text=pl.when(own != "").then(own).otherwise(ids))["text"]

    def write(self, items: pl.DataFrame, events: pl.DataFrame) -> LogTexts:
        """The words of a log.

        Args:
            items: a row per item, with `item_id`.
            events: a row per event, with `item_id` of one of the items.

        Raises:
            DataError: a column that the items, or the events, do not have.
        """
        texts = self.texts(items)
        item = Vocabulary(items[ITEM]).index_of(events[ITEM]).rename("item")
        every = torch.arange(len(items))
        if not self.event_columns:
            return LogTexts(texts, every, _tensor(item))
        said = self._joined(events, "events", self.event_columns)
        told = pl.DataFrame([item, said.set(said == "", None).rename("said")])
        more = told.drop_nulls().unique(maintain_order=True).with_row_index("text", len(items))
        beside = [texts[more["item"]], more["said"]]
        texts = pl.concat(
            [texts, pl.select(pl.concat_str(beside, separator=self.separator))["text"]]
        )
        found = told.join(more, on=["item", "said"], how="left", maintain_order="left")["text"]
        about = torch.cat([every, _tensor(more["item"])])
        return LogTexts(texts, about, _tensor(found.cast(pl.Int64).fill_null(item)))

    def _joined(self, rows: pl.DataFrame, table: str, columns: Sequence[str]) -> pl.Series:
        """The words of each row, "" where it has none."""
        if missing := [column for column in columns if column not in rows.columns]:
            raise DataError(
                f"{table} have no column {', '.join(missing)} (there are: "
                f"{', '.join(rows.columns)}); name others in template."
                f"{'event_columns' if table == 'events' else 'columns'}"
            )
        words = [_words(rows[column]) for column in columns]
        joined = pl.concat_str(words, separator=self.separator, ignore_nulls=True)
        return pl.select(joined).to_series()


@dataclass(frozen=True, eq=False)
class LogTexts:
    """The words of a log's items and events.

    Attributes:
        texts: (m,) strings: the n items', then an item's with what an event said, each such once.
        items: (m,) int64, the item that a text is about.
        events: (E,) int64, the text of each event: that of its item where it said nothing.
    """

    texts: pl.Series
    items: Tensor
    events: Tensor


def _tensor(values: pl.Series) -> Tensor:
    return torch.from_numpy(values.cast(pl.Int64).to_numpy(writable=True))


def _words(column: pl.Series) -> pl.Series:
    """Text without blanks around it; null where there is none."""
    listed = isinstance(column.dtype, pl.List)
    text = column.cast(pl.List(pl.String)).list.join(" ") if listed else column.cast(pl.String)
    text = text.str.strip_chars()
    return text.set(text == "", None)


def train_tokenizer(texts: pl.Series, vocab_size: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens, the first of them `END`.

    Whatever the text, it has tokens: the 256 bytes are among them.

    Raises:
        ConfigError: `vocab_size` has no room for the bytes.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise ConfigError(
            f"vocab_size={vocab_size} has no room beside the {len(alphabet)} bytes and {END}; "
            "raise it"
        )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(END, special=True)],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts.to_list(), trainer)
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: pl.Series, max_length: int, end: int) -> Ragged:
    """A row of tokens int32 for each text, at most `max_length` and then `end`.

    Whatever stands in a text is words: a text that holds the name of a special token does not end.
    """
    tokenizer.encode_special_tokens = True
    encoded = tokenizer.encode_batch_fast(texts.to_list(), add_special_tokens=False)
    rows = pl.Series([e.ids for e in encoded], dtype=pl.List(pl.Int32)).list.head(max_length)
    rows = rows.list.concat(pl.Series([[end]], dtype=pl.List(pl.Int32)))
    values = torch.from_numpy(rows.explode().to_numpy(writable=True))
    lengths = rows.list.len().cast(pl.Int64).to_numpy(writable=True)
    return Ragged(values, offsets_of(torch.from_numpy(lengths)))


def tfidf_weights(words: pl.DataFrame) -> pl.DataFrame:
    """How much each word of a text tells of it: `ltc` of Salton & Buckley, 1988.

        weight(t, w) = (1 + ln count(t, w)) ln(N / texts with w),  a text scaled to length 1

    Args:
        words: a row per occurrence, with `text` and `word`; N texts have one.

    Returns:
        `text`, `word` and `weight` (float64), by text and word. What one text alone or every text
        has tells nothing and is left out.
    """
    num_texts = words["text"].n_unique()
    count, texts = pl.col("count"), pl.col("texts")
    weight = (1 + count.log()) * (num_texts / texts).log()
    return (
        words.group_by("text", "word")
        .agg(count=pl.len())
        .sort("text", "word")  # before the sums, whose last digit the order decides
        .with_columns(texts=pl.len().over("word"))
        .filter((texts > 1) & (texts < num_texts))
        .select("text", "word", weight=weight)
        .with_columns(pl.col("weight") / pl.col("weight").pow(2).sum().sqrt().over("text"))
    )


def semantic_vectors(logs: Sequence[tuple[Ragged, Ragged]], num_tokens: int, dim: int) -> Tensor:
    """(V, dim) float32: what a token means, by the company that it keeps.

    Latent semantic analysis (Deerwester et al., "Indexing by latent semantic analysis", 1990) of
    histories as documents: the leading right singular vectors of their TF-IDF, a row per token
    scaled to length 1. Tokens of one document alone, or of all, get zeros; documents that span
    fewer dimensions give zeros in the rest.

    Args:
        logs: of each the tokens of its texts, and its histories as rows of texts.
        num_tokens: V.
    """
    found, first = [], 0
    for texts, histories in logs:
        positions, ends = gather_positions(texts.offsets, histories.values)
        rows = Ragged(texts.values[positions], ends[histories.offsets])
        document = (rows.owners() + first).numpy()
        found.append(pl.DataFrame({"text": document, "word": rows.values.long().numpy()}))
        first += len(rows)
    cells = tfidf_weights(pl.concat(found))
    weight, text, token = (cells[name].to_numpy() for name in ("weight", "text", "word"))
    rows = csr_array((weight, (text, token)), shape=(first, num_tokens))
    directions, strengths = right_singular_vectors(rows, min(dim, *rows.shape))
    directions = directions[:, strengths > NO_STRENGTH * strengths.max(initial=0.0)]
    vectors = torch.zeros(num_tokens, dim)
    known = torch.from_numpy(cells["word"].unique().to_numpy())
    vectors[known, : directions.shape[1]] = torch.from_numpy(directions).float()[known]
    return normalize(vectors, dim=1)


@dataclass(frozen=True, eq=False)
class Documents:
    """B texts end to end, each opened by the end-of-text token, with the places where items end.

    Attributes:
        tokens: (T,) int32.
        offsets: (B + 1,) int64, where each document begins.
        ends: (M,) int64, places of end-of-text tokens in `tokens`, ascending: the opening token of
            a document and the ends of its items.
        end_offsets: (B + 1,) int64, where the ends of each document begin among `ends`.
        items: (M,) int64, the text that ends there, an item's or an event's; m at an opening token.
    """

    tokens: Tensor
    offsets: Tensor
    ends: Tensor
    end_offsets: Tensor
    items: Tensor

    @classmethod
    def of(
        cls, histories: Ragged, item_tokens: Ragged, end: int, *, max_tokens: int | None = None
    ) -> Documents:
        """Histories (B rows of texts) end to end; of a long one the oldest texts are cut.

        Args:
            histories: rows of `item_tokens`, the oldest first; a row may be empty.
            item_tokens: a row per text, of an item or an event, each with its closing token.
            end: the token that opens a document.
            max_tokens: of a document; at least one more than the longest item. None cuts nothing.
        """
        items, owners = histories.values, histories.owners()
        if max_tokens is not None:
            until = offsets_of(item_tokens.lengths[items])
            # Tokens of the history from this item on.
            remaining = until[histories.offsets[1:]][owners] - until[:-1]
            kept = remaining < max_tokens
            items, owners = items[kept], owners[kept]
        counts = torch.bincount(owners, minlength=len(histories))
        # A document is its opening token and its items: n stands for the opening.
        opening = torch.tensor([end], dtype=item_tokens.values.dtype, device=items.device)
        flat = torch.cat([item_tokens.values, opening])
        starts = torch.cat([item_tokens.offsets, item_tokens.offsets[-1:] + 1])
        num_items = len(item_tokens)
        end_offsets = offsets_of(counts + 1)
        pieces = torch.full((len(items) + len(histories),), num_items, device=items.device)
        is_item = torch.ones_like(pieces, dtype=torch.bool)
        is_item[end_offsets[:-1]] = False
        pieces[is_item] = items
        positions, piece_offsets = gather_positions(starts, pieces)
        return cls(
            tokens=flat[positions],
            offsets=piece_offsets[end_offsets],
            ends=piece_offsets[1:] - 1,
            end_offsets=end_offsets,
            items=pieces,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, tokens a document."""
        return self.offsets.diff()

    def to(self, device: torch.device | str) -> Documents:
        return Documents(*(getattr(self, f.name).to(device) for f in fields(self)))

    def last_ends(self) -> Documents:
        """The same documents; of the ends only the last of each, which closes it."""
        last = self.end_offsets[1:] - 1
        every = torch.arange(len(self) + 1, device=last.device)
        return replace(self, ends=self.ends[last], end_offsets=every, items=self.items[last])

    def rows(self, index: Tensor) -> Documents:
        """The documents at `index` (B',) int64, in that order."""
        positions, offsets = gather_positions(self.offsets, index)
        chosen, end_offsets = gather_positions(self.end_offsets, index)
        moved = (offsets[:-1] - self.offsets[index]).repeat_interleave(end_offsets.diff())
        return Documents(
            self.tokens[positions],
            offsets,
            self.ends[chosen] + moved,
            end_offsets,
            self.items[chosen],
        )

    def groups(self, max_tokens: int, *, slack: float = 0.1) -> Iterator[tuple[Tensor, Documents]]:
        """The documents in groups of about equal length, longest first, and which they are.

        Padded to its longest document a group wastes at most `slack` of itself, about half of that
        on average, and holds at most `max_tokens` tokens, or one document.
        """
        descending, order = self.lengths.sort(descending=True, stable=True)
        rising = (-descending).tolist()
        start = 0
        while start < len(rising):
            width = -rising[start]
            alike = bisect_right(rising, -(1 - slack) * width)
            stop = min(alike, start + max(1, max_tokens // width))
            which = order[start:stop]
            yield which, self.rows(which)
            start = stop

    def padded(self) -> tuple[Tensor, Tensor]:
        """Tokens (B, L), padded with 0 at the right, and the place of each end in them (M,)."""
        lengths = self.lengths
        width = int(lengths.max())
        column, _ = ranges(torch.zeros_like(lengths), lengths)
        row = torch.arange(len(self), device=lengths.device).repeat_interleave(lengths)
        tokens = torch.zeros(len(self) * width, dtype=torch.int64, device=lengths.device)
        places = row * width + column
        tokens[places] = self.tokens.long()
        return tokens.view(len(self), width), places[self.ends]


@dataclass(frozen=True, eq=False)
class TokenStream:
    """Documents end to end, read in full rows; none of a row is padding.

    Where there is less text than one row, that row holds all of it, and padding behind.

    Attributes:
        tokens: (T,) int32, in memory or in a memory-mapped file.
        begins: (B,) int64, where documents begin, ascending from 0.
        row_length: L; what is left over after the last full row is not read.
        on_disk: whether `tokens` are a file's; such a stream is not moved to a device.
    """

    tokens: Tensor
    begins: Tensor
    row_length: int
    on_disk: bool = False

    @classmethod
    def of(
        cls,
        histories: Ragged,
        item_tokens: Ragged,
        end: int,
        row_length: int,
        *,
        largest_in_memory: int = 2**28,
    ) -> TokenStream:
        """Whole histories as text.

        Args:
            histories, item_tokens, end: as of `Documents.of`.
            row_length: L.
            largest_in_memory: tokens; a longer stream is written to a file without a name, which
                is gone with the stream.
        """
        sizes = offsets_of(item_tokens.lengths[histories.values])[histories.offsets]
        begins = sizes + torch.arange(len(sizes))
        index = torch.arange(len(histories))
        pieces = (
            Documents.of(histories.rows(rows), item_tokens, end).tokens.int()
            for rows in index.split(DOCUMENTS_AT_ONCE)
        )
        total = int(begins[-1])
        if total <= largest_in_memory:
            return cls(torch.cat(list(pieces)), begins[:-1], row_length)
        with NamedTemporaryFile() as file:
            for piece in pieces:
                file.write(piece.numpy().tobytes())
            file.flush()
            tokens = torch.from_file(file.name, size=total, dtype=torch.int32)
        return cls(tokens, begins[:-1], row_length, on_disk=True)

    def __len__(self) -> int:
        return max(len(self.tokens) // self.row_length, 1)

    def to(self, device: torch.device | str) -> TokenStream:
        if self.on_disk:
            return self
        return replace(self, tokens=self.tokens.to(device), begins=self.begins.to(device))

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and their positions within their document, (R, L) int64 each.

        A document that a row cuts in two begins again in the next row. Padding is tokens 0, each at
        position 0, where nothing is predicted.
        """
        where = self.tokens.device
        width = min(self.row_length, len(self.tokens))
        place = index.to(where)[:, None] * self.row_length
        place = place + torch.arange(width, device=where)
        begin = self.begins[torch.searchsorted(self.begins, place, right=True) - 1]
        positions = place - torch.maximum(begin, place[:, :1])
        found = self.tokens[place].long().to(index.device), positions.to(index.device)
        tokens, positions = (pad(rows, (0, self.row_length - width)) for rows in found)
        return tokens, positions
