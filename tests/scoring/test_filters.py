"""What may be in a list: for everybody, for each user, and what is said of unknown ids."""

from typing import Any

import polars as pl
import pytest

from recsys.errors import ConfigError, DataError, UnknownIdError
from recsys.models import EASE, IALS, ItemKNN
from recsys.scoring.ids import UnknownIdWarning
from recsys.scoring.scorer import ClosedForm
from recsys.scoring.trained_model import SavedModel
from recsys.tasks.splits import last_basket
from recsys.testing.logs import checkerboard

SPLIT = last_basket(checkerboard(num_users=40, num_items=20))


@pytest.fixture(scope="module", params=[EASE(), IALS(embedding_dim=4)], ids=["scores", "vectors"])
def saved(request: pytest.FixtureRequest) -> SavedModel:
    model: ClosedForm = request.param
    return SavedModel(model.fit(SPLIT), SPLIT.item_table, SPLIT.users, SPLIT.latest, False)


def listed(lists: pl.DataFrame, user: int) -> list[int]:
    return lists.filter(user_id=user)["item_id"].to_list()


def in_order(saved: SavedModel, user: int, items: set[int]) -> list[int]:
    """All items of a set as the model ranks them among the whole catalogue."""
    whole = saved.recommend(user, k=20)["item_id"].to_list()
    return [item for item in whole if item in items]


@pytest.mark.parametrize("kind", [list, set, pl.Series, "table", "pandas"])
def test_what_is_allowed_and_denied_to_all(saved: SavedModel, kind: Any) -> None:
    def given(items: list[int]) -> Any:
        frame = pl.DataFrame({"item_id": items})
        if kind == "pandas":
            return frame.to_pandas()
        return frame.lazy() if kind == "table" else kind(items)

    lists = saved.recommend([3, 8], k=4, allow=given([2, 4, 5, 7, 9]), deny=given([4, 7]))
    for user in (3, 8):
        assert listed(lists, user) == in_order(saved, user, {2, 5, 9})
    assert lists["rank"].to_list() == [1, 2, 3] * 2


def test_what_is_allowed_and_denied_to_each(saved: SavedModel) -> None:
    allow = pl.DataFrame({"user_id": [8, 3, 3, 3, 999], "item_id": [1, 5, 2, 9, 1]})
    deny = pl.DataFrame({"user_id": [3, 1], "item_id": ["2", "3"]})
    lists = saved.recommend([3, 8, 1], k=4, allow=allow, deny=deny)
    assert listed(lists, 3) == in_order(saved, 3, {5, 9})
    assert listed(lists, 8) == [1]
    assert listed(lists, 1) == []  # in no row of what is allowed
    lists = saved.recommend([3, 1], k=19, deny=deny)
    assert set(listed(lists, 3)) == {*range(20)} - {2}
    assert set(listed(lists, 1)) == {*range(20)} - {3}


def test_filters_and_the_history_leave_out_together(saved: SavedModel) -> None:
    had = {saved.items.ids[i] for i in SPLIT.latest.rows(SPLIT.latest.users[3:4]).items.tolist()}
    lists = saved.recommend(3, k=20, mask_history=True, deny=[0, 1])
    assert set(lists["item_id"]) == {*range(20)} - had - {0, 1}


def test_lists_of_all_users_are_those_of_each(saved: SavedModel) -> None:
    deny = pl.DataFrame({"user_id": [3], "item_id": [2]})
    pieces = list(saved.recommend_all(k=3, deny=deny, users_at_once=7))
    assert len(pieces) == 6
    assert pl.concat(pieces).equals(saved.recommend(saved.users.ids, k=3, deny=deny))


def test_one_id_is_one_id() -> None:
    log = checkerboard(num_users=40, num_items=20)
    text = pl.concat_str(pl.lit("C-"), pl.col("user_id"))
    split = last_basket(type(log).from_frames(log.events.with_columns(user_id=text), log.items))
    model = EASE().fit(split)
    saved = SavedModel(model, split.item_table, split.users, split.latest, False)
    assert saved.recommend("C-7").equals(saved.recommend(["C-7"]))
    with pytest.raises(
        ConfigError, match=r"history '12' is an id; a history is a list of ids, \['12'"
    ):
        saved.recommend(histories=["12"])


def test_unknown_ids_are_left_out_and_said(saved: SavedModel) -> None:
    with pytest.warns(UnknownIdWarning, match="user_id: 1 of 2 not among the 40 .* first 99; they"):
        lists = saved.recommend([99, 3], k=2)
    assert lists.equals(saved.recommend([3], k=2))
    with pytest.warns(UnknownIdWarning, match="item_id: 2 of 3 .* first 'milk'; histories go"):
        lists = saved.recommend(histories=[["milk", "4"], ["tea"]], k=2)
    assert lists.equals(saved.recommend(histories=[[4], []], k=2))
    with pytest.warns(UnknownIdWarning, match="deny: item_id: 1 of 2 .* first 77; deny goes"):
        lists = saved.recommend(3, k=2, deny=[77, 4])
    assert lists.equals(saved.recommend(3, k=2, deny=4))


def test_where_nothing_that_is_denied_is_known_nothing_is_denied(saved: SavedModel) -> None:
    by_user = pl.DataFrame({"user_id": [3], "item_id": [77]})
    for deny in ([77, 78], by_user):
        with pytest.warns(UnknownIdWarning, match=r"deny: item_id: \d of \d not .* deny goes"):
            assert saved.recommend(3, k=4, deny=deny).equals(saved.recommend(3, k=4))
        with pytest.raises(UnknownIdError, match="deny: item_id 77"):
            saved.recommend(3, deny=deny, unknown="refuse")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"user_ids": [99, 98]}, "user_id 99 is not among the 40"),
        ({"user_ids": [3, 99], "unknown": "refuse"}, "user_id 99 is not among the 40"),
        ({"histories": [["milk"], ["tea"]]}, "item_id 'milk' is not among the 20"),
        ({"user_ids": 3, "allow": [77]}, "allow: item_id 77 is not among the 20"),
        ({"user_ids": 3, "deny": [4, 77], "unknown": "refuse"}, "deny: item_id 77 is not"),
    ],
)
def test_where_nothing_is_known_or_all_should_be(
    saved: SavedModel, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnknownIdError, match=message):
        saved.recommend(**asked)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (
            {"user_ids": 3, "unknown": "drop"},
            ConfigError,
            "unknown=drop; choose among skip, refuse",
        ),
        ({"texts": [["a"]], "deny": [1]}, ConfigError, "not for texts"),
        (
            {"histories": [[1]], "deny": pl.DataFrame({"user_id": [1], "item_id": [1]})},
            ConfigError,
            "histories are nobody's",
        ),
        ({"user_ids": 3, "k": "5"}, ConfigError, "k='5': expected an integer, such as k=10"),
        ({"user_ids": 3, "k": 2.0}, ConfigError, "k=2.0: expected an integer"),
        ({"user_ids": [[3]]}, ConfigError, r"\[3\] is no id; give text or integers"),
        ({"histories": 3}, ConfigError, "histories=3: expected a list of histories"),
        ({"histories": "34"}, ConfigError, "histories='34': expected a list of histories"),
        ({"user_ids": 3, "mask_history": "no"}, ConfigError, "mask_history='no': expected True"),
        ({"user_ids": 3, "rerank": "mmr"}, ConfigError, r"rerank='m': expected MMR\(…\)"),
        (
            {"user_ids": 3, "allow": pl.DataFrame({"sku": [1]})},
            DataError,
            r"allow: no column item_id \(there are: sku\)",
        ),
    ],
)
def test_what_cannot_be_asked(
    saved: SavedModel, asked: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        saved.recommend(**asked)


def test_similar_items_are_of_one_colour_and_never_the_item_itself(saved: SavedModel) -> None:
    lists = saved.similar([4, 7], k=3, deny=[6])
    assert lists.columns == ["item_id", "rank", "similar_id", "title", "score"]
    assert lists["item_id"].to_list() == [4] * 3 + [7] * 3
    assert lists.filter(pl.col("similar_id") % 2 != pl.col("item_id") % 2).is_empty()
    assert not {4, 6} & {*lists.filter(item_id=4)["similar_id"]}
    with pytest.raises(UnknownIdError, match="item_id 99 is not among"):
        saved.similar(99)


def test_similar_by_vectors_is_their_cosine() -> None:
    model = IALS(embedding_dim=4).fit(SPLIT)
    saved = SavedModel(model, SPLIT.item_table, SPLIT.users, SPLIT.latest, False)
    vectors = model.encode_items().double()
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    cosine = (vectors @ vectors[5]).index_fill(0, vectors.new_tensor([5]).long(), -2)
    lists = saved.similar(5, k=4)
    assert lists["similar_id"].to_list() == cosine.topk(4).indices.tolist()
    assert lists["score"].to_list() == pytest.approx(cosine.topk(4).values.tolist())


def test_similar_without_vectors_is_what_follows_the_item_alone() -> None:
    model = ItemKNN().fit(SPLIT)
    saved = SavedModel(model, SPLIT.item_table, SPLIT.users, SPLIT.latest, False)
    alone = saved.recommend(histories=[[5]], k=4, mask_history=True)
    assert saved.similar(5, k=4)["similar_id"].to_list() == alone["item_id"].to_list()
