"""Names of targets that moved: what a folder of an earlier version says, as this one calls it.

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


def renamed(config: Any) -> Any:
    """A config of dicts, lists and values with the names of today as its targets."""
    if isinstance(config, dict):
        found = {name: renamed(value) for name, value in config.items()}
        target = found.get("_target_")
        if isinstance(target, str):
            found["_target_"] = TARGETS.get(target, target)
        return found
    if isinstance(config, list):
        return [renamed(value) for value in config]
    return config
