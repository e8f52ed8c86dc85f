"""Vectors of texts from how often their words occur, nothing trained."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import normalize

from recsys.batch.ragged import Ragged, gather_positions
from recsys.batch.sparse import right_singular_vectors

NO_STRENGTH = 1e-6  # of a singular value relative to the largest: rounding


def tfidf_weights(words: pl.DataFrame) -> pl.DataFrame:
    """How much each word of a text tells of it: `ltc` of Salton & Buckley, 1988.

        weight(t, w) = (1 + ln count(t, w)) ln(N / texts with w),  a text scaled to length 1

    Args:
        words: a row per occurrence, with `text` and `word`; N texts have one.

    Returns:
        `text`, `word` and `weight` (float64), by text and word. What one text alone or every text
        has tells nothing and is left out.

    >>> words = pl.DataFrame({"text": [0, 0, 1, 2], "word": [5, 6, 5, 7]})
    >>> tfidf_weights(words).rows()
    [(0, 5, 1.0), (1, 5, 1.0)]
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
    words, first = [], 0
    for texts, histories in logs:
        positions, ends = gather_positions(texts.offsets, histories.values)
        rows = Ragged(texts.values[positions], ends[histories.offsets])
        document = (rows.owners() + first).numpy()
        words.append(pl.DataFrame({"text": document, "word": rows.values.long().numpy()}))
        first += len(rows)
    cells = tfidf_weights(pl.concat(words))
    weight, text, token = (cells[name].to_numpy() for name in ("weight", "text", "word"))
    rows = csr_array((weight, (text, token)), shape=(first, num_tokens))
    directions, strengths = right_singular_vectors(rows, min(dim, *rows.shape))
    directions = directions[:, strengths > NO_STRENGTH * strengths.max(initial=0.0)]
    vectors = torch.zeros(num_tokens, dim)
    weighted_tokens = torch.from_numpy(cells["word"].unique().to_numpy())
    vectors[weighted_tokens, : directions.shape[1]] = torch.from_numpy(directions).float()[
        weighted_tokens
    ]
    return normalize(vectors, dim=1)
