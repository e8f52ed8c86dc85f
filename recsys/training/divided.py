"""Training with weights that ranks divide: each writes its own, and any number of them reads all.

Tables are divided by rows, where a model asks for it. Of a `Blockwise` model under `strategy=fsdp`
every weight is divided (Zhao et al., "PyTorch FSDP", VLDB 2023; Rajbhandari et al., "ZeRO", SC
2020): a block is gathered when it is called, forward and backward, and its gradient goes back to
the ranks in parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor.parallel import loss_parallel
from torch.nn.parallel import DistributedDataParallel

from recsys import ranks
from recsys.checkpoints import SavedRows, read_checkpoint, write_divided
from recsys.devices import device_of
from recsys.errors import ConfigError
from recsys.nn.embedding import EmbeddingTable, joined_tables, like, sharded
from recsys.scoring.kinds import Blockwise, VectorScorer
from recsys.scoring.recommender import Recommender
from recsys.training.options import TrainingOptions
from recsys.training.true_precision import TruePrecision


class DividedTables(DDPStrategy):
    """Averages the gradients of all weights but those of divided tables, which add them up."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        write_divided(Path(filepath), checkpoint)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: Any = None) -> dict[str, Any]:
        return read_checkpoint(Path(checkpoint_path), whole=False)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        load_weights(self.lightning_module, checkpoint["state_dict"])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        super().load_optimizer_state_dict(checkpoint)
        for optimizer in self.optimizers:
            for weight, state in optimizer.state.items():
                of_rows = {k: v for k, v in state.items() if v.shape == weight.shape}
                state |= {name: like(value, weight) for name, value in of_rows.items()}


class DividedBlocks(DividedTables):
    """Divides all weights, and averages their gradients.

    Lightning's own `ModelParallelStrategy` tells the optimiser's moments by the order of the
    weights in the model, which need not be that in the optimiser.
    """

    def model_to_device(self) -> None:
        """Nothing: weights go there a block at a time, when they are divided."""

    def configure_ddp(self) -> None:
        model = self.lightning_module
        assert isinstance(model, Blockwise)
        mesh = init_device_mesh(self.root_device.type, (ranks.world(),))
        for block in model.blocks():
            fully_shard(block, mesh=mesh)
        numbers = {weight for weight in model.parameters() if weight.ndim == 0}
        for number in numbers:  # of which there are no parts
            number.register_post_accumulate_grad_hook(_average)
        fully_shard(model, mesh=mesh, ignored_params=numbers)
        register_fsdp_forward_method(model, "training_step")
        super().model_to_device()

    def teardown(self) -> None:
        """As for a whole model, which then moves: this one is let go, and may be within a step."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        for part in (self.cluster_environment, self.precision_plugin, self.accelerator):
            part.teardown()
        self.checkpoint_io.teardown()


def _average(weight: Tensor) -> None:
    """Take the mean of all ranks' gradients."""
    assert weight.grad is not None
    weight.grad = ranks.total(weight.grad) / ranks.world()


def load_weights(model: nn.Module, saved: Mapping[str, Tensor | SavedRows]) -> None:
    """Take the weights of a checkpoint: of what is divided the rows of this rank.

    Raises:
        RuntimeError, ValueError: they are another model's.
    """
    weights = model.state_dict()
    state = {name: like(saved[name], weights[name]) for name in saved.keys() & weights.keys()}
    model.load_state_dict({**saved, **state})


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


def check_blocks(model: Recommender, training: TrainingOptions) -> None:
    """Refuse to divide a model that has no blocks, in float16, or with weights of two precisions.

    Raises:
        ConfigError: `strategy=fsdp` is not for this model, or not with this precision.
    """
    if training.strategy != "fsdp":
        return
    if not isinstance(model, Blockwise):
        raise ConfigError(
            f"trainer.strategy=fsdp divides the layers of a decoder, and {type(model).__name__} "
            "has none; set auto"
        )
    if training.precision.startswith("16"):
        raise ConfigError(
            f"trainer.precision={training.precision} scales its gradients, which strategy=fsdp "
            "divides; set bf16-mixed or 32-true"
        )
    dtypes = {weight.dtype for weight in model.parameters()}
    if len(dtypes) > 1 and training.precision not in TruePrecision.DTYPES:
        raise ConfigError(
            f"weights in {', '.join(sorted(map(str, dtypes)))}: strategy=fsdp divides those of one "
            "precision; set model.decoder.dtype=float32, or trainer.precision=bf16-true"
        )
    model.blocks()


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """A block in which ranks can score: by all weights, or by their rows of a table."""
    divided = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in divided:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    with _whole_tables(model):
        yield
    for module in divided:
        module.set_reshard_after_forward(module is not model, recurse=False)
        module.reshard()


def _whole_tables(model: nn.Module) -> AbstractContextManager[None]:
    """A block in which ranks hold all of the tables whose rows they do not search."""
    searches_rows = isinstance(model, VectorScorer) and model.own_items() is not None
    return nullcontext() if searches_rows else joined_tables(model)
