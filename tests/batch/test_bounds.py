"""Tensors from files: what native code may be handed, and what it may not."""

import re
from typing import Any

import pytest
import torch

from recsys.batch.bounds import check_index, check_offsets, check_tensor


@pytest.mark.parametrize("index", [[0, 4, 2], [], [3]])
def test_indices_in_range(index: list[int]) -> None:
    check_index("items", torch.tensor(index, dtype=torch.int64), 5)
    check_index("items", torch.tensor(index, dtype=torch.int32), 5, dtype=torch.int32)


BAD: list[tuple[Any, str]] = [
    (torch.tensor([0, 5]), "items holds 5; expected 0 .. 4"),
    (torch.tensor([3, -1]), "items holds -1; expected 0 .. 4"),
    (torch.tensor([2**63 - 1]), "items holds 9223372036854775807; expected 0 .. 4"),
    (torch.tensor([-(2**63)]), "items holds -9223372036854775808; expected 0 .. 4"),
    (torch.tensor([1.0]), "items is (1,) torch.float32; expected (1,) torch.int64"),
    (torch.tensor([1], dtype=torch.int32), "items is (1,) torch.int32; expected (1,) torch.int64"),
    (torch.tensor([[1]]), "items is (1, 1) torch.int64; expected (1,) torch.int64"),
    (torch.tensor(1), "items is () torch.int64; expected (1,) torch.int64"),
]


@pytest.mark.parametrize(("index", "words"), BAD)
def test_others(index: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check_index("items", index, 5)


def test_an_index_into_nothing() -> None:
    check_index("items", torch.empty(0, dtype=torch.int64), 0)
    with pytest.raises(ValueError, match="items holds 0"):
        check_index("items", torch.tensor([0]), 0)


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0, 2, 5], None),
        ([0, 0, 5], None),
        ([1, 2, 5], "goes from 1 to 5; expected 0 to 5"),
        ([0, 2, 6], "goes from 0 to 6; expected 0 to 5"),
        ([0, 2, 4], "goes from 0 to 4; expected 0 to 5"),
        ([0, 7, 5], "falls"),
        ([0, -1, 5], "falls"),
        ([0, 2**63 - 1, 5], "falls"),  # whose steps would overflow
        ([0, -(2**63), 5], "falls"),
        ([0, 5], "is (2,) torch.int64; expected (3,)"),
        ([0, 1, 2, 5], "is (4,) torch.int64; expected (3,)"),
    ],
)
def test_offsets(offsets: list[int], words: str | None) -> None:
    tensor = torch.tensor(offsets)
    if words is None:
        check_offsets("offsets", tensor, 2, 5)
        return
    with pytest.raises(ValueError, match=re.escape(f"offsets {words}")):
        check_offsets("offsets", tensor, 2, 5)


def test_types_and_shapes() -> None:
    check_tensor("x", torch.zeros(2, 3), torch.float32, 2, 3)
    check_tensor("x", torch.zeros(2, dtype=torch.bfloat16), torch.float32, 2)
    check_tensor("x", torch.tensor(1), torch.int64)
    for tensor in (torch.zeros(3, 2), torch.zeros(6), torch.zeros(2, 3).long()):
        with pytest.raises(ValueError, match=r"x is .*; expected \(2, 3\) torch\.float32"):
            check_tensor("x", tensor, torch.float32, 2, 3)
