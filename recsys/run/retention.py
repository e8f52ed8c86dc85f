"""What the language model of a run forgot while it learnt to recommend.

The decoder that the run started from and the one in its folder are asked the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl
import torch
from transformers import PreTrainedModel

from recsys.errors import ConfigError, RunError
from recsys.evaluation.retention import AFTER, BEFORE, TASK, retention
from recsys.models.language import Pretrained
from recsys.ranges import at_least
from recsys.reading import read_config, reading
from recsys.run.questions import RIGHT, Answers, Questions, ask
from recsys.scoring import manifest

LMREC = "recsys.models.LMRec"
PRETRAINED = "recsys.models.language.Pretrained"
NO_TEXTS = pl.Series([], dtype=pl.String)


@dataclass(frozen=True)
class Retention:
    """What a run's decoder is asked.

    Attributes:
        tasks: of lm-eval, by name.
        questions: a JSON Lines file in the form of KMMLU.
        before: the folder that the run started from; None is the one that its config names.
        num_shots: answered examples before a question; None as each task has it.
        limit: questions of a task; None asks all.
        batch_size: answers at once.

    Raises:
        ConfigError: neither tasks nor questions, both, examples from a file, which has none, or an
            option is out of its range.
    """

    tasks: Sequence[str] = ()
    questions: str | None = None
    before: str | None = None
    num_shots: int | None = None
    limit: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        at_least(0, num_shots=self.num_shots)
        at_least(1, limit=self.limit, batch_size=self.batch_size)
        if bool(self.tasks) == (self.questions is not None):
            raise ConfigError("retention asks tasks=[kmmlu] or questions=FILE; give one of them")
        if self.questions is not None and self.num_shots:
            raise ConfigError(
                f"num_shots={self.num_shots}: questions={self.questions} has no examples apart "
                "from its questions; leave it out"
            )

    def what(self) -> Questions:
        """The questions.

        Raises:
            ConfigError: lm-eval is not installed, or knows no such task.
            DataError: the file is not of the form.
        """
        if self.questions is not None:
            return Questions.of_file(Path(self.questions))
        return Questions.named(self.tasks)


@dataclass(frozen=True)
class Backbone:
    """The decoder of a run, before and after.

    Attributes:
        before: the folder that it started from; None where it started at random.
        after: the folder where it is now.
        dtype: in which both are asked.
    """

    before: Path | None
    after: Path
    dtype: Any

    @classmethod
    def of_run(cls, run: Path, before: str | None = None) -> Backbone:
        """Of a run's folder.

        Args:
            before: a folder in place of the one that the config names.

        Raises:
            RunError: it holds no finished run of a language model.
        """
        config, model = read_config(run), run / "model"
        with reading(run / "config.yaml"):
            is_lmrec = config["model"]["_target_"] == LMREC
            decoder = config["model"]["decoder"] if is_lmrec else {}
        if not is_lmrec:
            raise RunError(f"{run} holds no run of a language model; retention is asked of LMRec's")
        if not (model / "config.json").is_file():
            raise RunError(f"{run} holds no finished run: there is no model/config.json")
        manifest.check(model)
        is_pretrained = decoder.get("_target_") == PRETRAINED
        start = before or (decoder.get("path") if is_pretrained else None)
        return cls(Path(start) if start else None, model, decoder.get("dtype", "float32"))


def measure(backbone: Backbone, options: Retention, device: torch.device) -> pl.DataFrame:
    """The table of `recsys.evaluation.retention`, of both decoders.

    Raises:
        ConfigError, DataError: as `Retention.what` and `Pretrained.build`.
    """
    questions = options.what()
    # That of the folder may have been written in another form, which is no matter of what is known.
    tokenizer = Pretrained(str(backbone.before or backbone.after)).tokenizer(NO_TEXTS)

    def answers(folder: Path) -> Answers:
        model = Pretrained(str(folder), dtype=backbone.dtype).build().eval().to(device)
        return ask(
            questions,
            cast(PreTrainedModel, model),
            tokenizer,
            num_shots=options.num_shots,
            limit=options.limit,
            batch_size=options.batch_size,
        )

    after = answers(backbone.after)
    rows = after.rows.rename({RIGHT: AFTER}).with_columns(pl.lit(None, pl.Boolean).alias(BEFORE))
    if backbone.before is not None:
        before = answers(backbone.before).rows
        assert before[TASK].equals(rows[TASK])
        rows = rows.with_columns(before[RIGHT].alias(BEFORE))
    return retention(rows, after.groups)
