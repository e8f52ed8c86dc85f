"""10,000 tables, most of them malformed, each read as a user would and by plain Python beside it.

A table is a small log in one of four kinds of file (CSV, TSV, JSON Lines, Parquet), with up to
three of the 49 changes of `MISTAKES` to its cells, rows, columns, bytes, types, options and tables
of items and users. Whatever it holds, it is read or refused in one line, nothing panics, and a log
comes out of the cache as it went in. Of what is read, the rows, ids, times, quantities, values,
words and other columns are those that the `csv` and `json` modules find in the same bytes. A table
with nothing but some of the 8 harmless changes is not refused.

The tables are drawn from seeds, 100 for each of 100: any of them is made again by `Draft(seed)`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from recsys.data.cache import cached
from recsys.data.description import audit, describe
from recsys.data.sources.table import table
from recsys.errors import DataError
from recsys.log.event_log import BASKET, ITEM, QUANTITY, REQUIRED, TIME, USER, VALUE, EventLog

TABLES, SEEDS = 10_000, 100
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
SEPARATORS = {".csv": ",", ".tsv": "\t"}

Mistake = Callable[["Draft"], None]
MISTAKES: list[Mistake] = []
HARMLESS: set[Mistake] = set()


def mistake(change: Mistake) -> Mistake:
    MISTAKES.append(change)
    return change


def harmless(change: Mistake) -> Mistake:
    """What may look like a mistake, and must be read all the same."""
    HARMLESS.add(change)
    return mistake(change)


class Draft:
    """A table before it is written.

    Attributes:
        header, rows: names, and cells as plain Python has them; None is a missing one.
        kinds: of a Parquet file the types that columns are cast to.
        options: of `table`.
        bytes_changes: what is done to the bytes.
        beside: other files, by the option that names them: header and rows.
    """

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self.suffix = self.random.choice([".csv", ".csv", ".tsv", ".jsonl", ".parquet"])
        self.options: dict[str, Any] = {}
        self.kinds: dict[str, Any] = {}
        self.bytes_changes: list[Callable[[bytes], bytes]] = []
        self.beside: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self.header = list(REQUIRED)
        self.rows = self._rows()
        for add in self.random.sample(COLUMNS, self.random.randrange(5)):
            self.header.append(add.__name__)
            for row in self.rows:
                row.append(add(self.random, row))
        count = self.random.choice([0, 1, 1, 1, 2, 3])
        self.mistakes = self.random.sample(MISTAKES, count)
        for change in self.mistakes:
            change(self)

    @property
    def is_text(self) -> bool:
        return self.suffix in SEPARATORS

    def _rows(self) -> list[list[Any]]:
        users, items = self._ids(6), self._ids(9)
        times = self._times()
        count = self.random.randrange(8, 25)
        rows = [
            [self.random.choice(users), self.random.choice(items), times()] for _ in range(count)
        ]
        return [*rows, [users[0], items[0], times()], [users[1], items[0], times()]]

    def _ids(self, count: int) -> list[Any]:
        numbers = self.random.sample(range(200), count)
        style = self.random.randrange(6)
        if style == 0:
            return numbers
        if style == 1:
            return [f"{number:05}" for number in numbers]
        if style == 2:
            return [2**63 - 100 + number for number in numbers]
        if style == 3:
            return [f"é{number} ü" for number in numbers]
        if style == 4:
            return [*numbers[1:], "POST"] if self.is_text else [f"{n}" for n in numbers]
        return [f"u{number}" for number in numbers]

    def _times(self) -> Callable[[], Any]:
        random, begin = self.random, datetime(2019, 5, 1)
        style = random.randrange(6)
        if style < 2:
            unit = random.choice(list(PER_SECOND))
            self.options["time_unit"] = unit
            count = PER_SECOND[unit]
            return lambda: 1_556_668_800 * count + random.randrange(10**7) * count
        if style == 2:
            self.options["time_unit"] = random.choice([None, "order"])
            return lambda: random.randrange(50)
        form = {3: "%Y-%m-%d", 4: "%Y-%m-%d %H:%M:%S", 5: "%Y-%m-%dT%H:%M:%S+02:00"}[style]
        return lambda: (begin + timedelta(seconds=random.randrange(10**7))).strftime(form)

    def cell(self, column: str | None = None) -> tuple[int, int]:
        """Row and place of a cell, of a column where it is there."""
        places = [place for place, name in enumerate(self.header) if name == column]
        place = self.random.choice(places or range(len(self.header)))
        return self.random.randrange(max(len(self.rows), 1)), place

    def put(self, column: str | None, *values: Any, share: float = 0.0) -> None:
        """One of the values into a cell of a column, and into a share of the others."""
        row, place = self.cell(column)
        for number, cells in enumerate(self.rows):
            if place < len(cells) and (number == row or self.random.random() < share):
                cells[place] = self.random.choice(values)

    def name(self, column: str) -> str:
        """The column that a cell of ours is read from."""
        return self.options.get("columns", {}).get(column, column)

    def write(self, folder: Path) -> Path:
        path = folder / f"log{self.suffix}"
        content = self.content()
        for change in self.bytes_changes:
            content = change(content)
        path.write_bytes(content)
        for option, (header, rows) in self.beside.items():
            other = folder / f"{option}.csv"
            other.write_bytes(in_lines(header, rows, ".csv"))
            self.options[option] = str(other)
        return path

    def content(self) -> bytes:
        if self.is_text:
            return in_lines(self.header, self.rows, self.suffix)
        if self.suffix == ".jsonl":
            objects = (dict(zip(self.header, row, strict=False)) for row in self.rows)
            lines = (json.dumps({k: v for k, v in o.items() if v is not ...}) for o in objects)
            return "\n".join(lines).encode()
        file = io.BytesIO()
        self.frame().write_parquet(file)
        return file.getvalue()

    def frame(self) -> pl.DataFrame:
        """Columns of a Parquet file; what cannot be of one type is text."""
        columns = {}
        for place, name in enumerate(self.header):
            cells = [row[place] if place < len(row) else None for row in self.rows]
            # A file of this kind holds no objects without fields.
            bare = (..., {}, [{}], {"a": {}})
            cells = [None if cell in bare else cell for cell in cells]
            try:
                column = pl.Series(name, cells)
            except (TypeError, OverflowError, pl.exceptions.PolarsError):
                column = pl.Series(name, [None if c is None else str(c) for c in cells])
            if name in self.kinds:
                column = self.kinds[name](column)
            columns[name] = column
        return pl.DataFrame(columns)


def in_lines(header: list[str], rows: list[list[Any]], suffix: str) -> bytes:
    """A CSV or TSV file; in a TSV file nothing is quoted."""
    separator = SEPARATORS[suffix]

    def written(cell: Any) -> str:
        text = "" if cell is None or cell is ... else str(cell)
        if suffix == ".csv" and any(mark in text for mark in ',"\n\r'):
            return '"' + text.replace('"', '""') + '"'
        return text.replace(separator, " ").replace("\n", " ") if suffix == ".tsv" else text

    lines = (separator.join(map(written, cells)) for cells in (header, *rows))
    return ("\n".join(lines) + "\n").encode()


# What a table may hold beside who, what and when.


def basket_id(random: Random, row: list[Any]) -> Any:
    return f"{random.randrange(3):0{random.randrange(1, 3)}}"


def quantity(random: Random, row: list[Any]) -> Any:
    return random.randrange(1, 9)


def value(random: Random, row: list[Any]) -> Any:
    return random.choice([1.5, 12.25, 2_000_000_000.0])


def event(random: Random, row: list[Any]) -> Any:
    return random.choice(["view", "buy"])


def title(random: Random, row: list[Any]) -> Any:
    return f"Thing {row[1]}"


def text(random: Random, row: list[Any]) -> Any:
    return random.choice([None, f'a "{row[1]}", said', "x\ny"])


def category(random: Random, row: list[Any]) -> Any:
    return f"{sum(map(ord, str(row[1]))) % 4:02}"


def price(random: Random, row: list[Any]) -> Any:
    return random.choice([12.5, 3.25, None])


def zip_code(random: Random, row: list[Any]) -> Any:
    return random.choice(["007", "7", "1e5", "13835058055282163713", "-0", "+1"])


COLUMNS = [basket_id, quantity, value, event, title, text, category, price, zip_code]


# What may be wrong with it: cells.


@mistake
def a_missing_cell(draft: Draft) -> None:
    draft.put(draft.random.choice(draft.header), None)


@mistake
def many_missing_cells(draft: Draft) -> None:
    draft.put(draft.random.choice(draft.header), None, share=0.5)


@mistake
def an_empty_column(draft: Draft) -> None:
    draft.put(draft.random.choice(draft.header), None, share=1.0)


@mistake
def a_word_among_times(draft: Draft) -> None:
    draft.put(TIME, "soon", "NaN", "null", "31/12/2019", "2019-13-45", "", "inf")


@mistake
def a_time_far_away(draft: Draft) -> None:
    draft.put(TIME, 10**18, -(10**18), 2**62, 0, -1, 99_999_999_999, 253402300800)


@mistake
def a_year_of_no_log(draft: Draft) -> None:
    draft.put(TIME, "0001-01-01", "9999-12-31", "19-05-01", "2019-05-01 24:00:00", "12019-01-01")


@mistake
def times_of_several_forms(draft: Draft) -> None:
    draft.put(TIME, "2019-05-01", "2019-05-01 10:00", "2019-05-01T10:00:00Z", 1556668800, share=0.5)


@mistake
def times_with_fractions(draft: Draft) -> None:
    draft.put(TIME, 1556668800.311, 1556668800.5, "2019-05-01 10:00:00.25", share=1.0)


@mistake
def a_quantity_that_is_none(draft: Draft) -> None:
    draft.put(QUANTITY, -1, "two", "1,5", float("nan"), float("inf"), None, 0, 2**40, True)


@mistake
def a_value_that_is_none(draft: Draft) -> None:
    draft.put(VALUE, "7,50", "free", float("nan"), "inf", None, -3, "1e3", 10**25, [1])


@mistake
def an_id_of_another_kind(draft: Draft) -> None:
    column = draft.random.choice([USER, ITEM])
    draft.put(column, "x", 1.5, 3.0, "007", " 7", "7 ", 2**64, -5, "1e3", "NaN", "", "0x1F")


@mistake
def an_id_of_no_kind(draft: Draft) -> None:
    draft.put(draft.random.choice([USER, ITEM]), True, [1], {"a": 1}, share=0.7)


@mistake
def large_float_ids(draft: Draft) -> None:
    draft.put(draft.random.choice([USER, ITEM]), 1e19, 2.0**60, 9007199254740993, 1.0, share=0.9)


@mistake
def baskets_of_other_kinds(draft: Draft) -> None:
    draft.put(BASKET, "1e5", 100000, "10e4", 2**63, "a", None, 1.0, share=0.3)


@mistake
def words_of_other_kinds(draft: Draft) -> None:
    words = draft.random.choice(["title", "text"])
    draft.put(words, ["a", "cup"], [], 41, 4.5, {"en": "cup"}, share=draft.random.choice([0.2, 1]))


@mistake
def values_of_other_kinds(draft: Draft) -> None:
    kinds = [{}, [], [{}], {"a": {}}, [None], None, 10**30, True, [[1], [2]]]
    draft.put(draft.random.choice(draft.header), draft.random.choice(kinds), share=1.0)


@mistake
def odd_letters(draft: Draft) -> None:
    odd = ['"', "a\tb", "a\nb", "'", ",", "\x00", "🧦", "\\", "#", "\ufeff", "   ", "\u2028"]
    draft.put(draft.random.choice(draft.header), *odd)


@mistake
def very_long_text(draft: Draft) -> None:
    draft.put(draft.random.choice(draft.header), "long " * 20_000)


@mistake
def missing_keys(draft: Draft) -> None:
    draft.put(draft.random.choice(draft.header), ..., share=0.3)


# What may be wrong with it: rows and columns.


@mistake
def rows_of_one_user(draft: Draft) -> None:
    for row in draft.rows:
        row[:1] = draft.rows[0][:1]


@mistake
def no_rows(draft: Draft) -> None:
    draft.rows = []


@mistake
def one_row(draft: Draft) -> None:
    draft.rows = draft.rows[:1]


@harmless
def rows_twice(draft: Draft) -> None:
    draft.rows += [list(row) for row in draft.rows[:5]]


@mistake
def a_short_row(draft: Draft) -> None:
    row, place = draft.cell()
    draft.rows[row : row + 1] = [cells[: max(place, 1)] for cells in draft.rows[row : row + 1]]


@mistake
def a_long_row(draft: Draft) -> None:
    if draft.is_text and draft.rows:
        draft.rows[draft.cell()[0]].append("more")


@mistake
def a_column_less(draft: Draft) -> None:
    place = draft.random.randrange(len(draft.header))
    del draft.header[place]
    for row in draft.rows:
        del row[place : place + 1]


@mistake
def another_name(draft: Draft) -> None:
    place = draft.random.randrange(len(draft.header))
    draft.header[place] = draft.random.choice([" user_id", "USER_ID", "Käufer", "", "*", "^t.*$"])


@mistake
def a_name_twice(draft: Draft) -> None:
    if draft.is_text:
        draft.header[draft.random.randrange(len(draft.header))] = draft.random.choice(draft.header)


@harmless
def names_of_ours(draft: Draft) -> None:
    ours = ["_key", "_row", "row", "as_of", "users", "age", "index", "len", "_", "item", "user"]
    for name in draft.random.sample(ours, 3):
        draft.header.append(name)
        for number, row in enumerate(draft.rows):
            row.append(f"{name}{number % 3}")


@harmless
def an_index_column(draft: Draft) -> None:
    draft.header.insert(0, "")
    for number, row in enumerate(draft.rows):
        row.insert(0, number)


@harmless
def many_columns(draft: Draft) -> None:
    for number in range(150):
        draft.header.append(f"c{number}")
        for row in draft.rows:
            row.append(number)


# What may be wrong with it: the bytes.


@harmless
def a_byte_order_mark(draft: Draft) -> None:
    if draft.is_text:
        draft.bytes_changes.append(lambda content: b"\xef\xbb\xbf" + content)


@harmless
def lines_that_end_in_two(draft: Draft) -> None:
    if draft.suffix != ".parquet":
        draft.bytes_changes.append(lambda content: content.replace(b"\n", b"\r\n"))


@harmless
def blank_lines(draft: Draft) -> None:
    if draft.suffix != ".parquet":
        draft.bytes_changes.append(lambda content: content.replace(b"\n", b"\n\n", 3) + b"\n\n")


@harmless
def no_last_line_end(draft: Draft) -> None:
    if draft.suffix != ".parquet":
        draft.bytes_changes.append(lambda content: content.rstrip(b"\n"))


@mistake
def another_encoding(draft: Draft) -> None:
    def encoded(content: bytes) -> bytes:
        return content.decode("utf-8", "replace").encode(encoding, "replace")

    encoding = draft.random.choice(["latin-1", "utf-16"])
    if draft.suffix != ".parquet":
        draft.bytes_changes.append(encoded)


@mistake
def cut_short(draft: Draft) -> None:
    share = draft.random.random()
    draft.bytes_changes.append(lambda content: content[: int(share * len(content))])


@mistake
def a_changed_byte(draft: Draft) -> None:
    share, other = draft.random.random(), draft.random.randrange(256)

    def changed(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + bytes([other]) + content[place + 1 :]

    draft.bytes_changes.append(changed)


@mistake
def no_bytes(draft: Draft) -> None:
    draft.bytes_changes.append(lambda content: b"")


@mistake
def bytes_of_another_kind_of_file(draft: Draft) -> None:
    draft.suffix = draft.random.choice([".csv", ".tsv", ".jsonl", ".parquet", ".txt", ".ndjson"])
    draft.bytes_changes.insert(0, lambda _: in_lines(draft.header, draft.rows, ".csv"))


@mistake
def semicolons(draft: Draft) -> None:
    if draft.suffix == ".csv":
        draft.bytes_changes.append(lambda content: content.replace(b",", b";"))


@mistake
def an_open_quote(draft: Draft) -> None:
    draft.bytes_changes.append(lambda content: content.replace(b"\n", b'\n"', 2))


# What may be wrong with it: types of a Parquet file, options, other tables.


@mistake
def another_type(draft: Draft) -> None:
    name = draft.random.choice(draft.header)
    kinds: list[Any] = [
        pl.Int8, pl.Int32, pl.UInt32, pl.UInt64, pl.Int128, pl.Float32, pl.Float64, pl.String,
        pl.Categorical, pl.Boolean, pl.Binary, pl.Date, pl.Time, pl.Duration("us"), pl.Null,
        pl.Decimal(38, 2), pl.List(pl.String), pl.Datetime("ms"), pl.Datetime("ns", "Asia/Tokyo"),
    ]  # fmt: skip
    kind = draft.random.choice(kinds)

    def cast(column: pl.Series) -> pl.Series:
        try:
            return column.cast(kind, strict=False)
        except pl.exceptions.PolarsError:
            return column

    draft.kinds[name] = cast


@mistake
def times_in_another_type(draft: Draft) -> None:
    kinds = [pl.Date, pl.Datetime("ms"), pl.Datetime("us", "UTC"), pl.Datetime("ns"), pl.UInt64]
    kind = draft.random.choice(kinds)
    far = draft.random.choice([0, 10**6, 2**31 - 1, 2**62])

    def counted(column: pl.Series) -> pl.Series:
        numbers = pl.Series(column.name, [far] + [1_500_000_000 + n for n in range(len(column))])
        return (
            numbers[: len(column)]
            .clip(upper_bound=2**31 - 1 if kind == pl.Date else None)
            .cast(pl.Int32 if kind == pl.Date else pl.Int64)
            .cast(kind)
        )

    draft.kinds[TIME] = counted


@mistake
def another_unit(draft: Draft) -> None:
    draft.options["time_unit"] = draft.random.choice([None, "order", *PER_SECOND, "days"])


@mistake
def names_that_are_not_there(draft: Draft) -> None:
    ours = draft.random.choice([USER, ITEM, TIME, BASKET, "title", "extra"])
    draft.options["columns"] = {ours: draft.random.choice(["nothing", *draft.header])}


@mistake
def attributes_that_are_named(draft: Draft) -> None:
    names = [*draft.header, "nothing"]
    draft.options["item_columns"] = draft.random.sample(names, draft.random.randrange(1, 3))


@mistake
def a_table_of_items(draft: Draft) -> None:
    ids = {str(row[1]): None for row in draft.rows if len(row) > 1 and row[1] is not None}
    rows = [[item, f"Thing {item}"] for item in [*list(ids)[:-1], "POST", "007"]]
    more = draft.random.choice([[], [["POST", "again"]], [[None, "none"]], [["1.0", "x", "y"]]])
    names = draft.random.choice([[ITEM, "title"], ["id", "title"], [ITEM, "category"]])
    draft.beside["items_path"] = names, [*rows, *more]


@mistake
def a_table_of_users(draft: Draft) -> None:
    ids = {str(row[0]): None for row in draft.rows if row and row[0] is not None}
    draft.beside["users_path"] = [USER, "as_of", "row"], [[user, 1, 2] for user in ids]


# What plain Python finds in the same bytes.


def plain(draft: Draft, path: Path) -> list[dict[str, Any]] | None:
    """The rows by the file's names; None where plain Python finds none to compare with."""
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path, glob=False).to_dicts()
        content = path.read_bytes().decode("utf-8-sig")
        if path.suffix == ".csv":
            lines = csv.reader(io.StringIO(content, newline=""), strict=True)
            return in_columns([line for line in lines if any(line)])
        if path.suffix == ".tsv":
            lines = (line.removesuffix("\r").split("\t") for line in content.split("\n"))
            return in_columns([line for line in lines if any(line)])
        objects = [json.loads(line) for line in content.split("\n") if line.strip()]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return None
    return objects if all(isinstance(o, dict) for o in objects) else None


def in_columns(lines: list[list[str]]) -> list[dict[str, Any]] | None:
    header, *rows = lines or [[]]
    if len(set(header)) < len(header) or any(len(row) > len(header) for row in rows):
        return None
    padded = ([*row, *[""] * (len(header) - len(row))] for row in rows)
    return [{name: cell or None for name, cell in zip(header, row, strict=True)} for row in padded]


def id_of(cell: Any) -> str:
    """What an id is written as."""
    if isinstance(cell, (bool, list, dict)):
        return json.dumps(cell)
    if isinstance(cell, float) and cell.is_integer():
        return str(int(Decimal(repr(cell))))
    return str(cell)


def time_of(cell: Any, unit: str | None, is_time: bool) -> int | None:
    """Microseconds since 1970, or the place in the order; None where plain Python cannot tell."""
    if unit in PER_SECOND:
        count = PER_SECOND[unit]
        if isinstance(cell, int) or (isinstance(cell, str) and cell.lstrip("+-").isdigit()):
            return int(cell) * 10**6 // count
        return round(float(cell) * (10**6 / count))
    if not is_time:
        return int(cell)
    if isinstance(cell, str):
        try:
            cell = datetime.fromisoformat(cell.replace(" UTC", "Z").strip())
        except ValueError:
            return None
    if isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime(cell.year, cell.month, cell.day)
    if not isinstance(cell, datetime):
        return None
    return (cell.replace(tzinfo=cell.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)


def as_counted(log: EventLog) -> list[int]:
    times = log.events[TIME]
    return (times.dt.epoch("us") if log.has_calendar_time else times).to_list()


def agrees(log: EventLog, rows: list[dict[str, Any]], draft: Draft) -> None:
    """Assert that a log holds what plain Python reads."""
    assert len(log.events) == len(rows)
    unit, dated = draft.options.get("time_unit"), log.has_calendar_time
    users, items, times = ([row.get(draft.name(c)) for row in rows] for c in REQUIRED)
    seconds = [time_of(time, unit, dated) for time in times]
    values = list(
        zip(
            map(id_of, log.events[USER]), map(id_of, log.events[ITEM]), as_counted(log), strict=True
        )
    )
    assert all(a[0] != b[0] or a[2] <= b[2] for a, b in pairwise(values))
    if None in seconds:
        key = Counter(zip(map(id_of, users), map(id_of, items), strict=True))
        assert key == Counter((user, item) for user, item, _ in values)
        return
    expected = list(zip(map(id_of, users), map(id_of, items), seconds, strict=True))
    order = sorted(range(len(rows)), key=lambda n: (expected[n][0], expected[n][2]))
    by_user = sorted(range(len(rows)), key=lambda n: values[n][0])
    if BASKET in log.events.columns:
        assert Counter(values) == Counter(expected)
    else:
        assert [values[n] for n in by_user] == [expected[n] for n in order]
    for name in log.events.columns:
        if name not in REQUIRED:
            cells = [row.get(draft.name(name)) for row in rows]
            same_cells(log.events[name], cells, values, expected, draft.is_text)
    for name in log.item_columns:
        first_said(log, name, values)


def same_cells(
    column: pl.Series, cells: list[Any], values: list[Any], expected: list[Any], is_text: bool
) -> None:
    """Assert that every event has its cell of a column."""
    if column.name in (QUANTITY, VALUE):
        numbers = [None if cell is None else float(cell) for cell in cells]
        ours = [None if number is None else float(number) for number in column]
        pairs = [
            sorted(zip(k, v, strict=True), key=str)
            for k, v in ((values, ours), (expected, numbers))
        ]
        for (key, mine), (other, theirs) in zip(*pairs, strict=True):
            assert key == other
            assert mine == theirs or math.isclose(mine, theirs, rel_tol=1e-6) or mine != mine
    elif is_text and not column.dtype.is_nested():
        numbers = [cell for cell in cells if cell is not None]
        assert column.drop_nulls().n_unique() == len(set(numbers)), column.name
        read = {"Float64": float, "Int64": int}.get(str(column.dtype), str)
        plain_cells = [None if cell is None else read(cell) for cell in cells]
        mine, theirs = (
            Counter(zip(values, column, strict=True)),
            Counter(zip(expected, plain_cells, strict=True)),
        )
        assert mine == theirs, column.name
        if column.dtype == pl.Int64:
            assert all(str(int(cell)) == cell for cell in numbers), column.name


def first_said(log: EventLog, name: str, values: list[Any]) -> None:
    """Assert that items have the first value, in time, of their events."""
    value_at: dict[str, list[tuple[int, Any]]] = {}
    for (_, item, time), cell in zip(values, log.events[name].to_list(), strict=True):
        if cell is not None:
            value_at.setdefault(item, []).append((time, cell))
    for item, attribute in zip(map(id_of, log.items[ITEM]), log.items[name].to_list(), strict=True):
        of = value_at.get(item, [])
        earliest = min((time for time, _ in of), default=None)
        assert (
            attribute in [cell for time, cell in of if time == earliest]
            if of
            else attribute is None
        )


def read(draft: Draft, path: Path) -> EventLog | None:
    """The log, or None where it is refused in one line."""
    try:
        log = cached(table, path=str(path), **draft.options)
    except DataError as error:
        if "\n" in str(error):
            raise AssertionError("more than a line") from error
        return None
    again = cached(table, path=str(path), **draft.options)
    for frame in ("events", "items", "users"):
        assert getattr(log, frame).equals(getattr(again, frame)), frame
    describe(log)
    audit(log)
    return log


def drafts(seed: int) -> Iterator[tuple[str, Draft]]:
    for number in range(TABLES // SEEDS):
        name = f"{seed}/{number}"
        yield name, Draft(name)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(SEEDS))
def test_malformed_tables(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    for name, draft in drafts(seed):
        path = draft.write(tmp_path)
        what = f"{name}: {path.suffix}, {[change.__name__ for change in draft.mistakes]}"
        try:
            log = read(draft, path)
            rows = None if log is None else plain(draft, path)
            if log is not None and rows is not None:
                agrees(log, rows, draft)
            assert log is not None or not HARMLESS.issuperset(draft.mistakes)
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        printed = capfd.readouterr().err
        # What reads damaged Parquet files may panic, and is caught.
        damaged = path.suffix == ".parquet" and draft.bytes_changes
        assert damaged or "panicked" not in printed, what


def test_there_are_as_many_mistakes_as_are_said() -> None:
    assert f"the {len(MISTAKES)} changes" in str(__doc__)
