"""The study of trips that were not drawn: none of those that were is tested again."""

import numpy as np
import polars as pl

from benchmarks.alignment.run import STUDIES, losses, slug, undrawn
from recsys.tasks import FeedbackTable, feedback_table
from recsys.testing import checkerboard

STARTS = {"validation": "2024-01-04", "test": "2024-01-05"}


def shown(**options: object) -> FeedbackTable:
    log = checkerboard()
    generator = np.random.default_rng(0)
    rows = [
        {"user_id": user, "item_id": int(item), "day": day, "label": int(item) % 2 == user % 2}
        for user in range(40)
        for day in (2, 4, 5)
        for item in generator.choice(40, 3, replace=False)
    ]
    as_of = pl.datetime(2024, 1, "day").cast(log.events["timestamp"].dtype)
    frame = pl.DataFrame(rows).with_columns(as_of=as_of).drop("day")
    return feedback_table(log, "shown", frame, **STARTS, **options)  # type: ignore[arg-type]


def test_lists_that_were_drawn_are_left_out() -> None:
    whole, before = shown(), shown(max_lists={"test": 15})
    table = undrawn(whole, before, STARTS, {"test": 20})
    lists = ["user_id", "as_of"]
    drawn, tested = (of.rows.filter(phase=2).select(lists) for of in (before, table))
    assert (len(drawn), len(tested)) == (15, 20)
    assert not len(drawn.join(tested, on=lists))
    assert len(undrawn(whole, before, STARTS, {}).rows.filter(phase=2)) == 25
    of_training = [of.frame().filter(phase=0).drop("row") for of in (table, whole)]
    assert of_training[0].equals(of_training[1])


def test_rows_have_losses_and_folders_of_their_own() -> None:
    for study in STUDIES.values():
        assert {row.removesuffix(", anchored") for row in study.rows} <= set(losses(1.0))
        assert len({slug(row) for row in study.rows}) == len(study.rows)
