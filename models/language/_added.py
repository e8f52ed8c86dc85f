"""What is added to the words of an item: vectors of its id, and of its text by another model.

Shapes: n items, M ends, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from recsys.errors import ConfigError
from recsys.models.sequences.sasrec import ItemVectorTable, TextVectors
from recsys.nn.embedding import EmbeddingTable


@dataclass(frozen=True)
class FrozenTexts:
    """Vectors of the items' texts that another, pretrained model has made; they are not trained.

    Attributes:
        text: how the texts become vectors; None adds none.
        read_words: whether the recommendation also reads the words. Otherwise a history is a row of
            [EOS], each with the vector of its item, an item's state is that vector, and the words
            are left to the language modelling.

    Raises:
        ConfigError: neither words nor vectors are read.
    """

    text: TextVectors | None = None
    read_words: bool = True

    def __post_init__(self) -> None:
        if self.text is None and not self.read_words:
            raise ConfigError(
                "frozen_texts.read_words=false with text=null leaves nothing to read; give text"
            )


class Added:
    """The vectors that the [EOS] which closes an item gets, as they are now.

    Args:
        ids: of item ids, or None.
        texts: of frozen texts, or None.
    """

    def __init__(self, ids: EmbeddingTable | None, texts: ItemVectorTable | None) -> None:
        self.ids, self.texts = ids, texts

    def __bool__(self) -> bool:
        return self.ids is not None or self.texts is not None

    def __call__(self, items: Tensor) -> Tensor:
        """(M, D) of item indices (M,), zeros for n."""
        vectors = [] if self.ids is None else [self.ids(items)]
        if self.texts is not None:
            vectors.append(F.embedding(items, F.pad(self.of_texts, (0, 0, 0, 1))))
        return sum(vectors[1:], start=vectors[0])

    @cached_property
    def of_texts(self) -> Tensor:
        """(n, D): computed once, since all the groups of a batch look it up."""
        assert self.texts is not None
        return self.texts()
