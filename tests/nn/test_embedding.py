"""EmbeddingTable: one matrix, whoever uses it."""

from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.evaluation.ranking import Protocol
from recsys.nn.embedding import EmbeddingTable
from recsys.scoring.kinds import VectorScorer
from recsys.scoring.recommender import Progress, Recommender
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions
from recsys.types import ItemVectors, UserVectors


class Reader(nn.Module):
    """A part of a model that is given its table."""

    def __init__(self, table: EmbeddingTable) -> None:
        super().__init__()
        self.table = table

    def forward(self, index: Tensor) -> Tensor:
        return self.table(index)


class Pair(VectorScorer, Recommender):
    """Scores by the mean of a history's vectors; model and reader each give half of it."""

    def __init__(self, num_items: int) -> None:
        super().__init__(learning_rate=0.1, weight_decay=0.0)
        self.items = EmbeddingTable(num_items, 4)
        self.reader = Reader(self.items)

    def loss(self, part: Part, progress: Progress) -> Tensor:
        scores = self.score(part.history)[part.target.owners()]
        return nn.functional.cross_entropy(scores, part.target.values)

    def encode_users(self, batch: BasketBatch) -> UserVectors:
        both = self.items(batch.items) + self.reader(batch.items)
        total = torch.zeros(len(batch), 4, device=batch.device).index_add(0, batch.owners(), both)
        return total / batch.lengths().clamp(min=1)[:, None]

    def encode_items(self) -> ItemVectors:
        return self.items.vectors


def test_vectors_are_a_view_without_the_padding() -> None:
    table = EmbeddingTable(5, 3)
    assert table.vectors.shape == (5, 3)
    assert table.vectors.data_ptr() == table.weight.data_ptr()
    assert table(torch.tensor([[0, 5]]))[0, 0].equal(table.vectors[0])
    assert not table(torch.tensor(5)).any()


def test_the_padding_takes_no_gradient() -> None:
    table = EmbeddingTable(5, 3)
    table(torch.tensor([1, 5, 5])).sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.sum(1).tolist() == [0, 3, 0, 0, 0, 0]


def test_vectors_start_from_the_normal_distribution_asked_for() -> None:
    torch.manual_seed(0)
    vectors = EmbeddingTable(1000, 50, std=0.3).vectors
    assert abs(vectors.std().item() - 0.3) < 0.005
    assert abs(vectors.mean().item()) < 0.005


def test_who_shares_a_table_steps_it_once() -> None:
    model = Pair(5)
    assert [name for name, _ in model.named_parameters()] == ["items.weight"]
    before = model.items.weight.detach().clone()
    index = torch.tensor([2])
    (model.items(index).sum() + 3 * model.reader(index).sum()).backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    step = before - model.items.weight.detach()
    torch.testing.assert_close(step[2], torch.full((4,), 0.5 * (1 + 3)))
    assert not step[[0, 1, 3, 4, 5]].any()


def test_it_is_one_table_after_fit_save_and_load(tmp_path: Path) -> None:
    split = last_basket(checkerboard())
    torch.manual_seed(0)
    model = Pair(split.num_items)
    table, start = model.items, model.items.weight.detach().clone()
    training = TrainingOptions(max_epochs=2, monitor="ndcg@5", device="cpu")
    fit(model, split, training, Protocol(ks=(5,)))
    assert not model.items.weight.equal(start)
    assert model.reader.table is model.items is table

    save_model(model, str(tmp_path / "weights.safetensors"))
    loaded = Pair(split.num_items)
    load_model(loaded, tmp_path / "weights.safetensors")
    assert loaded.reader.table is loaded.items
    history = split.test.history
    assert loaded.score(history).equal(model.score(history))


def test_a_copied_model_shares_its_own_copy() -> None:
    model = Pair(5)
    copied = deepcopy(model)
    assert copied.reader.table is copied.items is not model.items
