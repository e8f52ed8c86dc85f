"""Training with tables that ranks divide by rows: whole in checkpoints, which either kind reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.tensor.parallel import loss_parallel
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from recsys import ranks
from recsys.devices import device_of
from recsys.errors import ConfigError
from recsys.nn.embedding import EmbeddingTable, joined_tables, like, sharded, whole
from recsys.scoring.kinds import VectorScorer
from recsys.training.options import TrainingOptions


class DividedTables(DDPStrategy):
    """Averages the gradients of all weights but those of divided tables, which add them up."""

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state = super().optimizer_state(optimizer)
        return pytree.tree_map_only(Tensor, whole, state)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        super().load_optimizer_state_dict(checkpoint)
        for optimizer in self.optimizers:
            for weight, state in optimizer.state.items():
                of_rows = {k: v for k, v in state.items() if v.shape == weight.shape}
                state |= {name: like(value, weight) for name, value in of_rows.items()}


@contextmanager
def divided_tables(model: nn.Module, training: TrainingOptions) -> Iterator[list[EmbeddingTable]]:
    """A block in which ranks hold their rows alone of the tables that are to be sharded.

    Raises:
        ConfigError: an option that reads all gradients at once, or weights of two precisions.
    """
    tables = sharded(model) if ranks.is_joined() else []
    if not tables:
        yield []
        return
    if training.gradient_clip is not None or training.precision != "32-true":
        raise ConfigError(
            f"trainer.gradient_clip={training.gradient_clip} trainer.precision="
            f"{training.precision}: tables that ranks divide need null and 32-true; set shard=false"
        )
    model.to(device_of())  # from where rows do not move
    for table in tables:
        table.divide()
    weights = [id(table.weight) for table in tables]
    names = [name for name, weight in model.named_parameters() if id(weight) in weights]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
    with loss_parallel():
        yield tables
    for table in tables:
        table.join()


def searchable(model: nn.Module) -> AbstractContextManager[None]:
    """A block in which ranks can score: by their rows of a table, or each by all of it."""
    searches_rows = isinstance(model, VectorScorer) and model.own_items() is not None
    return nullcontext() if searches_rows else joined_tables(model)
