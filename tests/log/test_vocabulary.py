import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import Vocabulary
from recsys.log.vocabulary import UNKNOWN


@given(st.lists(st.one_of(st.integers(-99, 99)), unique=True), st.lists(st.integers(-99, 99)))
def test_index_is_the_place_of_an_id(ids: list[int], lookups: list[int]) -> None:
    vocabulary = Vocabulary(pl.Series(ids, dtype=pl.Int64))
    index = vocabulary.index_of(pl.Series(lookups, dtype=pl.Int64))
    assert index.to_list() == [ids.index(i) if i in ids else UNKNOWN for i in lookups]
    expected_ids = [i if i in ids else None for i in lookups]
    assert vocabulary.ids_of(index).to_list() == expected_ids


def test_padding_is_the_row_after_the_last() -> None:
    vocabulary = Vocabulary(pl.Series(["b", "a"]))
    assert (len(vocabulary), vocabulary.padding) == (2, 2)


@pytest.mark.parametrize(
    ("ids", "lookups", "index"),
    [
        ([7, 42], ["42", "x", None], [1, -1, -1]),
        ([7, 42], [42.0, 42.5, float("nan")], [1, -1, -1]),
        (["7", "42"], [42, 8], [1, -1]),
        (["7", "42"], [42.0, 42.5], [1, -1]),
    ],
)
def test_ids_of_another_type_are_compared_by_value(ids: list, lookups: list, index: list) -> None:
    assert Vocabulary(pl.Series(ids)).index_of(pl.Series(lookups)).to_list() == index


def test_unknown_is_not_the_last_id() -> None:
    assert Vocabulary(pl.Series([7, 42])).ids_of(pl.Series([1, UNKNOWN])).to_list() == [42, None]
