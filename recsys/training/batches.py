"""The batches of an epoch."""

from __future__ import annotations

import torch
from pytorch_lightning import (
    LightningDataModule,
)

from recsys.batch.examples import Part
from recsys.batch.loader import KeptBatches, Loader, MicroBatches
from recsys.scoring.kinds import Separable
from recsys.training.callbacks import epoch_seed
from recsys.training.options import TrainingOptions


class Epochs(LightningDataModule):
    """The training users of a split on the training device, in a new order each epoch or one.

    All ranks draw the same order, and each takes its rows of every batch.
    """

    def __init__(self, part: Part, training: TrainingOptions) -> None:
        super().__init__()
        self.part = part
        self.training = training

    def train_dataloader(self) -> Loader | MicroBatches | KeptBatches:
        assert self.trainer is not None
        self.part = self.part.to(self.trainer.strategy.root_device)
        epoch = self.trainer.current_epoch if self.training.reshuffle else 0
        seed = epoch_seed(self.training.seed, epoch)
        loader = self._divided(
            Loader(self.part, self.training.batch_size, shuffle_seed=seed, by_rank="rows")
        )
        return loader if self.training.reshuffle else KeptBatches(loader)

    def _divided(self, loader: Loader) -> Loader | MicroBatches:
        assert self.trainer is not None
        model = self.trainer.lightning_module
        if self.training.accumulate == 1 or not isinstance(model, Separable):
            return loader
        return MicroBatches(loader, self.training.accumulate, model.num_terms)

    def transfer_batch_to_device(self, batch: Part, device: torch.device, _: int) -> Part:
        """The batch as it is: its tensors are where the part's are."""
        return batch
