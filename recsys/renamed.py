"""Targets and options that moved: what a folder of an earlier version says, as this one calls it.

Kept for one release: a run that was saved before 0.1.0 loads with 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TARGETS: Mapping[str, str] = {
    "recsys.data.coupons.coupon": "recsys.data.coupon",
    "recsys.data.coupons.coupon_response": "recsys.data.coupon_response",
    "recsys.data.questions.lapse": "recsys.tasks.lapse",
    "recsys.data.questions.new_items": "recsys.tasks.new_items",
    "recsys.data.questions.profiling": "recsys.tasks.profiling",
    "recsys.data.text.LogCorpus": "recsys.data.LogCorpus",
    "recsys.distributions.GaussianHead": "recsys.nn.GaussianHead",
    "recsys.distributions.MultinomialHead": "recsys.nn.MultinomialHead",
    "recsys.distributions.TweedieHead": "recsys.nn.TweedieHead",
    "recsys.features.CandidateShares": "recsys.tasks.CandidateShares",
    "recsys.features.Counts": "recsys.tasks.Counts",
    "recsys.features.RFM": "recsys.tasks.RFM",
    "recsys.models.lmrec.Decoder": "recsys.models.language.Decoder",
    "recsys.models.lmrec.Language": "recsys.models.language.Language",
    "recsys.models.lmrec.Pretrained": "recsys.models.language.Pretrained",
    "recsys.models.lmrec.Ranking": "recsys.models.language.Ranking",
    "recsys.models.sasrec.SideBySide": "recsys.models.sequences.SideBySide",
    "recsys.models.sasrec.SingularVectors": "recsys.models.sequences.SingularVectors",
    "recsys.models.shopperbert.Encoder": "recsys.models.users.Encoder",
    "recsys.predictor.Steps": "recsys.scoring.Steps",
    "recsys.profiles.Profile": "recsys.scoring.Profile",
    "recsys.sentences.SentenceVectors": "recsys.nn.SentenceVectors",
    "recsys.splits.global_time": "recsys.tasks.global_time",
    "recsys.splits.last_basket": "recsys.tasks.last_basket",
    "recsys.splits.leave_last_out": "recsys.tasks.leave_last_out",
    "recsys.splits.user_holdout": "recsys.tasks.user_holdout",
    "recsys.text.Template": "recsys.log.Template",
    "recsys.training.Training": "recsys.training.TrainingOptions",
}


OPTIONS: Mapping[str, Mapping[str, str]] = {
    "recsys.models.GLOIE": {
        "head": "autoencoder.head",
        "latent_dim": "autoencoder.latent_dim",
        "decay": "autoencoder.decay",
        "dropout": "autoencoder.dropout",
        "kl_weight": "autoencoder.kl_weight",
        "kl_steps": "autoencoder.kl_steps",
        "elbo_weight": "autoencoder.elbo_weight",
        "num_layers": "graph.num_layers",
        "num_heads": "graph.num_heads",
        "max_events": "graph.max_events",
        "use_global": "join.use_global",
        "use_local": "join.use_local",
        "attention": "join.attention",
        "softmax": "ranking.softmax",
        "num_targets": "ranking.num_targets",
        "latest_popularity": "ranking.latest_popularity",
        "personal": "frequency.personal",
        "calendar": "frequency.calendar",
    },
    "recsys.models.LMRec": {
        "use_ids": "ids.use_ids",
        "id_weight_decay": "ids.id_weight_decay",
        "start": "tuning.start",
        "freeze": "tuning.freeze",
        "compile": "tuning.compile",
        "warmup": "tuning.warmup",
    },
    "recsys.models.SASRec": {
        "num_layers": "encoder.num_layers",
        "num_heads": "encoder.num_heads",
        "max_length": "encoder.max_length",
        "dropout": "encoder.dropout",
        "softmax": "ranking.softmax",
        "num_negatives": "ranking.num_negatives",
    },
    "recsys.models.ShopperBERT": {
        "price_buckets": "product.price_buckets",
        "sentences": "product.sentences",
        "pooling": "encoder.pooling",
        "pretext_tasks": "pretext.pretext_tasks",
        "mask_rate": "pretext.mask_rate",
        "shuffle_rate": "pretext.shuffle_rate",
        "held_out": "pretext.held_out",
    },
}
"""By target, options that moved into a section: where each is now."""

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "recsys.models.GLOIE": {
        "autoencoder": "recsys.models.graphs.Autoencoder",
        "graph": "recsys.models.graphs.Graph",
        "join": "recsys.models.graphs.Join",
        "ranking": "recsys.models.graphs.Ranking",
        "frequency": "recsys.models.graphs.Frequency",
    },
    "recsys.models.LMRec": {
        "ids": "recsys.models.language.Ids",
        "tuning": "recsys.models.language.Tuning",
    },
    "recsys.models.SASRec": {
        "encoder": "recsys.models.sequences.Encoder",
        "ranking": "recsys.models.sequences.Ranking",
    },
    "recsys.models.ShopperBERT": {
        "product": "recsys.models.users.Product",
        "encoder": "recsys.models.users.Encoder",
        "pretext": "recsys.models.users.Pretext",
    },
}
"""By target, what its sections make."""


NAMES: Mapping[str, Mapping[str, str]] = {"task": {"questions": "labels"}}
"""By section, options that have another name."""
TABLES = "questions/", "labels/"
"""What the names of label tables in `log.json` began with, and do now."""


def renamed(config: Any) -> Any:
    """A config of dicts, lists and values with the names and the sections of today."""
    if isinstance(config, dict):
        options = {name: _of_today(name, renamed(value)) for name, value in config.items()}
        target = options.get("_target_")
        if isinstance(target, str):
            options["_target_"] = TARGETS.get(target, target)
            return _in_sections(options)
        return options
    if isinstance(config, list):
        return [renamed(value) for value in config]
    return config


def renamed_tables(log: Mapping[str, Any]) -> dict[str, Any]:
    """What a `log.json` holds, with the names that label tables have today."""
    before, today = TABLES
    return {
        f"{today}{name.removeprefix(before)}" if name.startswith(before) else name: value
        for name, value in log.items()
    }


def _of_today(section: Any, value: Any) -> Any:
    """A section with the names that its options have today."""
    if not isinstance(value, dict) or section not in NAMES:
        return value
    names = NAMES[section]
    return {names.get(name, name): option for name, option in value.items()}


def _in_sections(config: dict[str, Any]) -> dict[str, Any]:
    """The options of one call where they are now."""
    target = config["_target_"]
    places = OPTIONS.get(target, {})
    options = {name: value for name, value in config.items() if name not in places}
    for name, place in places.items():
        if name in config:
            section, option = place.split(".")
            call = {"_target_": SECTIONS[target][section]}
            options.setdefault(section, call)[option] = config[name]
    return options
