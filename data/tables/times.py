"""Times of events as files have them: counted from 1970, in any form of text, or none at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

import polars as pl

from recsys.errors import DataError
from recsys.log.event_log import FIRST_YEAR, LAST_YEAR, TIME, as_numbers, readable_times

ORDER, ROW = "order", "row"
DAY = "%Y%m%d"
"""Days as integers, 20240131."""
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_USUAL_YEARS = (1990, 2100)
ISO = tuple(
    f"%Y-%m-%d{clock}" for clock in (" %H:%M:%S%.f", "T%H:%M:%S%.f", " %H:%M", "T%H:%M", "")
)
MONTH = "%Y-%m"
"""Months in ISO 8601, 2024-01."""
_DATES = (
    *(f"%{a}{gap}%{b}{gap}%{year}" for year in "Yy" for a, b in ("dm", "md") for gap in "./-"),
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d %b %Y",
    "%b %d, %Y",
    "%d-%b-%Y",
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", ", %H:%M:%S")
FORMS = (
    *(day + clock for clock in _CLOCKS for day in _DATES),
    "%a %b %d %H:%M:%S %z %Y",
    "%m/%Y",
    "%Y/%m",
)
"""Forms of times that people use beside ISO 8601, as `data.date_format` has them."""
_SAMPLE = 1000


def times_of(
    column: pl.Series, unit: str | None = None, formats: str | Sequence[str] | None = None
) -> pl.Series:
    """Times as a log's: as `timed_by`, or text in one of some forms.

    A month such as 2024-01 is its first day.

    Raises:
        DataError: text in none of the forms, or no form; and as `timed_by`.

    >>> times_of(pl.Series(["31.12.2024", "01.02.2025"]), formats="%d.%m.%Y").dt.month().to_list()
    [12, 2]
    >>> times_of(pl.Series(["2024-02"])).dt.to_string("%F").to_list()
    ['2024-02-01']
    """
    if formats is not None:
        if unit is not None:
            raise DataError("data.time_unit and data.date_format: give one of them")
        if not formats:
            raise DataError("data.date_format names no form; name one, or leave it out")
        return _formatted(column, [formats] if isinstance(formats, str) else formats)
    times = timed_by(column, unit)
    return _dates(times) if times.dtype == pl.String else times


def _formatted(times: pl.Series, formats: Sequence[str]) -> pl.Series:
    text = times.cast(pl.String)
    parsed = _in_forms(text, formats)
    lost = parsed.is_null() & text.is_not_null()
    if lost.any():
        row = lost.arg_true()[0]
        raise DataError(
            f"data.date_format={_listed(formats)}: {lost.sum()} timestamps in another form, the "
            f"first {text[row]!r} in row {row + 1}; {_advice(text)}"
        )
    return parsed


def _in_forms(text: pl.Series, formats: Sequence[str]) -> pl.Series:
    """The first of the forms that reads each; a month without a day is its first day."""
    forms = (_in_form(pl.lit(text), form) for form in formats)
    return pl.select(pl.coalesce(*forms).alias(text.name)).to_series()


def _in_form(text: pl.Expr, form: str) -> pl.Expr:
    if _is_of_months(form):
        text, form = text + " 01", f"{form} %d"
    return text.str.to_datetime(form, time_unit="us", strict=False)


def _is_of_months(form: str) -> bool:
    """Whether a form has a year and a month, and nothing smaller."""
    return set(re.findall("%[-_0]?([A-Za-z+])", form)) in ({"Y", m} for m in ("m", "b", "B"))


def are_months(text: pl.Series) -> bool:
    """Whether texts are months such as 2024-01."""
    some = text.drop_nulls()
    return len(some) > 0 and not _in_forms(some, [MONTH]).null_count()


def _dates(text: pl.Series) -> pl.Series:
    """Text in ISO 8601 as times, dates beside times; what cannot be read is left to be told of."""
    frame, problems = readable_times(pl.DataFrame({TIME: text}))
    if not problems:
        return frame[TIME].alias(text.name)
    for forms in (ISO, [MONTH]):
        parsed = _in_forms(text, forms)
        if parsed.null_count() == text.null_count():
            return parsed
    if likely := likely_forms(text):
        first = text.drop_nulls()[0]
        raise DataError(f"timestamps such as {first!r} are not in ISO 8601; {_or(likely)}")
    return text


def likely_forms(text: pl.Series) -> list[str]:
    """The forms in which each of some first texts is a time: two where days look like months."""
    some = text.drop_nulls().head(_SAMPLE)
    return [form for form in FORMS if len(some) and not _in_forms(some, [form]).null_count()]


def _or(forms: Sequence[str]) -> str:
    words = " or ".join(f"'data.date_format=\"{form}\"'" for form in forms)
    return f"set {words}"


def _advice(text: pl.Series) -> str:
    if likely := likely_forms(text):
        return _or(likely)
    return "name several forms in a list, the most exact first, [FORM,FORM]"


def _listed(formats: Sequence[str]) -> str:
    return formats[0] if len(formats) == 1 else str(list(formats))


def are_days(numbers: pl.Series) -> bool:
    """Whether integers are days such as 20240131."""
    if not numbers.dtype.is_integer() or not len(numbers):
        return False
    if not numbers.is_between(19000101, 21001231).all():
        return False
    return not numbers.cast(pl.String).str.to_date(DAY, strict=False).null_count()


def timed_by(times: pl.Series, unit: str | None) -> pl.Series:
    """Times counted from 1970 as Datetime; others as they are.

    Raises:
        DataError: a unit that is none or not that of the times, or times that look like counted
            ones without a unit.
    """
    if unit not in (None, ORDER, *PER_SECOND):
        raise DataError(
            f"data.time_unit={unit}: expected {', '.join(PER_SECOND)}, {ORDER} or {ROW}"
        )
    numbers = as_numbers(times)
    if not numbers.dtype.is_numeric():
        if unit is not None:
            raise DataError(
                f"data.time_unit={unit} is for timestamps in numbers; {_no_number(times)}; leave "
                "it out for dates"
            )
        return times
    likely = likely_unit(numbers)
    if likely is not None and unit not in (likely, ORDER):
        raise DataError(
            f"timestamps such as {numbers.drop_nulls()[0]} look like {_UNITS[likely]} since 1970; "
            f"set data.time_unit={likely}, or data.time_unit={ORDER} if they only are in order"
        )
    if unit is None and are_days(numbers.drop_nulls()):
        raise DataError(
            f"timestamps such as {numbers.drop_nulls()[0]} look like days; set "
            f"'data.date_format=\"{DAY}\"', or data.time_unit={ORDER} if they only are in order"
        )
    if unit in (None, ORDER):
        return numbers if numbers.dtype.is_integer() else times
    _refuse_coarse(times)
    return _from_epoch(numbers, unit)


def _refuse_coarse(times: pl.Series) -> None:
    """Raise a `DataError` where floats are too short to tell neighbouring times apart."""
    if times.dtype not in (pl.Float32, pl.Float16):
        return
    digits = 24 if times.dtype == pl.Float32 else 11
    far = times.filter(times.abs() > 2**digits)
    if len(far):
        raise DataError(
            f"timestamps such as {far[0]:.0f} are beyond 2**{digits}, where {times.dtype} no "
            "longer tells neighbours apart; store them as integers"
        )


def _no_number(times: pl.Series) -> str:
    if times.dtype != pl.String:
        return f"{TIME} is {times.dtype}"
    broken = times.is_not_null() & times.cast(pl.Float64, strict=False).is_null()
    row = broken.arg_true()[0]
    return f"{times[row]!r} in row {row + 1} is none"


def _seconds(year: int) -> int:
    """From 1970 to the year."""
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


def likely_unit(numbers: pl.Series) -> str | None:
    """The unit in which the median lies in the years of which logs are; None if in none."""
    middle = numbers.median()
    first, end = map(_seconds, _USUAL_YEARS)
    for unit, count in PER_SECOND.items():
        if middle is not None and first * count <= middle < end * count:  # type: ignore[operator]
            return unit
    return None


def _from_epoch(numbers: pl.Series, unit: str) -> pl.Series:
    count = PER_SECOND[unit]
    first, end = _seconds(FIRST_YEAR) * count, _seconds(LAST_YEAR) * count
    outside = (numbers < first) | (numbers >= end)
    if outside.any():
        row = outside.arg_true()[0]
        raise DataError(
            f"data.time_unit={unit}: {outside.sum()} timestamps outside the years {FIRST_YEAR} to "
            f"{LAST_YEAR - 1}, the first {numbers[row]} in row {row + 1}; choose the unit that "
            f"fits, {', '.join(PER_SECOND)}, or leave such rows out"
        )
    return microseconds(numbers, count, is_float=numbers.dtype.is_float())


Numbers = TypeVar("Numbers", pl.Series, pl.Expr)


def microseconds(numbers: Numbers, per_second: int, *, is_float: bool) -> Numbers:
    """Times that are counted from 1970, so many a second, as Datetime."""
    if is_float:
        counted = (numbers * (10**6 / per_second)).round()
    elif per_second > 10**6:
        counted = numbers // (per_second // 10**6)
    else:
        counted = numbers * (10**6 // per_second)
    return counted.cast(pl.Int64, strict=False).cast(pl.Datetime("us"))
