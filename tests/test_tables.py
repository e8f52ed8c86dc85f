"""What is printed: whatever a log or a folder calls things, it is words."""

from io import StringIO

import polars as pl
import pytest
import torch
from rich.console import Console, RenderableType

from recsys import tables
from recsys.errors import ConfigError, visible
from recsys.evaluate import Evaluation, Protocol
from recsys.events import EventLog
from recsys.retrieval import TopK
from recsys.splits import last_basket

NAMES = [
    "[/blue]",
    "[blue] x",
    "[deleted]",
    ":smile:",
    "[link=file:///etc]y[/link]",
    "a[0]",
    "\\[b]",
]


def printed(shown: RenderableType) -> str:
    out = StringIO()
    Console(file=out, width=400, force_terminal=True, color_system=None).print(shown)
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(name: str) -> None:
    frame = pl.DataFrame({name: [name], "x": [1.0]})
    assert printed(tables.frame(frame, title=name)).count(name) == 3
    assert name in printed(tables.plain(f"run folder: {name}"))


def lists(titles: list[str]) -> str:
    rows = [(f"u{u}{titles[0]}", (u + t) % 4, t, t) for u in range(4) for t in range(6)]
    names = ["user_id", "item_id", "timestamp", "basket_id"]
    items = pl.DataFrame({"item_id": range(4), "title": titles})
    split = last_basket(
        EventLog.from_frames(pl.DataFrame(rows, names, orient="row"), items, name=titles[1])
    )
    top = TopK(torch.arange(4).expand(4, -1), torch.zeros(4, 4))
    evaluation = Evaluation(pl.DataFrame({"user": [0, 1], **METRICS}), {}, top)
    shown = tables.metrics({titles[2]: evaluation}, titles[1], Protocol(ks=(3,)))
    return printed(tables.samples(split.test, top, split)) + printed(shown)


METRICS = {f"{name}@3": [0.5, 0.5] for name in tables.SHOWN}


def test_the_closing_tables_of_a_run() -> None:
    titles = ["Mug [/blue] 7", "[bold]log", "[red]model", "two\nlines"]
    out = lists(titles)
    for name in ("Mug [/blue] 7", "[bold]log", "[red]model", "two lines", "u1Mug [/blue] 7"):
        assert name in out
    assert ".5000 .5000–.5000" in out


CONTROLS = "a\x1b[31mred\x07\x9b2J\x7f\rb\ud800"


def test_a_terminal_is_told_nothing() -> None:
    """Escape sequences move the cursor, set the title, or clear what stands above."""
    for shown in (tables.plain(CONTROLS), tables.frame(pl.DataFrame({"x": [CONTROLS[:-1]]}))):
        out = printed(shown)
        assert not set(out) & set("\x1b\x07\x9b\x7f\r\ud800")
        assert "a␛[31mred␇" in out
    assert visible(CONTROLS) == "a␛[31mred␇�2J␡␍b�"


def test_an_error_is_one_line_that_a_terminal_shows() -> None:
    error = ConfigError(f"no item {CONTROLS}\nnor this", 3)
    assert str(error) == "no item a␛[31mred␇�2J␡␍b� nor this 3"
