"""What a language model forgot: questions that it answered before it was trained, and after.

The same model answers the same questions twice, so differences are taken question by question: with
d_i in {-1, 0, 1} of n questions, the difference is their mean, and its standard error their
standard deviation (with n - 1) over the square root of n. A group of tasks has two means, which
publications mix up: over all questions, where a task weighs by its size, and over its tasks. Tasks
are apart, so the squared error of both is the sum of squared weights times squared errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

TASK, BEFORE, AFTER, CHANCE = "task", "before", "after", "chance"
BY_QUESTION, BY_TASK = "by question", "by task"
SHARES = (CHANCE, BEFORE, AFTER, "difference")


def retention(answers: pl.DataFrame, groups: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """A row for each task, and two for each group.

    Args:
        answers: a row a question: its `task`, whether it was answered rightly `before` and `after`
            (`before` null where nobody was asked), and the share that guessing would have right,
            `chance` (null where it is not known).
        groups: of tasks, by name.

    Returns:
        `task`, `mean` (null for a task), `questions`, `chance`, `before`, `after`, `difference`,
        and its standard `error`, which one question alone does not tell.

    >>> asked = {"task": ["law"] * 4, "before": [True, True, True, False], "chance": [0.25] * 4}
    >>> answers = pl.DataFrame(asked | {"after": [True, False, False, False]})
    >>> row = retention(answers, {}).row(0, named=True)
    >>> row["before"], row["after"], row["difference"], round(row["error"], 4)
    (0.75, 0.25, -0.5, 0.2887)
    """
    change = pl.col(AFTER).cast(pl.Float64) - pl.col(BEFORE).cast(pl.Float64)
    tasks = answers.group_by(TASK, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("questions"),
        pl.col(CHANCE, BEFORE, AFTER).cast(pl.Float64).mean(),
        change.mean().alias("difference"),
        (change.var() / pl.len()).alias("variance"),
    )
    rows = [tasks.with_columns(mean=pl.lit(None, pl.String)), *_groups(tasks, groups)]
    return pl.concat(rows, how="diagonal").select(
        TASK, "mean", "questions", *SHARES, error=pl.col("variance").sqrt()
    )


def _groups(tasks: pl.DataFrame, groups: Mapping[str, Sequence[str]]) -> Iterable[pl.DataFrame]:
    weights = {BY_QUESTION: pl.col("questions") / pl.col("questions").sum(), BY_TASK: 1 / pl.len()}
    for name, members in groups.items():
        of_group = tasks.filter(pl.col(TASK).is_in(list(members)))
        for mean, weight in weights.items():
            # A sum leaves out what is not known; a group with such a task is not known either.
            known = [pl.col(column).null_count() == 0 for column in (*SHARES, "variance")]
            sums = [(pl.col(column) * weight).sum() for column in SHARES]
            sums.append((pl.col("variance") * weight**2).sum())
            yield of_group.select(
                pl.col("questions").sum(),
                *(pl.when(is_known).then(s) for is_known, s in zip(known, sums, strict=True)),
                task=pl.lit(name),
                mean=pl.lit(mean),
            )
