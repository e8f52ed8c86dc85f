"""RowAdamW against torch's AdamW and SparseAdam, and what it leaves alone."""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer, SparseAdam

from recsys.nn.row_adam import RowAdamW

ROWS, DIM = 7, 3
OPTIONS: dict[str, Any] = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-8}


def parts() -> tuple[nn.Parameter, nn.Parameter]:
    """A table and a dense weight."""
    torch.manual_seed(0)
    sizes = ((ROWS, DIM), (DIM,))
    table, weight = (nn.Parameter(torch.randn(*size, dtype=torch.float64)) for size in sizes)
    return table, weight


def step(
    optimizer: Optimizer, table: Tensor, weight: Tensor, index: Tensor, *, sparse: bool
) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = ((F.embedding(index, table, sparse=sparse) * weight).sum(1) - 1).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def test_with_every_row_in_each_batch_it_is_adamw() -> None:
    ends = []
    for kind, sparse in ((AdamW, False), (RowAdamW, True)):
        table, weight = parts()
        groups = [
            {"params": [weight], "weight_decay": 0.0},
            {"params": [table], "weight_decay": 0.3},
        ]
        optimizer = kind(groups, **OPTIONS)
        for seed in range(20):
            more = torch.randint(ROWS, (5,), generator=torch.Generator().manual_seed(seed))
            index = torch.cat([torch.arange(ROWS), more])
            step(optimizer, table, weight, index, sparse=sparse)
        ends.append((table.detach(), weight.detach()))
    torch.testing.assert_close(*ends, rtol=0.0, atol=1e-12)


def test_with_some_rows_in_a_batch_it_is_sparse_adam() -> None:
    ends = []
    for kind in (SparseAdam, RowAdamW):
        table, weight = parts()
        options = {"weight_decay": 0.0} if kind is RowAdamW else {}
        # SparseAdam adds eps before the moments' start is corrected.
        optimizer = kind([table], **OPTIONS | {"eps": 1e-15} | options)
        for seed in range(20):
            index = torch.randint(ROWS, (4,), generator=torch.Generator().manual_seed(seed))
            step(optimizer, table, weight.detach(), index, sparse=True)
        ends.append(table.detach())
    torch.testing.assert_close(*ends, rtol=0.0, atol=1e-12)


def test_what_no_batch_asks_for_stays_where_it_was() -> None:
    table, weight = parts()
    before = table.detach().clone()
    optimizer = RowAdamW([table, weight], weight_decay=0.5, **OPTIONS)
    step(optimizer, table, weight, torch.tensor([2, 5, 2]), sparse=True)
    others = [0, 1, 3, 4, 6]
    assert torch.equal(table[others], before[others])
    assert not table[[2, 5]].eq(before[[2, 5]]).any()
    assert optimizer.state[table]["exp_avg"][others].eq(0).all()
    assert table.grad is not None
    assert table.grad.is_sparse


def test_it_goes_on_from_what_was_saved() -> None:
    index = torch.tensor([1, 4])
    whole_table, whole_weight = parts()
    whole = RowAdamW([whole_table, whole_weight], **OPTIONS)
    step(whole, whole_table, whole_weight, index, sparse=True)
    table, weight = deepcopy(whole_table), deepcopy(whole_weight)
    resumed = RowAdamW([table, weight], **OPTIONS)
    resumed.load_state_dict(deepcopy(whole.state_dict()))
    for optimizer, of, dense in ((whole, whole_table, whole_weight), (resumed, table, weight)):
        step(optimizer, of, dense, torch.tensor([4, 6]), sparse=True)
    assert torch.equal(table, whole_table)
    assert torch.equal(weight, whole_weight)
