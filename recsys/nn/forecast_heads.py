"""What a forecaster's numbers mean: heads that turn outputs into distributions of sales.

A network emits `num_parameters` numbers a period, any real ones; a head turns them and the scale of
the series into a distribution, which gives the loss and the samples. The heads are exchangeable.

Sources: Salinas et al., "DeepAR", IJF 2020, for the scaling and the negative binomial; Jørgensen
(1987) for the Tweedie distribution, which `recsys.nn.distributions` has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution, NegativeBinomial, StudentT
from torch.nn.functional import softplus

from recsys.errors import ConfigError, DataError
from recsys.nn.distributions import Tweedie
from recsys.ranges import above

SMALLEST = 1e-4
"""Of a mean or a width, in units of the scale: smaller ones have no gradient to come back by."""


@runtime_checkable
class ForecastHead(Protocol):
    """From a network's outputs to a distribution of what is sold."""

    num_parameters: ClassVar[int]

    def distribution(self, parameters: Tensor, scale: Tensor) -> Distribution:
        """The distribution (...) of outputs (..., num_parameters) and scales (...)."""

    def check(self, values: Tensor) -> None:
        """Raise a `DataError` where series (S, T) can have no such distribution."""


@dataclass(frozen=True)
class StudentTHead:
    """Any real number, with tails that are heavier than the normal's; at least 2 degrees.

    >>> head = StudentTHead()
    >>> head.distribution(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([10.0])).mean
    tensor([10.])
    """

    num_parameters: ClassVar[int] = 3

    def distribution(self, parameters: Tensor, scale: Tensor) -> Distribution:
        place, width, degrees = parameters.unbind(-1)
        width = (softplus(width) + SMALLEST) * scale
        # Above 2 the variance is finite.
        return StudentT(2.1 + softplus(degrees), place * scale, width, validate_args=False)

    def check(self, values: Tensor) -> None:
        """Every series can."""


@dataclass(frozen=True)
class NegativeBinomialHead:
    """Counts whose variance is mean + a mean^2; DeepAR divides a by the root of the scale.

    >>> head = NegativeBinomialHead()
    >>> head.distribution(torch.tensor([[1.0, 0.0]]), torch.tensor([4.0])).mean
    tensor([4.0185])
    """

    num_parameters: ClassVar[int] = 2

    def distribution(self, parameters: Tensor, scale: Tensor) -> Distribution:
        mean, beyond = parameters.unbind(-1)
        mean, beyond = _mean(mean) * scale, (softplus(beyond) + SMALLEST) / scale.sqrt()
        return NegativeBinomial(1 / beyond, logits=(mean * beyond).log(), validate_args=False)

    def check(self, values: Tensor) -> None:
        _refuse_negative(values, "negative binomial")
        if bool((values != values.round()).any()):
            other = values[values != values.round()][0].item()
            raise DataError(
                f"{other:g} is sold in a period, which is no count; choose task.series.measure="
                "units, or head@model.head=forecast_tweedie or forecast_student_t"
            )


@dataclass(frozen=True, kw_only=True)
class TweedieForecastHead:
    """Zeros with a probability of their own, and anything above; suits intermittent sales.

    Args:
        power: between 1 and 2; at 1.5 the density has a closed form, and costs a tenth.

    Raises:
        ConfigError: power is not between 1 and 2.

    >>> head = TweedieForecastHead()
    >>> head.distribution(torch.tensor([[1.0, 0.0]]), torch.tensor([4.0])).mean
    tensor([4.0185])
    """

    power: float = 1.5
    num_parameters: ClassVar[int] = 2

    def __post_init__(self) -> None:
        above(1, power=self.power)
        if self.power >= 2:
            raise ConfigError(f"power={self.power} is not between 1 and 2; 1.5 is usual")

    def distribution(self, parameters: Tensor, scale: Tensor) -> Distribution:
        mean, dispersion = parameters.unbind(-1)
        # Of y / scale, whose variance is that of y over the square of the scale.
        dispersion = (softplus(dispersion) + 100 * SMALLEST) * scale ** (2 - self.power)
        power = torch.full((), self.power, device=scale.device)
        return Tweedie(_mean(mean) * scale, dispersion, power, validate_args=False)

    def check(self, values: Tensor) -> None:
        _refuse_negative(values, "Tweedie")


def _mean(parameter: Tensor) -> Tensor:
    """Above 0, and nearly the parameter itself from .5 on, so that it may be linear in the past."""
    return softplus(parameter, beta=4) + SMALLEST


def _refuse_negative(values: Tensor, name: str) -> None:
    if bool((values < 0).any()):
        raise DataError(
            f"{values.min().item():g} is sold in a period, where more came back than went, and the "
            f"{name} distribution has no negative values; leave returns out of the column that "
            "task.series.measure counts, or choose head@model.head=forecast_student_t"
        )
