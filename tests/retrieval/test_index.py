import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.batch.ragged import Ragged
from recsys.errors import CatalogueError, ConfigError, DataError
from recsys.retrieval import tiles
from recsys.retrieval.divided import within
from recsys.retrieval.faiss import FaissIndex
from recsys.retrieval.index import ExactIndex, ItemIndex
from recsys.retrieval.lists import TopK, merged, top_k

NEVER = -torch.inf
EXACT = (ExactIndex, FaissIndex)


def by_sorting(scores: Tensor, k: int, exclude: list[list[int]] | None = None) -> TopK:
    """Row by row, item by item: what every search must equal."""
    items, best = [], []
    for u, row in enumerate(scores.tolist()):
        out = set(exclude[u]) if exclude else set()
        candidates = [i for i, score in enumerate(row) if i not in out and score > NEVER]
        candidates = sorted(candidates, key=lambda i, row=row: (-row[i], i))[:k]
        items.append(candidates + [-1] * (k - len(candidates)))
        best.append([row[i] for i in candidates] + [NEVER] * (k - len(candidates)))
    shape = (len(scores), k)
    return TopK(
        torch.tensor(items, dtype=torch.int64).view(shape),
        torch.tensor(best, dtype=scores.dtype).view(shape),
    )


def same(top: TopK, expected: TopK) -> None:
    assert top.items.tolist() == expected.items.tolist()
    assert top.scores.tolist() == expected.scores.to(top.scores.dtype).tolist()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inner_products(queries: Tensor, vectors: Tensor) -> Tensor:
    return queries.double() @ vectors.double().T


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles of a small catalogue."""
    monkeypatch.setattr(tiles, "CELLS_PER_THREAD", 1)


@given(st.data())
def test_top_k_is_a_sort_by_score_and_index(data: st.DataObject) -> None:
    users, n = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, n))
    score = st.sampled_from([NEVER, -1.0, 0.0, 0.5, 2.0, torch.inf])
    rows = data.draw(
        st.lists(st.lists(score, min_size=n, max_size=n), min_size=users, max_size=users)
    )
    dtype = data.draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))
    scores = torch.tensor(rows, dtype=dtype).view(users, n)
    out = st.lists(st.lists(st.integers(0, n - 1), max_size=n), min_size=users, max_size=users)
    exclude = data.draw(st.none() | out)
    top = top_k(scores, k, None if exclude is None else Ragged.from_lists(exclude))
    same(top, by_sorting(scores, k, exclude))


@given(st.data())
def test_lists_of_parts_are_merged_to_those_of_the_whole(data: st.DataObject) -> None:
    n, k = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 12))
    k = min(k, n)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    # Few values: many products tie, and some in float32 alone.
    value = st.sampled_from([-1.0, 0.0, 1.0, 2.0**-30])
    draw_rows = st.lists(st.tuples(value, value), min_size=n, max_size=n)
    queries, vectors = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, 1.0]]), data.draw(draw_rows)
    whole = ExactIndex(torch.tensor(vectors))
    out = st.lists(st.lists(st.integers(0, n - 1), max_size=n), min_size=3, max_size=3)
    exclude = Ragged.from_lists(data.draw(out))
    parts = []
    for first, end in zip([0, *cuts], [*cuts, n], strict=True):
        if end > first:
            part, width = ExactIndex(whole.vectors[first:end]), min(k, end - first)
            best = part.best(queries, width, within(exclude, first, end - first))
            items = torch.where(best.items < 0, -1, best.items + first)
            parts.append(TopK(items, best.scores))
    parts = data.draw(st.permutations(parts))
    same(merged(parts, k), whole.best(queries, k, exclude))


def test_top_k_of_one_score_is_the_first_items() -> None:
    assert top_k(torch.zeros(2, 5000), 3).items.tolist() == [[0, 1, 2]] * 2


def test_top_k_leaves_the_scores_as_they_are() -> None:
    scores = random(2, 4)
    before = scores.clone()
    top_k(scores, 2, Ragged.from_lists([[0, 1], [3]]))
    assert scores.tolist() == before.tolist()


def test_top_k_refuses_nan_unless_it_is_no_candidate() -> None:
    scores = torch.tensor([[0.0, 1.0], [torch.nan, 1.0]])
    with pytest.raises(DataError, match="scores of row 1 hold NaN"):
        top_k(scores, 1)
    assert top_k(scores, 1, Ragged.from_lists([[], [0]])).items.tolist() == [[1], [1]]


@pytest.mark.parametrize("k", [0, 313])
def test_k_outside_the_catalogue_is_refused(k: int) -> None:
    message = f"k={k} (exceeds the 312 items in the catalogue; lower k|is not a length of list)"
    with pytest.raises(CatalogueError, match=message):
        top_k(torch.zeros(1, 312), k)
    with pytest.raises(CatalogueError, match=message):
        ExactIndex(random(312, 4)).search(random(1, 4), k)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_row_of_exclusions_for_each_query(rows: int) -> None:
    exclude = Ragged.from_lists([[0]] * rows)
    with pytest.raises(DataError, match=f"exclude holds {rows} rows for 2 queries"):
        top_k(torch.zeros(2, 5), 1, exclude)
    with pytest.raises(DataError, match=f"exclude holds {rows} rows for 2 queries"):
        ExactIndex(random(5, 4)).search(random(2, 4), 1, exclude)


@pytest.mark.parametrize("index", EXACT)
@pytest.mark.parametrize("n", [1, 31, 700])
@pytest.mark.usefixtures("small_tiles")
def test_exact_search_sorts_inner_products(index: type[ItemIndex], n: int) -> None:
    queries, vectors = random(20, 8), random(n, 8, seed=1)
    k = min(n, 25)
    top = index(vectors).search(queries, k)
    expected = by_sorting(inner_products(queries, vectors), k)
    assert top.items.tolist() == expected.items.tolist()
    torch.testing.assert_close(top.scores, expected.scores.float())


@pytest.mark.parametrize("index", EXACT)
@pytest.mark.usefixtures("small_tiles")
def test_ties_go_to_the_lower_index(index: type[ItemIndex]) -> None:
    # Small integers: products are exact, most scores are shared, and one query scores all the same.
    queries, vectors = random(20, 4).round(), random(900, 4, seed=1).round()
    queries[3] = 0
    same(index(vectors).search(queries, 10), by_sorting(inner_products(queries, vectors), 10))


@pytest.mark.parametrize("index", EXACT)
@pytest.mark.usefixtures("small_tiles")
def test_order_that_float32_cannot_see(index: type[ItemIndex]) -> None:
    # 1 + i/2^30 is 1 in float32, and so are all 2,000 scores.
    n = 2000
    vectors = torch.stack([torch.ones(n), torch.arange(n) / 2.0**30], dim=1)
    top = index(vectors).search(torch.ones(2, 2), 5)
    assert top.items.tolist() == [[n - 1, n - 2, n - 3, n - 4, n - 5]] * 2


@pytest.mark.parametrize("index", EXACT)
def test_scores_that_float32_cannot_hold(index: type[ItemIndex]) -> None:
    vectors = torch.arange(500)[:, None] * 1e-30
    top = index(vectors).search(torch.tensor([[1e-30]]), 2)
    assert top.items.tolist() == [[499, 498]]


@pytest.mark.parametrize("index", EXACT)
@pytest.mark.usefixtures("small_tiles")
def test_items_in_ascending_order_of_score(index: type[ItemIndex]) -> None:
    vectors = torch.arange(3000.0)[:, None]
    top = index(vectors).search(torch.tensor([[1.0], [-1.0]]), 3)
    assert top.items.tolist() == [[2999, 2998, 2997], [0, 1, 2]]


@pytest.mark.parametrize("index", EXACT)
@pytest.mark.usefixtures("small_tiles")
def test_excluded_items_are_left_out_inside_the_search(index: type[ItemIndex]) -> None:
    queries, vectors = random(6, 4).round(), random(300, 4, seed=1).round()
    scores = inner_products(queries, vectors)
    best = scores.argsort(dim=1, descending=True)
    exclude = [best[u, : 50 * u].tolist() for u in range(6)]
    exclude[1] *= 2  # an item bought twice
    top = index(vectors).search(queries, 7, Ragged.from_lists(exclude))
    same(top, by_sorting(scores, 7, exclude))


@pytest.mark.parametrize("index", EXACT)
@pytest.mark.parametrize("n", [40, 400])
def test_missing_candidates_are_marked(index: type[ItemIndex], n: int) -> None:
    exclude = Ragged.from_lists([[i for i in range(n) if i not in (3, 30)], [], list(range(n))])
    top = index(torch.arange(float(n))[:, None]).search(torch.ones(3, 1), 3, exclude)
    assert top.items.tolist() == [[30, 3, -1], [n - 1, n - 2, n - 3], [-1, -1, -1]]
    assert top.scores[0].tolist() == [30, 3, NEVER]
    assert top.scores[2].tolist() == [NEVER] * 3


@pytest.mark.parametrize("k", [10, 100])
def test_exact_and_flat_give_the_same_lists(k: int) -> None:
    queries, vectors = random(300, 16), random(10_000, 16, seed=1)
    vectors[5000:] = vectors[:5000]  # every item twice
    lengths = torch.randint(0, 30, (300,), generator=torch.Generator().manual_seed(2))
    histories = Ragged.from_lists([list(range(u, u + int(m))) for u, m in enumerate(lengths)])
    for exclude in (None, histories):
        same(
            ExactIndex(vectors).search(queries, k, exclude),
            FaissIndex(vectors).search(queries, k, exclude),
        )


@pytest.mark.parametrize("index", EXACT)
def test_a_query_alone_finds_what_it_finds_in_company(index: type[ItemIndex]) -> None:
    queries, vectors = random(300, 24), random(4000, 24, seed=1)
    exclude = Ragged.from_lists([[u, u + 5] for u in range(300)])
    searched = index(vectors)
    together = searched.search(queries, 20, exclude)
    for u in (0, 17, 255, 256, 299):
        row = torch.tensor([u])
        alone = searched.search(queries[row], 20, exclude.rows(row))
        same(alone, TopK(together.items[row], together.scores[row]))


def test_no_queries_no_lists() -> None:
    top = ExactIndex(random(50, 4)).search(random(0, 4), 5, Ragged.from_lists([]))
    assert top.items.shape == top.scores.shape == (0, 5)


def test_vectors_are_searched_where_they_lie() -> None:
    table = torch.nn.Embedding(51, 4)
    assert ExactIndex(table.weight[:50]).vectors.data_ptr() == table.weight.data_ptr()


def test_half_precision_is_converted() -> None:
    queries, vectors = random(3, 4), random(50, 4, seed=1)
    top = ExactIndex(vectors.bfloat16()).search(queries.bfloat16(), 5)
    same(top, ExactIndex(vectors.bfloat16().float()).search(queries.bfloat16().float(), 5))


@pytest.mark.parametrize("index", EXACT)
def test_mixed_precision_around_a_search_changes_nothing(index: type[ItemIndex]) -> None:
    queries, vectors = random(200, 64), random(5000, 64, seed=1)
    expected = index(vectors).search(queries, 30)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            same(index(vectors).search(queries.requires_grad_(), 30), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("index", EXACT)
def test_values_that_are_not_finite_are_refused(index: type[ItemIndex]) -> None:
    vectors = random(10, 4)
    queries = random(300, 4)
    queries[270, 1] = torch.nan
    with pytest.raises(DataError, match="queries hold NaN or infinity, first in row 270"):
        index(vectors).search(queries, 5)
    vectors[7, 0] = torch.inf
    with pytest.raises(DataError, match="item vectors hold NaN or infinity, first in row 7"):
        index(vectors)


def recall_of(index: FaissIndex, queries: Tensor, k: int = 10) -> float:
    items = index.search(queries, k).items
    truth = ExactIndex(index.vectors).search(queries, k).items
    return (items[:, :, None] == truth[:, None]).any(2).double().mean().item()


def test_cells_of_an_ivf_are_searched_as_asked() -> None:
    queries, vectors = random(100, 16), random(4000, 16, seed=1)
    one, eight, every = (
        FaissIndex(vectors, factory="IVF16,Flat", parameters=f"nprobe={cells}")
        for cells in (1, 8, 16)
    )
    assert recall_of(one, queries) < recall_of(eight, queries) < 1
    assert recall_of(every, queries) == 1
    assert not one.exact


def test_candidates_of_an_hnsw_are_searched_as_asked() -> None:
    queries, vectors = random(100, 16), random(4000, 16, seed=1)
    few, many = (
        FaissIndex(vectors, factory="HNSW8", parameters=f"efSearch={n}") for n in (10, 400)
    )
    assert recall_of(few, queries) < recall_of(many, queries)
    assert recall_of(many, queries) > 0.95


@pytest.mark.parametrize("factory", ["IVF8,Flat", "HNSW16"])
def test_approximate_lists_are_in_order_and_exclude(factory: str) -> None:
    queries, vectors = random(50, 8), random(2000, 8, seed=1)
    index = FaissIndex(vectors, factory=factory)
    best_items = index.search(queries, 5).items
    exclude = Ragged(best_items.flatten(), torch.arange(0, 251, 5))
    top = index.search(queries, 20, exclude)
    assert not exclude.contains(top.items, 2000).any()
    real = top.items >= 0
    assert (top.scores.diff(dim=1).nan_to_num(0) <= 0).all()
    exact = inner_products(queries, vectors).gather(1, top.items.clamp(min=0)).float()
    torch.testing.assert_close(top.scores[real], exact[real])


def test_places_that_an_ivf_cannot_fill_are_marked() -> None:
    index = FaissIndex(random(400, 4), factory="IVF10,Flat", parameters="nprobe=1")
    top = index.search(random(5, 4, seed=1), 300)
    assert (top.items[:, -1] == -1).all()
    assert (top.scores[:, -1] == NEVER).all()
    assert (top.items[:, 0] >= 0).all()


@pytest.mark.parametrize(
    ("factory", "parameters"), [("Flatt", ""), ("Flat", "nprob=3"), ("IVF64,Flat", "")]
)
def test_what_faiss_refuses_is_named(factory: str, parameters: str) -> None:
    with pytest.raises(
        ConfigError, match=f"factory='{factory}' with parameters='{parameters}' .*30 items"
    ):
        FaissIndex(random(30, 4), factory=factory, parameters=parameters)


def test_without_faiss_its_index_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"install faiss-cpu, or .* retrieval=exact"):
        FaissIndex(torch.randn(3, 2))


def test_the_global_setting_of_faiss_is_put_back() -> None:
    faiss = pytest.importorskip("faiss")
    before = faiss.cvar.distance_compute_blas_threshold
    FaissIndex(random(30, 4)).search(random(2, 4), 3)
    assert faiss.cvar.distance_compute_blas_threshold == before != 20


@pytest.mark.gpu
@pytest.mark.parametrize("index", EXACT)
def test_a_gpu_finds_the_same_items(index: type[ItemIndex], cuda: str) -> None:
    if index is FaissIndex:
        pytest.importorskip("faiss")
    queries, vectors = random(300, 32), random(50_000, 32, seed=1)
    exclude = Ragged.from_lists([[u] for u in range(300)])
    torch.set_float32_matmul_precision("high")
    try:
        top = index(vectors.to(cuda)).search(queries.to(cuda), 50, exclude.to(cuda))
    finally:
        torch.set_float32_matmul_precision("highest")
    expected = ExactIndex(vectors).search(queries, 50, exclude)
    assert top.items.tolist() == expected.items.tolist()


@pytest.mark.gpu
@pytest.mark.parametrize(("factory", "k"), [("HNSW32", 10), ("IVF16,Flat", 10), ("Flat", 3000)])
def test_faiss_searches_vectors_on_a_gpu_where_it_can(factory: str, k: int, cuda: str) -> None:
    """A graph is searched on the CPU, and so are lists longer than its kernels find."""
    pytest.importorskip("faiss")
    queries, vectors = random(20, 16), random(5_000, 16, seed=1)
    top = FaissIndex(vectors.to(cuda), factory=factory).search(queries.to(cuda), k)
    expected = FaissIndex(vectors, factory=factory).search(queries, k)
    assert (top.items.cpu() == expected.items).double().mean() > 0.9
