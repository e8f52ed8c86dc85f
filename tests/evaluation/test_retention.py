"""Differences of answers, and their errors, on counts that are worked out by hand."""

import math

import polars as pl
import pytest

from recsys.evaluation.retention import retention


def answers(task: str, before: str, after: str, chance: float | None = 0.25) -> pl.DataFrame:
    """One row a letter: `x` is right."""
    right = {"before": [c == "x" for c in before], "after": [c == "x" for c in after]}
    schema = {"chance": pl.Float64}
    return pl.DataFrame(
        {"task": [task] * len(before), **right, "chance": [chance] * len(before)},
        schema_overrides=schema,
    )


# 5 questions: differences -1 -1 0 0 +1, mean -1/5, variance (16 + 16 + 1 + 1 + 36) / 25 / 4 = .7.
FIVE = answers("five", "xxx..", "..x.x")
# 3 questions: -1 -1 -1 without spread; 2 questions: +1 0, mean .5, variance .5.
THREE, TWO = answers("three", "xxx", "..."), answers("two", ".x", "xx", 0.5)


def test_a_task() -> None:
    (row,) = retention(FIVE, {}).rows(named=True)
    assert row["task"] == "five"
    assert row["mean"] is None
    assert row["questions"] == 5
    assert (row["chance"], row["before"], row["after"]) == (0.25, 0.6, 0.4)
    assert row["difference"] == pytest.approx(-0.2)
    assert row["error"] == pytest.approx(math.sqrt(0.7 / 5))


def test_a_group_has_a_mean_over_questions_and_one_over_tasks() -> None:
    table = retention(
        pl.concat([FIVE, THREE, TWO]), {"all": ["five", "three", "two"], "x": ["two"]}
    )
    assert table["task"].to_list() == ["five", "three", "two", "all", "all", "x", "x"]
    assert table["mean"].to_list()[3:5] == ["by question", "by task"]
    of_questions, of_tasks = table.filter(task="all").rows(named=True)
    assert of_questions["questions"] == of_tasks["questions"] == 10
    assert of_questions["chance"] == pytest.approx((5 * 0.25 + 3 * 0.25 + 2 * 0.5) / 10)
    assert of_tasks["chance"] == pytest.approx(1 / 3)
    assert of_questions["before"] == pytest.approx(7 / 10)
    assert of_tasks["before"] == pytest.approx((3 / 5 + 1 + 1 / 2) / 3)
    assert of_questions["difference"] == pytest.approx((-1 - 3 + 1) / 10)
    assert of_tasks["difference"] == pytest.approx((-0.2 - 1 + 0.5) / 3)
    squared = (0.7 / 5, 0.0, 0.5 / 2)
    weighed = [n / 10 for n in (5, 3, 2)]
    expected = math.sqrt(sum(w * w * s for w, s in zip(weighed, squared, strict=True)))
    assert of_questions["error"] == pytest.approx(expected)
    assert of_tasks["error"] == pytest.approx(math.sqrt(sum(squared)) / 3)


def test_what_is_not_known_is_not_made_up() -> None:
    one = answers("one", "x", ".", None)
    nobody = answers("none", "..", "x.").with_columns(before=pl.lit(None, pl.Boolean))
    table = retention(pl.concat([one, nobody]), {"all": ["one", "none"]})
    single, alone, of_questions, _ = table.rows(named=True)
    assert (single["difference"], single["error"], single["chance"]) == (-1.0, None, None)
    assert (alone["before"], alone["difference"], alone["error"]) == (None, None, None)
    assert alone["after"] == 0.5
    assert of_questions["after"] == pytest.approx(1 / 3)
    assert (of_questions["before"], of_questions["difference"]) == (None, None)
    assert (of_questions["error"], of_questions["chance"]) == (None, None)
