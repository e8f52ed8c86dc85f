from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.batch.ragged import Ragged, gather_positions, offsets_of, ranges

NUM_COLUMNS = 7
lists = st.lists(st.lists(st.integers(0, NUM_COLUMNS - 1), max_size=6), max_size=8)


def as_lists(ragged: Ragged) -> list[list[int]]:
    return [part.tolist() for part in ragged.values.split(ragged.lengths.tolist())]


@given(lists)
def test_lists_come_back(rows: list[list[int]]) -> None:
    ragged = Ragged.from_lists(rows)
    assert len(ragged) == len(rows)
    assert as_lists(ragged) == rows
    assert ragged.offsets.tolist() == [sum(map(len, rows[:u])) for u in range(len(rows) + 1)]


@given(lists)
def test_owners_repeat_each_row_by_its_length(rows: list[list[int]]) -> None:
    owners = Ragged.from_lists(rows).owners()
    assert owners.tolist() == [u for u, row in enumerate(rows) for _ in row]


@given(lists, st.integers(1, 7))
def test_the_last_values_of_each_row(rows: list[list[int]], count: int) -> None:
    assert as_lists(Ragged.from_lists(rows).last(count)) == [row[-count:] for row in rows]


@given(lists.filter(len), st.data())
def test_rows_are_gathered_in_the_order_asked_for(
    rows: list[list[int]], data: st.DataObject
) -> None:
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    gathered = Ragged.from_lists(rows).rows(torch.tensor(index, dtype=torch.int64))
    assert as_lists(gathered) == [rows[u] for u in index]


def test_gather_positions_serves_parallel_values() -> None:
    offsets = torch.tensor([0, 2, 2, 5])
    positions, gathered = gather_positions(offsets, torch.tensor([2, 1, 0, 2]))
    assert positions.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert gathered.tolist() == [0, 3, 3, 5, 8]
    times = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert times[positions].tolist() == [3, 4, 5, 1, 2, 3, 4, 5]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=6))
def test_ranges_one_after_the_other(pairs: list[tuple[int, int]]) -> None:
    starts, lengths = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    rows = Ragged(*ranges(starts, lengths))
    assert as_lists(rows) == [list(range(start, start + length)) for start, length in pairs]


@given(lists)
def test_dense_is_true_where_a_row_holds_the_column(rows: list[list[int]]) -> None:
    dense = Ragged.from_lists(rows).dense(NUM_COLUMNS)
    assert dense.tolist() == [[column in row for column in range(NUM_COLUMNS)] for row in rows]


def test_dense_refuses_a_column_beyond_the_last() -> None:
    with pytest.raises(IndexError, match="index 4 is out of bounds"):
        Ragged.from_lists([[4]]).dense(4)


@given(lists)
def test_distinct_sorts_and_drops_repeats(rows: list[list[int]]) -> None:
    distinct = Ragged.from_lists(rows).distinct(NUM_COLUMNS)
    assert as_lists(distinct) == [sorted(set(row)) for row in rows]


@given(lists, st.data())
def test_contains_is_membership_in_the_row(rows: list[list[int]], data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 4))
    candidate = st.integers(-1, NUM_COLUMNS - 1)
    one_row = st.lists(candidate, min_size=width, max_size=width)
    candidates = data.draw(st.lists(one_row, min_size=len(rows), max_size=len(rows)))
    columns = torch.tensor(candidates, dtype=torch.int64).view(len(rows), width)
    with patch("recsys.batch.ragged._CELLS_AT_ONCE", data.draw(st.sampled_from([1, 20, 2**22]))):
        is_held = Ragged.from_lists(rows).contains(columns, NUM_COLUMNS)
    expected = [[c in row for c in row_c] for row, row_c in zip(rows, candidates, strict=True)]
    assert is_held.tolist() == expected


def test_a_missing_candidate_is_not_the_last_column_of_the_row_before() -> None:
    ragged = Ragged.from_lists([[NUM_COLUMNS - 1], [0]])
    assert ragged.contains(torch.tensor([[0], [-1]]), NUM_COLUMNS).tolist() == [[False], [False]]


def test_offsets_are_running_sums() -> None:
    assert offsets_of(torch.tensor([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets_of(torch.tensor([], dtype=torch.int64)).tolist() == [0]


@pytest.mark.parametrize(
    ("offsets", "named"),
    [
        (lambda: torch.tensor([0, 1], dtype=torch.int32), r"\(2,\) and type torch.int32"),
        (lambda: torch.tensor([[0, 1]]), r"\(1, 2\)"),
        (lambda: torch.tensor([], dtype=torch.int64), r"\(0,\)"),
    ],
)
def test_malformed_offsets_are_named(offsets: Callable[[], torch.Tensor], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Ragged(torch.tensor([5]), offsets())


@pytest.mark.gpu
def test_gathers_on_the_device_of_the_values(cuda: str) -> None:
    ragged = Ragged.from_lists([[3, 1], [], [2]]).to(cuda)
    gathered = ragged.rows(torch.tensor([2, 0], device=cuda))
    assert gathered.values.device.type == "cuda"
    assert as_lists(gathered) == [[2], [3, 1]]
