"""An event as the fields of its item and its time, each a code.

The fields are attributes of the item, the price as a bucket, and the parts of the event's local
date. They follow from the item's row in the table of items and from the event's time, quantity and
value. So a batch is coded on the device where it lives, and a model can read a log of items that it
has never seen, as long as both logs describe items by the same attributes.

Shapes: E events, n items, A attributes of items, C classes of a field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.batch.bounds import check_index, check_tensor
from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, DataError
from recsys.log.event_log import ITEM, TIME
from recsys.nn.buffers import Keeper
from recsys.ranges import at_least
from recsys.tasks.splits import Split
from recsys.tasks.tensors import tensor_of

FIRST_YEAR, LAST_YEAR = 1970, 2069
CALENDAR_SIZES: Mapping[str, int] = {
    "year": LAST_YEAR - FIRST_YEAR + 1,
    "month": 12,
    "day": 31,
    "weekday": 7,
    "hour": 24,
}
PRICE = "price"
FARTHEST = 2 * 86_400
"""Seconds, more than any clock is from UTC."""


class EventFields(Keeper):
    """Codes of events, field by field: first the fields of the item, then those of the time.

    A field of C classes has codes 0 .. C - 1, and C where the class is unknown.

    Args:
        num_items: n.
        attributes: columns of the items; `item_id` may be one of them.
        num_classes: distinct values of each of these columns.
        price_buckets: quantiles of value per unit; 0 reads no price.
        calendar: parts of the local date, keys of `CALENDAR_SIZES`.

    Attributes:
        sizes: C of each field, by its name: that of its attribute, `price`, or the part of the
            date, with a `_` behind it where there is an attribute of that name.

    Raises:
        ConfigError: no field at all, an attribute without a size, an unknown part of the date,
            one of them named twice, or a negative number.
    """

    item_codes: Tensor
    price_edges: Tensor
    zone_starts: Tensor
    zone_offsets: Tensor
    classes_json: Tensor
    seen: Tensor

    def __init__(
        self,
        num_items: int,
        *,
        attributes: Sequence[str],
        num_classes: Mapping[str, int],
        price_buckets: int = 0,
        calendar: Sequence[str] = (),
    ) -> None:
        super().__init__()
        at_least(0, price_buckets=price_buckets)
        at_least(0, **num_classes)
        if not attributes and not price_buckets:
            raise ConfigError("an event has no field of its item; name attributes")
        if missing := [column for column in attributes if column not in num_classes]:
            there = ", ".join(num_classes) or "none"
            raise ConfigError(f"attributes: items have no column {missing[0]} (there are: {there})")
        if wrong := [part for part in calendar if part not in CALENDAR_SIZES]:
            raise ConfigError(f"calendar: {wrong[0]} is none of {', '.join(CALENDAR_SIZES)}")
        for option, names in (("attributes", attributes), ("calendar", calendar)):
            if twice := [name for name in names if list(names).count(name) > 1]:
                raise ConfigError(f"{option} names {twice[0]} twice; name it once")
        self.attributes, self.calendar = list(attributes), list(calendar)
        self.price_buckets = price_buckets
        self.sizes = {column: num_classes[column] for column in attributes}
        if price_buckets:
            self.sizes[_beside(attributes, PRICE)] = price_buckets
        self.num_product_fields = len(self.sizes)
        self.sizes |= {_beside(attributes, part): CALENDAR_SIZES[part] for part in calendar}
        unknown = torch.tensor([[num_classes[column] for column in attributes]]).long()
        self.register_buffer("item_codes", unknown.expand(num_items, -1).clone())
        self.register_buffer("price_edges", torch.zeros(max(price_buckets - 1, 0)))
        self.register_buffer("zone_starts", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("zone_offsets", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("classes_json", torch.zeros(0, dtype=torch.uint8))
        total = sum(size + 1 for size in self.sizes.values())
        self.register_buffer("seen", torch.ones(total, dtype=torch.bool))

    @property
    def device(self) -> torch.device:
        return self.item_codes.device

    def fit(self, split: Split) -> None:
        """Take the classes of the items, the price buckets and the time zone of a log.

        Raises:
            ConfigError: an attribute has another number of values than was said.
            DataError: the log knows no dates, or no values, and fields ask for them.
        """
        log = split.log
        if self.calendar and not log.has_calendar_time:
            raise DataError(
                f"{log.name}: timestamps are an order, not dates; set model.calendar=[]"
            )
        table = split.item_table
        classes = {
            c: table[c].cast(pl.String).unique().drop_nulls().sort() for c in self.attributes
        }
        for name, values in classes.items():
            if len(values) != self.sizes[name]:
                raise ConfigError(
                    f"num_classes.{name}={self.sizes[name]}: {log.name} has {len(values)} values "
                    "of it; leave num_classes to the log"
                )
        text = json.dumps({name: values.to_list() for name, values in classes.items()})
        self.classes_json = _bytes(text, self.device)
        self.read_items(table)
        zone = getattr(log.events[TIME].dtype, "time_zone", None)
        self.zone_starts, self.zone_offsets = (t.to(self.device) for t in _offsets(zone))
        if self.price_buckets:
            history = split.training
            prices = _prices(history)
            finite_prices = prices[prices.isfinite()]
            if not len(finite_prices):
                raise DataError(
                    f"{log.name}: events have no value; set model.product.price_buckets=0"
                )
            places = np.arange(1, self.price_buckets) / self.price_buckets
            edges = np.quantile(finite_prices.cpu().numpy(), places).astype(np.float32)
            self.price_edges = torch.from_numpy(edges).to(self.device)
        self.seen = torch.cat(
            [
                torch.bincount(codes, minlength=size + 1) > 0
                for codes, size in zip(self(split.training).T, self.sizes.values(), strict=True)
            ]
        )

    def check_kept(self, histories: BasketBatch) -> None:
        columns = [self.sizes[name] for name in self.attributes]
        check_tensor("item_codes", self.item_codes, torch.int64, histories.num_items, len(columns))
        for name, codes in zip(self.attributes, self.item_codes.T, strict=True):
            check_index(f"item_codes of {name}", codes, self.sizes[name] + 1)
        check_tensor("price_edges", self.price_edges, torch.float32, max(self.price_buckets - 1, 0))
        check_tensor("zone_offsets", self.zone_offsets, torch.int64, len(self.zone_starts))
        check_index("zone_offsets", self.zone_offsets + FARTHEST, 2 * FARTHEST + 1)
        check_tensor("zone_starts", self.zone_starts, torch.int64, len(self.zone_offsets))
        if not len(self.zone_starts) or (self.zone_starts.diff() <= 0).any():
            raise ValueError("zone_starts do not rise")
        check_tensor("seen", self.seen, torch.bool, sum(self.sizes.values()) + len(self.sizes))
        check_tensor("classes_json", self.classes_json, torch.uint8, len(self.classes_json))
        num_classes = {name: len(values) for name, values in self.classes.items()}
        if num_classes != {name: self.sizes[name] for name in self.attributes}:
            raise ValueError(f"classes of {num_classes}; expected those of {self.sizes}")

    @property
    def classes(self) -> dict[str, pl.Series]:
        """The values of each attribute, in the order of their codes."""
        values_by_name = json.loads(bytes(self.classes_json.cpu().numpy()))
        return {name: pl.Series(name, values, pl.String) for name, values in values_by_name.items()}

    def read_items(self, items: pl.DataFrame) -> None:
        """Describe the items by a table, which may be another log's.

        Raises:
            DataError: the table lacks an attribute.
        """
        self.item_codes = self.codes_of(items).to(self.device)

    def codes_of(self, items: pl.DataFrame) -> Tensor:
        """(n, A) int64: the codes of a table of items, which may be another log's.

        Raises:
            DataError: the table lacks an attribute.
        """
        if missing := [column for column in self.attributes if column not in items.columns]:
            columns = ",".join(column for column in self.attributes if column != ITEM)
            raise DataError(
                f"items have no column {missing[0]} (there are: {', '.join(items.columns)}); "
                "describe them as those that the model was trained on, such as by "
                f"data.item_columns=[{columns}]"
            )
        codes = [
            items[column]
            .cast(pl.String)
            .replace_strict(
                values, range(len(values)), default=self.sizes[column], return_dtype=pl.Int64
            )
            .fill_null(self.sizes[column])
            for column, values in self.classes.items()
        ]
        if not codes:
            return torch.zeros(len(items), 0, dtype=torch.int64)
        return torch.from_numpy(pl.DataFrame(codes).to_numpy().copy())

    def forward(self, batch: BasketBatch) -> Tensor:
        """(E, F) int64: a code per event and field, in the order of `sizes`."""
        columns = [self.item_codes[batch.items]]
        if self.price_buckets:
            prices = _prices(batch)
            bucket = torch.bucketize(prices, self.price_edges, right=True)
            columns.append(bucket.masked_fill(~prices.isfinite(), self.price_buckets)[:, None])
        if self.calendar:
            parts = self._calendar(batch.times)
            columns.append(torch.stack([parts[name] for name in self.calendar], 1))
        return torch.cat(columns, 1)

    def as_seen(self, codes: Tensor) -> Tensor:
        """Codes (E, F) where what training has not seen, such as a later month, is unknown."""
        sizes = torch.tensor(list(self.sizes.values()), device=codes.device)
        begins = (sizes + 1).cumsum(0) - sizes - 1
        return torch.where(self.seen[codes + begins], codes, sizes)

    def _calendar(self, times: Tensor) -> dict[str, Tensor]:
        """The parts of local dates of times (E,), seconds since 1970."""
        zone = torch.searchsorted(self.zone_starts, times, right=True).clamp(min=1) - 1
        local = times + self.zone_offsets[zone]
        days = local.div(86_400, rounding_mode="floor")
        year, month, day = _civil(days)
        return {
            "year": (year - FIRST_YEAR).clamp(0, CALENDAR_SIZES["year"]),
            "month": month - 1,
            "day": day - 1,
            "weekday": (days + 3) % 7,  # 1970 began on a Thursday; Monday is 0
            "hour": local.div(3600, rounding_mode="floor") % 24,
        }


def _beside(attributes: Sequence[str], name: str) -> str:
    """A name for a field of ours, told apart from attributes by what stands behind it."""
    while name in attributes:
        name += "_"
    return name


def count_nll(
    codes: Tensor,
    owners: Tensor,
    target_codes: Tensor,
    target_owners: Tensor,
    size: int,
    *,
    strength: float,
) -> Tensor:
    """(A,) negative log-likelihoods of codes from counts alone, the reference of every network.

    A code's probability is (n_uc + s p_c) / (n_u + s): the user's counts and, in the weight of s
    events, everybody's, to which half an event is added in each class.

    Args:
        codes, owners: (E,) the codes of past events, and each one's user, 0 .. U - 1.
        target_codes, target_owners: (A,) the codes to predict, and each one's user.
        size: C; codes from there on are unknown and do not count.
        strength: s; infinity leaves everybody's shares alone.
    """
    is_known = codes < size
    codes, owners = codes[is_known], owners[is_known]
    share = torch.bincount(codes, minlength=size).double() + 0.5
    everybody = (share / share.sum())[target_codes]
    if strength == float("inf"):
        return -everybody.log()
    keys, counts = (owners * size + codes).unique(return_counts=True)
    key = target_owners * size + target_codes
    at = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
    times = torch.where(keys[at] == key, counts[at], 0)
    total = torch.bincount(owners, minlength=int(target_owners.max()) + 1)[target_owners]
    return -((times + strength * everybody) / (total + strength)).log()


def _prices(batch: BasketBatch) -> Tensor:
    """(E,) value per unit."""
    return batch.values / batch.quantities


def _civil(days: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Year, month and day of days since 1970.

    Howard Hinnant, "chrono-compatible low-level date algorithms" (2013), `civil_from_days`: years
    begin in March, so that the leap day is the last.
    """

    def floor(a: Tensor, b: int) -> Tensor:
        return a.div(b, rounding_mode="floor")

    shifted = days + 719_468
    era = floor(shifted, 146_097)
    of_era = shifted - era * 146_097
    years = floor(
        of_era - floor(of_era, 1460) + floor(of_era, 36_524) - floor(of_era, 146_096), 365
    )
    of_year = of_era - (365 * years + floor(years, 4) - floor(years, 100))
    march_month = floor(5 * of_year + 2, 153)
    day = of_year - floor(153 * march_month + 2, 5) + 1
    month = torch.where(march_month < 10, march_month + 3, march_month - 9)
    return years + era * 400 + (month <= 2), month, day


def _offsets(zone: str | None) -> tuple[Tensor, Tensor]:
    """When a zone's offset from UTC changes, and to what: seconds, the first from 1970 on."""
    if zone is None:
        return torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    first, last = (datetime(year, 1, 1, tzinfo=UTC) for year in (FIRST_YEAR, LAST_YEAR))
    hours = pl.datetime_range(first, last, "1h", time_unit="ms", time_zone="UTC", eager=True)
    local = hours.dt.convert_time_zone(zone)
    offset = (local.dt.base_utc_offset() + local.dt.dst_offset()).dt.total_seconds()
    changes = (offset != offset.shift()).fill_null(True)
    starts = hours.dt.epoch("s").filter(changes)
    return (
        tensor_of(starts),
        tensor_of(offset.filter(changes)),
    )


def _bytes(text: str, device: torch.device) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)
