"""A network of users trained for one table, on a run's weights or from scratch."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from recsys.devices import place_of
from recsys.errors import DataError, LeakError
from recsys.evaluation.binary_metrics import auroc
from recsys.log.event_log import EventLog
from recsys.models import FineTuned, ShopperBERT
from recsys.scoring import manifest, saved_model
from recsys.scoring.predictor import Steps
from recsys.scoring.profiles import Profile
from recsys.tasks.as_of import folds
from recsys.tasks.features import check_training, computed
from recsys.tasks.user_attributes import profiling
from recsys.testing.logs import checkerboard, colour_table
from recsys.testing.second_device import second_device


@pytest.mark.parametrize("from_scratch", [False, True])
def test_it_learns_what_tells_users_apart(profile_run: Path, from_scratch: bool) -> None:
    table = colour_table()
    train, test = next(folds(table))
    steps = Steps(learning_rate=0.03, batch_size=12, max_epochs=8, patience=2)
    options: dict[str, Any] = {"run": str(profile_run), "from_scratch": from_scratch}
    options["steps"] = steps
    model = FineTuned(**options).fit(table, train)
    scores = model.predict(table, test)
    assert scores.shape == (len(test), 1)
    labels = table.label_matrix(test)[:, 0].numpy()
    assert auroc(scores[:, 0].numpy(), labels)[0] > 0.95
    model.check_leaks(table, test)
    again = FineTuned(**options).fit(table, train)
    assert again.predict(table, test).equal(scores)


def test_from_scratch_forgets_what_the_run_learnt(profile_run: Path) -> None:
    table = colour_table()
    train, _ = next(folds(table))
    learnt, forgot = (
        FineTuned(run=str(profile_run), from_scratch=f, steps=Steps(max_epochs=0)).fit(table, train)
        for f in (False, True)
    )
    saved = saved_model.load(profile_run).model.state_dict()
    for name, value in learnt.encoder.state_dict().items():
        if name != "fields.item_codes" and name != "item_share":
            assert value.equal(saved[name]), name
    weight = "encoder.blocks.0.projections.weight"
    assert not forgot.encoder.state_dict()[weight].equal(saved[weight])
    assert forgot.encoder.state_dict()["fields.classes_json"].equal(saved["fields.classes_json"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_run_of_any_precision(dtype: torch.dtype, profile_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(profile_run, tmp_path / "run")
    names = dict(saved_model.load(run).model.named_parameters())
    weights = run / "model/weights.safetensors"
    save_file({n: t.to(dtype) if n in names else t for n, t in load_file(weights).items()}, weights)
    manifest.write(weights.parent)
    assert {p.dtype for p in saved_model.load(run).model.parameters()} == {dtype}
    table = colour_table()
    train, test = next(folds(table))
    assert computed(table, Profile(str(run))).dtype == np.float32
    steps = Steps(learning_rate=0.03, batch_size=12, max_epochs=8, patience=2)
    model = FineTuned(run=str(run), steps=steps).fit(table, train)
    assert {p.dtype for p in model.encoder.parameters()} == {torch.float32}
    labels = table.label_matrix(test)[:, 0].numpy()
    assert auroc(model.predict(table, test)[:, 0].numpy(), labels)[0] > 0.95


def test_training_that_diverges_is_an_error(profile_run: Path) -> None:
    table = colour_table()
    train, _ = next(folds(table))
    model = FineTuned(run=str(profile_run), steps=Steps(learning_rate=1e30))
    with pytest.raises(DataError, match="FineTuned: the loss on the rows held out is nan"):
        model.fit(table, train)


def test_what_was_trained_on_later_events_is_refused(profile_run: Path) -> None:
    white = {"white": ["white"]}
    log = checkerboard()
    table = profiling(log, "white", column="colour", classes=white, as_of="2024-01-03")
    with pytest.raises(LeakError, match="was trained on events up to second"):
        FineTuned(run=str(profile_run)).fit(table, torch.arange(9))
    with pytest.raises(LeakError, match="train it on earlier events"):
        computed(table, Profile(str(profile_run)))


def test_a_moment_just_behind_the_last_training_event_is_late_enough(profile_run: Path) -> None:
    until = saved_model.load(profile_run).model.trained_until
    assert until is not None
    log, last, white = checkerboard(), datetime.fromtimestamp(until, UTC), {"white": ["white"]}
    log = log.with_events(log.events.filter(pl.col("timestamp") <= last.replace(tzinfo=None)))
    behind = profiling(log, "white", column="colour", classes=white)
    check_training(behind, Profile(str(profile_run)))
    on = profiling(log, "white", column="colour", classes=white, as_of=f"{last:%Y-%m-%d}")
    with pytest.raises(LeakError, match="was trained on events up to second"):
        check_training(on, Profile(str(profile_run)))


def test_items_are_read_as_they_were_described_before(
    profile_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = checkerboard()
    events = plain.events.with_columns(note=pl.lit(None, pl.String))
    late = events[:1].with_columns(
        timestamp=pl.lit(datetime(2024, 2, 1)).cast(events["timestamp"].dtype), note=pl.lit("late")
    )
    log = EventLog.from_frames(
        pl.concat([events, late]), users=plain.users, item_columns=["note"], name="board"
    )
    assert log.items["note"].drop_nulls().to_list() == ["late"]
    white = {"white": ["white"]}
    table = profiling(log, "white", column="colour", classes=white, as_of="2024-01-20")
    read: list[pl.DataFrame] = []
    monkeypatch.setattr(ShopperBERT, "read_items", lambda _, items: read.append(items))
    FineTuned(run=str(profile_run), steps=Steps(max_epochs=0)).fit(table, torch.arange(9))
    (items,) = read
    assert items["item_id"].equals(log.items["item_id"])
    assert items["note"].null_count() == len(items)


def test_profiles_are_made_on_the_device_in_use(profile_run: Path) -> None:
    table = colour_table()
    rows = table.rows.select("user_id", "as_of")
    expected = Profile(str(profile_run))(table.log, rows)
    with second_device() as there:
        feature = Profile(str(profile_run))
        found = feature(colour_table().log, rows)
        assert place_of(feature.model) == there
    assert found == pytest.approx(expected, abs=1e-5)


def test_profiles_of_a_run_that_is_trained_again(profile_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(profile_run, tmp_path / "run")
    table = colour_table()
    before = computed(table, Profile(str(run)))
    assert computed(table, Profile(str(run))) is before
    weights = run / "model/weights.safetensors"
    changed = {n: -t if t.is_floating_point() else t for n, t in load_file(weights).items()}
    save_file(changed, weights)
    manifest.write(weights.parent)
    after = computed(table, Profile(str(run)))
    assert after.shape == before.shape
    assert not np.allclose(after, before)
