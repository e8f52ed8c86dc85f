"""Precisions of numbers: what is widened, what a saved state says."""

import pytest
import torch
from torch import Tensor, nn

from recsys.embedding import EmbeddingTable
from recsys.precision import set_precision, set_precision_as_saved, wide

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
def test_wide_is_float32_at_least_and_the_tensor_itself_where_it_is(dtype: torch.dtype) -> None:
    x = torch.tensor([0.1], dtype=dtype)
    assert wide(x).dtype == torch.promote_types(dtype, torch.float32)
    assert (wide(x) is x) == (dtype in (torch.float32, torch.float64))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_a_module_takes_the_precision_of_what_was_saved(dtype: torch.dtype) -> None:
    module, other = network(), network()
    set_precision(module, dtype)
    assert {p.dtype for p in module.parameters()} == {dtype}
    buffers = [b.dtype for b in module.buffers()]
    assert buffers == [torch.float32, torch.float32, torch.int64]
    state = module.state_dict()
    set_precision_as_saved(other, {name: tensor.dtype for name, tensor in state.items()})
    other.load_state_dict(state)
    for name, tensor in other.state_dict().items():
        assert tensor.dtype == state[name].dtype
        assert tensor.equal(state[name]), name


def test_numbers_that_are_no_weights_leave_the_precision() -> None:
    module = nn.Linear(2, 1)
    set_precision_as_saved(module, {"other": torch.float16})
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES)
def test_a_row_that_is_read_often_has_its_whole_gradient(dtype: torch.dtype) -> None:
    """5,000 ones: a half that is added to stops at 256 or 2,048."""
    table = EmbeddingTable(3, 2)
    set_precision(table, dtype)
    rows: Tensor = table(torch.ones(5000, dtype=torch.int64))
    assert rows.dtype == dtype
    rows.sum().backward()
    assert table.weight.grad is not None
    torch.testing.assert_close(
        table.weight.grad[1].float(), torch.full((2,), 5e3), rtol=1e-2, atol=0
    )
