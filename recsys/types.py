"""Axis words and shape aliases: the one legend of every tensor signature in the package.

Words of a shape, as jaxtyping reads them::

    batch      the rows of one batch          B in shape suffixes
    users      users, one row each            U
    items      the catalogue, 0 … n-1         I
    length     positions of a sequence        L
    events     events of a batch, flattened   E
    dim        an embedding or hidden state   D
    k          ranked places, best first      K

A word means one size throughout a call: ``Float[Tensor, "users dim"]`` beside
``Float[Tensor, "items dim"]`` asks that both have the same ``dim``. Tests check the shapes as
they run; outside of tests they cost nothing.
"""

from typing import TypeAlias

from jaxtyping import Bool, Float, Int64
from torch import Tensor

Scores: TypeAlias = Float[Tensor, "users items"]
"""A score for every user and item of the catalogue; higher is better, -inf is excluded."""

UserVectors: TypeAlias = Float[Tensor, "users dim"]
ItemVectors: TypeAlias = Float[Tensor, "items dim"]

TopItems: TypeAlias = Int64[Tensor, "users k"]
"""Item indices, best first."""

Hits: TypeAlias = Bool[Tensor, "users k"]
"""Whether the item at each place is one of the user's targets."""
