"""What every predictor is refused: looking ahead, no features, tables of another kind."""

from dataclasses import dataclass

import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.errors import ConfigError, LeakError
from recsys.log.event_log import EventLog
from recsys.models import MLP, LightGBM, LogisticRegression, NewEASE
from recsys.scoring.predictor import HistoryPredictor, Steps, candidate_events
from recsys.tasks.features import Counts
from recsys.tasks.labels import LabelTable
from recsys.testing.logs import colour_table, new_item_table

FEATURES = [Counts("colour")]


@dataclass(frozen=True, kw_only=True)
class Latest(HistoryPredictor):
    """How many events each candidate has, from whatever log is there."""

    log: EventLog | None = None

    def scores(self, table: LabelTable, log: EventLog, users: pl.Series) -> Tensor:
        events = candidate_events(table, self.log or log)
        found = torch.from_numpy(events["candidate"].to_numpy(writable=True))
        return torch.bincount(found, minlength=len(table.candidates)).expand(len(users), -1)


class Peeking(Latest):
    """That takes no notice of the moment."""

    def scores(self, table: LabelTable, log: EventLog, users: pl.Series) -> Tensor:
        return super().scores(table, table.log, users)


def test_a_history_predictor_sees_the_log_up_to_the_moment() -> None:
    table = new_item_table()
    rows = torch.cat([table.phase(0)[:1], table.phase(2)[:1]])
    early, late = Latest().fit(table, rows).predict(table, rows)
    assert late.sum() > early.sum()
    Latest().check_leaks(table, table.phase(2))
    NewEASE().check_leaks(table, table.phase(2))


def test_one_that_looks_ahead_is_refused() -> None:
    table = new_item_table()
    with pytest.raises(LeakError, match=r"Peeking knows what comes after 2024-01-05.* 32 of 32"):
        Peeking().check_leaks(table, table.phase(2))
    with pytest.raises(LeakError, match="Peeking knows"):
        MLP(features=FEATURES, prior=Peeking()).check_leaks(table, table.phase(2))


def test_equal_predictors_score_a_moment_once() -> None:
    table = new_item_table()
    moment = table.rows["as_of"][0]
    assert NewEASE(l2=3.0)._at(table, moment) is NewEASE(l2=3.0)._at(table, moment)
    assert NewEASE(l2=3.0)._at(table, moment) is not NewEASE(l2=4.0)._at(table, moment)


def test_events_of_a_candidate_that_stands_for_many_items() -> None:
    table = new_item_table()
    events = candidate_events(table, table.log)
    item = table.candidates.ids[events["candidate"].to_numpy()]
    assert len(events) == len(table.log.events)
    assert item.to_list() == table.log.events["item_id"].to_list()


@pytest.mark.parametrize("model", [LogisticRegression, LightGBM, MLP])
def test_without_features_there_is_nothing_to_learn_from(model: type) -> None:
    with pytest.raises(ConfigError, match=f"{model.__name__} has no features"):
        model(features=[])


@pytest.mark.parametrize("model", [LogisticRegression, LightGBM])
def test_one_of_rows_alone_ranks_no_candidates(model: type) -> None:
    table = new_item_table()
    with pytest.raises(ConfigError, match=f"{model.__name__} ranks no candidates, and new has 40"):
        model(features=FEATURES).fit(table, table.phase(0))


def test_a_prior_is_of_ranked_candidates() -> None:
    table = colour_table()
    with pytest.raises(ConfigError, match="white ranks no candidates; leave out prior"):
        MLP(features=FEATURES, prior=NewEASE()).fit(table, table.phase(0))


def test_options_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"l2=0\.0: expected above 0"):
        LogisticRegression(features=FEATURES, l2=0.0)
    with pytest.raises(ConfigError, match=r"held_out=1\.0 is no share"):
        Steps(held_out=1.0)


def test_a_class_that_training_lacks_is_no_reason_to_fail() -> None:
    table = colour_table()
    yes = table.labels.lengths.nonzero()[:, 0]
    scores = LogisticRegression(features=FEATURES).fit(table, yes).predict(table, yes)
    assert scores.tolist() == [[1.0]] * len(yes)
