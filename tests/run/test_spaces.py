"""What may be tried of options, and mistakes in it as one line."""

from __future__ import annotations

import re

import pytest
import yaml

from recsys.cli.compose import compose
from recsys.cli.names import CONF, names
from recsys.errors import ConfigError
from recsys.run.search import KINDS
from recsys.run.spaces import Space, spaces_of, with_options

TIFUKNN = ("data=table", "data.path=log.csv", "model=tifuknn")

MISTAKES = {
    "alpa=[0,1]": "search.space.model.alpa: there is no option model.alpa; there is model.alpha",
    "alpha=[0,0.5,1]": "search.space.model.alpha=[0,0.5,1]: expected [LOW,HIGH], [LOW,HIGH,log] or",
    "alpha=3": "search.space.model.alpha=3: expected [LOW,HIGH]",
    "alpha=[1,0]": "search.space.model.alpha=[1,0]: expected a first number below the second",
    "alpha=[0,1,log]": "expected a first number below the second, both above 0",
    "alpha=[true,false]": "search.space.model.alpha=[true,false]: expected [LOW,HIGH]",
    "alpha=[0.1,0.1,choice]": "search.space.model.alpha=[0.1,0.1,choice] names a value twice",
    "alpha=[[1],[2],choice]": "expected numbers, texts, true, false or null",
    "alpha=[a,b,choice]": "search.space: model.alpha=a: expected a number",
    "with_targets=[0,1]": "search.space: model.with_targets=0: expected true or false",
    "num_groups=[1,2.5]": "search.space: model.num_groups=1.0: expected an integer",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_space_that_cannot_be(mistake: str) -> None:
    config = compose([*TIFUKNN, f"++search.space.model.{mistake}"], "search")
    with pytest.raises(ConfigError, match=re.escape(MISTAKES[mistake])) as caught:
        spaces_of(config, KINDS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["task.ks", "data.path", "seed", "trainer.monitor"])
def test_what_is_the_same_in_every_trial(name: str) -> None:
    config = compose([*TIFUKNN, f"++search.space.{name}=[1,2,choice]"], "search")
    with pytest.raises(ConfigError, match=f"{name} is the same in every trial"):
        spaces_of(config, KINDS)


def test_nothing_to_try() -> None:
    config = compose([*TIFUKNN[:2], "model=popularity"], "search")
    with pytest.raises(ConfigError, match=r"search\.space is empty: Popularity has none"):
        spaces_of(config, KINDS)


def test_a_command_overrides_and_adds_and_removes() -> None:
    options = [
        "++search.space.model.alpha=[0.2,0.8]",
        "++search.space.model.group_decay=null",
        "++search.space.trainer.batch_size=[8,16,choice]",
    ]
    spaces = spaces_of(compose([*TIFUKNN, *options], "search"), KINDS)
    assert spaces["model.alpha"] == Space("float", (0.2, 0.8), 0.7)
    assert spaces["model.num_groups"] == Space("int", (1, 30), 7, log=True)
    assert "model.group_decay" not in spaces
    # The default is a choice, too.
    assert spaces["trainer.batch_size"] == Space("choice", (8, 16, 256), 256)


def test_the_value_nearest_to_a_default() -> None:
    assert Space("float", (0.1, 0.5), 0.7).nearest() == 0.5
    assert Space("float", (0.001, 1.0), 0, log=True).nearest() == 0.001
    assert Space("int", (1, 9), None).nearest() is None
    assert Space("choice", (None, 3), None).nearest() is None
    assert Space("float", (0.0, 0.123456), 0.1).rounded(0.123456) == 0.123456
    assert Space("float", (0.0, 1.0), 0.1).rounded(0.123456) == 0.1235


def test_options_are_set_in_a_copy() -> None:
    config = compose([*TIFUKNN], "search")
    changed = with_options(config, {"model.alpha": 0.1, "trainer.batch_size": 8})
    assert (changed.model.alpha, changed.trainer.batch_size) == (0.1, 8)
    assert (config.model.alpha, config.trainer.batch_size) == (0.7, 256)


@pytest.mark.parametrize("name", names("search"))
def test_every_model_that_has_a_space_can_be_searched(name: str) -> None:
    spaces = spaces_of(compose([*TIFUKNN[:2], f"model={name}"], "search"), KINDS)
    tree = yaml.safe_load((CONF / "search" / f"{name}.yaml").read_text())
    assert {key.partition(".")[0] for key in spaces} == set(tree)


def test_an_experiment_has_the_space_of_its_model() -> None:
    config = compose(["experiment=gloie_plus/dc"], "search")
    assert "model.autoencoder.dropout" in spaces_of(config, KINDS)
