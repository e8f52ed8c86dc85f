"""DC, Ta-Feng and TMS as the authors of DNNTSP (KDD 2020) ship them: sets per user, in order.

Origin: https://github.com/yule-BUAA/DNNTSP, commit 3876ad3ea37e211b824de1b8d8f5ad3ff312f014; the
repository states no licence and asks for a citation. DC comes of dunnhumby's Carbo-Loading (pasta
products), Ta-Feng of a Taiwanese grocer, TMS of the tags of questions on math.stackexchange.com.

| | users | items | sets | sets a user | items a set |
|---|---|---|---|---|---|
| DC | 9,010 | 217 | 42,905 | 4.76 | 1.52 |
| Ta-Feng | 9,841 | 4,935 | 73,355 | 7.45 | 5.41 |
| TMS | 15,726 | 1,565 | 243,394 | 15.48 | 2.19 |

Users are divided 70/10/20 in the files; the last set of a user is the target of those before it.
There are no times: `timestamp` and `basket_id` are the set's number. A set holds an item once (46
sets of DC name one twice). The keys of TMS restart in each part but are different users, so a file
whose keys meet gets ids such as `test/user0`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl

from recsys.data.sources.files import PublicFile, reading
from recsys.errors import DataError
from recsys.log.event_log import BASKET, ITEM, TIME, USER, EventLog

Sets: TypeAlias = list[list[int]]

_ORIGIN = "https://github.com/yule-BUAA/DNNTSP (commit 3876ad3, data/{0}/{0}.json)"
_SHA256 = {
    "DC": "b7666f0f96978448a64f746dca78a8ff19bfe897e9850cf2b2430da66e72f3c4",
    "TaFeng": "2509fa27735b575b67230b901788211ca860f7ad53f11d19c07aa578c7dd98fd",
    "TMS": "8d6dc5b29423d20d6df206691d12ce07b42f7a40d3729ff3c2f4c8e8639addb3",
}
_PARTS = {"train": "train", "validate": "validation", "test": "test"}


def dc(path: str | None = None) -> EventLog:
    """Pasta products: small sets from a small catalogue."""
    return read(_public("DC").find(path), name="dc")


def tafeng(path: str | None = None) -> EventLog:
    """A grocer's baskets: large sets from a large catalogue."""
    return read(_public("TaFeng").find(path), name="tafeng")


def tms(path: str | None = None) -> EventLog:
    """Tags of questions: long histories that repeat themselves."""
    return read(_public("TMS").find(path), name="tms")


def read(path: Path, *, name: str) -> EventLog:
    """A log from a file `{"train": {user: [[item, …], …]}, "validate": {…}, "test": {…}}`.

    The column `split` of `users` says `train`, `validation` or `test`.

    Raises:
        DataError: the file has another form.
    """
    with reading(path):
        parts = json.loads(path.read_bytes())
    try:
        user_ids, splits, sets_of = zip(*_users(parts), strict=True)
        events = _events(sets_of)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise DataError(
            f"{path}: expected train, validate and test, each with users, each with a list of "
            "lists of item numbers"
        ) from error
    users = pl.DataFrame({USER: user_ids, "split": splits}, schema_overrides={USER: pl.String})
    if users[USER].is_duplicated().any():
        users = users.with_columns(pl.concat_str("split", USER, separator="/").alias(USER))
    once = events.unique(maintain_order=True)
    once = once.select(users[USER].gather(once["user"]), ITEM, TIME, pl.col(TIME).alias(BASKET))
    return EventLog.from_frames(once, users=users, name=name)


def _users(parts: dict[str, dict[str, Sets]]) -> Iterator[tuple[str, str, Sets]]:
    for part, split in _PARTS.items():
        for user_id, sets in parts[part].items():
            yield user_id, split, sets


def _events(sets_of: Sequence[Sets]) -> pl.DataFrame:
    """A row per user (its place in `sets_of`), set (its place within the user) and item."""
    sets = list(chain.from_iterable(sets_of))
    sizes = [len(items) for items in sets]
    user = np.repeat(np.arange(len(sets_of)), [len(user_sets) for user_sets in sets_of])
    time = np.concatenate([np.arange(len(user_sets)) for user_sets in sets_of])
    items = pl.Series(list(chain.from_iterable(sets)), dtype=pl.Int64)
    return pl.DataFrame({"user": user.repeat(sizes), ITEM: items, TIME: time.repeat(sizes)})


def _public(name: str) -> PublicFile:
    return PublicFile(f"dnntsp/{name}.json", _ORIGIN.format(name), _SHA256[name])
