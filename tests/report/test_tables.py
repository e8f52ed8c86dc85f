"""What is printed: the tables and the lines that a run ends with, whatever a log calls things."""

from io import StringIO

import polars as pl
import pytest
import torch
from rich.console import Console, RenderableType

from recsys.errors import ConfigError, visible
from recsys.evaluation.ranking import Evaluation, Protocol
from recsys.log.event_log import BASKET, ITEM, TIME, USER, EventLog
from recsys.report import screen, tables
from recsys.report.tables import ties, unread
from recsys.retrieval.lists import TopK
from recsys.tasks.splits import last_basket, leave_last_out

NAMES = [
    "[/blue]",
    "[blue] x",
    "[deleted]",
    ":smile:",
    "[link=file:///etc]y[/link]",
    "a[0]",
    "\\[b]",
]


def printed(renderable: RenderableType) -> str:
    out = StringIO()
    Console(file=out, width=400, force_terminal=True, color_system=None).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(name: str) -> None:
    frame = pl.DataFrame({name: [name], "x": [1.0]})
    assert printed(screen.table_of(frame, title=name)).count(name) == 3
    assert name in printed(screen.literal(f"run folder: {name}"))


def lists(titles: list[str]) -> str:
    rows = [(f"u{u}{titles[0]}", (u + t) % 4, t, t) for u in range(4) for t in range(6)]
    names = ["user_id", "item_id", "timestamp", "basket_id"]
    items = pl.DataFrame({"item_id": range(4), "title": titles})
    split = last_basket(
        EventLog.from_frames(pl.DataFrame(rows, names, orient="row"), items, name=titles[1])
    )
    top = TopK(torch.arange(4).expand(4, -1), torch.zeros(4, 4))
    evaluation = Evaluation(pl.DataFrame({"user": [0, 1], **METRICS}), {}, top)
    table = tables.metrics({titles[2]: evaluation}, titles[1], Protocol(ks=(3,)))
    return printed(tables.samples(split.test, top, split)) + printed(table)


METRICS = {f"{name}@3": [0.5, 0.5] for name in tables.SHOWN}


def test_the_closing_tables_of_a_run() -> None:
    titles = ["Mug [/blue] 7", "[bold]log", "[red]model", "two\nlines"]
    out = lists(titles)
    for name in ("Mug [/blue] 7", "[bold]log", "[red]model", "two lines", "u1Mug [/blue] 7"):
        assert name in out
    assert ".5000 .5000–.5000" in out


def test_an_item_without_words_is_shown_by_its_id() -> None:
    assert "│ 3 " in lists(["Mug", "log", "model", ""])


CONTROLS = "a\x1b[31mred\x07\x9b2J\x7f\rb\ud800"


def test_a_terminal_is_told_nothing() -> None:
    """Escape sequences move the cursor, set the title, or clear what stands above."""
    for renderable in (
        screen.literal(CONTROLS),
        screen.table_of(pl.DataFrame({"x": [CONTROLS[:-1]]})),
    ):
        out = printed(renderable)
        assert not set(out) & set("\x1b\x07\x9b\x7f\r\ud800")
        assert "a␛[31mred␇" in out
    assert visible(CONTROLS) == "a␛[31mred␇�2J␡␍b�"


def test_an_error_is_one_line_that_a_terminal_shows() -> None:
    error = ConfigError(f"no item {CONTROLS}\nnor this", 3)
    assert str(error) == "no item a␛[31mred␇�2J␡␍b� nor this 3"


def log_of(times: dict[int, list[int]], **columns: object) -> EventLog:
    """Users with an event at each of their times, of a new item each."""
    rows = [(user, item, time) for user, of in times.items() for item, time in enumerate(of)]
    frame = pl.DataFrame(rows, schema=[USER, ITEM, TIME], orient="row")
    return EventLog.from_frames(frame.with_columns(**columns))


TIMES = {1: [1, 2, 3, 3], 2: [1, 2, 3, 4], 3: [5, 5, 5], 4: [7, 7]}


def test_targets_that_tie_with_the_event_before() -> None:
    # Users 1 and 3 of the three in the test.
    (line,) = ties(leave_last_out(log_of(TIMES)))
    assert line.startswith("67% of the 3 test users have a target with the timestamp of the event")
    assert "task=next_basket data.columns.basket_id=COLUMN asks for whole baskets" in line
    assert not list(ties(leave_last_out(log_of({1: [1, 2, 3, 4], 2: [3, 4, 5]}))))


def test_of_a_log_with_baskets_the_task_is_named_alone() -> None:
    days = {1: [1, 1, 2, 2, 3, 3], 2: [1, 2, 3, 4]}
    log = log_of(days, **{BASKET: pl.col(TIME)})
    (line,) = ties(leave_last_out(log))
    assert "50% of the 2" in line
    assert "task=next_basket asks for" in line
    assert not list(ties(last_basket(log)))
    two = {1: [1, 1, 2, 3, 3], 2: [1, 2, 3, 4]}
    numbers = {BASKET: pl.Series([1, 1, 2, 3, 4, 1, 2, 3, 4])}
    (line,) = ties(last_basket(log_of(two, **numbers)))
    assert line.endswith("their order is the file's")


def test_a_tie_in_thousands_is_chance() -> None:
    times = {user: [1, 2, 3, 4 if user else 3] for user in range(200)}
    assert not list(ties(leave_last_out(log_of(times))))


def test_seconds_are_compared_to_their_fractions() -> None:
    log = log_of(TIMES)
    parts = pl.int_range(pl.len()) + 1
    apart = log.events.with_columns((pl.col(TIME) * 10**6 + parts).cast(pl.Datetime("us")))
    assert not list(ties(leave_last_out(EventLog.from_frames(apart))))


def test_columns_that_nothing_reads() -> None:
    frame = {USER: [1, 2], ITEM: [1, 1], TIME: [1, 2], "rating": [1, 2], "brand": ["a", "a"]}
    frame |= {"event": ["view", "buy"], "text": ["good", "bad"], "quantity": [1, 1], "": [1, 2]}
    items = pl.DataFrame({ITEM: [1], "title": ["Tea"], "kind": ["drink"]})
    log = EventLog.from_frames(pl.DataFrame(frame), items)
    (line,) = unread(log, {"brand", "kind", "unheard"})
    assert line == (
        "columns that nothing here reads: rating, event, text (varies within an item; "
        "data.columns.text=text takes an item's first), the one without a name"
    )
    assert not list(unread(log, {*log.events.columns, "kind"}))


@pytest.mark.parametrize(("count", "more"), [(20, ""), (1234, " and 1,214 more")])
def test_many_columns_are_not_all_named(count: int, more: str) -> None:
    frame = {USER: [1, 2], ITEM: [1, 1], TIME: [1, 2]} | {f"c{n}": [1, 2] for n in range(count)}
    (line,) = unread(EventLog.from_frames(pl.DataFrame(frame)), set())
    assert line.endswith(f"c18, c19{more}")
