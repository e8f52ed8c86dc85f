"""What the columns of a file may be for a log, and how the file is written: a first look at it.

Only the first rows are read. Names count first: `customer` is a user, `invoice` a basket. What is
in a column has to fit, and decides where no name does. Whatever is taken for what has a reason.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.sources.files import expanded, reading
from recsys.data.tables.dialects import SEPARATORS as WORDS
from recsys.data.tables.dialects import USUAL, USUAL_NULLS
from recsys.data.tables.files import (
    KINDS,
    SEPARATORS,
    hint_of,
    kind_of,
    opened,
    parsed,
    paths_of,
    read_table,
)
from recsys.data.tables.times import (
    DAY,
    ISO,
    ORDER,
    ROW,
    are_days,
    are_months,
    likely_forms,
    likely_unit,
)
from recsys.errors import DataError, RecsysError
from recsys.log.event_log import BASKET, ITEM, QUANTITY, TIME, USER, VALUE, as_numbers

NAMES: Mapping[str, str] = {
    USER: "user customer client visitor member household reviewer buyer shopper account person uid "
    "player profile author steam patient student viewer listener kunde käufer nutzer "
    "usuario cliente",
    ITEM: "item product sku article asin movie film book isbn song track business location place "
    "venue poi game app stock ean upc goods restaurant recipe hotel artist content video news "
    "material course iid artikel produkt produit producto articulo",
    TIME: "timestamp datetime time date day created ts dat utc unixtime when tstamp datum fecha",
    BASKET: "basket order invoice transaction receipt cart session ticket bill rechnung",
    QUANTITY: "quantity qty units pieces plays playcount menge",
    VALUE: "value rating stars score price amount sales revenue spend total paid",
    "event": "event action behavior behaviour activity interaction type",
    "title": "title name description",
    "text": "text review comment body summary",
}
"""What columns are called, the most telling first."""
ROLES = (TIME, USER, ITEM, BASKET, "event", QUANTITY, VALUE, "title", "text")
"""In the order in which columns are chosen for them."""
_OF_IDS = ("id", "key", "no", "num", "number", "code", "nr", "idx", "hash")
_NO_ID = (
    "name",
    "title",
    "desc",
    "description",
    "type",
    "category",
    "price",
    "date",
    "time",
    "url",
)
_NO_MOMENT = ("hour", "minute", "dow", "week", "of", "spent", "since")
_SAMPLE_BYTES = 2**18
_SAMPLE_ROWS = 2000
_MOST_KINDS = _SHOWN = 20
_NUMBER = r"^[+-]?[0-9]+([.,][0-9]+)?$"
_TIME_LIKE = re.compile(r"^\d{1,4}[-./]\d{1,2}[-./]\d{1,4}|^\d{4}[-/]\d\d$|^\d+([.,]\d+)?$")


@dataclass
class Guess:
    """What a file was taken for.

    Attributes:
        options: of `data=table`, by name: those that are to be set.
        reasons: what is taken for what, and why.
        nulls: words in its fields that usually stand for a missing value.
    """

    options: dict[str, Any] = field(default_factory=dict)
    reasons: list[tuple[str, str, str]] = field(default_factory=list)
    nulls: Sequence[str] = ()

    def say(self, what: str, value: str, why: str, **options: Any) -> None:
        """Add a reason, and the options that follow; `__` stands for a dot."""
        self.reasons.append((what, value, why))
        self.options |= {f"data.{name.replace('__', '.')}": v for name, v in options.items()}


def guess(name: str) -> Guess:
    """How `data=table` may read a file, a folder of parts, or a folder of several tables.

    Raises:
        DataError: no such file, none that is a table, or one without users and items.
    """
    path = expanded(name)
    if not path.is_dir():
        return _of_file(name)
    looks = dict(_looks(path))
    if len(looks) == 1:
        return _of_file(*looks)
    if len({tuple(look.frame.columns) for look in looks.values()}) <= 1:
        return _of_file(name)
    return _of_tables(looks)


def _looks(folder: Path) -> Iterator[tuple[str, _Look]]:
    """The tables of a folder, without those that nothing can be seen of."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and _may_be(file):
            try:
                yield str(file), _columns(str(file))
            except RecsysError:
                continue


def _may_be(file: Path) -> bool:
    return file.name[0] not in "._" and kind_of(file) in (*KINDS, ".dat", ".txt", ".data")


@dataclass
class _Look:
    """The first rows of a file, and how it is written."""

    path: str
    frame: pl.DataFrame
    guess: Guess
    roles: dict[str, str]


def _of_file(name: str) -> Guess:
    look = _columns(name)
    missing = [role for role in (USER, ITEM) if role not in look.roles]
    if len(missing) == 1 and TIME in look.roles:  # it is no table of users or items
        left = [c for c in look.frame.columns if c not in look.roles.values()]
        ids = [c for c in left if _may_be_id(look.frame[c]) and look.frame[c].n_unique() > 1]
        look.roles |= dict(zip(missing, ids, strict=False))
    _settle(look, look.roles)
    look.guess.options = {"data.path": name, **look.guess.options}
    return look.guess


def _columns(name: str) -> _Look:
    """A file's first rows with what its columns may be."""
    path = paths_of(name, recorded=False)[0]
    found = Guess()
    try:
        with reading(path):
            frame = _sample(path, found)
    except DataError as error:
        raise DataError(str(error) if path in str(error) else f"{path}: {error}") from error
    if frame.is_empty():
        raise DataError(f"{path}: no rows to look at")
    return _Look(name, frame, found, _roles(frame, named="data.names" not in found.options))


def _sample(path: str, found: Guess) -> pl.DataFrame:
    kind = kind_of(path)
    if kind == ".parquet":
        return pl.scan_parquet(path, glob=False).head(_SAMPLE_ROWS).collect()
    if kind in (".jsonl", ".ndjson"):
        file = io.BytesIO(b"\n".join(_lines(path)))
        return pl.read_ndjson(file, infer_schema_length=None)
    if kind in (".json", ".xlsx"):
        return read_table(path).frame.head(_SAMPLE_ROWS)
    return _of_text(path, b"\n".join(_lines(path)), found)


def _lines(path: str) -> list[bytes]:
    """The first whole lines of a file."""
    with opened(path) as file:
        start = file.read(_SAMPLE_BYTES)
    lines = start.split(b"\n")
    return lines if len(start) < _SAMPLE_BYTES else lines[:-1]


def _of_text(path: str, start: bytes, found: Guess) -> pl.DataFrame:
    text = _decoded(start, found)
    if hint := hint_of(text):
        word = next((word for word, letters in WORDS.items() if letters == hint), hint)
        found.say("between fields", word, f"the first line says so, {text.split()[0]}")
        text = text.partition("\n")[2]
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path}: no rows to look at")
    usual = SEPARATORS.get(kind_of(path))
    separator = hint or _separator(lines, usual)
    if separator != usual and not hint:
        word = next((word for word, letters in WORDS.items() if letters == separator), separator)
        found.say("between fields", word, "all of the first lines have it", separator=word)
    rows = _divided(text, separator)
    width = len(rows[0])
    if rows[1:] and all(len(row) != width for row in rows[1:]):
        raise DataError(
            f"{path}: the first line, {lines[0][:60]!r}, has other fields than those below it; "
            "take it out, or give it as many"
        )
    rows = [row for row in rows if len(row) == width][:_SAMPLE_ROWS]
    head = [cell.partition(":")[0] for cell in rows[0]] if usual == "\t" else rows[0]
    if not _is_header(rows[0]):
        head = [f"column_{number}" for number in range(1, len(rows[0]) + 1)]
        found.say("header", "none", f"the first line is {', '.join(rows[0])[:60]}", names=head)
    else:
        rows = rows[1:]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(_distinct(head), pl.String), orient="row")
    return _cleaned(frame, separator, found)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names as the reader has them where some are there twice."""
    before = [list(names[:n]).count(name) for n, name in enumerate(names)]
    return [
        f"{name}_duplicated_{count - 1}" if count else name
        for name, count in zip(names, before, strict=True)
    ]


def _decoded(start: bytes, found: Guess) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        found.say("letters", "utf-16", "its first two bytes say so", encoding="utf-16")
        return start.decode("utf-16", errors="ignore")
    if b"\0" in start:
        raise DataError("it is no text, and of no kind that is read as a table")
    try:
        return start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start >= len(start) - 3:  # cut within a letter
            return start[: error.start].decode("utf-8-sig")
    found.say("letters", "cp1252", "they are not UTF-8", encoding="cp1252")
    return start.decode("cp1252", errors="replace")


def _separator(lines: Sequence[str], usual: str | None) -> str:
    """What divides nearly all lines into as many fields, and into most; in doubt the usual one."""
    some = "\n".join(lines[:100])
    most, best = 1, usual or ","
    for separator in dict.fromkeys([usual or "\t", "::", "\t", ";", "|", ",", " "]):
        counts = [len(row) for row in _divided(some, separator)]
        usual_count = max(set(counts), key=counts.count)
        is_even = counts.count(usual_count) >= 0.9 * len(counts) and counts[0] == usual_count
        if is_even and usual_count > most and (separator != " " or most == 1):
            most, best = usual_count, separator
    return best


def _divided(text: str, separator: str) -> list[list[str]]:
    if len(separator) > 1:
        return [line.rstrip("\r").split(separator) for line in text.split("\n") if line.strip()]
    file = io.StringIO(text.replace("\0", ""), newline="")
    return [row for row in parsed(file, separator) if any(row)]


def _is_header(row: Sequence[str]) -> bool:
    is_value = [bool(_TIME_LIKE.match(cell.strip())) for cell in row]
    names = [cell for cell in row if cell]
    known = {word for role in (USER, ITEM, TIME) for word in NAMES[role].split()}
    telling = [name for name in set(names) if known & set(_words_of(name))]
    return not any(is_value) and (len(set(names)) == len(names) or len(telling) > 1)


def _cleaned(frame: pl.DataFrame, separator: str, found: Guess) -> pl.DataFrame:
    words = pl.concat([c.rename("word") for c in frame.iter_columns()]).unique()
    if present := sorted(set(words.drop_nulls()) & set(USUAL_NULLS)):
        found.nulls = present
    frame = frame.with_columns(pl.all().replace(["", *USUAL_NULLS], None))
    comma = [c for c in frame.columns if _has_decimal_comma(frame[c])]
    if comma:
        found.say("decimals", "comma", f"as in {comma[0]}", decimal="comma")
        frame = frame.with_columns(pl.col(comma).str.replace(",", ".", literal=True))
    return frame


def _has_decimal_comma(column: pl.Series) -> bool:
    values = column.drop_nulls()
    is_number = values.str.contains(r"^-?[0-9]+(,[0-9]+)?$")
    return bool(len(values) and is_number.all() and values.str.contains(",", literal=True).any())


def _roles(frame: pl.DataFrame, *, named: bool) -> dict[str, str]:
    """Role -> column, by names; by what is in them where columns have none."""
    left, roles = list(frame.columns), {}
    for role in ROLES:
        scores = {c: _score(role, c, frame[c]) for c in left} if named else {}
        best = max(scores, key=lambda column: scores[column], default=None)
        if best is not None and scores[best] > 0:
            roles[role] = best
            left.remove(best)
    if TIME not in roles and (
        times := [c for c in left if _time_of(frame[c])[0] not in (None, ORDER)]
    ):
        roles[TIME] = times[-1]
        left.remove(times[-1])
    if USER not in roles and ITEM not in roles:
        ids = [c for c in left if _may_be_id(frame[c]) and frame[c].n_unique() > 1]
        roles |= dict(zip((USER, ITEM), ids, strict=False))
        left = [c for c in left if c not in roles.values()]
    if not named and (ratings := [c for c in left if _may_be_rating(frame[c])]):
        roles[VALUE] = ratings[0]
    return roles


def _may_be_rating(column: pl.Series) -> bool:
    values = as_numbers(column.drop_nulls())
    is_one_of_few = values.dtype.is_numeric() and 1 < values.n_unique() <= _MOST_KINDS
    return is_one_of_few and not (values > 10).any()


def _words_of(name: str) -> list[str]:
    """The words of a name such as `CustomerID`, `visitorid` or `order-date`."""
    parts = re.findall(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|\d+", name)
    words = [part.lower() for part in parts]
    split = (re.match(r"(\w{3,})(id|key|code)$", word) for word in words)
    return [w for word, m in zip(words, split, strict=True) for w in (m.groups() if m else [word])]


def _score(role: str, name: str, column: pl.Series) -> float:
    """How well a column's name is one of a role, where what is in it can be; 0: not at all."""
    words, known = _words_of(name), NAMES[role].split()
    places = [known.index(word) for word in words if word in known]
    if not places or not _fits(role, words, column):
        return 0
    of_ids = [word for word in words if word in _OF_IDS] if role in (USER, ITEM, BASKET) else []
    is_id = 4 if "id" in of_ids else bool(of_ids)
    return 10 - 9 * min(places) / len(known) + is_id - 0.1 * len(words) + ("parent" in words)


def _fits(role: str, words: Sequence[str], column: pl.Series) -> bool:
    values = column.drop_nulls()
    if role == TIME:
        kind = _time_of(column)[0]
        return kind is not None and not (kind == ORDER and set(words) & set(_NO_MOMENT))
    if role == BASKET and len(values) < len(column):
        return False
    if role in (USER, ITEM, BASKET):
        return not set(words) & set(_NO_ID) and _may_be_id(values)
    if role in (QUANTITY, VALUE):
        return as_numbers(values).dtype.is_numeric() and len(values) > 0
    if role == "event":
        return values.n_unique() <= _MOST_KINDS and not as_numbers(values).dtype.is_numeric()
    return values.dtype == pl.String and not values.str.contains(_NUMBER).all()


def _may_be_id(values: pl.Series) -> bool:
    kind = values.dtype
    if kind.is_nested() or kind.is_temporal() or kind == pl.Boolean:
        return False
    numbers = as_numbers(values)
    is_fraction = numbers.dtype.is_float() and (numbers != numbers.round()).any()
    return not is_fraction and len(values) > 0


def _time_of(column: pl.Series) -> tuple[str | None, dict[str, Any]]:
    """What kind of times a column holds, and the options for it; None: it holds none."""
    values = column.drop_nulls()
    if values.dtype.is_temporal():
        return "dates", {}
    if values.is_empty() or not (values.dtype.is_numeric() or values.dtype == pl.String):
        return None, {}
    numbers = as_numbers(values)
    if numbers.dtype.is_numeric():
        if are_days(numbers):
            return f"dates as {DAY}", {"date_format": DAY}
        unit = likely_unit(numbers)
        return (f"counted in {unit} since 1970", {"time_unit": unit}) if unit else (ORDER, {})
    some = values.head(200)
    parsed = [some.str.to_datetime(form, strict=False) for form in (*ISO, "%+")]
    if any(not times.null_count() for times in parsed):
        return "ISO 8601", {}
    if are_months(some):
        return "months, each as its first day", {}
    if forms := likely_forms(values):
        both = f" or {forms[1]}; look at a row" if len(forms) > 1 else ""
        return f"dates as {forms[0]}{both}", {"date_format": forms[0]}
    return None, {}


def _settle(look: _Look, roles: Mapping[str, str]) -> None:
    """Turn roles into options with their reasons.

    Raises:
        DataError: nothing is a user, or an item.
    """
    found, frame = look.guess, look.frame
    for role in (USER, ITEM):
        if role not in roles:
            more = ", …" if frame.width > _SHOWN else ""
            there = ", ".join(frame.columns[:_SHOWN]) + more
            raise DataError(
                f"{look.path}: no column looks like {role} (there are: {there}); name it yourself, "
                f"data.columns.{role}=NAME"
            )
    names = found.options.get("data.names")
    for role in (r for r in (USER, ITEM, TIME, *ROLES) if r in roles):
        if any(role == said for said, *_ in found.reasons):
            continue
        column = roles[role]
        found.reasons.append((role, column, _why(role, frame[column], column, names is None)))
        if names is not None:
            names[names.index(column)] = role
        elif column != role:
            found.options[f"data.columns.{role}"] = column
    if TIME in roles:
        for option, value in _time_of(frame[roles[TIME]])[1].items():
            found.options[f"data.{option}"] = value
    else:
        found.say(TIME, "none", "no column holds times; the rows' order is taken", time_unit=ROW)
    _rows(look, roles)


def _why(role: str, column: pl.Series, name: str, named: bool) -> str:
    values = column.drop_nulls()
    words = [w for w in _words_of(name) if w in NAMES[role].split()]
    by = f"its name says {words[0]}" if named and words else "by what is in it"
    if role == TIME:
        return f"{by}; {_time_of(column)[0]}, such as {values[0]}"
    if role == "event":
        return f"{by}; kinds: {', '.join(map(str, values.unique().sort().head(6)))}"
    if role in (QUANTITY, VALUE):
        numbers = as_numbers(values)
        return f"{by}; numbers from {numbers.min()!s} to {numbers.max()!s}"
    if role in ("title", "text"):
        return f"{by}; such as {str(values[0])[:40]!r}"
    return f"{by}; {values.n_unique():,} of them in {len(column):,} rows"


def _rows(look: _Look, roles: Mapping[str, str]) -> None:
    """Rows that a log would be refused for."""
    needed = [c for r, c in roles.items() if r in (USER, ITEM, TIME, BASKET, QUANTITY)]
    needed = [c for c in needed if c in look.frame.columns]
    lacks = look.frame.select(pl.any_horizontal(pl.col(needed).is_null()).sum()).item()
    if lacks and look.guess.nulls:
        words = ", ".join(look.guess.nulls)
        look.guess.say("missing values", words, "fields hold these words", nulls=USUAL)
    if lacks:
        look.guess.say("rows", "some left out", f"{lacks} lack something", missing="drop")
    quantity = look.frame.get_column(roles.get(QUANTITY, ""), default=None)
    if quantity is not None and (as_numbers(quantity) < 0).any():
        why = "quantities below 0 go off what was bought; drop leaves them out"
        look.guess.say("returns", "subtract", why, negative="subtract")


def _of_tables(looks: Mapping[str, _Look]) -> Guess:
    """A log whose tables lie in one folder: events, the orders they belong to, items, users."""
    whole = [look for look in looks.values() if {USER, ITEM} <= set(look.roles)]
    events = max(whole, key=_size, default=None)
    if events is None:
        events = _joined(looks)
    others = [look for look in looks.values() if look is not events]
    found = events.guess
    _settle(events, events.roles)
    for look in others:
        _find_keys(look, events)
    for kind, key in (("items", ITEM), ("users", USER)):
        about = [look for look in others if key in look.roles and _is_of(look, key, events)]
        if about:
            of = max(about, key=lambda look: len(look.frame.columns))
            found.options[f"data.{kind}_path"] = of.path
            why = f"one row for each {of.roles[key]}"
            found.reasons.append((kind, Path(of.path).name, why))
            found.options |= dict(_own_options(kind, key, of, found.options))
    found.options = {"data.path": events.path, **found.options}
    return found


def _find_keys(look: _Look, events: _Look) -> None:
    """A key is called as that of the events; without names, items of the events stand first."""
    columns = set(look.frame.columns)
    if same := {key: c for key in (USER, ITEM) if (c := events.roles[key]) in columns}:
        look.roles = {r: c for r, c in look.roles.items() if r not in (USER, ITEM)} | same
    first = look.frame.columns[0]
    keys, items = look.frame[first], events.frame[events.roles[ITEM]]
    if "data.names" in look.guess.options and not keys.is_duplicated().any():
        is_of = keys.cast(pl.String).is_in(items.cast(pl.String).unique().implode()).mean()
        if (is_of or 0) > 0.5:  # type: ignore[operator]
            texts = [c for c in look.frame.columns[1:] if _fits("title", (), look.frame[c])]
            look.roles = {ITEM: first, **dict(zip(["title"], texts, strict=False))}


def _size(look: _Look) -> int:
    return Path(look.path).stat().st_size


def _is_of(look: _Look, key: str, events: _Look) -> bool:
    keys = look.frame[look.roles[key]]
    other = USER if key == ITEM else ITEM
    return other not in look.roles and not keys.is_duplicated().any() and look is not events


def _own_options(
    kind: str, key: str, of: _Look, options: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """What differs in the file of items or users from that of the events."""
    names = of.guess.options.get("data.names")
    for role in (key, "title"):
        column = of.roles.get(role)
        if column is None or (role == "title" and kind == "users"):
            continue
        if names is not None:
            names[names.index(column)] = role
        elif column not in (role, options.get(f"data.columns.{role}")):
            yield f"data.{kind}.columns.{role}", column
    if names is not None:
        yield f"data.{kind}.names", names
    for option, value in _unlike(of, options):
        yield f"data.{kind}.{option}", value


def _unlike(of: _Look, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """How a file is written where it is not as that of the events, whose options it inherits."""
    letters = SEPARATORS.get(kind_of(of.path))
    usual = {"encoding": "utf-8", "decimal": "point", "separator": letters}
    for word, separator in WORDS.items():
        if separator == letters:
            usual["separator"] = word
            break
    for option in ("separator", "encoding", "decimal", "nulls"):
        own, inherited = of.guess.options.get(f"data.{option}"), options.get(f"data.{option}")
        if own is None and inherited is not None and letters is not None:
            own = usual.get(option)
        if own is not None and own != inherited:
            yield option, own


def _joined(looks: Mapping[str, _Look]) -> _Look:
    """Events of which another table says the user: rows of orders, and orders.

    Raises:
        DataError: no table has items, or none that shares a column with it has users.
    """
    for events in sorted(looks.values(), key=_size, reverse=True):
        for orders in looks.values():
            shared = [c for c in events.frame.columns if c in orders.frame.columns]
            if ITEM not in events.roles or USER not in orders.roles or not shared:
                continue
            key = next((c for c in shared if not orders.frame[c].is_duplicated().any()), None)
            if key is None or events.roles[ITEM] == key:
                continue
            new = {r: c for r, c in orders.roles.items() if r in (USER, TIME, BASKET)}
            order = [c for c in orders.frame.columns if _words_of(c)[-1:] == ["number"]]
            if TIME not in new and order:
                new[TIME] = order[0]
            events.roles.pop(TIME, None)
            events.roles |= new | {BASKET: key}
            why = f"each {key} of {Path(events.path).name} has one row in it"
            events.guess.say("joined", Path(orders.path).name, why)
            written = dict(_unlike(orders, events.guess.options))
            events.guess.options["data.join"] = {"path": orders.path, "key": key, **written}
            keys = orders.frame.select(key, *dict.fromkeys(c for c in new.values() if c != key))
            events.frame = events.frame.join(keys, on=key, how="inner", maintain_order="left")
            return events
    raise DataError(f"{', '.join(looks)}: no table has users and items, alone or with another")
