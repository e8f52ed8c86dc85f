"""What a config may call: by purpose, one by one, and nothing that stands beside it."""

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest

import recsys
import recsys.models
from recsys.errors import ConfigError
from recsys.models import CountVAE, Hybrid
from recsys.models.language.decoders import Pretrained
from recsys.nn.distributions import TweedieHead
from recsys.retrieval.index import ExactIndex
from recsys.scoring import trust
from recsys.scoring.trust import LISTED, build, check, find
from recsys.tasks.splits import last_basket

CONF = Path(recsys.__file__).parent / "conf"
OF_GROUP: dict[str, trust.Purpose] = {
    "data": "data",
    "decoder": "model",
    "head": "model",
    "model": "model",
    "retrieval": "index",
    "task": "split",
    "text": "model",
}
OF_PREDICTORS = {"recsys.scoring.Steps"}  # which are not saved
OF_FORECASTS = {"recsys.tasks.Origins", "recsys.tasks.sales_series"}  # whose runs are not, either
OF_RETURN_TIMES = {"recsys.tasks.return_time", "recsys.tasks.Clock", "recsys.tasks.Gaps"}
OF_RETURN_TIMES |= {"recsys.tasks.RFM"}  # a run's own config may call them to fit its model again
COUNT_VAE = {
    "_target_": "recsys.models.CountVAE",
    "num_items": 5,
    "head": {"_target_": "recsys.nn.TweedieHead", "power": 1.3},
}


def targets(group: str) -> Iterator[str]:
    for path in sorted((CONF / group).rglob("*.yaml")):
        yield from re.findall(r"_target_: ([\w.]+)", path.read_text())


@pytest.mark.parametrize("group", OF_GROUP)
def test_what_a_run_is_composed_of_is_listed_for_its_purpose(group: str) -> None:
    named = set(targets(group)) - OF_PREDICTORS - OF_FORECASTS
    named -= OF_RETURN_TIMES if group == "task" else set()
    assert named
    for target in named:
        find(target, OF_GROUP[group])  # a new one needs its line in recsys/scoring/trust.py


def test_what_a_run_of_return_times_is_fitted_again_from_is_listed() -> None:
    named = OF_RETURN_TIMES & set(targets("task"))
    assert named == OF_RETURN_TIMES
    find("recsys.tasks.return_time", "table")
    for feature in named - {"recsys.tasks.return_time"}:
        find(feature, "model")
    with pytest.raises(ConfigError, match="may call as a table"):
        find("recsys.tasks.lapse", "table")


def test_what_experiments_add_to_models_is_listed() -> None:
    parts = {
        t
        for t in targets("experiment")
        if t not in ("recsys.tasks.Counts", "recsys.tasks.RFM", "recsys.scoring.Profile")
    }
    assert "recsys.data.LogCorpus" in parts
    for target in parts:
        find(target, "model")


def test_all_of_the_zoo_is_listed_and_everything_listed_is_ours() -> None:
    for name in recsys.models.__all__:
        assert find(f"recsys.models.{name}", "model") is getattr(recsys.models, name)
    for purpose, names in LISTED.items():
        assert list(names) == sorted(names)
        for name in names:
            assert find(name, purpose).__module__.startswith(name.rpartition(".")[0])


@pytest.mark.parametrize("purpose", LISTED)
def test_one_purpose_may_not_name_what_is_of_another(purpose: trust.Purpose) -> None:
    others = [name for other, names in LISTED.items() if other != purpose for name in names]
    others += [] if purpose == "model" else ["recsys.models.EASE"]
    for name in others:
        with pytest.raises(ConfigError, match=f"{name} is nothing that .* may call as a {purpose}"):
            find(name, purpose)


def everything() -> Iterator[str]:
    """The names of all that our modules define or import."""
    for module in walk_packages(recsys.__path__, "recsys."):
        if module.name in (
            "recsys.testing.contracts",
            "recsys.data.graphs",
        ):  # of pytest and of extras
            continue
        imported = __import__(module.name, fromlist=[""])
        yield from (f"{module.name}.{name}" for name in dir(imported))


def test_nothing_else_of_the_package_may_be_called() -> None:
    names = set(everything())
    assert len(names) > 2000
    zoo = {f"recsys.models.{name}" for name in recsys.models.__all__}
    for purpose, listed in LISTED.items():
        allowed = set(listed) | (zoo if purpose == "model" else set())
        for name in names - allowed:
            with pytest.raises(ConfigError, match="is nothing that a folder's config may call"):
                find(name, purpose)


def test_a_config_is_built_inner_parts_first() -> None:
    members = {"a": COUNT_VAE, "b": {"_target_": "recsys.models.EASE", "l2": 3.0}}
    config = {
        "_target_": "recsys.models.Hybrid",
        "members": members,
        "weights": {"a": 1.0, "b": 2.0},
    }
    for purpose in (None, "model"):
        built = build(config, purpose)
        assert isinstance(built, Hybrid)
        first, second = dict(built.members()).values()
        assert isinstance(first, CountVAE)
        assert first.head == TweedieHead(power=1.3)
        assert second.l2 == 3.0
    assert build({"_target_": "recsys.tasks.last_basket", "_partial_": True}).func is last_basket
    index = build({"_target_": "recsys.retrieval.ExactIndex", "_partial_": True}, "index")
    assert isinstance(index, partial)
    assert index.func is ExactIndex


def test_nothing_is_called_of_a_config_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("recsys.nn.TweedieHead", lambda **options: calls.append(options))
    refused = {**COUNT_VAE, "decay": {"_target_": "os.mkdir", "path": str(tmp_path / "made")}}
    with pytest.raises(ConfigError, match=r"_target_: os\.mkdir is nothing that"):
        build(refused, "model")
    assert not calls
    assert not (tmp_path / "made").exists()


BAD_OPTIONS: list[tuple[dict[Any, Any], str]] = [
    ({"_args_": [1]}, "_args_: recsys.models.EASE has no such option"),
    ({"_convert_": "all"}, "_convert_: recsys.models.EASE has no such option"),
    ({"_recursive_": False}, "_recursive_: recsys.models.EASE has no such option"),
    ({"__class__": 1}, "__class__: recsys.models.EASE has no such option"),
    ({3: 1}, "3: recsys.models.EASE has no such option"),
    ({"_partial_": "yes"}, "_partial_: 'yes' is neither true nor false"),
    ({"l3": 1}, "recsys.models.EASE: got an unexpected keyword argument 'l3'"),
    ({"l2": -1.0}, "l2=-1.0: expected above 0"),
]


@pytest.mark.parametrize(("more", "words"), BAD_OPTIONS)
def test_options_that_a_class_does_not_take(more: dict[Any, Any], words: str) -> None:
    for purpose in (None, "model"):
        with pytest.raises(ConfigError, match=re.escape(words)):
            build({"_target_": "recsys.models.EASE", **more}, purpose)


class Refuses:
    """A class whose constructor refuses what it is given, in one of several ways."""

    def __init__(self, *, error: str) -> None:
        raise {"ours": ConfigError, "value": ValueError, "bug": KeyError}[error](f"{error}\nmore")


def test_what_a_class_makes_of_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "refuses", sys.modules[__name__])
    monkeypatch.setattr(Refuses, "__module__", "refuses")
    config = {"_target_": "refuses.Refuses"}
    for trusted, purpose in (((), None), (("refuses",), "model")):
        with pytest.raises(ConfigError, match=r"^ours more$"):
            build(config | {"error": "ours"}, purpose, trusted=trusted)
        with pytest.raises(ConfigError, match=r"^refuses\.Refuses refuses its options: value$"):
            build(config | {"error": "value"}, purpose, trusted=trusted)
    # In a folder that is anybody's nothing is a fault of ours.
    with pytest.raises(ConfigError, match=r"^refuses\.Refuses refuses its options: 'bug"):
        build(config | {"error": "bug"}, "model", trusted=["refuses"])
    with pytest.raises(KeyError, match="bug"):
        build(config | {"error": "bug"})


@pytest.mark.parametrize("target", [None, 3, ["os", "system"], {"a": 1}, "", ".", "a b", "os.nil"])
def test_a_target_that_is_none(target: Any) -> None:
    for purpose in (None, *LISTED):
        with pytest.raises(ConfigError, match="_target_: "):
            build([{"inner": {"_target_": target}}], purpose)


def test_a_users_own_config_may_call_anything() -> None:
    assert build({"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}) * 2 == 1
    with pytest.raises(ConfigError, match=r"_target_: math\.pi is no class or function"):
        build({"_target_": "math.pi"})


def test_a_trusted_packages_own_classes_alone() -> None:
    config = {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}
    assert build(config, "model", trusted=["fractions"]) * 2 == 1
    for target in ("fractions.Decimal", "fractions.math.gcd", "fractionsx.Fraction", "fractions"):
        with pytest.raises(ConfigError, match=f"{target} is nothing that"):
            build({"_target_": target}, "model", trusted=["fractions"])


def test_to_trust_recsys_is_to_trust_what_is_listed() -> None:
    for target in ("recsys.scoring.trained_model.SavedModel", "recsys.data.description.Spread"):
        with pytest.raises(ConfigError, match="is nothing that"):
            check({"_target_": target}, "model", trusted=["recsys", "recsys.data"])


@pytest.mark.parametrize("text", ["${x}", "a ${oc.env:HOME}", "\\${x}", "${", "${oc.create:{}}"])
def test_an_interpolation_of_a_saved_config(text: str) -> None:
    with pytest.raises(ConfigError, match="is an interpolation"):
        build({"_target_": "recsys.models.EASE", "l2": [{"a": text}]}, "model")


def test_a_folder_says_nothing_to_faiss_that_takes_any_memory() -> None:
    index = {"_target_": "recsys.retrieval.FaissIndex", "_partial_": True}
    factories = [
        "Flat",
        "HNSW32",
        "IVF64,Flat",
        "IVF1024,PQ16",
        "OPQ16_64,IVF65536_HNSW32,PQ16x4fs",
    ]
    for factory in factories:
        build({**index, "factory": factory, "parameters": "nprobe=16,efSearch=128"}, "index")
    for factory in ("HNSW99999999", "NSG8", "RQ99999999x8", "PQ16x30", "Flat\n", ["Flat"], ""):
        with pytest.raises(ConfigError, match="a folder's config may not say this"):
            build({**index, "factory": factory}, "index")
        build({**index, "factory": factory})
    with pytest.raises(ConfigError, match=r"parameters=verbose=1: a folder's config may not"):
        build({**index, "parameters": "verbose=1"}, "index")


def test_a_saved_model_reads_what_is_pretrained_from_its_own_folder(tmp_path: Path) -> None:
    config = {
        "_target_": "recsys.models.language.Pretrained",
        "path": "/home/someone/private",
    }
    assert build(config, "model", folder=tmp_path) == Pretrained(str(tmp_path), read_weights=False)
    assert build(config) == Pretrained("/home/someone/private")


@pytest.mark.parametrize(
    "options",
    [
        {"path": "s3://theirs/log.parquet"},
        {"path": "log.csv", "items_path": "https://theirs.example/items.csv"},
        {"path": "log.csv", "join": [{"path": "HTTP://theirs.example/o.csv", "key": "o"}]},
    ],
)
def test_a_folder_names_files_of_this_machine_alone(options: dict[str, Any]) -> None:
    config = {"_target_": "recsys.data.sources.table.table", **options}
    with pytest.raises(ConfigError, match=r"a folder's config may not say this"):
        check(config, "data")
    check(config, None)
    check({**config, **dict.fromkeys(options, "file:///log.csv")}, "data")
