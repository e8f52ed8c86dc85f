"""What a server and its clients send each other: nothing else goes over the line.

Shapes: C clients.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from recsys.errors import RunError

Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Order:
    """What the server sends to a client.

    Attributes:
        weights: to start from.
        round: the number of the round.
        proximal: FedProx's mu: half of it times the squared distance from `weights` is added to
            the loss.
        clip: largest norm of the change that is sent back; None does not clip.
        coin: midpoint and width of the coin's probability; None: who is asked takes part.
    """

    weights: Weights
    round: int = 0
    proximal: float = 0.0
    clip: float | None = None
    coin: tuple[float, float] | None = None

    def to_bytes(self) -> bytes:
        """As safetensors: the weights, and the other fields as their metadata."""
        about = {name: value for name, value in vars(self).items() if name != "weights"}
        return _message(self.weights, "order", about)

    @classmethod
    def from_bytes(cls, message: bytes) -> Order:
        """Read a message of the server's: nothing in it is run.

        Raises:
            RunError: it is no order.
        """
        about, weights = _read(message, "order")
        try:
            coin = about.pop("coin")
            return cls(weights, coin=None if coin is None else tuple(coin), **about)
        except (KeyError, TypeError) as error:
            raise RunError(f"an order says {about}; expected what Order holds alone") from error


@dataclass(frozen=True, eq=False)
class Update:
    """What leaves a client in a round. Nothing else does.

    Attributes:
        takes_part: how the client's coin fell.
        num_examples: that it trained on; 0 where it takes no part, 1 where changes are clipped,
            since privacy covers what a client holds and how much of it.
        change: its weights minus the server's, by name; empty where it takes no part.
    """

    takes_part: bool
    num_examples: int
    change: Weights

    def to_bytes(self) -> bytes:
        """As safetensors: tensors, and the two other fields as their metadata."""
        about = {"takes_part": self.takes_part, "num_examples": self.num_examples}
        return _message(self.change, "update", about)

    @classmethod
    def from_bytes(cls, message: bytes) -> Update:
        """Read a message, which may come from anybody: nothing in it is run.

        Raises:
            RunError: it is no update.
        """
        about, change = _read(message, "update")
        is_update = set(about) == {"takes_part", "num_examples"}
        takes_part, count = (about["takes_part"], about["num_examples"]) if is_update else (0, 0)
        if not isinstance(takes_part, bool) or type(count) is not int or count < 0:
            raise RunError(f"an update says {about}; expected takes_part and num_examples alone")
        return cls(takes_part, count, change)


@dataclass(frozen=True, eq=False)
class Updates:
    """The updates of C clients, side by side.

    Attributes:
        takes_part: (C,) bool.
        num_examples: (C,) int64.
        changes: by name, a row for each client that takes part.
    """

    takes_part: Tensor
    num_examples: Tensor
    changes: Weights

    @classmethod
    def of(cls, messages: list[Update], weights: Weights) -> Updates:
        """Those that came as messages, for a server with these weights.

        Raises:
            RunError: a change is of other weights, or not finite.
        """
        with_change = [message for message in messages if message.takes_part]
        for message in with_change:
            _check_change(message.change, weights)
        takes_part = torch.tensor([message.takes_part for message in messages])
        counts = torch.tensor([message.num_examples for message in messages])
        changes = {
            name: torch.stack([message.change[name] for message in with_change])
            if with_change
            else tensor.new_zeros(0, *tensor.shape)
            for name, tensor in weights.items()
        }
        return cls(takes_part, counts, changes)

    def messages(self) -> list[Update]:
        """One for each client."""
        places = self.takes_part.cumsum(0) - 1
        return [
            Update(part, count, {n: c[place] for n, c in self.changes.items()} if part else {})
            for part, count, place in zip(
                self.takes_part.tolist(), self.num_examples.tolist(), places.tolist(), strict=True
            )
        ]


def _check_change(change: Weights, weights: Weights) -> None:
    for name in {*change, *weights}:
        here, there = weights.get(name), change.get(name)
        if here is None or there is None or here.shape != there.shape or here.dtype != there.dtype:
            raise RunError(f"an update's {name} is not of the server's weights; send their change")
        if not there.isfinite().all():
            raise RunError(f"an update's {name} is not finite; lower the clients' learning_rate")


def _message(tensors: Weights, kind: str, about: dict[str, Any]) -> bytes:
    return save({n: t.contiguous() for n, t in tensors.items()}, {kind: json.dumps(about)})


def _read(message: bytes, kind: str) -> tuple[dict[str, Any], Weights]:
    """What is said beside the tensors, and the tensors.

    Raises:
        RunError: it is no such message.
    """
    try:
        length = int.from_bytes(message[:8], "little")
        about = json.loads(json.loads(message[8 : 8 + length])["__metadata__"][kind])
        return dict(about), load(message)
    except Exception as error:
        raise RunError(f"a message of {len(message)} bytes is no {kind} ({error})") from error
