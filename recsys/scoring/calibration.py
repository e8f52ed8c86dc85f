"""How likely each item is in a user's next basket: any model's scores as probabilities.

    logit p_ui = f(s_ui) + w^T x_u + b

f is made of lines from knot to knot, each of which rises, and x_u are facts of the user: the log of
the sum of exp(s_uj) over all items, and the logs of how many baskets its history has and of their
mean size. Facts of a user move all its items alike: the order of its items is that of the scores.

Slopes, weights and b are those of a logistic regression on users whose targets the model has not
learnt from: Platt scaling ("Probabilistic Outputs for Support Vector Machines", 1999) with a curve
in the place of its line. The sum of a user's probabilities is then the size that its next basket
is expected to have. A user of whom a model says nothing, whose items all score alike, has those of
popularity: an item's share of all events times the mean size of a target.

Shapes: B users, R pairs of a user and an item, n items, S lines, F facts, C inputs, k places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.batch.loader import Loader
from recsys.devices import place_of
from recsys.errors import DataError
from recsys.scoring.scorer import Scorer
from recsys.types import Scores

NUM_LINES = 6
MOST_USERS = 10_000
"""On whom it is fitted: more take memory, and change no figure."""
NUM_BEST, NUM_DRAWN = 64, 64
"""Of a user the items that score best, all of which count; and about so many of the others."""
LEAST_SLOPE = 1e-3
"""Of a line, in deviations of the targets' scores: an item that scores more is more likely."""
SMOOTH = 1e-6
LARGEST = 1e30
"""Of any number of a file: more, times a score, may be none."""
NUM_FACTS = 3
MOST_ITEMS = 100
"""Of a basket that probabilities make."""
_USERS_AT_ONCE = 256  # whose curves are in double precision


@dataclass(frozen=True, eq=False)
class Calibration:
    """What makes a model's scores probabilities.

    Attributes:
        knots: (S - 1,) scores at which a line ends and the next begins, ascending.
        slopes: (S,) of the lines, above 0.
        weights: (F,) of a user's facts.
        intercept: b.
        size: the mean number of targets of a user, above 0.
        basket_weight: how much what is often bought together counts beside the logits, where some
            of the basket is known already (`recsys.scoring.completion`); None: nobody's says.
    """

    knots: Tensor
    slopes: Tensor
    weights: Tensor
    intercept: float
    size: float
    basket_weight: float | None = None

    def logits(self, scores: Scores, batch: BasketBatch) -> Tensor:
        """(B, n) float64: log odds that an item is in the next basket, from the scores of users."""
        scores = scores.double()
        of_users = _facts(scores, batch) @ self.weights.to(scores.device) + self.intercept
        return self._curve(scores) + of_users[:, None]

    def _curve(self, scores: Tensor) -> Tensor:
        """The curve at scores of any shape: 0 at the first knot."""
        knots, slopes = self.knots.to(scores.device), self.slopes.to(scores.device)
        starts = torch.cat([knots[:1], knots])
        heights = torch.cat([knots.new_zeros(2), (knots.diff() * slopes[1:-1]).cumsum(0)])
        line = torch.bucketize(scores, knots)
        return heights[line] + slopes[line] * (scores - starts[line])

    def as_dict(self) -> dict[str, Any]:
        """Numbers alone, as for JSON."""
        return {n: v.tolist() if isinstance(v, Tensor) else v for n, v in vars(self).items()}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Calibration:
        """What `as_dict` gave, which may come from anybody's file.

        Raises:
            ValueError: it is none.
        """
        if missing := sorted({field.name for field in fields(cls)} - set(values)):
            raise ValueError(f"it lacks {', '.join(missing)}")
        tensors = {name: _numbers(name, values[name]) for name in ("knots", "slopes", "weights")}
        intercept, size = (_numbers(n, [values[n]]).item() for n in ("intercept", "size"))
        weight = values["basket_weight"]
        if weight is not None:
            weight = _numbers("basket_weight", [weight]).item()
        made = cls(**tensors, intercept=intercept, size=size, basket_weight=weight)
        sizes = len(made.knots), len(made.slopes), len(made.weights)
        if not sizes[0] or sizes[1:] != (sizes[0] + 1, NUM_FACTS):
            raise ValueError("knots, slopes and weights are of different lengths")
        if not (made.slopes > 0).all() or (made.knots.diff() < 0).any():
            raise ValueError("the curve does not rise")
        if size <= 0:
            raise ValueError(f"size={size:g}: the mean number of targets must be above 0")
        return made


class Calibrated(Scorer):
    """A model whose scores are log odds: `scores.sigmoid()` are probabilities.

    Args:
        model: fitted.
        calibration: of it.

    >>> split = last_basket(checkerboard())
    >>> model = EASE().fit(split)
    >>> likely = Calibrated(model, calibrate(model, split.validation))
    >>> probabilities = likely.score(split.test.history).sigmoid()
    >>> bool(probabilities.sum(1).mean() - split.test.target.lengths.double().mean() < 0.1)
    True
    """

    def __init__(self, model: Scorer, calibration: Calibration) -> None:
        super().__init__()
        self.model = model
        self.calibration = calibration

    def cells_per_user(self, num_items: int) -> int:
        """What the model takes, or the curve: double precision, and the lines of the scores."""
        return max(self.model.cells_per_user(num_items), 6 * num_items)

    def score(self, batch: BasketBatch) -> Scores:
        scores = self.model.score(batch).double()
        logits = self.calibration.logits(scores, batch)
        if (popularity := self.model.popularity) is None:
            return logits
        share = popularity.double() / popularity.double().sum()
        popular = (self.calibration.size * share).clamp(1e-9, 1 - 1e-9).logit()
        return torch.where(_is_silent(scores)[:, None], popular, logits)


class Rows(NamedTuple):
    """Pairs of a user and an item, for a regression.

    Attributes:
        inputs: (R, C) float64.
        labels: (R,) bool, whether the item was a target.
        weights: (R,) how many pairs each stands for.
    """

    inputs: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, inputs: Tensor, labels: Tensor, weights: Tensor) -> Rows:
        """Of tensors on any device."""
        return cls(*(of.cpu().numpy() for of in (inputs, labels, weights)))

    @classmethod
    def cat(cls, pieces: Sequence[Rows]) -> Rows:
        """One after the other; there is a piece."""
        return cls(*(np.concatenate(columns) for columns in zip(*pieces, strict=True)))


def calibrate(
    model: Scorer, part: Part, *, mask_history: bool = False, seed: int = 0
) -> Calibration:
    """Fit what makes a model's scores probabilities.

    Args:
        model: fitted, on any device.
        part: users with targets that the model has not learnt from, such as those of validation.
        mask_history: leave out items of the history, which lists never hold.
        seed: draws users where there are many, and items.

    Raises:
        DataError: there is no user with a target of whom the model says something.
    """
    pieces = [
        _sample(batch, scores.double(), mask_history, seed + n)
        for n, (batch, scores) in enumerate(scored(model, some_users(part, seed)))
    ]
    if not any(piece.labels.any() for piece in pieces):
        raise DataError(
            f"{type(model).__name__}: no {part.name} user has a target to calibrate it by; train "
            "it on more users"
        )
    return _fitted(Rows.cat(pieces), float(part.target.lengths.double().mean()))


def _sample(batch: Part, scores: Tensor, mask_history: bool, seed: int) -> Rows:
    """Of some users: a pair's score, then the facts of its user."""
    labels = batch.target.dense(scores.shape[1])
    is_open = ~_is_silent(scores)[:, None].expand_as(labels)
    if mask_history:
        is_open = is_open & ~batch.history.ragged.dense(scores.shape[1])
    users, items, weights = sampled_pairs(scores, labels, is_open, seed)
    columns = scores[users, items, None], _facts(scores, batch.history)[users]
    return Rows.of(torch.cat(columns, 1), labels[users, items], weights)


def _fitted(rows: Rows, size: float) -> Calibration:
    """The calibration by rows of scores and facts; `size` is the mean number of targets."""
    scores, of_users = rows.inputs[:, :1], rows.inputs[:, 1:]
    of_targets = scores[rows.labels]
    knots = np.unique(np.quantile(of_targets, np.linspace(0, 1, NUM_LINES + 1)[1:-1]))
    ends = np.r_[-np.inf, knots], np.r_[knots, np.inf]
    lines = np.clip(scores, *ends) - np.clip(knots[0], *ends)
    least = np.full(len(knots) + 1, LEAST_SLOPE / (of_targets.std() or 1.0))
    lowest = np.r_[least, np.full(NUM_FACTS, -np.inf)]
    found, intercept = regression(Rows(np.hstack([lines, of_users]), *rows[1:]), lowest)
    slopes, of_facts = np.split(found, [len(least)])
    slopes = np.maximum(slopes, least)  # of a line on which there is no row
    curve = torch.from_numpy(knots), torch.from_numpy(slopes)
    return Calibration(*curve, torch.from_numpy(of_facts), intercept, size)


@torch.inference_mode()
def scored(model: Scorer, part: Part) -> Iterator[tuple[Part, Scores]]:
    """Some users of a part at a time, on the model's device, and their scores (B, n)."""
    model.eval()
    users = min(model.users_at_once(part.history.num_items), _USERS_AT_ONCE)
    for batch in Loader(part.to(place_of(model)), users):
        yield batch, model.score(batch.history)


def some_users(part: Part, seed: int) -> Part:
    """At most `MOST_USERS` rows of a part, drawn where there are more."""
    if len(part) <= MOST_USERS:
        return part
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))
    return part.to("cpu").rows(order[:MOST_USERS].sort().values)


def sampled_pairs(
    scores: Scores, labels: Tensor, is_open: Tensor, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Users, items and weights (R,): targets, the best items, and a draw of the others.

    Args:
        scores: (B, n).
        labels: (B, n) bool, the targets.
        is_open: (B, n) bool, the pairs that count at all.
        seed: of the draw, each pair of which weighs as many as it stands for.
    """
    num_items = scores.shape[1]
    best = scores.topk(min(NUM_BEST, num_items), dim=1).indices
    is_certain = labels.clone().scatter_(1, best, True)
    share = min(1.0, NUM_DRAWN / num_items)
    draws = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed))
    is_drawn = (draws < share).to(scores.device)
    users, items = (is_open & (is_certain | is_drawn)).nonzero(as_tuple=True)
    return users, items, torch.where(is_certain[users, items], 1.0, 1 / share)


def regression(rows: Rows, least: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients (C,) and intercept of the logistic regression of labels on inputs.

    Args:
        rows: at least one of whose labels is true.
        least: (C,) what each coefficient is at least.
    """
    inputs, labels, weights = rows
    mean, std = inputs.mean(0), inputs.std(0)
    std[std <= 1e-9 * np.abs(inputs).max(0)] = np.inf  # what never varied says nothing
    inputs = (inputs - mean) / std
    share, total = np.average(labels, weights=weights), weights.sum()
    signs = np.where(labels, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        smooth = SMOOTH * parameters[:-1]
        margin = signs * (inputs @ parameters[:-1] + parameters[-1])
        value = weights @ np.logaddexp(0, -margin) / total + smooth @ parameters[:-1] / 2
        slope = -weights * signs * expit(-margin) / total
        return value, np.r_[slope @ inputs + smooth, slope.sum()]

    lowest = np.where(np.isfinite(std), least * np.where(np.isfinite(std), std, 1), 0)
    start = np.r_[np.maximum(lowest, 0), np.log(share / (1 - share))]
    bounds = [*((low, None) for low in lowest), (None, None)]
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-8}
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
    coefficients = found[:-1] / std
    return coefficients, float(found[-1] - mean @ coefficients)


@torch.inference_mode()
def probabilities_of(
    model: Calibrated, histories: BasketBatch, items: Tensor
) -> tuple[Tensor, Tensor]:
    """How likely items (B, k) of lists are, 0 where one is short, and sizes (B,), on the CPU.

    Args:
        model: calibrated.
        histories: of the users.
        items: of each user; -1 is none.
    """
    pieces = [(torch.empty(0, items.shape[1]).double(), torch.empty(0).double())]
    for rows in torch.arange(len(histories)).split(model.users_at_once(histories.num_items)):
        batch = histories.rows(rows).to(place_of(model))
        probabilities = model.score(batch).sigmoid().cpu()
        of_lists = probabilities.gather(1, items[rows].clamp(min=0))
        pieces.append((of_lists.masked_fill(items[rows] < 0, 0), probabilities.sum(1)))
    lists, sizes = zip(*pieces, strict=True)
    return torch.cat(lists), torch.cat(sizes)


def basket_length(probabilities: Tensor, expected_size: Tensor) -> Tensor:
    """(B,) how many of the likeliest items make the basket with the highest expected F1.

    The expectation of the ratio is taken as the ratio of expectations, 2 sum of p / (k + size).

    Args:
        probabilities: (B, k), the highest first.
        expected_size: (B,), the sum of all probabilities of a user.

    >>> basket_length(torch.tensor([[0.9, 0.8, 0.1]]), torch.tensor([2.0])).tolist()
    [2]
    """
    places = torch.arange(1, probabilities.shape[1] + 1, device=probabilities.device)
    return (probabilities.cumsum(1) / (places + expected_size[:, None])).argmax(1) + 1


def _facts(scores: Tensor, batch: BasketBatch) -> Tensor:
    """(B, F): what moves the probabilities of all of a user's items."""
    baskets = batch.num_baskets().clamp(min=1).double()
    size = batch.lengths().clamp(min=1) / baskets
    return torch.stack([scores.logsumexp(1), baskets.log(), size.log()], 1)


def _is_silent(scores: Tensor) -> Tensor:
    """(B,) bool: whether all items of a user score alike, so that a model says nothing of it."""
    return scores.amin(1) == scores.amax(1)


def _numbers(name: str, values: Any) -> Tensor:
    """(…,) float64.

    Raises:
        ValueError: they are no list of finite numbers.
    """
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"{name} is no list of numbers")
    numbers = torch.tensor(values, dtype=torch.float64)
    if not numbers.isfinite().all():
        raise ValueError(f"{name} holds what is no finite number")
    if (numbers.abs() > LARGEST).any():
        raise ValueError(f"{name} holds {numbers.abs().max():.3g}, above {LARGEST:.0e}")
    return numbers
