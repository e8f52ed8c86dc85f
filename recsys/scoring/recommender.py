"""A scorer with a loss: what is trained by gradients."""

from __future__ import annotations

from abc import abstractmethod

from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import AdamW, Optimizer

from recsys.batch.examples import Part
from recsys.ranges import at_least
from recsys.scoring.scorer import Scorer
from recsys.tasks.splits import Split


class Recommender(Scorer, LightningModule):
    """A model with a loss, trained by Lightning on batches of users.

    Args:
        learning_rate, weight_decay: of AdamW.

    Raises:
        ConfigError: one of them is negative, infinite or no number.
    """

    def __init__(self, *, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        at_least(0, learning_rate=learning_rate, weight_decay=weight_decay)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    @abstractmethod
    def loss(self, part: Part) -> Tensor:
        """A scalar for a batch of training users, each with a history and a target."""

    def prepare(self, split: Split) -> Part:
        """Start from what the training data says, and return the users to train on.

        By default each training user's last basket as the target of those before it.
        """
        return split.train

    def training_step(self, part: Part, batch_index: int) -> Tensor:
        return self.loss(part)

    def configure_optimizers(self) -> Optimizer:
        return AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
