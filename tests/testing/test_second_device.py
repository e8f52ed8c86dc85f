"""The second device refuses what a GPU refuses, and computes what the processor does."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from recsys.batch.ragged import Ragged
from recsys.batch.sparse import csr, matmul
from recsys.devices import device_of
from recsys.testing.second_device import second_device

HERE = torch.arange(6.0).view(2, 3)


def test_results_are_those_of_the_processor() -> None:
    with second_device() as there:
        moved = HERE.to(there)
        found = (moved @ moved.T).cumsum(1)
        found[0] += torch.tensor(2.0)  # a single number goes with everything
        assert found.device == device_of() == there
        assert found.cpu().tolist() == found.tolist() == [[7.0, 21.0], [14.0, 64.0]]
        assert int(moved.sum()) == 15
        assert moved.cpu().numpy().tolist() == HERE.tolist()


def test_tensors_are_made_there() -> None:
    with second_device() as there:
        made = [
            torch.tensor([1, 2], device=there),
            torch.arange(2, device=there),
            HERE.to(there).new_zeros(2),
            torch.rand(2, device=there),
        ]
        assert all(tensor.device == there for tensor in made)
        assert made[0].tolist() == [1, 2]
        assert torch.zeros(2).device == torch.device("cpu")


def test_a_view_shares_its_storage() -> None:
    with second_device() as there:
        moved = HERE.to(there)
        moved[0].zero_()
        torch.cumsum(moved[1], 0, out=moved[0])
        assert moved.tolist() == [[3.0, 7.0, 12.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: here + there,
        lambda here, there: there @ here.T,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: there[here.long()[0]],
        lambda here, there: nn.functional.embedding(here.long(), there),
        lambda here, there: there.index_add_(0, torch.tensor([0]), there[:1]),
        lambda here, there: torch.where(there > 0, here, 0),
    ],
)
def test_tensors_of_two_devices_are_refused(
    mixed: Callable[[Tensor, Tensor], Tensor], inference: bool
) -> None:
    with torch.inference_mode(inference), second_device() as there:
        moved = HERE.to(there)
        with pytest.raises(RuntimeError, match="on two devices"):
            mixed(HERE, moved)
        moved.copy_(HERE)  # what copies may


def test_numpy_is_refused() -> None:
    with second_device() as there, pytest.raises(RuntimeError, match=r"call cpu\(\) first"):
        HERE.to(there).numpy()


def test_a_module_moves_and_learns_there() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    layer(HERE).sum().backward()
    expected = layer.weight.grad
    layer.weight.grad = None
    with second_device() as there:
        layer.to(there)
        layer(HERE.to(there)).sum().backward()
        assert layer.weight.device == layer.weight.grad.device == there
        with torch.no_grad():
            assert not layer(HERE.to(there)).requires_grad
        assert layer.weight.grad.cpu().equal(expected)


@pytest.mark.parametrize("sparse", [False, True])
def test_sparse_products(sparse: bool) -> None:
    rows = Ragged.from_lists([[0, 2, 2], [], [1]])
    left, right = csr(rows, 3), csr(Ragged.from_lists([[1], [0, 1], [0]]), 2)
    dense = right.to_dense()
    with second_device() as there:
        moved = csr(rows.to(there), 3)
        other = csr(Ragged.from_lists([[1], [0, 1], [0]]).to(there), 2)
        found = matmul(moved, other if sparse else dense.to(there)).cpu()
    assert found.equal(left.to_dense() @ dense)
    assert found.tolist() == [[2.0, 1.0], [0.0, 0.0], [1.0, 1.0]]


def test_outside_of_the_block_its_tensors_are_no_use() -> None:
    with second_device() as there:
        moved = HERE.to(there)
    with pytest.raises(RuntimeError, match="whose device is gone"):
        moved + 1
