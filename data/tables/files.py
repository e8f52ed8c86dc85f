"""Tables in files of any kind: CSV and its relatives, JSON, Parquet, Excel; several files of one.

A name is a file, a folder of files, a pattern such as `log/*.parquet`, or an address that polars
reads (`s3://bucket/log.parquet`). Folders such as `day=2024-01-31` are a column of what is in them.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import polars as pl

from recsys.data.sources.files import NoFileError, expanded, far_away, reading, record
from recsys.data.tables.dialects import OPTIONS, Dialect
from recsys.errors import ConfigError, DataError

TYPED = (".inter", ".item", ".user")
"""RecBole's atomic files, whose headers say `name:type`."""
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", **dict.fromkeys(TYPED, "\t")}
OTHERS = (".jsonl", ".ndjson", ".json", ".parquet", ".xlsx")
KINDS = (*SEPARATORS, *OTHERS)
HERE = (".jsonl", ".ndjson", ".json", ".xlsx")
"""Kinds that are read from files of this machine alone."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_HINT = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
_NO_LETTER = "\x1f"
"""The unit separator of ASCII, which no text holds: lines are then read whole."""


@dataclass(frozen=True)
class Table:
    """A table as it is in its files.

    Attributes:
        file: its name.
        frame: its rows.
        text: columns that are text in the file whatever they hold: some may be numbers.
        decimal: in front of the decimals of such numbers.
    """

    file: str
    frame: pl.DataFrame
    text: frozenset[str] = frozenset()
    decimal: str = "."


def read_table(name: str, dialect: Dialect | None = None) -> Table:
    """The rows of all files of a name, in the order of the names of the files.

    Raises:
        DataError: none, one that cannot be read, or several of unlike columns.
    """
    paths, dialect = paths_of(name), dialect or Dialect()
    tables = [_read(path, dialect) for path in paths]
    base = _folder_of(name)
    frames = [_with_columns_of_folders(table, base) for table in tables]
    first = frames[0]
    for table, frame in zip(tables, frames, strict=True):
        if set(frame.columns) != set(first.columns):
            there, others = ", ".join(frame.columns), ", ".join(first.columns)
            raise DataError(f"{table.file}: columns {there}; {tables[0].file} has {others}")
    if len(frames) > 1:
        with reading(name):
            frames = [pl.DataFrame([frame[c] for c in first.columns]) for frame in frames]
            first = pl.concat(frames, how="vertical_relaxed", rechunk=False)
    new = set(first.columns) - set(tables[0].frame.columns)
    return Table(name, first, tables[0].text | new, dialect.point)


def paths_of(name: str, *, recorded: bool = True) -> list[str]:
    """The files of a name, which are recorded as inputs of what is made of them.

    Raises:
        DataError: there is none.
    """
    name = _local(name)
    if "://" in name:
        far_away(name)
        return [name]
    path = expanded(name)
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if _is_table(file, path)]
        if not found:
            raise DataError(f"{path}: no table in this folder; there is none in {', '.join(KINDS)}")
    else:
        names = [path] if path.exists() else map(Path, sorted(glob(str(path), recursive=True)))
        found = [file for file in names if file.is_file()]
    if not found:
        raise NoFileError(f"no file {path}")
    if len({kind_of(file) for file in found}) > 1:
        kinds = ", ".join(sorted({kind_of(file) for file in found}))
        raise DataError(f"{path}: files of several kinds, {kinds}; name one, such as {path}/*.csv")
    for file in found if recorded else ():
        record(file)
    return [str(file) for file in found]


def _local(name: str) -> str:
    return url2pathname(urlsplit(name).path) if name.startswith("file://") else name


def _is_table(file: Path, folder: Path) -> bool:
    """What Spark and others put beside their parts is none, such as `_SUCCESS` and `.crc`."""
    is_hidden = any(part[0] in "._" for part in file.relative_to(folder).parts)
    return not is_hidden and kind_of(file) in KINDS and file.is_file()


def kind_of(path: Path | str) -> str:
    """The ending of a name, in small letters, without that of a compressed file."""
    name = Path(path)
    return (name.with_suffix("") if name.suffix.lower() == ".gz" else name).suffix.lower()


def name_of(name: str) -> str:
    """What a log is called: after its file, or after the folder of its files."""
    path = Path(_local(name))
    while any(letter in path.name for letter in "*?[") and not path.is_file():
        path = path.parent
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).stem or "log"


def _read(path: str, dialect: Dialect) -> Table:
    kind = kind_of(path)
    is_far = "://" in path
    if is_far and kind in HERE:
        raise DataError(f"{path}: a {kind} file is not read from an address; fetch it first")
    with reading(path):
        match kind:
            case ".parquet":
                return Table(path, pl.read_parquet(path, glob=is_far))
            case ".jsonl" | ".ndjson":
                return Table(path, _json_lines(path))
            case ".json":
                return Table(path, _json(path))
            case ".xlsx":
                return Table(path, _excel(path))
        hint = None if is_far else hinted(path, dialect.encoding)
        separator = dialect.letters or hint or SEPARATORS.get(kind)
        if separator is not None:
            frame = _without_blanks(_text(path, separator, dialect, int(hint is not None)))
            if kind in TYPED:
                frame = frame.rename(lambda column: column.partition(":")[0])
            return Table(path, frame, frozenset(frame.columns))
    raise DataError(
        f"{path}: {kind or 'a name without an ending'} is no kind of table that is read as it is; "
        f"say what stands between fields, data.separator=tab, or give {', '.join(KINDS)}"
    )


def _json_lines(path: str) -> pl.DataFrame:
    with opened(path) as file:  # a path would be read as a pattern
        return pl.read_ndjson(file, infer_schema_length=None)


def _json(path: str) -> pl.DataFrame:
    """An array of objects, or objects one a line."""
    with opened(path) as file:
        content = file.read()
    is_array = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    read = pl.read_json if is_array else pl.read_ndjson
    return read(io.BytesIO(content), infer_schema_length=None)


def _excel(path: str) -> pl.DataFrame:
    """The first sheet."""
    try:
        import fastexcel  # the extra `excel`
    except ImportError as error:
        raise ConfigError("an .xlsx file needs fastexcel; pip install 'recsys[excel]'") from error
    try:
        return pl.read_excel(path, infer_schema_length=None)
    except fastexcel.FastExcelError as error:
        raise ValueError(str(error)) from error


def opened(path: str) -> IO[bytes]:
    """The bytes of a file, decompressed where it is called so."""
    return gzip.open(path) if path.lower().endswith(".gz") else Path(path).open("rb")  # type: ignore[return-value]


def hinted(path: str, encoding: str = "utf-8") -> str | None:
    """What a first line such as `sep=;` says stands between fields: Excel's hint, no row."""
    with opened(path) as file:
        start = file.read(64)
    return hint_of(start.decode(encoding, errors="ignore"))


def hint_of(text: str) -> str | None:
    """The same of a text."""
    hint = _HINT.match(text.removeprefix("\ufeff"))
    return hint[1] if hint else None


def _text(path: str, separator: str, dialect: Dialect, skipped: int) -> pl.DataFrame:
    """Everything as text, behind the lines that are skipped."""
    source = _utf8(path, dialect.encoding)
    if len(separator) > 1:
        return _split(source, separator, dialect)
    scan = _scan(source, separator, dialect.has_header, dialect.null_words, skipped)
    try:
        frame = scan.collect()
    except pl.exceptions.ComputeError as error:
        if "more fields" not in str(error) or "://" in path:
            raise
        raise DataError(f"{path}: {_longer_row(path, separator, dialect, skipped)}") from error
    return _renamed(frame, dialect)


def _utf8(path: str, encoding: str) -> str | bytes:
    """The path where its letters are UTF-8, else its content in it."""
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        return path
    with opened(path) as file:
        reader = io.TextIOWrapper(file, encoding=encoding, newline="")
        return b"".join(part.encode() for part in iter(partial(reader.read, 2**20), ""))


def _scan(
    source: str | bytes,
    separator: str,
    header: bool,
    nulls: Sequence[str] = ("",),
    skipped: int = 0,
) -> pl.LazyFrame:
    return pl.scan_csv(
        source,
        skip_lines=skipped,
        separator=separator,
        has_header=header,
        quote_char='"' if separator in (",", ";", "|", " ") else None,
        infer_schema=False,
        null_values=list(nulls),
        glob=False,
    )


def _split(source: str | bytes, separator: str, dialect: Dialect) -> pl.DataFrame:
    """Fields between several letters: lines are read whole, and divided as they stream."""
    lines = _scan(source, _NO_LETTER, False)
    (line,) = lines.collect_schema().names()
    lines = lines.filter(pl.col(line).is_not_null())
    first = lines.head(1).collect()
    if first.is_empty():
        raise ValueError("it has no line")
    head = first.item().split(separator)
    count = pl.col(line).str.count_matches(separator, literal=True) + 1
    other = lines.with_row_index("row", 1).filter(count != len(head)).head(1).select("row", n=count)
    if len(unlike := other.collect(engine="streaming")):
        row, fields = unlike.row(0)
        raise ValueError(f"line {row} has {fields} fields, and the first {len(head)}")
    parts = pl.col(line).str.split_exact(separator, len(head) - 1).alias("parts")
    rows = lines.slice(1 if dialect.has_header else 0).select(parts).unnest("parts")
    whole = rows.select(pl.all().replace(dialect.null_words, None))
    frame = whole.collect(engine="streaming")
    if dialect.has_header:
        frame.columns = head
    return _renamed(frame, dialect)


def _renamed(frame: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    if dialect.names is None:
        return frame
    if len(dialect.names) != frame.width:
        raise ValueError(
            f"data.names={list(dialect.names)}: {len(dialect.names)} names, and the file has "
            f"{frame.width} columns; its first row is {', '.join(map(str, frame.row(0)))}"
        )
    frame.columns = list(dialect.names)
    return frame


def _longer_row(path: str, separator: str, dialect: Dialect, skipped: int) -> str:
    """Which row has more fields than the first, in words; the reader does not say."""
    with opened(path) as binary:
        file = io.TextIOWrapper(binary, dialect.encoding, errors="replace", newline="")
        rows = parsed(islice(file, skipped, None), separator)
        most = len(next(rows))
        longer = ((number, len(row)) for number, row in enumerate(rows, 1) if len(row) > most)
        number, fields = next(longer, (0, 0))
    row = f"row {number} has {fields}" if number else "a row has more"
    first = "header" if dialect.has_header else "first"
    return f"{row} fields, and the {first} {most}; quote fields that hold a separator"


def parsed(file: Iterable[str], separator: str) -> Iterator[list[str]]:
    """Rows of text; a quote is a letter where tabs stand between fields."""
    if separator == "\t":
        return csv.reader(file, delimiter=separator, quoting=csv.QUOTE_NONE)
    return csv.reader(file, delimiter=separator)


def _without_blanks(text: pl.DataFrame) -> pl.DataFrame:
    if not text.to_series(0).null_count():
        return text
    return text.filter(~pl.all_horizontal(pl.all().is_null()))


def _folder_of(name: str) -> Path:
    """What lies below it divides the files of a name."""
    path = expanded(_local(name))
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def _with_columns_of_folders(table: Table, base: Path) -> pl.DataFrame:
    """What folders such as `day=2024-01-31` say, where the file itself does not."""
    parts = Path(table.file).relative_to(base).parts[:-1] if "://" not in table.file else ()
    said = dict(part.split("=", 1) for part in parts if part.count("=") == 1)
    values = {n: None if v == _NO_VALUE else unquote(v) for n, v in said.items()}
    new = [n for n in values if n and n not in table.frame.columns]
    every = (pl.lit(values[name], dtype=pl.String).alias(name) for name in new)
    return table.frame.with_columns(every) if new else table.frame


def with_joined(table: Table, others: Sequence[Mapping[str, Any]], dialect: Dialect) -> Table:
    """Rows of events with what the rows of other tables say of them, one after another.

    Args:
        table: of events.
        others: of each its `path`, the column that both have, `key`, or `{ours: theirs}` where they
            have other names, and where it is written in another way the options of a `Dialect`. A
            column that both have besides is called after its file, `orders_date`.
        dialect: of the events.

    Raises:
        ConfigError: an option that is none.
        DataError: no such column, or a key that is there twice.
    """
    for other in others:
        table = _joined(table, other, dialect)
    return table


def _joined(table: Table, other: Mapping[str, Any], dialect: Dialect) -> Table:
    options = dict(other)
    path, key = options.pop("path", None), options.pop("key", None)
    keys = list(key.items()) if isinstance(key, Mapping) else [(key, key)]
    if len(keys) != 1 or not all(isinstance(name, str) for name in (path, *keys[0])):
        raise ConfigError("data.join: expected [{path: FILE, key: COLUMN}]")
    if other_names := [str(name) for name in options if name not in OPTIONS]:
        known = ", ".join(("path", "key", *OPTIONS))
        raise ConfigError(f"data.join: there is no option {other_names[0]}; there is {known}")
    from_file = read_table(path, dialect.but_for(options))
    ((ours, theirs),) = keys
    for of, column in ((table, ours), (from_file, theirs)):
        if column not in of.frame.columns:
            there = ", ".join(of.frame.columns)
            raise DataError(f"{of.file}: no column {column!r} to join on (there are: {there})")
    prefix = f"{name_of(path)}_"
    names = {c: prefix + c if c in table.frame.columns else c for c in from_file.frame.columns}
    names[theirs] = ours
    right = from_file.frame.rename(names)
    known_keys = right[ours].drop_nulls()
    if known_keys.is_duplicated().any():
        twice = known_keys.filter(known_keys.is_duplicated())[0]
        raise DataError(f"{path}: {theirs} {twice!r} is there more than once; an event has one row")
    left = table.frame
    if left[ours].dtype != right[ours].dtype:
        left, right = (frame.with_columns(pl.col(ours).cast(pl.String)) for frame in (left, right))
    frame = left.join(right, on=ours, how="left", maintain_order="left")
    text = table.text | {names[column] for column in from_file.text if column != theirs}
    return Table(table.file, frame, frozenset(text), table.decimal)
