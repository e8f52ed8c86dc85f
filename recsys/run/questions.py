"""Questions with several answers, as lm-eval asks a language model.

Gao et al., "The Language Model Evaluation Harness" (Zenodo 10.5281/zenodo.12608602): an answer is
the choice whose text has the highest likelihood behind the question. Its tasks are named; the data
of most are fetched from a hub, under licences of their own. A file of one's own has the form of
KMMLU (Son et al., arXiv 2402.11548), and is asked with KMMLU's prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from recsys.errors import ConfigError, DataError
from recsys.evaluation.retention import CHANCE, TASK
from recsys.reading import reading

CHOICES = ("A", "B", "C", "D")
CATEGORY = "Category"
RIGHT = "right"
PROMPT = "{{question.strip()}}\nA. {{A}}\nB. {{B}}\nC. {{C}}\nD. {{D}}\n정답："


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Attributes:
        tasks: names that lm-eval knows, or tasks as its configs describe them.
        groups: of these tasks, that it does not know of.
        manager: lm-eval's, of what it knows.
    """

    tasks: Sequence[str | dict[str, Any]]
    groups: Mapping[str, Sequence[str]]
    manager: Any

    @classmethod
    def named(cls, names: Sequence[str]) -> Questions:
        """Tasks, groups or tags of lm-eval.

        Raises:
            ConfigError: it knows none of the name, or is not installed.
        """
        manager = _manager(include_defaults=True)
        if unknown := [name for name in names if name not in manager.all_tasks]:
            raise ConfigError(
                f"tasks: lm-eval knows no task {unknown[0]}; `lm-eval ls tasks` lists them"
            )
        return cls(list(names), {}, manager)

    @classmethod
    def of_file(cls, path: Path) -> Questions:
        """Those of a JSON Lines file, a task for each category where there are such.

        Raises:
            DataError: it is no such file.
            ConfigError: lm-eval is not installed.
        """
        table, manager = read_questions(path), _manager(include_defaults=False)
        if CATEGORY not in table.columns:
            return cls([_task(path.stem, table)], {}, manager)
        parts = table.partition_by(CATEGORY, maintain_order=True)
        tasks = {part[CATEGORY][0]: part for part in parts}
        groups = {path.stem: list(tasks)} if len(tasks) > 1 else {}
        return cls([_task(name, part) for name, part in tasks.items()], groups, manager)


def _manager(*, include_defaults: bool) -> Any:
    """lm-eval's index of tasks, which takes it many seconds for all that it comes with."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ConfigError("retention needs lm-eval; install recsys[retention]") from None
    return TaskManager(include_defaults=include_defaults)


def read_questions(path: Path) -> pl.DataFrame:
    """`question`, its choices `A` to `D`, `answer` (1 to 4), and `Category` if the file has it.

    Args:
        path: JSON Lines, an object a question.

    Raises:
        DataError: there is no such file, a column is missing, or a question lacks something.
    """
    if not path.is_file():
        raise DataError(f"questions={path} is no file; give one of JSON Lines")
    with (
        reading(path, fault="is no JSON Lines", remedy="give an object a line"),
        path.open("rb") as file,
    ):
        table = pl.read_ndjson(file, infer_schema_length=None)
    needed = ["question", *CHOICES, "answer"]
    if missing := [column for column in needed if column not in table.columns]:
        raise DataError(f"{path} has no column {missing[0]}; it needs {', '.join(needed)}")
    category = [CATEGORY] if CATEGORY in table.columns else []
    table = table.select(*needed, *category)
    if not len(table) or table.null_count().sum_horizontal().item():
        raise DataError(f"{path} has no questions, or one that lacks something; complete it")
    if table["answer"].dtype != pl.Int64 or not table["answer"].is_between(1, 4).all():
        raise DataError(f"{path}: answer is not 1 to 4 throughout; number the choices from 1")
    return table.with_columns(pl.col("question", *CHOICES, *category).cast(pl.String))


def _task(name: str, table: pl.DataFrame) -> dict[str, Any]:
    """The config of a task, as KMMLU's."""
    from datasets import Dataset

    split = {"test": Dataset.from_list(table.to_dicts())}
    return {
        "task": name,
        "custom_dataset": lambda **_: split,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": PROMPT,
        "doc_to_choice": list(CHOICES),
        "doc_to_target": "{{answer-1}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answered.

    Attributes:
        rows: a row a question, in order: `task`, `right` and `chance`.
        groups: of tasks, by name.
    """

    rows: pl.DataFrame
    groups: Mapping[str, Sequence[str]]


def ask(
    questions: Questions,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    num_shots: int | None,
    limit: int | None,
    batch_size: int,
) -> Answers:
    """A model's answers, where it is.

    Args:
        num_shots: answered examples before a question; None as each task has it.
        limit: questions of a task; None asks all.

    Raises:
        ConfigError: a task's data cannot be read, or it does not say of a question whether it was
            answered rightly.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    with _quiet():
        tasks = _loaded(questions)
        for task in tasks["tasks"].values():
            # The same examples for every model.
            task.set_fewshot_seed(seed=0)
            if num_shots is not None:
                task.set_config(key="num_fewshot", value=num_shots)
        asked = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        results = evaluate(asked, tasks, limit=limit, bootstrap_iters=0, log_samples=True)
    samples = results["samples"]
    rows = pl.concat([_rows(name, samples[name]) for name in samples])
    return Answers(rows, {**_leaves(results["group_subtasks"], samples), **questions.groups})


def _loaded(questions: Questions) -> dict[str, Any]:
    """What lm-eval evaluates, with the data."""
    try:
        return cast(dict[str, Any], questions.manager.load(list(questions.tasks)))
    except OSError as error:  # what `datasets` and the hub raise without a network
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"the data of tasks={[*map(_name, questions.tasks)]} cannot be read ({reason}); they "
            "are fetched from a hub: go online once, or give questions=FILE"
        ) from error


def _name(task: str | dict[str, Any]) -> str:
    return task if isinstance(task, str) else cast(str, task["task"])


def _rows(task: str, samples: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    kinds = [kind for kind in ("acc", "exact_match") if kind in ordered[0]]
    if not kinds:
        raise ConfigError(f"task {task} does not say which questions are right; name one with acc")
    kind = kinds[0]
    right = [bool(sample[kind]) for sample in ordered]
    chance = [_chance(sample) if kind == "acc" else None for sample in ordered]
    schema = {TASK: pl.String, RIGHT: pl.Boolean, CHANCE: pl.Float64}
    return pl.DataFrame({TASK: [task] * len(right), RIGHT: right, CHANCE: chance}, schema)


def _chance(sample: Mapping[str, Any]) -> float:
    """One over the number of choices: a request each, or two, where one is without the question."""
    requests = len(sample["arguments"])
    return 1 / (requests // 2 if "acc_mutual_info" in sample else requests)


def _leaves(groups: Mapping[str, Sequence[str]], tasks: Mapping[str, Any]) -> dict[str, list[str]]:
    """The tasks of each group, through the groups in it."""

    def below(name: str) -> Iterator[str]:
        if name in tasks:
            yield name
        for member in groups.get(name, ()):
            yield from below(member)

    members = {name: list(dict.fromkeys(below(name))) for name in groups if name not in tasks}
    return {name: of_group for name, of_group in members.items() if len(of_group) > 1}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's own log, which warns of what is meant."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
