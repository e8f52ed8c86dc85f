"""Losses of feedback against hand-worked points, trl's own numbers and the bound on DPO's."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed
from torch.nn.functional import softplus

from recsys.errors import ConfigError
from recsys.nn import BCE, BCO, DPO, KTO, SFT, PreferenceLoss, Preferences
from recsys.nn.preferences import pairs
from recsys.training.alignment import odds

TRL = json.loads((Path(__file__).parents[1] / "fixtures" / "bco_trl.json").read_text())
REWARD = st.floats(-20, 20, width=32)


def preferences(up: list[float], down: list[float], **others: torch.Tensor) -> Preferences:
    """Items whose log-ratios are given, all of one list."""
    ratios = torch.tensor([*up, *down], dtype=torch.float64)
    labels = torch.tensor([True] * len(up) + [False] * len(down))
    lists = torch.zeros(len(ratios), dtype=torch.int64)
    return Preferences(ratios, torch.zeros_like(ratios), labels, lists, **others)


def bco_of(up: float, down: float, shift: float) -> float:
    """The loss of a pair at a shift, which is held."""
    loss = BCO(beta=1.0, balanced=False).eval()
    loss.total.fill_(shift)
    loss.count.fill_(1.0)
    return 2 * float(loss(preferences([up], [down])))


@given(up=REWARD, down=REWARD, shift=REWARD)
@settings(max_examples=300, deadline=None)
def test_bco_bounds_dpo_and_the_gap_is_least_at_the_mean_of_the_rewards(
    up: float, down: float, shift: float
) -> None:
    dpo = float(DPO(beta=1.0)(preferences([up], [down])))
    at_shift, at_mean = bco_of(up, down, shift), bco_of(up, down, (up + down) / 2)
    assert at_shift >= dpo - 1e-9
    assert dpo - 1e-9 <= at_mean <= at_shift + 1e-9


@pytest.mark.parametrize("matching", [False, True])
def test_a_hundred_steps_as_trl_computes_them(matching: bool) -> None:
    loss = BCO(beta=TRL["beta"], balanced=False, matching=matching)
    vectors = {side: np.array(rows, dtype=np.float32) for side, rows in TRL["vectors"].items()}
    both = torch.from_numpy(np.concatenate([vectors["up"], vectors["down"]]))
    labels = torch.arange(len(both)) < len(vectors["up"])
    every = odds(both, torch.arange(len(both)), labels, prompts=len(both))
    down_at = len(vectors["up"])
    for step in TRL["steps"]:
        up, down = step["up"], step["down"]
        now = torch.tensor([*up, *down], dtype=torch.float64)
        reference = torch.tensor(step["up_reference"] + step["down_reference"]).double()
        is_up = torch.arange(len(now)) < len(up)
        item_odds = torch.ones(len(now))
        item_odds[len(up) :] = every[down_at : down_at + len(down)]
        down_at += len(down)
        lists = torch.arange(len(now))
        value = loss(Preferences(now, reference, is_up, lists, odds=item_odds))
        assert loss.shift == pytest.approx(step["shift"], abs=1e-4)
        weights = torch.ones(len(now))
        weights[len(up) :] = torch.tensor(step["weights"])
        expected = torch.tensor(step["losses"])
        if matching:
            weighed = item_odds.clamp(*BCO.ODDS)[len(up) :]
            torch.testing.assert_close(weighed, weights[len(up) :], rtol=0, atol=2e-3)
        else:
            expected = expected / weights
        assert float(value) == pytest.approx(float(expected.mean()), rel=2e-3, abs=1e-4)


def test_classes_weigh_alike_by_default() -> None:
    loss = BCE(beta=1.0)
    loss.start(torch.tensor([True] + [False] * 3))
    value = loss(preferences([2.0], [0.0, 0.0, 0.0]))
    expected = (math.log1p(math.exp(-2.0)) + math.log(2)) / 2
    assert float(value) == pytest.approx(expected)


def test_a_shift_is_of_all_items_since_the_first_step_and_needs_no_gradient() -> None:
    loss = BCO(beta=0.5, balanced=False)
    loss(preferences([4.0], [0.0, 0.0]))
    ratios = torch.tensor([2.0], requires_grad=True)
    one = torch.tensor([True])
    value = loss(Preferences(ratios, torch.zeros(1), one, torch.zeros(1).long()))
    assert loss.shift == pytest.approx(0.5 * 6.0 / 4)
    value.backward()
    assert float(ratios.grad) == pytest.approx(-0.5 / (1 + math.exp(1.0 - 0.75)))


def test_evaluation_leaves_the_shift_and_a_state_brings_it_back() -> None:
    loss = BCO()
    loss(preferences([4.0], [1.0]))
    loss.eval()(preferences([90.0], [90.0]))
    again = BCO()
    again.load_state_dict(loss.state_dict())
    assert again.shift == loss.shift == pytest.approx(0.25)


def test_a_shift_is_of_the_items_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_another_rank(now: torch.Tensor) -> None:
        now += torch.tensor([30.0, 3.0])

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "all_reduce", with_another_rank)
    loss = BCO(beta=1.0)
    loss(preferences([4.0], [2.0]))
    assert loss.shift == pytest.approx(36.0 / 5)


def test_kto_compares_with_the_divergence_that_items_of_others_show() -> None:
    loss = KTO(beta=1.0, balanced=False)
    others = torch.tensor([3.0, 1.0]), torch.zeros(2)
    value = loss(preferences([2.0], [0.0], mismatched=others[0], mismatched_reference=others[1]))
    sigmoid = torch.sigmoid(torch.tensor([0.0, 2.0]))
    assert loss.shift == pytest.approx(2.0)
    assert float(value) == pytest.approx(float((1 - sigmoid).mean()))
    low = torch.tensor([-3.0, -1.0])
    loss(preferences([2.0], [0.0], mismatched=low, mismatched_reference=others[1]))
    assert loss.shift == 0.0


def test_pairs_are_of_one_list() -> None:
    labels = torch.tensor([True, False, False, False, True, True, False])
    lists = torch.tensor([0, 0, 0, 1, 2, 2, 2])
    of = Preferences(torch.zeros(7), torch.zeros(7), labels, lists)
    up, down = pairs(of)
    assert list(zip(up.tolist(), down.tolist(), strict=True)) == [(0, 1), (0, 2), (4, 6), (5, 6)]


def test_dpo_is_a_mean_over_pairs_and_nothing_where_there_is_none() -> None:
    value = DPO(beta=0.5)(preferences([2.0, 0.0], [1.0]))
    expected = softplus(torch.tensor([-0.5, 0.5])).mean()
    assert float(value) == pytest.approx(float(expected))
    assert float(DPO()(preferences([2.0], []))) == 0.0


def test_sft_reads_what_was_taken_up_alone() -> None:
    assert float(SFT()(preferences([-2.0, -4.0], [-50.0]))) == pytest.approx(3.0)


def test_beta_is_above_nothing() -> None:
    with pytest.raises(ConfigError, match=r"beta=0.0: expected above 0"):
        BCO(beta=0.0)


@pytest.mark.parametrize("loss", [BCE(), BCO(), DPO(), SFT()])
def test_gradients_raise_what_was_taken_up(loss: PreferenceLoss) -> None:
    now = torch.zeros(2, requires_grad=True)
    labels = torch.tensor([True, False])
    loss(Preferences(now, torch.zeros(2), labels, torch.zeros(2).long())).backward()
    up, down = now.grad.tolist()
    assert up < 0 <= down
