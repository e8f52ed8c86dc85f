"""Saved models: what comes back, what is refused, and what is never half-written."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from recsys.batch.examples import Part
from recsys.batch.histories import BasketBatch
from recsys.errors import CatalogueError, ConfigError, RunError, UnknownIdError
from recsys.log.event_log import EventLog
from recsys.models import IALS, ItemKNN, PersonalTop
from recsys.scoring import manifest, saved_model, trained_model
from recsys.scoring.lists import table_of_lists
from recsys.scoring.other_logs import _index_of, known_parts
from recsys.scoring.trained_model import SavedModel
from recsys.tasks.splits import Split, last_basket, leave_last_out
from recsys.testing.logs import checkerboard
from recsys.types import Scores

CONFIG = {"_target_": "recsys.models.ItemKNN"}


def in_words(log: EventLog) -> EventLog:
    """The log with text for ids: `u7` and `i7`."""

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(
            pl.concat_str(pl.lit(column[0]), column).alias(column)
            for column in ("user_id", "item_id")
            if column in frame.columns
        )

    frames = (renamed(frame) for frame in (log.events, log.items, log.users))
    return EventLog.from_frames(*frames)


@pytest.fixture(
    scope="module", params=[checkerboard(), in_words(checkerboard())], ids=["int", "str"]
)
def split(request: pytest.FixtureRequest) -> Split:
    return last_basket(request.param)


@pytest.fixture
def run(split: Split, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    model = ItemKNN().fit(split)
    saved_model.save(folder / "model", model, split, CONFIG, mask_history=True)
    return folder


@pytest.fixture
def saved(run: Path) -> SavedModel:
    return saved_model.load(run)


def rewrite(run: Path, model: Any) -> None:
    path = run / "model/recsys.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model": model}))
    manifest.write(run / "model")  # as whoever does this on purpose would


def test_everything_comes_back(saved: SavedModel, split: Split) -> None:
    fitted = ItemKNN().fit(split)
    history = split.test.history
    assert saved.model.score(history).equal(fitted.score(history))
    assert not saved.model.training
    assert saved.mask_history
    assert saved.item_table.equals(split.item_table)
    assert saved.users.ids.equals(split.users.ids.rename("user_id"))
    for name, value in vars(split.latest).items():
        loaded = getattr(saved.histories, name)
        # What an event was worth is nowhere known here: NaN.
        torch.testing.assert_close(loaded, value, rtol=0, atol=0, equal_nan=True)


def test_users_are_asked_with_everything_the_log_knows(saved: SavedModel, split: Split) -> None:
    users = [split.users.ids[index] for index in (5, 0)]
    lists = saved.recommend(users, k=3)
    assert lists.columns == ["user_id", "rank", "item_id", "title", "score"]
    assert lists["user_id"].to_list() == [users[0]] * 3 + [users[1]] * 3
    assert lists["rank"].to_list() == [1, 2, 3] * 2
    top = saved.model.top_k(split.latest.rows(torch.tensor([5, 0])), 3, mask_history=True)
    assert lists["item_id"].equals(split.items.ids[top.items.flatten().numpy()])
    assert lists["score"].to_list() == top.scores.flatten().tolist()
    titles = split.item_table.filter(pl.col("item_id") == lists["item_id"][0])["title"]
    assert lists["title"][0] == titles.item()


def test_history_is_masked_as_in_the_task_unless_said_otherwise(saved: SavedModel) -> None:
    user = saved.users.ids[0]
    had = set(saved.histories.rows(torch.tensor([0])).items.tolist())
    unmasked = saved.recommend([user], mask_history=False)
    assert {saved.items.ids.to_list().index(i) for i in unmasked["item_id"]} & had
    for masked in (saved.recommend([user]), saved.recommend([user], mask_history=True)):
        assert not {saved.items.ids.to_list().index(i) for i in masked["item_id"]} & had


def test_histories_are_lists_of_items_or_of_baskets(saved: SavedModel, split: Split) -> None:
    a, b, c = split.items.ids.gather([1, 3, 5]).to_list()
    flat = saved.recommend(histories=[[a, b], [], [c]], k=2)
    baskets = saved.recommend(histories=[[[a], [b]], [], [[c]]], k=2)
    others = saved.recommend(histories=((a, b), (), pl.Series([c])), k=2)
    assert flat.equals(baskets)
    assert flat.equals(others)
    assert flat.columns == ["history", "rank", "item_id", "title", "score"]
    assert flat["history"].to_list() == [0, 0, 1, 1, 2, 2]
    batch = BasketBatch.from_lists([[[1], [3]], [], [[5]]], split.num_items)
    top = saved.model.top_k(batch, 2, mask_history=True)
    assert flat["item_id"].equals(split.items.ids[top.items.flatten().numpy()])


def test_baskets_reach_the_model_as_baskets(split: Split, tmp_path: Path) -> None:
    class Latest(PersonalTop):
        def score(self, batch: BasketBatch) -> torch.Tensor:
            return batch.last(1).counts()

    saved = SavedModel(Latest(), split.item_table, split.users, split.latest, False)
    a, b, c = split.items.ids.gather([1, 3, 5]).to_list()
    best = saved.recommend(histories=[[[a], [b, c]]], k=3)
    assert best["score"].to_list() == [1, 1, 0]
    assert set(best["item_id"][:2]) == {b, c}


def test_ids_may_be_written_as_text(saved: SavedModel) -> None:
    users, items = saved.users.ids[:2], saved.items.ids[:2]
    texts = saved.recommend([str(user) for user in users], k=2)
    assert texts.equals(saved.recommend(users.to_list(), k=2))
    as_text = saved.recommend(histories=[[str(item) for item in items]], k=2)
    assert as_text.equals(saved.recommend(histories=[items.to_list()], k=2))


@pytest.mark.parametrize("nobody", [{"user_ids": []}, {"histories": []}])
def test_nobody_is_recommended_nothing(saved: SavedModel, nobody: dict[str, Any]) -> None:
    assert len(saved.recommend(**nobody)) == 0


def test_places_without_an_item_are_left_out() -> None:
    items, scores = torch.tensor([[2, -1], [0, 1]]), torch.tensor([[0.5, -torch.inf], [2, 1]])
    table = pl.DataFrame({"item_id": ["a", "b", "c"]})
    lists = table_of_lists(pl.Series("user_id", [7, 8]), items, scores, table)
    assert lists.rows() == [(7, 1, "c", 0.5), (8, 1, "a", 2.0), (8, 2, "b", 1.0)]


@pytest.mark.parametrize("who", [{}, {"user_ids": [0], "histories": [[0]]}])
def test_users_or_histories_but_not_both(saved: SavedModel, who: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="user_ids, histories or texts; give one"):
        saved.recommend(**who)


def test_unknown_ids_are_named(saved: SavedModel) -> None:
    user_id = saved.users.ids[0]
    with pytest.raises(UnknownIdError, match=r"user_id '?999'? is not among the 60"):
        saved.recommend([str(user_id), "999"], unknown="refuse")
    with pytest.raises(UnknownIdError, match=r"item_id 'milk' is not among the 40"):
        saved.recommend(histories=[[str(saved.items.ids[0])], ["milk"]], unknown="refuse")


def test_more_items_than_the_catalogue_has(saved: SavedModel) -> None:
    with pytest.raises(CatalogueError, match="k=41 exceeds the 40 items"):
        saved.recommend([saved.users.ids[0]], k=41)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "recsys.scoring.saved_model.os.system",
        "recsys.scoring.saved_model.shutil.rmtree",
        "recsys.scoring.saved_model.Path",
        "recsys.scoring.saved_model.build",
        "recsysx.models.ItemKNN",
        "recsys.models.Missing",
        ["os", "system"],
        None,
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_only_classes_of_trusted_packages_are_built(run: Path, target: Any, nested: bool) -> None:
    bad = {"_target_": target, "_args_": ["echo"]}
    rewrite(run, {**CONFIG, "members": [{"deep": bad}]} if nested else bad)
    with pytest.raises(
        ConfigError, match="is nothing that a folder's config may call as a model; if you trust"
    ):
        saved_model.load(run)


def test_an_interpolation_cannot_bring_a_target(run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "called"
    hidden = "${oc.create:{_target_: os.mkdir, path: '" + str(marker) + "'}}"
    rewrite(run, {**CONFIG, "weights": hidden})
    with pytest.raises(ConfigError, match="is an interpolation"):
        saved_model.load(run)
    assert not marker.exists()


def test_a_package_is_trusted_when_it_is_named(run: Path) -> None:
    rewrite(run, {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1})
    with pytest.raises(ConfigError, match=r"torch.nn.Linear is nothing that a folder's config"):
        saved_model.load(run)
    with pytest.raises(ConfigError, match="Linear ranks no catalogue"):  # trusted, and built
        saved_model.load(run, trusted=["torch"])


@pytest.mark.parametrize("name", saved_model.FILES)
def test_a_missing_file_is_named(run: Path, name: str) -> None:
    (run / "model" / name).unlink()
    with pytest.raises(RunError, match=f"holds no finished run: there is no model/{name}"):
        saved_model.load(run)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere holds no finished run"):
        saved_model.load(tmp_path / "nowhere")


@pytest.mark.parametrize("by_accident", [True, False])
@pytest.mark.parametrize("name", saved_model.FILES)
def test_a_damaged_file_is_one_line(run: Path, name: str, by_accident: bool) -> None:
    path = run / "model" / name
    path.write_bytes(path.read_bytes()[:-7])
    if not by_accident:
        manifest.write(run / "model")
    words = "is not the file that was written" if by_accident else "is damaged"
    with pytest.raises(RunError, match=f"{name} {words}|model is damaged") as caught:
        saved_model.load(run)
    assert "\n" not in str(caught.value)


def test_a_bit_that_changed_is_noticed(run: Path) -> None:
    """In a weight, where every other bit would be a weight as well."""
    path = run / "model" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"weights\.safetensors is not the file that was written"):
        saved_model.load(run)
    (run / "model" / "manifest.json").unlink()
    saved_model.load(run)  # as folders were before they had one


def changed(name: str, dtype: Any, values: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series(values, dtype=dtype), "title": "x"})


IDS = list(range(40))
TABLES: list[tuple[str, pl.DataFrame, str]] = [
    ("items", changed("item", pl.Int64, IDS), "no column item_id"),
    ("items", changed("item_id", pl.Int32, IDS), "item_id is Int32; expected Int64 or String"),
    ("items", changed("item_id", pl.Float64, IDS), "item_id is Float64"),
    ("items", changed("item_id", pl.List(pl.Int64), [[i] for i in IDS]), "item_id is List"),
    (
        "items",
        changed("item_id", pl.Int64, [*IDS[:-1], 0]),
        "item_id has none, nulls, or one twice",
    ),
    ("items", changed("item_id", pl.Int64, [*IDS[:-1], None]), "item_id has none, nulls, or one"),
    ("items", changed("item_id", pl.Int64, IDS).clear(), "item_id has none, nulls, or one twice"),
    ("items", changed("item_id", pl.Int64, IDS[:-1]), "items holds 39; expected 0 .. 38"),
    ("items", changed("item_id", pl.Int64, [*IDS, 40]), "expected"),
    ("users", changed("user", pl.Int64, IDS), "no column user_id"),
    ("users", changed("user_id", pl.String, list("ab" * 30)), "user_id has none, nulls, or one"),
    ("users", changed("user_id", pl.Int64, IDS), r"users is \(60,\) .*; expected \(40,\)"),
]


@pytest.mark.parametrize(("name", "table", "words"), TABLES)
def test_tables_that_are_not_of_the_model(
    run: Path, name: str, table: pl.DataFrame, words: str
) -> None:
    table.write_parquet(run / "model" / f"{name}.parquet")
    manifest.write(run / "model")
    with pytest.raises(RunError, match=words):
        saved_model.load(run)


def test_histories_without_a_part_or_with_another(run: Path) -> None:
    path = run / "model" / "histories.safetensors"
    whole = load_file(path)
    for tensors in (
        {name: tensor for name, tensor in whole.items() if name != "log_rows"},
        {**whole, "num_items": torch.tensor(3)},
        {**whole, "more": torch.tensor(3)},
        {**whole, "items": whole["items"] + 1},
    ):
        save_file(tensors, path)
        manifest.write(run / "model")
        with pytest.raises(RunError, match="is damaged"):
            saved_model.load(run)


@pytest.mark.parametrize("masked", ["maybe", None, 1, []])
def test_a_rule_that_is_none(run: Path, masked: Any) -> None:
    path = run / "model" / "recsys.json"
    path.write_text(json.dumps({"model": CONFIG, "mask_history": masked}))
    manifest.write(run / "model")
    with pytest.raises(RunError, match=r"mask_history is .*, neither true nor false"):
        saved_model.load(run)


def test_a_model_of_another_catalogue(split: Split, tmp_path: Path) -> None:
    config = {"_target_": "recsys.models.BPRMF", "num_items": 40, "num_users": 60}
    model = saved_model.build(config)
    saved_model.save(tmp_path / "model", model, split, config, mask_history=True)
    saved_model.load(tmp_path)
    for name, size in (("num_items", 40), ("num_users", 60)):
        for other in (size - 1, size + 1, 10**12, f"{size}", None):
            rewrite(tmp_path, {**config, name: other})
            words = f"{name} is {other} in the config, and {size} in the tables"
            with pytest.raises(RunError, match=words):
                saved_model.load(tmp_path)


def test_an_option_of_another_type_is_one_line(run: Path) -> None:
    rewrite(run, {"_target_": "recsys.models.ItemKNN", "decay": 1.0})
    saved = saved_model.load(run)
    saved.model.decay = "1"  # as a config of no known type might have it
    with pytest.raises(RunError, match=r"ItemKNN cannot be asked .*; if its folder is whole, this"):
        saved.recommend(saved.users.ids[:1].to_list())


def test_events_and_users_of_another_log(split: Split) -> None:
    """They are known by what they are, wherever they stand in that log."""
    saved = SavedModel(PersonalTop().fit(split), split.item_table, split.users, split.latest, False)
    for part, known_part in known_parts(saved, split):
        assert known_part.history.users.equal(part.history.users)
        assert known_part.history.log_rows.equal(part.history.log_rows)
        assert known_part.target is part.target
    log = split.log
    removed_user, last = split.users.ids[7], split.users.ids[-1]
    renamed = "0" if isinstance(last, str) else -5
    events = log.events.filter(pl.col("user_id") != removed_user).with_columns(
        user_id=pl.col("user_id").replace(last, renamed)
    )
    other = last_basket(EventLog.from_frames(events, log.items))
    for part, known_part in known_parts(saved, other):
        ids = other.users.ids_of(pl.Series(part.history.users.numpy()))
        index = pl.Series(known_part.history.users.numpy())
        assert split.users.ids_of(index).to_list() == [None if i == renamed else i for i in ids]
        rows = known_part.history.log_rows
        of_known = (known_part.history.users >= 0)[known_part.history.owners()]
        assert (rows >= 0).equal(of_known)
        there = log.events[rows[of_known].numpy()]
        here = other.log.events[part.history.log_rows[of_known].numpy()]
        assert there.select("user_id", "item_id", "timestamp").equals(
            here.select("user_id", "item_id", "timestamp")
        )
        assert not rows[of_known].equal(part.history.log_rows[of_known])


def test_an_event_that_occurs_twice_keeps_its_place() -> None:
    rows = [("a", 1, 5), ("a", 1, 5), ("a", 2, 6), ("a", 3, 7)]
    rows += [("b", item, time) for time, item in enumerate((1, 2, 1, 3))]
    frame = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    split = leave_last_out(EventLog.from_frames(frame))
    saved = SavedModel(PersonalTop().fit(split), split.item_table, split.users, split.latest, False)
    part, known_part = known_parts(saved, split)[1]
    assert known_part.history.log_rows.equal(part.history.log_rows)
    more = leave_last_out(EventLog.from_frames(pl.concat([frame[:1], frame])))
    _, known_part = known_parts(saved, more)[1]
    assert known_part.history.log_rows.tolist() == [0, 1, -1, 2, 4, 5, 6]


def test_text_is_another_id_than_the_number_that_it_spells(split: Split) -> None:
    saved = SavedModel(PersonalTop().fit(split), split.item_table, split.users, split.latest, False)
    spelt = "7" if split.users.ids.dtype == pl.Int64 else "u7"
    indices = _index_of(saved.users, pl.Series([spelt, "007", "7.0", "nobody"])).to_list()
    assert indices == [split.users.ids.cast(pl.String).to_list().index(spelt), -1, -1, -1]


def test_a_saved_model_is_replaced_whole(run: Path, split: Split) -> None:
    model = PersonalTop().fit(split)
    config = {"_target_": "recsys.models.PersonalTop"}
    saved_model.save(run / "model", model, split, config, mask_history=False)
    assert isinstance(saved_model.load(run).model, PersonalTop)
    assert os.listdir(run) == ["model"]


def test_nothing_is_half_written(run: Path, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in (run / "model").iterdir()}

    def full_disk(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full_disk)
    for folder in (run / "model", run.with_name("new") / "model"):
        with pytest.raises(OSError, match="No space left"):
            saved_model.save(folder, ItemKNN().fit(split), split, CONFIG, mask_history=True)
    assert os.listdir(run) == ["model"]
    assert {path.name: path.read_bytes() for path in (run / "model").iterdir()} == before
    assert os.listdir(run.with_name("new")) == []


def test_no_file_of_a_saved_model_is_a_pickle(run: Path) -> None:
    suffixes = {path.suffix for path in (run / "model").iterdir()}
    assert suffixes == {".json", ".parquet", ".safetensors"}
    shutil.rmtree(run)


class Watched(PersonalTop):
    """Notes how many scores it was asked for at once."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[int] = []

    def score(self, batch: BasketBatch) -> Scores:
        self.cells.append(len(batch) * batch.num_items)
        return super().score(batch)


@pytest.mark.parametrize("users_at_once", [1, 7, 60])
def test_all_users_in_pieces_that_fit(
    users_at_once: int, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[Any] = []

    def track(pieces: Iterable[Part], **options: Any) -> Iterable[Part]:
        bars.append(options["disable"])
        return pieces

    monkeypatch.setattr(trained_model, "track", track)
    model = Watched().fit(split)
    saved = SavedModel(model, split.item_table, split.users, split.latest, True)
    whole = saved.recommend(split.users.ids, k=4)
    assert model.cells == [60 * 40]
    model.cells.clear()
    monkeypatch.setattr("recsys.scoring.scorer.CELLS_AT_ONCE", 40 * users_at_once)
    assert saved.recommend(split.users.ids, k=4, progress=True).equals(whole)
    assert max(model.cells) <= 40 * users_at_once
    assert len(model.cells) == -(-60 // users_at_once)
    assert bars == [True, False]


def test_vectors_in_pieces_are_those_of_all_at_once(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = IALS(embedding_dim=4).fit(split)
    saved = SavedModel(model, split.item_table, split.users, split.latest, True)
    whole = saved.vectors()
    monkeypatch.setattr("recsys.scoring.scorer.CELLS_AT_ONCE", 40 * 7)
    for pieces, once in zip(saved.vectors(), whole, strict=True):
        assert pieces["vector"].to_numpy() == pytest.approx(once["vector"].to_numpy(), abs=1e-6)
