"""Attention of rows of unequal length, against each row alone."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.batch.ragged import Ragged, offsets_of
from recsys.nn.attention import Layout


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(any))
def test_attention_of_each_row_is_that_of_the_row_alone(lengths: list[int]) -> None:
    torch.manual_seed(0)
    heads, dim = 2, 6
    offsets = offsets_of(torch.tensor(lengths))
    x = torch.randn(sum(lengths), 3 * dim, dtype=torch.float64)
    layout = Layout.of(Ragged(x, offsets))
    output = layout.attention(x, heads)
    for begin, end in offsets.unfold(0, 2, 1).tolist():
        cells = x[begin:end].view(1, end - begin, 3, heads, dim // heads)
        query, key, value = cells.permute(2, 0, 3, 1, 4)
        alone = F.scaled_dot_product_attention(query, key, value)
        torch.testing.assert_close(output[begin:end], alone.transpose(1, 2).reshape(-1, dim))


def test_rows_of_like_length_share_a_group_and_leave_little_padding() -> None:
    lengths = torch.arange(1, 401)
    rows = Ragged(torch.zeros(int(lengths.sum())), offsets_of(lengths))
    layout = Layout.of(rows)
    assert len(layout.token) == sum(count * width for count, width in layout.shapes)
    assert layout.padding < 0.06  # of rows of one width it would be 0.5
    alike = Layout.of(Ragged(torch.zeros(40), offsets_of(torch.full((5,), 8))))
    assert alike.padding == 0
