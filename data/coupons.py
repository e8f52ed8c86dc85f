"""Labels of the coupons of Complete Journey: who responds to a campaign, and with which.

The package's `campaigns` say which households were sent a campaign, `coupons` what products each of
its coupons covers, `coupon_redemptions` who redeemed what. A campaign's rows are as of midnight
of the day it starts; its labels are known when its last day has passed.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch

from recsys.batch.ragged import Ragged
from recsys.data.sources.complete_journey import table
from recsys.errors import ConfigError
from recsys.log.event_log import ITEM, USER, EventLog
from recsys.log.time import days_after, moment
from recsys.log.vocabulary import Vocabulary
from recsys.tasks.as_of import PHASE
from recsys.tasks.labels import LabelTable
from recsys.tasks.phases import TEST, TRAIN
from recsys.tasks.tensors import tensor_of
from recsys.tasks.windows import (
    RankedRows,
    Window,
    checked_window,
    class_table,
    grouped,
    ranking_table,
    refuse_one_label,
)

_HOUSEHOLD, _CAMPAIGN, _COUPON = "household_id", "campaign_id", "coupon_upc"


def coupon_response(log: EventLog, name: str, *, train: Sequence[int], test: int) -> LabelTable:
    """Whether a household that was sent a campaign redeems any of its coupons.

    Args:
        log: of the package.
        name: of the table.
        train, test: campaigns.

    Raises:
        ConfigError: a campaign does not exist or does not lie within the log, or of those who were
            sent one everybody redeems or nobody.
    """
    if not train:
        raise ConfigError(f"{name}: train=[] leaves nothing to learn from; give earlier campaigns")
    frames = []
    for phase, campaign in _phases(train, test):
        window = _window(log, name, phase, campaign)
        sent = table("campaigns").filter(pl.col(_CAMPAIGN) == campaign)[_HOUSEHOLD].unique().sort()
        redeemers = _redeemed(campaign)[USER].unique()
        frames.append(
            window.rows(sent.rename(USER).to_frame()).with_columns(
                redeems=pl.col(USER).is_in(redeemers.implode())
            )
        )
    rows = pl.concat(frames)
    for phase, option in ((TRAIN, f"{train=}"), (TEST, f"{test=}")):
        redeems = rows.filter(pl.col(PHASE) == phase)["redeems"]
        refuse_one_label(f"{name}: {option}", redeems, "redeem a coupon")
    member = rows["redeems"].to_numpy()[:, None]
    return class_table(name, log, rows.drop("redeems"), ["redeems"], member)


def coupon(log: EventLog, name: str, *, train: Sequence[int], test: int) -> LabelTable:
    """Which of a campaign's coupons a household redeems, of those that redeem any.

    A candidate is a coupon of one campaign, `18/51380041013`, since a coupon may cover other
    products in another; those of other campaigns are excluded. It stands for what it covers.

    Args:
        log: of the package.
        name: of the table.
        train, test: campaigns.

    Raises:
        ConfigError: a campaign does not exist, does not lie within the log, or nobody redeems it.
    """
    phases = _phases(train, test)
    of = pl.concat_str(_CAMPAIGN, pl.lit("/"), _COUPON).alias("candidate")
    covers = (
        table("coupons")
        .filter(pl.col(_CAMPAIGN).is_in([campaign for _, campaign in phases]))
        .select(of, _CAMPAIGN, pl.col("product_id").alias(ITEM))
        .unique()
    )
    ids = covers.select("candidate", _CAMPAIGN).unique().sort(_CAMPAIGN, "candidate")
    candidates = Vocabulary(ids["candidate"])
    parts = []
    for phase, campaign in phases:
        redeemed = _redeemed(campaign).select(USER, of).unique()
        users = redeemed[USER].unique().sort()
        window = _window(log, name, phase, campaign)
        window.refuse_nobody(users.to_frame(), "redeems a coupon")
        right = candidates.index_of(redeemed["candidate"])
        labels = grouped(Vocabulary(users).index_of(redeemed[USER]), right, len(users))
        others = tensor_of((ids[_CAMPAIGN] != campaign).arg_true())
        excluded = Ragged(others.repeat(len(users)), torch.arange(len(users) + 1) * len(others))
        parts.append(RankedRows(window.rows(users.to_frame()), labels, excluded))
    item = Vocabulary(log.items[ITEM]).index_of(covers[ITEM])
    group = candidates.index_of(covers["candidate"]).set(item < 0, -1)
    items = grouped(group, item, len(candidates))
    return ranking_table(name, log, candidates, parts, items)


def _phases(train: Sequence[int], test: int) -> list[tuple[int, int]]:
    return [*((TRAIN, campaign) for campaign in train), (TEST, test)]


def _redeemed(campaign: int) -> pl.DataFrame:
    """`user_id`, `campaign_id` and `coupon_upc` of a campaign's redemptions."""
    redeemed = table("coupon_redemptions").filter(pl.col(_CAMPAIGN) == campaign)
    return redeemed.select(pl.col(_HOUSEHOLD).alias(USER), _CAMPAIGN, _COUPON)


def _window(log: EventLog, name: str, phase: int, campaign: int) -> Window:
    """From midnight of a campaign's first day to that of its last."""
    option = f"{name}: {'train' if phase == TRAIN else 'test'}: campaign {campaign}"
    campaigns = table("campaign_descriptions").sort(_CAMPAIGN)
    about = campaigns.filter(pl.col(_CAMPAIGN) == campaign)
    if not len(about):
        first, *_, last = campaigns[_CAMPAIGN]
        raise ConfigError(f"{option} does not exist; they are {first} to {last}")
    start, end = (
        moment(log, f"{option}: {column}", about[column][0].date())
        for column in ("start_date", "end_date")
    )
    return checked_window(log, Window(option, phase, start, days_after(end, 1)))
