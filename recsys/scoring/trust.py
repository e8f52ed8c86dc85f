"""What a config may call, and how it is called: the one place where a `_target_` becomes an object.

A run's folder is data, whoever made it. Its configs name classes and functions, which is a way to
run code, so a name from a folder counts only where it is listed here for the purpose that it
stands for: a model's config cannot name a source of data, and the data's cannot name a model.
Everything listed was read for this: with any arguments it computes, and at most reads the files of
a log that it is told of. `docs/security.md` says what follows from that.

What a user writes on the command line or in Python is the user's own, and may name anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from re import fullmatch
from typing import Any, Literal

from recsys.errors import ConfigError, RecsysError

Purpose = Literal["model", "data", "split", "index", "table"]

ZOO = "recsys.models"
"""Whose public names are all models, and listed."""

LISTED: Mapping[Purpose, tuple[str, ...]] = {
    "model": (  # the parts that the models of the zoo are put together from
        "recsys.data.LogCorpus",
        "recsys.log.Template",
        "recsys.models.domains.InverseFrequency",
        "recsys.models.domains.Readings",
        "recsys.models.domains.Shapley",
        "recsys.models.domains.Terms",
        "recsys.models.domains.TransferGap",
        "recsys.models.domains.Uniform",
        "recsys.models.graphs.Alike",
        "recsys.models.graphs.Autoencoder",
        "recsys.models.graphs.Frequency",
        "recsys.models.graphs.Graph",
        "recsys.models.graphs.Join",
        "recsys.models.graphs.Ranking",
        "recsys.models.language.Attention",
        "recsys.models.language.Decoder",
        "recsys.models.language.FrozenTexts",
        "recsys.models.language.Ids",
        "recsys.models.language.Language",
        "recsys.models.language.Pretrained",
        "recsys.models.language.Ranking",
        "recsys.models.language.Tuning",
        "recsys.models.sequences.Adjacency",
        "recsys.models.sequences.Encoder",
        "recsys.models.sequences.Experts",
        "recsys.models.sequences.OwnPointer",
        "recsys.models.sequences.Ranking",
        "recsys.models.sequences.SideBySide",
        "recsys.models.sequences.SingularVectors",
        "recsys.models.users.Encoder",
        "recsys.models.users.Pretext",
        "recsys.models.users.Product",
        "recsys.nn.FileVectors",
        "recsys.nn.GaussianHead",
        "recsys.nn.HazardGradientPenalty",
        "recsys.nn.L1",
        "recsys.nn.MultinomialHead",
        "recsys.nn.NegativeBinomialHead",
        "recsys.nn.SentenceVectors",
        "recsys.nn.StudentTHead",
        "recsys.nn.TweedieForecastHead",
        "recsys.nn.TweedieHead",
        "recsys.scoring.Steps",
        "recsys.tasks.Clock",
        "recsys.tasks.Counts",
        "recsys.tasks.Gaps",
        "recsys.tasks.LastVisit",
        "recsys.tasks.RFM",
        "recsys.tasks.RecentGaps",
    ),
    "data": (
        "recsys.data.sources.amazon_domains.amazon_domains",
        "recsys.data.sources.amazon_sequences.beauty",
        "recsys.data.sources.amazon_sequences.scientific",
        "recsys.data.sources.cdnow.cdnow",
        "recsys.data.sources.checkins.checkins",
        "recsys.data.sources.complete_journey.categories",
        "recsys.data.sources.complete_journey.complete_journey",
        "recsys.data.sources.complete_journey.types",
        "recsys.data.sources.movielens.ml100k",
        "recsys.data.sources.online_retail.customers",
        "recsys.data.sources.online_retail.invoices",
        "recsys.data.sources.online_retail.unisrec",
        "recsys.data.sources.prepared.prepared",
        "recsys.data.sources.table.table",
        "recsys.data.sources.temporal_sets.dc",
        "recsys.data.sources.temporal_sets.tafeng",
        "recsys.data.sources.temporal_sets.tms",
    ),
    "split": (
        "recsys.tasks.first_in_domain",
        "recsys.tasks.global_time",
        "recsys.tasks.last_basket",
        "recsys.tasks.last_share",
        "recsys.tasks.leave_last_out",
        "recsys.tasks.user_holdout",
    ),
    "index": (
        "recsys.retrieval.ExactIndex",
        "recsys.retrieval.FaissIndex",
    ),
    "table": ("recsys.tasks.return_time",),
}

OF_ITS_FOLDER = ("recsys.models.language.Pretrained",)
"""What a saved model's own folder describes: the path that its config names is not followed."""

ON_THIS_MACHINE = r"(?s)(?!.*(?<!file)://).*"
WORDS: Mapping[str, Mapping[str, str]] = {
    "recsys.data.sources.table.table": dict.fromkeys(
        ("path", "items_path", "users_path", "join"), ON_THIS_MACHINE
    ),
    "recsys.retrieval.FaissIndex": {
        "factory": r"(OPQ\d{1,3}(_\d{1,4})?,)?(IVF\d{1,6}(_HNSW\d{1,3})?,|HNSW\d{1,3},)?"
        r"(Flat|SQ[468]|SQfp16|PQ\d{1,3}(x\d)?(fs)?)|HNSW\d{1,3}",
        "parameters": r"((nprobe|efSearch|k_factor_rf)=\d{1,6},?)*",
    },
}
"""Options that are a language of their own, and what a folder's config may say in it: with larger
numbers FAISS takes any amount of memory, and who owns an address hears that a folder was opened."""

TARGET, PARTIAL = "_target_", "_partial_"


def build(
    config: Any,
    purpose: Purpose | None = None,
    *,
    trusted: Sequence[str] = (),
    folder: Path | None = None,
) -> Any:
    """What a config describes: its classes and functions called with its options, inner ones first.

    Args:
        config: dicts, lists and values. A dict with `_target_` is a call, and with
            `_partial_: true` one that is left to be made later.
        purpose: what the config is for; it may call what is listed for that, and nothing else.
            None: it is the user's own, and may call anything.
        trusted: further packages, whose own classes may be called.
        folder: of a saved model, which `OF_ITS_FOLDER` is told of.

    Raises:
        ConfigError: it calls what it may not, or what does not exist, or with options that it does
            not take; or what it calls refuses them.
    """
    check(config, purpose, trusted)
    return _built(config, purpose, trusted, folder)


def check(config: Any, purpose: Purpose | None, trusted: Sequence[str] = ()) -> None:
    """Refuse a config that `build` may not build, before anything of it is called.

    Raises:
        ConfigError: as `build`, in all but what it calls makes of its options.
    """
    if isinstance(config, list):
        for value in config:
            check(value, purpose, trusted)
    elif isinstance(config, dict):
        if TARGET in config:
            find(config[TARGET], purpose, trusted)
            _check_options(config, purpose)
        for value in config.values():
            check(value, purpose, trusted)
    elif purpose is not None and isinstance(config, str) and "${" in config:
        raise ConfigError(f"{config} is an interpolation; a saved config holds values only")


def find(target: Any, purpose: Purpose | None, trusted: Sequence[str] = ()) -> Callable[..., Any]:
    """The class or function of a name.

    Raises:
        ConfigError: it is not listed for the purpose and not a class of a trusted package, or there
            is none of that name.
    """
    name = target if isinstance(target, str) else repr(target)
    if purpose is not None and not _is_listed(target, purpose):
        return _of_packages(target, trusted, purpose)
    try:
        function = resolve_name(target)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{TARGET}: {name} does not exist ({error})") from error
    if not callable(function):
        raise ConfigError(f"{TARGET}: {name} is no class or function; name one")
    return function


def _is_listed(target: Any, purpose: Purpose) -> bool:
    if not isinstance(target, str):
        return False
    package, _, name = target.rpartition(".")
    is_of_zoo = package == ZOO and name in import_module(ZOO).__all__
    return target in LISTED[purpose] or (purpose == "model" and is_of_zoo)


def _of_packages(target: Any, trusted: Sequence[str], purpose: Purpose) -> Callable[..., Any]:
    """A class that one of these packages defines; our own are listed one by one."""
    packages = [name for name in trusted if name.partition(".")[0] != "recsys"]

    def below(name: str) -> bool:
        return any(f"{name}.".startswith(f"{package}.") for package in packages)

    remedy = "name another"
    if purpose == "model":
        remedy = "if you trust its package, name that: --trusted PACKAGE, or load(…, trusted=[…])"
    refused = ConfigError(
        f"{TARGET}: {target} is nothing that a folder's config may call as a {purpose}; {remedy}"
    )
    if not isinstance(target, str) or not below(target):
        raise refused
    try:
        kind = resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        raise refused from None
    # Where it was defined counts: `package.module.os.system` is none of the package's.
    if not isinstance(kind, type) or not below(kind.__module__):
        raise refused
    return kind


def _check_options(config: dict[Any, Any], purpose: Purpose | None) -> None:
    for key in config:
        if not isinstance(key, str) or (key.startswith("_") and key not in (TARGET, PARTIAL)):
            raise ConfigError(f"{key}: {config[TARGET]} has no such option; remove it")
    if not isinstance(config.get(PARTIAL, False), bool):
        raise ConfigError(f"{PARTIAL}: {config[PARTIAL]!r} is neither true nor false")
    for name, form in WORDS.get(config[TARGET], {}).items() if purpose else ():
        if name in config and not fullmatch(form, str(config[name])):
            raise ConfigError(
                f"{name}={config[name]}: a folder's config may not say this; give another"
            )


def _built(
    config: Any, purpose: Purpose | None, trusted: Sequence[str], folder: Path | None
) -> Any:
    if isinstance(config, list):
        return [_built(value, purpose, trusted, folder) for value in config]
    if not isinstance(config, dict):
        return config
    options = {name: _built(v, purpose, trusted, folder) for name, v in config.items()}
    if TARGET not in options:
        return options
    target, later = options.pop(TARGET), options.pop(PARTIAL, False)
    if folder is not None and target in OF_ITS_FOLDER:
        options |= {"path": str(folder), "read_weights": False}
    call = find(target, purpose, trusted)
    _check_signature(target, call, options, later)
    return partial(call, **options) if later else _called(target, call, options, purpose)


def _check_signature(
    target: str, call: Callable[..., Any], options: dict[str, Any], later: bool
) -> None:
    try:
        takes = signature(call)
    except ValueError:  # some built-in functions have none
        return
    try:
        (takes.bind_partial if later else takes.bind)(**options)
    except TypeError as error:
        raise ConfigError(f"{target}: {error}") from error


def _called(
    target: str, call: Callable[..., Any], options: dict[str, Any], purpose: Purpose | None
) -> Any:
    try:
        return call(**options)
    except RecsysError:
        raise
    except Exception as error:
        if purpose is None and not isinstance(error, ValueError):
            raise  # a fault in code of the user's own, or in ours
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"{target} refuses its options: {reason}") from error
