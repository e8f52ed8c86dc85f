"""What every predictor is refused: looking ahead, no features, questions of another kind."""

from dataclasses import dataclass

import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.errors import ConfigError, LeakError
from recsys.events import EventLog
from recsys.features import Counts
from recsys.models import MLP, LightGBM, LogisticRegression, NewEASE
from recsys.predictor import HistoryPredictor, Steps, candidate_events
from recsys.questions import Questions
from recsys.testing import colour_question, new_item_question

FEATURES = [Counts("colour")]


@dataclass(frozen=True, kw_only=True)
class Latest(HistoryPredictor):
    """How many events each candidate has, from whatever log is there."""

    log: EventLog | None = None

    def scores(self, questions: Questions, log: EventLog, users: pl.Series) -> Tensor:
        events = candidate_events(questions, self.log or log)
        found = torch.from_numpy(events["candidate"].to_numpy(writable=True))
        return torch.bincount(found, minlength=len(questions.candidates)).expand(len(users), -1)


class Peeking(Latest):
    """That takes no notice of the moment."""

    def scores(self, questions: Questions, log: EventLog, users: pl.Series) -> Tensor:
        return super().scores(questions, questions.log, users)


def test_a_history_predictor_sees_the_log_up_to_the_moment() -> None:
    questions = new_item_question()
    rows = torch.cat([questions.phase(0)[:1], questions.phase(2)[:1]])
    early, late = Latest().fit(questions, rows).predict(questions, rows)
    assert late.sum() > early.sum()
    Latest().check_leaks(questions, questions.phase(2))
    NewEASE().check_leaks(questions, questions.phase(2))


def test_one_that_looks_ahead_is_refused() -> None:
    questions = new_item_question()
    with pytest.raises(LeakError, match=r"Peeking knows what comes after 2024-01-05.* 32 of 32"):
        Peeking().check_leaks(questions, questions.phase(2))
    with pytest.raises(LeakError, match="Peeking knows"):
        MLP(features=FEATURES, prior=Peeking()).check_leaks(questions, questions.phase(2))


def test_equal_predictors_score_a_moment_once() -> None:
    questions = new_item_question()
    moment = questions.rows["as_of"][0]
    assert NewEASE(l2=3.0)._at(questions, moment) is NewEASE(l2=3.0)._at(questions, moment)
    assert NewEASE(l2=3.0)._at(questions, moment) is not NewEASE(l2=4.0)._at(questions, moment)


def test_events_of_a_candidate_that_stands_for_many_items() -> None:
    questions = new_item_question()
    events = candidate_events(questions, questions.log)
    item = questions.candidates.ids[events["candidate"].to_numpy()]
    assert len(events) == len(questions.log.events)
    assert item.to_list() == questions.log.events["item_id"].to_list()


@pytest.mark.parametrize("model", [LogisticRegression, LightGBM, MLP])
def test_without_features_there_is_nothing_to_learn_from(model: type) -> None:
    with pytest.raises(ConfigError, match=f"{model.__name__} has no features"):
        model(features=[])


@pytest.mark.parametrize("model", [LogisticRegression, LightGBM])
def test_one_of_rows_alone_ranks_no_candidates(model: type) -> None:
    questions = new_item_question()
    with pytest.raises(ConfigError, match=f"{model.__name__} ranks no candidates, and new has 40"):
        model(features=FEATURES).fit(questions, questions.phase(0))


def test_a_prior_is_of_ranked_candidates() -> None:
    questions = colour_question()
    with pytest.raises(ConfigError, match="white ranks no candidates; leave out prior"):
        MLP(features=FEATURES, prior=NewEASE()).fit(questions, questions.phase(0))


def test_options_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"l2=0\.0: expected above 0"):
        LogisticRegression(features=FEATURES, l2=0.0)
    with pytest.raises(ConfigError, match=r"held_out=1\.0 is no share"):
        Steps(held_out=1.0)


def test_a_class_that_training_lacks_is_no_reason_to_fail() -> None:
    questions = colour_question()
    yes = questions.answers.lengths.nonzero()[:, 0]
    scores = LogisticRegression(features=FEATURES).fit(questions, yes).predict(questions, yes)
    assert scores.tolist() == [[1.0]] * len(yes)
