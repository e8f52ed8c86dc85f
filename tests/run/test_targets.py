"""What a `_target_` makes against what an option is for, by annotations alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from recsys.errors import ConfigError
from recsys.nn.hazards import Penalty
from recsys.run.options import check_options
from recsys.run.targets import examples, may_make
from recsys.scoring import Steps
from recsys.scoring.scorer import Scorer
from recsys.tasks.features import RFM, CandidateFeature, Feature
from recsys.tasks.sales import Origins
from recsys.tasks.splits import Split


def silent(log, rows):  # type: ignore[no-untyped-def]
    """Does not say what it returns."""


def a_feature() -> Feature:
    return RFM()


def of_any_kind() -> Any:
    return RFM()


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own", sys.modules[__name__])


PARTIAL = {"_partial_": True}


@pytest.mark.parametrize(
    ("target", "kind", "expected"),
    [
        ("recsys.tasks.RFM", Feature, True),
        ("recsys.scoring.Profile", Feature, True),
        ("own.a_feature", Feature, True),
        ("own.of_any_kind", Feature, True),
        ("own.silent", Feature, True),
        ("no.such", Feature, True),  # which others tell
        ("os.system", Feature, False),
        ("subprocess.call", Feature, False),
        ("collections.Counter", Feature, False),
        ("recsys.models.EASE", Feature, False),
        ("recsys.models.SASRec", Feature, False),
        ("recsys.nn.L1", Feature, False),
        ("recsys.tasks.CandidateShares", Feature, False),
        ("recsys.tasks.CandidateShares", CandidateFeature, True),
        ("recsys.tasks.RFM", CandidateFeature, False),
        ("recsys.nn.L1", Penalty, True),
        ("recsys.tasks.RFM", Penalty, False),
        ("recsys.models.EASE", Scorer, True),
        ("recsys.models.Cox", Scorer, False),
        ("recsys.tasks.Origins", Origins, True),
        ("recsys.scoring.Steps", Origins, False),
        ("recsys.tasks.leave_last_out", Callable[..., Split], False),
        ("collections.Counter", object, True),
    ],
)
def test_what_a_target_may_make(target: str, kind: Any, expected: bool) -> None:
    assert may_make({"_target_": target}, kind) is expected


@pytest.mark.parametrize(
    ("target", "kind", "expected"),
    [
        ("recsys.tasks.leave_last_out", Callable[..., Split], True),
        ("recsys.tasks.return_time", Callable[..., Split], False),
        ("collections.Counter", Callable[..., Split], False),
        ("own.silent", Feature, True),
        ("os.system", Feature, False),
        ("recsys.tasks.leave_last_out", Feature, False),
        ("recsys.models.EASE", Scorer, False),
    ],
)
def test_what_is_called_later(target: str, kind: Any, expected: bool) -> None:
    assert may_make({"_target_": target, **PARTIAL}, kind) is expected


def test_what_there_is_to_choose_from() -> None:
    names = ["Clock", "Counts", "Gaps", "LastVisit", "RFM", "RecentGaps"]
    assert examples(Feature) == [f"recsys.tasks.{name}" for name in names]
    assert "recsys.tasks.leave_last_out" in examples(Callable[..., Split])
    assert examples(Origins) == ["recsys.tasks.Origins"]
    assert examples(Steps) == ["recsys.scoring.Steps"]
    assert "recsys.models.EASE" in examples(Scorer)
    assert examples(object) == examples(int | None) == []


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ([{"_target_": "os.system"}], Sequence[Feature], r"o=\[{_target_:os.system}\]: expected a"),
        (
            {"_target_": "os.system", "x": 1},
            Feature,
            "^o._target_=os.system: expected",
        ),
        (["RFM"], Sequence[Feature], r"^o=\[RFM\]: .* that makes a Feature, such as recsys.tasks"),
        ({"_target_": "os.system"}, Origins, "that makes an Origins, such as recsys.tasks.Origins"),
        ({"a": {"_target_": "os.system"}}, Mapping[str, Feature], "^o.a._target_=os.system: "),
    ],
)
def test_what_is_said(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options({"o": value}, {"o": kind})
