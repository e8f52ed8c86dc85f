"""A scorer with a loss: what is trained by gradients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import AdamW

from recsys.batch.examples import Part
from recsys.batch.loader import MicroBatch
from recsys.precision import wide
from recsys.ranges import at_least
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split


@dataclass(frozen=True)
class Progress:
    """How far training is.

    Attributes:
        step: steps that were taken.
        num_steps: of the whole training.

    >>> Progress(step=25, num_steps=100).share
    0.25
    """

    step: int
    num_steps: int

    @property
    def share(self) -> float:
        """Of the steps that were taken."""
        return self.step / self.num_steps


class Recommender(Scorer, LightningModule):
    """A model with a loss, trained on batches of users.

    `prepare`, `optimizer` and `loss` are all that a training loop needs. Ours is Lightning's, whose
    own methods come last here.

    Args:
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: one of them is negative, infinite or no number.

    >>> split = last_basket(checkerboard())
    >>> model = SASRec(split.num_items, embedding_dim=8)
    >>> loss = model.loss(model.prepare(split), Progress(step=0, num_steps=100))
    >>> loss.backward()
    >>> all(parameter.grad is not None for parameter in model.parameters())
    True
    """

    def __init__(self, *, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        at_least(0, learning_rate=learning_rate, weight_decay=weight_decay)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    @abstractmethod
    def loss(self, part: Part, progress: Progress) -> Tensor:
        """A scalar for a batch of training users, each with a history and a target."""

    def prepare(self, split: Split) -> Part:
        """Start from what the training data says, and return the users to train on.

        By default each training user's last basket as the target of those before it.
        """
        return split.train

    def optimizer(self, num_steps: int) -> Any:
        """What takes the steps: an optimizer, or one and its schedule as Lightning describes them.

        Args:
            num_steps: of the whole training.
        """
        return AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def training_step(self, part: Part, batch_index: int) -> Tensor:
        loss = self.loss(part, self._progress())
        return wide(loss) * part.weight if isinstance(part, MicroBatch) else loss

    def configure_optimizers(self) -> Any:
        return self.optimizer(self._progress().num_steps)

    def _progress(self) -> Progress:
        """By Lightning's count."""
        return Progress(self.global_step, int(self.trainer.estimated_stepping_batches))
