"""What a run prints: rich tables of logs, metrics and recommendations.

Titles, ids and names are whatever a log or a folder holds. They are printed as they are: as `Text`,
in which brackets and colons are no markup, and with control characters in sight (`literal`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from recsys.batch.examples import Part
from recsys.evaluation.prediction import TableResult, level
from recsys.evaluation.ranking import Evaluation, Protocol
from recsys.evaluation.statistics import level_with_best
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE, WORDS, EventLog
from recsys.report.screen import WideTable, literal, short
from recsys.retrieval.lists import TopK
from recsys.tasks.phases import TEST
from recsys.tasks.splits import Split

SHOWN = ("recall", "ndcg", "phr", "mrr")
FEW = 0.01
MANY = 20


def describe(split: Split, protocol: Protocol) -> str:
    """One line: the log, its sizes, its parts and how it is asked."""
    parts = (split.validation, split.test)
    *sizes, events = split.counts([*map(len, parts), len(split.events)])
    counts = ", ".join(f"{n:,} {part.name}" for n, part in zip(sizes, parts, strict=True))
    rows = "steps of users" if split.every_step else "users"
    return (
        f"{split.log.name}: {len(split.users):,} users, {split.num_items:,} items, "
        f"{events:,} events; asked: {counts} {rows}; {history_rule(protocol)}"
    )


def ties(split: Split) -> Iterator[str]:
    """A line where targets of the test users tie in time with the event before them.

    The order of such events is the file's. A few tie by chance, and are not worth a line.
    """
    events, times = split.events, split.log.events[TIME]
    user, time = events["user"], times.gather(events["log_row"])
    is_target = (events["phase"] == TEST) & events["target"]
    of_user = (user == user.shift()).fill_null(False)
    first = is_target & ~(of_user & is_target.shift())
    tied = (of_user & (time == time.shift())).filter(first)
    count, num_users = split.counts([int(tied.sum()), len(tied)])
    share = count / max(num_users, 1)
    if share < FEW:
        return
    by_basket = bool((of_user & (events["basket"] == events["basket"].shift())).any())
    basket = "" if BASKET in split.log.events.columns else " data.columns.basket_id=COLUMN"
    remedy = f"; task=next_basket{basket} asks for whole baskets, such as those of a day"
    yield (
        f"{share:.0%} of the {num_users:,} test users have a target with the timestamp of the "
        f"event before it: their order is the file's{'' if by_basket else remedy}"
    )


def unread(log: EventLog, config_words: Collection[str]) -> Iterator[str]:
    """A line with the columns of the events and items that nothing reads.

    Args:
        log: any.
        config_words: all words of a run's config, which include the columns that it reads.
    """
    roles = (USER, ITEM, TIME, BASKET, QUANTITY, VALUE)
    of_items = {*log.items.columns} & {*WORDS}
    columns = dict.fromkeys([*log.events.columns, *log.items.columns])
    names = [name for name in columns if name not in {*roles, *of_items, *config_words}]
    if not names:
        return
    texts = [
        f"{name} (varies within an item; data.columns.{name}={name} takes an item's first)"
        if name in WORDS
        else name or "the one without a name"
        for name in names[:MANY]
    ]
    more = f" and {len(names) - MANY:,} more" if len(names) > MANY else ""
    yield f"columns that nothing here reads: {', '.join(texts)}{more}"


def history_rule(protocol: Protocol) -> str:
    """Whether the history stays among the candidates, in two words."""
    return "history masked" if protocol.mask_history else "history kept"


def main_metrics(first: pl.DataFrame, second: pl.DataFrame) -> list[str] | None:
    """The metrics that a report shows, at the first length of list that two per-user frames hold.

    None where they hold other metrics.
    """
    both = [column for column in first.columns if column in second.columns]
    k = next((at for name, _, at in (c.partition("@") for c in both) if name == SHOWN[0]), "")
    return [f"{name}@{k}" for name in SHOWN if f"{name}@{k}" in both] or None


def metrics(results: Mapping[str, Evaluation], log: str, protocol: Protocol) -> Table:
    """A row per model: the test metrics at the first k with their 95% intervals."""
    k = protocol.ks[0]
    users = len(next(iter(results.values())).per_user)
    title = f"{log}, {users:,} test users, full catalogue, {history_rule(protocol)}"
    names = [f"{name}@{k}" for name in SHOWN]
    return _means(Table(title=literal(title, "table.title")), results, names, bold=True)


def beyond(results: Mapping[str, Evaluation], names: Sequence[str]) -> Table:
    """A row per model: figures beyond accuracy with their 95% intervals; more is not better."""
    return _means(WideTable(title="beyond accuracy"), results, names, bold=False)


def slices(title: str, values: pl.DataFrame, gaps: pl.DataFrame) -> Table:
    """A row per value of a column of the users; last the largest gap of each metric, tested.

    Args:
        title: of the table.
        values, gaps: as `recsys.evaluation.slices` makes them.
    """
    table = WideTable(title=literal(title, "table.title"))
    metrics = values["metric"].unique(maintain_order=True)
    table.add_column("value")
    table.add_column("users", justify="right")
    for metric in metrics:
        table.add_column(literal(metric), justify="right")
    for rows in values.partition_by("value", maintain_order=True):
        value, users = rows.row(0, named=True)["value"], rows["users"][0]
        figures = [(row["mean"], (row["low"], row["high"])) for row in rows.iter_rows(named=True)]
        cells = [Text("–") if mean is None else _cell(mean, ends) for mean, ends in figures]
        table.add_row(literal("unknown" if value is None else value), f"{users:,}", *cells)
    of_metrics = {row["metric"]: row for row in gaps.iter_rows(named=True)}
    for label, words in GAPS.items() if of_metrics else ():
        gaps_of = [words(of_metrics[m]) if m in of_metrics else "–" for m in metrics]
        table.add_row(label, "", *map(literal, gaps_of))
        table.caption = (
            "p of Welch's test and the smallest gap that it detects with 80% power, both after "
            "Holm's correction over all pairs of values and all metrics"
        )
    return table


GAPS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "largest gap": lambda row: f"{short(row['gap'])} {row['higher']} − {row['lower']}",
    "p (Holm)": lambda row: "–" if row["p_holm"] is None else f"{row['p_holm']:.3f}",
    "detects": lambda row: "–" if row["p_holm"] is None else short(row["detectable_holm"]),
}
"""Rows about the largest gaps."""


def _means(
    table: Table, results: Mapping[str, Evaluation], names: Sequence[str], *, bold: bool
) -> Table:
    """A table with a row per model, a column per metric, the best of it in bold if wanted."""
    table.add_column("model")
    for name in names:
        table.add_column(literal(name), justify="right")
    ends = {model: result.intervals() for model, result in results.items()}
    for model, result in results.items():
        figures = ((n, result.means.get(n, math.nan), ends[model][n]) for n in names)
        marked = {n for n in names if bold and model in _level(results, ends, n)}
        table.add_row(
            literal(model), *(_cell(mean, of, bold=n in marked) for n, mean, of in figures)
        )
    return table


def _level(
    results: Mapping[str, Evaluation], ends: Mapping[str, Mapping[str, Any]], metric: str
) -> set[str]:
    means = {model: result.means[metric] for model, result in results.items()}
    return level_with_best(means, {model: of[metric] for model, of in ends.items()})


def table_results(name: str, results: Mapping[str, TableResult], leads: pl.DataFrame) -> Table:
    """A row per predictor: a table's test metrics, and the first predictor's lead in the folds.

    Args:
        name: of the table.
        results: by predictor.
        leads: the table's rows of `recsys.evaluation.prediction.leads`.
    """
    first, *others = results
    columns = list(results[first].means["test"])
    lead = f"; {first} minus the others over folds (corrected t-test, Holm)" if others else ""
    table = Table(title=literal(f"{name}, test{lead}", "table.title"))
    table.add_column("model")
    for column in (*columns, *(f"Δ {column}" for column in columns if others)):
        table.add_column(literal(column), justify="right")
    marked = {column: level(results, column) for column in columns}
    for label, result in results.items():
        means, intervals = result.means["test"], result.intervals["test"]
        cells = [_cell(means[c], intervals[c], bold=label in marked[c]) for c in columns]
        cells += [_lead(row) for row in leads.filter(against=label).iter_rows(named=True)]
        table.add_row(literal(label), *cells)
    return table


def _lead(row: Mapping[str, Any]) -> Text:
    """A difference with its p-value, which there is none of where a fold has no figure."""
    if row["difference"] is None:
        return Text("–")
    p_value = "no p" if row["p_holm"] is None else f"p={row['p_holm']:.3f}"
    return Text.assemble(f"{row['difference']:+.4f} ", (p_value, "dim"))


def _cell(mean: float, interval: Sequence[float], *, bold: bool = False) -> Text:
    if mean != mean:
        return Text("–")
    low, high = map(short, interval)
    return Text.assemble((short(mean), "bold" if bold else ""), " ", (f"{low}–{high}", "dim"))


def words_of(items: pl.DataFrame) -> pl.Series:
    """What a person reads of each item: its title, else its text, else its id."""
    texts = [
        pl.col(name).cast(pl.String).str.strip_chars() for name in WORDS if name in items.columns
    ]
    words = [pl.when(text != "").then(text) for text in texts]
    return items.select(pl.coalesce(*words, pl.col(ITEM).cast(pl.String)))[:, 0]


def samples(part: Part, top: TopK, split: Split, *, num_users: int = 3) -> Table:
    """What a few users have had of late and what they are recommended, in words."""
    words = words_of(split.item_table)
    part = part.last_of_users()
    table = Table(
        "user", "latest in the history", "recommended (✓: in the target)", show_lines=True
    )
    # Users at the quartiles of the part: always the same, and not chosen for their results.
    for row in [len(part) * (n + 1) // (num_users + 1) for n in range(num_users) if len(part)]:
        history = part.history.ragged
        past_items = history.values[history.offsets[row] : history.offsets[row + 1]].tolist()
        targets = part.target
        target_items = set(targets.values[targets.offsets[row] : targets.offsets[row + 1]].tolist())
        latest = list(dict.fromkeys(reversed(past_items)))[:8]
        top_items = [item for item in top.items[row, :8].tolist() if item >= 0]
        marks = ["✓ " if item in target_items else "  " for item in top_items]
        user = split.users.ids[int(part.history.users[row])]
        table.add_row(literal(user), _lines(words, latest), _lines(words, top_items, marks))
    return table


def _lines(words: pl.Series, items: Sequence[int], marks: Sequence[str] | None = None) -> Text:
    marks = marks or [""] * len(items)
    lines = (" ".join(str(words[item]).split("\n"))[:48] for item in items)
    return literal("\n".join(f"{mark}{line}" for mark, line in zip(marks, lines, strict=True)))
