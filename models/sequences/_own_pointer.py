"""Own pointer: which of its own past events a user repeats, by a few numbers that all users share.

A pointer with a sentinel (Merity et al., Pointer Sentinel Mixture Models, ICLR 2017) whose pointer
has no network: the weight of an event is a sum of a few of its features. The features are of the
user, and stay on its device; how much each of them counts is learnt from all users.

    g_k   = a(age_k) + w f_k      of the user's event k, of item i_k
    c     = s_0 + s_1 log(events) + s_2 log(distinct items)
    p(j)  = (sum over k of [i_k = j] exp(g_k) + exp(c) q(j)) / (sum over k of exp(g_k) + exp(c))

a is piecewise linear in the logarithm of how many events ago k was; q is what the user's own events
do not say, such as a network's probabilities. f_k says whether k came after the item where the user
is now, after the two and the three where it was last; whether its item is one of these; how long
ago it was; and how far the time of day and of the week were from those of the last event.

Shapes: C clients, B rows, K events, latest first, F features, n items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.batch.histories import BasketBatch
from recsys.models.sequences._recent import recent_items, recent_times
from recsys.precision import wide
from recsys.ranges import above, at_least

NEVER = -1e4  # the logarithm of no weight at all; finite, for the gradients' sake
NUM_LAST = 3


class OwnPointer(nn.Module):
    """Weights of a user's own events, and of what they do not say.

    Args:
        max_events: K, of a user's own.
        day: in the log's units of time, 86,400 where they are seconds; None reads no times.

    Raises:
        ConfigError: an option is out of its range.
    """

    def __init__(self, *, max_events: int = 256, day: float | None = 86_400.0) -> None:
        super().__init__()
        at_least(NUM_LAST, max_events=max_events)
        above(0, day=day)
        self.max_events = max_events
        self.day = day
        knots = math.ceil(math.log2(max_events)) + 1
        self.ages = nn.Parameter(torch.zeros(knots))
        self.events = nn.Parameter(torch.zeros(2 * NUM_LAST + 1 + (0 if day is None else 10)))
        self.sentinel = nn.Parameter(torch.zeros(3))

    def inputs(self, batch: BasketBatch) -> dict[str, Tensor]:
        """What `forward` reads of B histories.

        `own_items` (B, K), latest first, n where there is none; `own_sizes` (B, 3), a one and the
        logarithms of how many events and distinct items these are; and with times `own_days`
        (B, K), since each.
        """
        items = recent_items(batch, self.max_events)
        inputs = {"own_items": items.int(), "own_sizes": _sizes(items, batch.num_items)}
        if self.day is None:
            return inputs
        times = recent_times(batch, self.max_events)
        return inputs | {"own_days": ((times[:, :1] - times) / self.day).float()}

    def forward(
        self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], num_items: int
    ) -> tuple[Tensor, Tensor]:
        """The logarithms of the weights of events (C, B, K) and of the rest (C, B).

        Args:
            weights: by name, each (C, …).
            inputs: (C, B, K) each.
            num_items: n.
        """
        items = inputs["own_items"]
        features = self._features(items, inputs.get("own_days"), num_items)
        ages = weights["ages"] @ self._hats().T
        of_events = weights["events"][:, None] @ features.to(ages).flatten(2)
        g = ages[:, None] + of_events.view_as(items)
        rest = (inputs["own_sizes"].to(ages) @ weights["sentinel"][..., None]).squeeze(-1)
        return wide(g).masked_fill(items == num_items, NEVER), wide(rest)

    @torch.no_grad()
    def _features(self, items: Tensor, days: Tensor | None, num_items: int) -> Tensor:
        """(C, F, B, K)."""
        length = items.shape[-1]
        padded = F.pad(items, (0, NUM_LAST), value=num_items)
        last = [items[..., m : m + 1] for m in range(NUM_LAST)]
        follows = [padded[..., m : m + length] == item for m, item in enumerate(last, 1)]
        for m in range(1, NUM_LAST):
            follows[m] &= follows[m - 1]
        features = [f.float() for f in (*follows, *(items == item for item in last))]
        features.append(features[0] * (self._log_ages() / 3))
        if days is not None:
            since = (days * 24).log1p() / 3
            features += [features[0] * since, since, *_turns(days), *_turns(days / 7)]
        return torch.stack(features, 1)

    def _log_ages(self) -> Tensor:
        """(K,) of 1, 2, … events ago."""
        return torch.arange(1, self.max_events + 1, device=self.ages.device).log2()

    def _hats(self) -> Tensor:
        """(K, knots) how much of each age is at each knot; a row sums to 1."""
        knots = torch.arange(len(self.ages), device=self.ages.device)
        return (1 - (self._log_ages()[:, None] - knots).abs()).clamp(min=0).to(self.ages)


def _turns(x: Tensor) -> list[Tensor]:
    """Cosine and sine of x turns, and of 2x."""
    cos, sin = (2 * math.pi * x).cos(), (2 * math.pi * x).sin()
    return [cos, sin, 2 * cos.square() - 1, 2 * cos * sin]


def _sizes(items: Tensor, num_items: int) -> Tensor:
    """(B, 3) float32: 1, log(1 + events), log(1 + distinct items) of items (B, K)."""
    ascending = items.sort(dim=1).values
    is_new = F.pad(ascending[:, 1:] != ascending[:, :-1], (1, 0), value=True)
    is_item = ascending < num_items
    counts = [is_item.sum(1), (is_new & is_item).sum(1)]
    logs = [count.float().log1p() for count in counts]
    return torch.stack([torch.ones_like(logs[0]), *logs], 1)
