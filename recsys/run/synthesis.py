"""A synthetic log from a trained model: users who do not exist, and what is checked of them.

The model draws which items a user likes (`Generative`). How many baskets a user has, how large a
basket is and when it is come from the training users, each drawn by itself: no user's row of these
is copied. So a synthetic user has no order in time that means anything.

    events.parquet     `user_id`, `item_id`, `timestamp`, `basket_id`, for `data=table data.path=…`
    items.parquet      the catalogue, for `data.items_path`
    checks.json        what `checks` returns
    classes.parquet    shares of events by class, real and synthetic
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.batch.histories import BasketBatch
from recsys.errors import ConfigError, RunError
from recsys.evaluation.ranking import Protocol, evaluate
from recsys.evaluation.synthetic import (
    habits,
    nearest_distances,
    shares_of_classes,
    total_variation,
    two_sample_auc,
)
from recsys.files import atomic_folder, may_replace, write_parquet, write_text
from recsys.log.event_log import BASKET, ITEM, TIME, USER, EventLog
from recsys.models import EASE, ItemKNN, Popularity
from recsys.ranges import at_least
from recsys.scoring.kinds import Generative
from recsys.scoring.scorer import ClosedForm, Scorer
from recsys.tasks.splits import Split, all_training
from recsys.tasks.tensors import tensor_of

CHECKS = "checks.json"
FILES = (CHECKS, "events.parquet", "items.parquet", "classes.parquet")
USERS_AT_ONCE = 256
FEWEST_HELD_OUT = 20
MODELS: dict[str, Callable[[], ClosedForm]] = {
    "Popularity": Popularity,
    "ItemKNN": ItemKNN,
    "EASE": EASE,
}
"""Whose order is to be kept."""


@dataclass(frozen=True)
class Synthesis:
    """What is drawn.

    Attributes:
        num_users: how many; None is as many as trained the model.
        column: of the items, whose values are compared; None takes the items themselves.
        seed: of the draws.

    Raises:
        ConfigError: an option is out of its range.
    """

    num_users: int | None = None
    column: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(4, num_users=self.num_users)


def generative(model: Scorer) -> Generative:
    """The model itself.

    Raises:
        ConfigError: it draws nobody.
    """
    if not isinstance(model, Generative):
        raise ConfigError(
            f"{type(model).__name__} draws no users; train encgan or count_vae for that"
        )
    return model


@torch.inference_mode()
def synthetic_log(model: Generative, split: Split, options: Synthesis) -> EventLog:
    """Draw users and what they do.

    Args:
        model: trained on the split.
        split: whose training users say how many baskets there are, how large and when.
        options: how many users.
    """
    torch.manual_seed(options.seed)
    training = split.training
    num_users = options.num_users or len(training)
    baskets_of_user = _drawn(training.num_baskets(), num_users)
    owner = torch.arange(num_users).repeat_interleave(baskets_of_user)
    _, begins = training.basket_rows()
    sizes = _drawn(begins.diff(), len(owner))
    times = _drawn(training.times[begins[:-1]], len(owner))
    order = torch.from_numpy(np.lexsort((times.numpy(), owner.numpy())))
    times, basket = times[order], torch.arange(len(owner)).repeat_interleave(sizes)
    user = owner[basket]
    items = _items(model, torch.bincount(user, minlength=num_users))
    frame = pl.DataFrame(
        {
            USER: user.numpy(),
            ITEM: split.items.ids.gather(pl.Series(items.numpy())),
            TIME: _as_moments(times[basket], split.log.events[TIME]),
            BASKET: basket.numpy(),
        }
    ).unique([BASKET, ITEM], maintain_order=True)
    return EventLog.from_frames(frame, split.item_table, name=f"{split.log.name} (synthetic)")


def _drawn(values: Tensor, count: int) -> Tensor:
    return values[torch.randint(len(values), (count,))]


def _items(model: Generative, events_of_user: Tensor) -> Tensor:
    """(E,): of every user in turn so many items, by what the model says that the user likes."""
    items = []
    model.eval()
    for counts in events_of_user.split(USERS_AT_ONCE):
        preferences = model.draw_preferences(len(counts)).cpu()
        drawn = torch.multinomial(preferences, max(int(counts.max()), 1), replacement=True)
        items.append(drawn[torch.arange(drawn.shape[1]) < counts[:, None]])
    return torch.cat(items)


def _as_moments(times: Tensor, of_log: pl.Series) -> pl.Series:
    """Seconds as moments of the log's clock; places in an order as they are."""
    series, dtype = pl.Series(times.numpy()), of_log.dtype
    if not isinstance(dtype, pl.Datetime):
        return series
    moments = pl.from_epoch(series, "s").cast(pl.Datetime(dtype.time_unit))
    zone = dtype.time_zone
    return moments.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else moments


def checks(split: Split, log: EventLog, options: Synthesis, protocol: Protocol) -> dict[str, Any]:
    """What is checked of a synthetic log.

    Returns:
        `two_sample`, AUROC of a classifier that tells synthetic from real training users by all
        features, and by classes alone; `total_variation` of the classes; `order`, what three models
        reach on the real test users after training on either log, and whether their order is kept;
        `nearest`, cosine distances to the nearest training user.
    """
    drawn = all_training(log, split.items)
    real, synthetic = split.training, drawn.training
    class_of_item = _classes(split, options.column)[1]
    shares = [shares_of_classes(batch, class_of_item) for batch in (real, synthetic)]
    features = [
        torch.cat([habits(b), s], 1).numpy() for b, s in zip((real, synthetic), shares, strict=True)
    ]
    marginals = [_marginal(batch, class_of_item) for batch in (real, synthetic)]
    return {
        "users": len(synthetic),
        "events": len(synthetic.items),
        "two_sample": {
            "all": two_sample_auc(*features, seed=options.seed),
            "classes": two_sample_auc(*(s.numpy() for s in shares), seed=options.seed),
        },
        "total_variation": total_variation(*marginals),
        "order": order_of_models(split, drawn, protocol),
        "nearest": memorisation(split, synthetic),
    }


def class_table(split: Split, log: EventLog, column: str | None) -> pl.DataFrame:
    """`class`, `real` and `synthetic`: shares of events, most frequent first."""
    names, class_of_item = _classes(split, column)
    batches = split.training, all_training(log, split.items).training
    real, synthetic = (_marginal(batch, class_of_item).numpy() for batch in batches)
    table = pl.DataFrame({"class": names, "real": real, "synthetic": synthetic})
    return table.sort("real", "class", descending=[True, False])


def _classes(split: Split, column: str | None) -> tuple[pl.Series, Tensor]:
    """Names of the classes, and the place of each item's among them."""
    if column is not None and column not in split.item_table.columns:
        raise ConfigError(
            f"column={column}: items have no such column; there is "
            f"{', '.join(split.item_table.columns)}"
        )
    values = split.item_table[column or ITEM].cast(pl.String).fill_null("-")
    places = values.rank("dense").cast(pl.Int64) - 1
    return values.unique().sort(), tensor_of(places)


def _marginal(batch: BasketBatch, class_of_item: Tensor) -> Tensor:
    count = torch.bincount(class_of_item[batch.items], minlength=int(class_of_item.max()) + 1)
    return count.double() / count.sum()


def order_of_models(split: Split, drawn: Split, protocol: Protocol) -> dict[str, Any]:
    """What the real test users get, after training on the real and on the synthetic log."""
    k = protocol.ks[0]
    reached = {
        which: {
            name: evaluate(make().fit(of), split.test, protocol).means[f"ndcg@{k}"]
            for name, make in MODELS.items()
        }
        for which, of in (("real", split), ("synthetic", drawn))
    }
    orders = [sorted(MODELS, key=lambda name: -of[name]) for of in reached.values()]
    return {"metric": f"ndcg@{k}", **reached, "is_kept": orders[0] == orders[1]}


def memorisation(split: Split, synthetic: BasketBatch) -> dict[str, Any]:
    """Distances of synthetic users to training users, against those of users held out of training.

    Where a split holds out too few users, against those of training users to each other.
    """
    training, everyone = split.training, split.latest
    is_new = ~torch.isin(everyone.users, training.users)
    others = everyone.rows(is_new.nonzero()[:, 0])
    is_held_out = len(others) >= FEWEST_HELD_OUT
    reference = (
        nearest_distances(others, training)
        if is_held_out
        else nearest_distances(training, training, leave_out=True)
    )
    distances = nearest_distances(synthetic, training)
    close = reference.quantile(0.01)
    return {
        "reference": "held-out users" if is_held_out else "training users to each other",
        "synthetic": float(distances.median()),
        "real": float(reference.median()),
        "closest_synthetic": float(distances.min()),
        "closest_real": float(reference.min()),
        "share_below_first_percentile": float((distances < close).double().mean()),
    }


def check_place(folder: Path) -> None:
    """Refuse a folder of something else: it would be replaced.

    Raises:
        RunError: it is there, and not what `write` makes.
    """
    if folder.exists() and not may_replace(folder, FILES, CHECKS):
        raise RunError(f"{folder} is there and no synthetic log; name another folder in --output")


def write(folder: Path, log: EventLog, found: dict[str, Any], classes: pl.DataFrame) -> None:
    """Write the folder whole or not at all; a synthetic log that is there is replaced.

    Raises:
        RunError: as `check_place`.
    """
    check_place(folder)
    with atomic_folder(folder) as scratch:
        write_parquet(scratch / "events.parquet", log.events)
        write_parquet(scratch / "items.parquet", log.items)
        write_parquet(scratch / "classes.parquet", classes)
        write_text(scratch / CHECKS, json.dumps(found, indent=2))


def summary(found: dict[str, Any]) -> pl.DataFrame:
    """A row a check: what was found, and what it would be of a log like the real one."""
    two, order, nearest = found["two_sample"], found["order"], found["nearest"]
    reached = ", ".join(
        f"{name} {order['real'][name]:.4f} / {order['synthetic'][name]:.4f}" for name in MODELS
    )
    rows = [
        ("told from real users, AUROC", f"{two['all']:.3f}", "0.5"),
        ("told by classes alone, AUROC", f"{two['classes']:.3f}", "0.5"),
        ("total variation of classes", f"{found['total_variation']:.4f}", "0"),
        (f"{order['metric']} after real / synthetic", reached, "equal"),
        ("order of the three", "kept" if order["is_kept"] else "not kept", "kept"),
        ("nearest training user, median distance", f"{nearest['synthetic']:.3f}", "no less than"),
        (f"  of {nearest['reference']}", f"{nearest['real']:.3f}", ""),
        (
            "closer than 1 % of these are",
            f"{100 * nearest['share_below_first_percentile']:.1f} %",
            "1 % or less",
        ),
    ]
    return pl.DataFrame(rows, ["check", "found", "of a good log"], orient="row")
