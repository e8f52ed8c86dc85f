"""Does a domain gain from the others? A model on each domain alone, on every two, and on all.

`recsys transfer` divides a log by a column of its items. One split of the whole log says what is
known when (`recsys.tasks.within`): a domain alone has the events of the domain that all together
have, and of each phase the same. In every training the test users of a domain are asked for the
same targets, ranked over the items of the domain; what is trained on all is asked over every item,
too. A model in company reads of a user the history in all of its domains, alone that of the domain.
Early stopping looks at the validation users of what a model is trained on, as whoever has these
events and no others would.

A model that has seen no event of a domain cannot rank the domain's items. So the heat map's cell is
what the domain of its column gains when that of its row is trained beside it, and nothing else.

A run's folder holds

    config.yaml, log.json        the composed config, and of which log and domains
    trainings/<numbers>/         per_user.parquet of a finished training, and its checkpoints; 1+3
                                 is of the first and the third domain
    domains.json                 of each domain its items, events and test users
    per_user.parquet             every test user's metrics, by domain and training
    gains.parquet                paired differences to the domain alone
    intervals.json, metrics.json means by domain: of all together, `DOMAIN/alone/…` of the domain
                                 alone, `DOMAIN/everything/…` of all together over every item
    report.html

A training that is finished is kept: a run that was killed goes on with the next.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from recsys.errors import ConfigError
from recsys.evaluation.figures import write_figures
from recsys.evaluation.metrics import METRICS
from recsys.evaluation.ranking import ABOUT_USER, evaluate
from recsys.evaluation.statistics import mean_intervals
from recsys.evaluation.transfer import ALL, ALONE, PAIR, gains
from recsys.files import write_parquet, write_text
from recsys.log.event_log import USER
from recsys.log.filters import filtered
from recsys.reading import read_table
from recsys.report import transfer_page, transfer_tables
from recsys.report.screen import say, show
from recsys.run.config import Sizes, as_values, plain, sized
from recsys.run.folder import about, at_work, claim, close, note_end
from recsys.run.log import log_of
from recsys.run.options import check_options
from recsys.run.ranking import KINDS as OF_A_RANKING
from recsys.run.ranking import OF_A_TASK, Task, fitted, protocol_of, task_of
from recsys.run.task_kinds import TRANSFER
from recsys.scoring import trust
from recsys.scoring.scorer import Scorer
from recsys.tasks.domains import (
    domain_of_items,
    domains_of,
    having_targets_in,
    log_of_domains,
    within,
)
from recsys.timing import timed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Division:
    """The section `transfer` of a config.

    Attributes:
        column, largest, names: as `recsys.tasks.domains_of` takes them.
        pairs: whether every two domains are trained together, too.
    """

    column: str
    largest: int = 5
    names: Sequence[str] | None = None
    pairs: bool = True


KINDS = OF_A_RANKING | {"transfer": Division}
EVERYTHING = "everything"
"""Among all items, where the others are among those of the domain."""


@dataclass(frozen=True, eq=False)
class Domains:
    """A task whose items are divided.

    Attributes:
        task: of the whole log.
        names: of the domains.
        of_item: (n,) int64, the place of each item's domain among the names.
    """

    task: Task
    names: Sequence[str]
    of_item: Tensor

    def part(self, places: Sequence[int]) -> Domains:
        """Of some domains alone."""
        is_theirs = torch.isin(self.of_item, torch.tensor(places))
        split = self.task.split
        label = f"{split.log.name} ({', '.join(self.names[place] for place in places)})"
        split = within(split, is_theirs, name=label)
        task = task_of(split, self.task.protocol, {"index": None})
        return Domains(task, self.names, self.of_item[is_theirs])


def run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    """Train `config.model` on each domain alone, on pairs and on all, and compare.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: another process is at work in the folder.
    """
    with at_work(config, folder, TRANSFER, KINDS):
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> dict[str, dict[str, float]]:
    division = Division(**plain(config.transfer))
    domains = prepare(config, division)
    split = domains.task.split
    config = sized(config, Sizes.of(split))
    claim(folder, config, about(split.log) | {"domains": list(domains.names)})
    facts = dict(_facts(domains))
    write_text(folder / "domains.json", json.dumps(facts, indent=2))
    groups = list(_trainings(len(domains.names), pairs=division.pairs))
    say(*transfer_tables.describe(split.log.name, facts, len(groups), domains.task.protocol))
    per_user = pl.concat(
        _reached(places, domains, config, folder / "trainings" / _numbers(places))
        for places in groups
    )
    write_parquet(folder / "per_user.parquet", per_user)
    metrics = [f"{name}@{k}" for k in domains.task.protocol.ks for name in METRICS]
    table = gains(per_user.filter(among="domain"), metrics)
    write_parquet(folder / "gains.parquet", table)
    means = _write_figures(folder, per_user, metrics)
    note_end(folder)
    transfer_page.write(folder)
    metric = f"ndcg@{domains.task.protocol.ks[0]}"
    show(transfer_tables.gains_of_all(split.log.name, metric, table, means["test"]))
    if len(table.filter(training=PAIR)):
        show(transfer_tables.gains_of_pairs(metric, table))
    close(folder, config, split.log)
    return means


def prepare(config: DictConfig, division: Division) -> Domains:
    """Read the log, keep its domains, filter it, split it and divide it.

    Raises:
        ConfigError: an option that is not what is expected, or lists longer than a domain.
        DataError: what the log's source raises, or a domain without training or test users.
    """
    check_options(as_values(config, "data", "task", "retrieval"), OF_A_TASK)
    if config.baselines:
        raise ConfigError(
            f"baselines={{{', '.join(map(str, config.baselines))}: …}}: a model is compared with "
            "itself here; run recsys transfer for each of them"
        )
    for name in ("beyond", "slices"):
        if (columns := OmegaConf.select(config, f"report.{name}")) is not None:
            raise ConfigError(
                f"report.{name}=[{','.join(columns)}]: domains are compared by accuracy "
                "alone; leave it out, or ask recsys train"
            )
    protocol = protocol_of(plain(config.task))
    log = log_of(plain(config.data))
    choice: dict[str, Any] = {"largest": division.largest, "names": division.names}
    names = domains_of(log, column=division.column, **choice)
    log = log_of_domains(log, column=division.column, names=names)
    log = filtered(log, **plain(config.task.filters))
    split = trust.build(plain(config.task.split))(log)
    of_item = domain_of_items(split, column=division.column, names=names)
    sizes = torch.bincount(of_item, minlength=len(names))
    if (fewest := int(sizes.min())) < max(protocol.ks):
        raise ConfigError(
            f"task.ks: k={max(protocol.ks)} exceeds the {fewest} items of the domain "
            f"{names[int(sizes.argmin())]}; lower it, or name other domains in transfer.names"
        )
    return Domains(task_of(split, protocol, plain(config.retrieval)), names, of_item)


def _facts(domains: Domains) -> Iterator[tuple[str, dict[str, int]]]:
    """What each domain is, by name: refuses one that cannot be trained or asked alone."""
    for place, name in enumerate(domains.names):
        split = domains.part([place]).task.split
        history = split.test.history.lengths()
        yield (
            name,
            {
                "items": split.num_items,
                "events": len(split.events),
                "training_events": len(split.training.items),
                "training_users": len(split.training),
                "test_users": len(split.test),
                "test_users_new_to_it": int((history == 0).sum()),
            },
        )


def _trainings(num_domains: int, *, pairs: bool) -> Iterator[tuple[int, ...]]:
    """Places of the domains that are trained together; two domains are a pair and all there are."""
    yield from ((place,) for place in range(num_domains))
    if pairs and num_domains > 2:
        yield from combinations(range(num_domains), 2)
    yield tuple(range(num_domains))


def _numbers(places: Sequence[int]) -> str:
    """The name of a training's folder: domains may be called anything."""
    return "+".join(str(place + 1) for place in places)


def _reached(
    places: tuple[int, ...], domains: Domains, config: DictConfig, folder: Path
) -> pl.DataFrame:
    """Every test user's metrics after a training; one that is finished is read from its folder."""
    path = folder / "per_user.parquet"
    if not path.is_file():
        of_them = domains.part(places)
        with timed(logger, "trained on %s and asked", of_them.task.split.log.name):
            sizes = Sizes.of(of_them.task.split)
            model = fitted(sized(config, sizes).model, config, of_them.task, folder)
            write_parquet(path, _results(model, of_them, places))
    return read_table(path, USER, "domain", "training", "among")


def _results(model: Scorer, domains: Domains, places: tuple[int, ...]) -> pl.DataFrame:
    frames = []
    is_all = len(places) == len(domains.names)
    for place in places:
        frame = _asked(model, domains, place).with_columns(among=pl.lit("domain"))
        if len(places) == 1:
            frames.append(_labelled(frame, ALONE))
        if len(places) == 2:
            (other,) = set(places) - {place}
            frames.append(_labelled(frame, PAIR, domains.names[other]))
        if is_all:
            over_all = _asked(model, domains, place, among_all=True)
            over_all = over_all.with_columns(among=pl.lit(EVERYTHING))
            frames += [_labelled(of, ALL) for of in (frame, over_all)]
    return pl.concat(frames)


def _labelled(frame: pl.DataFrame, training: str, beside: str | None = None) -> pl.DataFrame:
    return frame.with_columns(
        training=pl.lit(training), beside=pl.lit(beside, dtype=pl.String), part=pl.lit("test")
    )


def _asked(model: Scorer, domains: Domains, place: int, *, among_all: bool = False) -> pl.DataFrame:
    """`user_id`, `domain`, what is known of the user and every metric, in one domain."""
    task, is_theirs = domains.task, domains.of_item == place
    result = evaluate(
        model,
        having_targets_in(task.split.test, is_theirs),
        task.protocol,
        popularity=task.popularity,
        candidates=None if among_all else is_theirs,
        build_index=task.build_index,
    ).per_user
    metrics = [name for name in result.columns if "@" in name and "/" not in name]
    ids = task.split.users.ids_of(result["user"]).rename(USER)
    return result.select(
        ids, pl.lit(domains.names[place]).alias("domain"), *ABOUT_USER[1:], *metrics
    )


def _write_figures(
    folder: Path, per_user: pl.DataFrame, metrics: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Means and intervals by domain, of all together, alone, and of all over every item."""
    means: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    keys = ["training", "domain", "among"]
    groups = per_user.filter(pl.col("training") != PAIR).partition_by(
        keys, as_dict=True, maintain_order=True
    )
    for (training, domain, among), frame in groups.items():
        which = {ALONE: f"{ALONE}/"}.get(training, f"{EVERYTHING}/" if among == EVERYTHING else "")
        of_users = frame.select(metrics)
        ends = mean_intervals(of_users, 0.95, 1000, 0)
        for name in metrics:
            means[f"{domain}/{which}{name}"] = float(of_users[name].mean())  # type: ignore[arg-type]
            intervals[f"{domain}/{which}{name}"] = ends[name]
    write_figures(folder, {"test": means}, {"test": intervals})
    return {"test": means}
