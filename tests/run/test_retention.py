"""What a decoder forgot, against its own likelihoods worked out one answer at a time."""

import json
import math
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from recsys.cli.main import main
from recsys.errors import ConfigError, DataError, RunError
from recsys.models import LMRec
from recsys.models.language import Decoder
from recsys.run.questions import PROMPT, Questions, _leaves, _loaded, read_questions
from recsys.run.retention import Backbone, Retention
from recsys.scoring import saved_model
from recsys.tasks.splits import Split, last_basket
from recsys.testing import checkerboard

FILE = Path(__file__).with_name("retention_questions.jsonl")
SIZES = {"생활": 12, "상업": 10, "자연": 8}


def config_of(split: Split, decoder: dict[str, Any]) -> dict[str, Any]:
    def part(name: str, **options: Any) -> dict[str, Any]:
        return {"_target_": f"recsys.models.language.{name}", **options}

    return {
        "_target_": "recsys.models.LMRec",
        "num_items": split.num_items,
        "decoder": part(**decoder),
        "template": {"_target_": "recsys.log.Template"},
        "language": part("Language", batch_size=0),
        "ranking": part("Ranking"),
    }


def run_of(folder: Path, split: Split, decoder: dict[str, Any], shift: float = 0.0) -> Path:
    """A run's folder, of a model whose decoder is moved by noise in place of training."""
    config = config_of(split, decoder)
    model = saved_model.build(config)
    assert isinstance(model, LMRec)
    model.prepare(split)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=shift)
    saved_model.save(folder / "model", model, split, config, mask_history=False)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml({"model": config}))
    return folder


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard(num_items=4, num_users=12))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model in a folder, of random weights: it guesses."""
    folder = tmp_path_factory.mktemp("base")
    table = read_questions(FILE)
    decoder = Decoder(num_layers=1, embedding_dim=32, ffn_dim=64, vocab_size=400, max_length=256)
    texts = pl.concat([table["question"], *(table[letter] for letter in "ABCD")])
    torch.manual_seed(0)
    model = decoder.build()
    decoder.tokenizer(texts).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(base: Path, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    decoder = {"name": "Pretrained", "path": str(base)}
    return run_of(tmp_path_factory.mktemp("run"), split, decoder, shift=0.05)


@torch.no_grad()
def right_answers(folder: Path, words: Path) -> list[bool]:
    """Of each question whether the right letter is the likeliest, read off the next token."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(words)
    right = []
    for line in FILE.read_text("utf-8").splitlines():
        asked = json.loads(line)
        text = asked["question"].strip()
        text += "".join(f"\n{letter}. {asked[letter]}" for letter in "ABCD") + "\n정답："
        prompt = tokenizer(text, add_special_tokens=False).input_ids
        scores = []
        for letter in "ABCD":
            answer = tokenizer(f" {letter}", add_special_tokens=False).input_ids
            logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            scores.append(sum(float(logits[p, t]) for p, t in zip(places, answer, strict=True)))
        right.append(scores.index(max(scores)) == asked["answer"] - 1)
    return right


@pytest.mark.filterwarnings("ignore")  # of lm-eval and of what it imports
def test_thirty_questions_before_and_after(
    base: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval")
    output = tmp_path / "table.parquet"
    given = ["retention", str(trained), f"questions={FILE}", "batch_size=4"]
    assert main([*given, "--device", "cpu", "--output", str(output)]) == 0
    table = {
        (r["task"], r["mean"]): r for r in pl.read_parquet(output, glob=False).rows(named=True)
    }
    before, after = right_answers(base, base), right_answers(trained / "model", base)
    change = [float(a) - float(b) for b, a in zip(before, after, strict=True)]
    assert len({*change}) == 3  # learnt, forgot, as before
    begin, means, errors = 0, [], []
    for category, size in SIZES.items():
        part = slice(begin, begin + size)
        row = table[category, None]
        means.append(statistics.mean(change[part]))
        errors.append(statistics.stdev(change[part]) / math.sqrt(size))
        assert row["questions"] == size
        assert row["chance"] == 0.25
        assert row["before"] == pytest.approx(sum(before[part]) / size)
        assert row["after"] == pytest.approx(sum(after[part]) / size)
        assert row["difference"] == pytest.approx(means[-1])
        assert row["error"] == pytest.approx(errors[-1])
        begin += size
    by_question, by_task = (table[FILE.stem, f"by {unit}"] for unit in ("question", "task"))
    assert by_question["difference"] == pytest.approx(sum(change) / 30)
    assert by_task["difference"] == pytest.approx(sum(means) / 3)
    shares = [size / 30 for size in SIZES.values()]
    margin = math.sqrt(sum((w * e) ** 2 for w, e in zip(shares, errors, strict=True)))
    assert by_question["error"] == pytest.approx(margin)
    assert by_task["error"] == pytest.approx(math.sqrt(sum(e * e for e in errors)) / 3)
    assert capsys.readouterr().out.strip().endswith("5 rows")


@pytest.mark.filterwarnings("ignore")  # of lm-eval and of what it imports
def test_from_scratch_it_says_that_the_number_means_nothing(
    split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval")
    tiny = {"num_layers": 1, "embedding_dim": 16, "ffn_dim": 16, "vocab_size": 300}
    run = run_of(tmp_path, split, {"name": "Decoder", **tiny})
    assert main(["retention", str(run), f"questions={FILE}", "limit=2", "--device", "cpu"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "started at random, from no language model" in printed
    assert "means nothing" in printed


@pytest.mark.slow  # lm-eval reads all of its tasks first
def test_a_task_that_lm_eval_does_not_know() -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(ConfigError, match="lm-eval knows no task kmlu"):
        Questions.named(["kmmlu", "kmlu"])


def test_data_that_cannot_be_fetched() -> None:
    class Manager:
        def load(self, tasks: list[str]) -> None:
            raise ConnectionError("no route to a hub")

    with pytest.raises(ConfigError, match=r"the data of tasks=\['kmmlu'\] cannot be read \(no ro"):
        _loaded(Questions(["kmmlu"], {}, Manager()))


def test_the_prompt_is_kmmlus() -> None:
    lm_eval = pytest.importorskip("lm_eval")
    path = Path(lm_eval.__file__).parent / "tasks/kmmlu/default/_default_kmmlu_yaml"
    assert f"doc_to_text: {json.dumps(PROMPT, ensure_ascii=False)}" in path.read_text("utf-8")


def test_without_lm_eval(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(ConfigError, match=r"retention needs lm-eval; install recsys\[retention\]"):
        Retention(tasks=["kmmlu"]).what()


def test_the_folder_before_is_the_runs_own_or_another(base: Path, trained: Path) -> None:
    backbone = Backbone.of_run(trained)
    assert (backbone.before, backbone.after) == (base, trained / "model")
    assert Backbone.of_run(trained, "elsewhere").before == Path("elsewhere")


def test_a_run_that_holds_no_language_model(trained: Path, tmp_path: Path) -> None:
    ease = {"model": {"_target_": "recsys.models.EASE"}}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(ease))
    with pytest.raises(RunError, match="holds no run of a language model"):
        Backbone.of_run(tmp_path)
    shutil.copy(trained / "config.yaml", tmp_path)
    with pytest.raises(RunError, match=r"there is no model/config\.json"):
        Backbone.of_run(tmp_path)


def test_a_decoder_that_was_changed_after_it_was_written(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    with (run / "model" / "model.safetensors").open("ab") as file:
        file.write(b"0")
    with pytest.raises(RunError, match="is not the file that was written"):
        Backbone.of_run(run)


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "give one of them"),
    ({"tasks": ["kmmlu"], "questions": "x.jsonl"}, "give one of them"),
    ({"questions": "x.jsonl", "num_shots": 5}, "num_shots=5: questions=x.jsonl has no examples"),
    ({"tasks": ["kmmlu"], "limit": 0}, "limit=0"),
    ({"tasks": ["kmmlu"], "batch_size": 0}, "batch_size=0"),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Retention(**options)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("task=[kmmlu]", "there is no option task; did you mean tasks"),
        ("tasks=kmmlu", "tasks=kmmlu: expected a list of texts"),
        ("batch_size=many", "batch_size=many: expected an integer"),
    ],
)
def test_a_mistake_is_one_line(
    override: str, words: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["retention", str(trained), override]) == 2
    assert words in capsys.readouterr().err


def line(**changes: Any) -> str:
    asked = {"question": "?", "A": "a", "B": "b", "C": "c", "D": "d", "answer": 1}
    return json.dumps({k: v for k, v in {**asked, **changes}.items() if v != "gone"})


FILES: list[tuple[str, str]] = [
    ("not json", "is no JSON Lines"),
    (line(C="gone"), "has no column C; it needs question, A, B, C, D, answer"),
    (line(B=None), "or one that lacks something"),
    (line(answer=0), "answer is not 1 to 4 throughout"),
    (line(answer="A"), "answer is not 1 to 4 throughout"),
    (line() + "\n" + line(answer=5), "answer is not 1 to 4 throughout"),
]


@pytest.mark.parametrize(("text", "words"), FILES)
def test_a_file_that_is_not_of_the_form(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises((DataError, RunError), match=words):
        read_questions(path)


def test_no_file_of_questions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"questions=\S+nowhere\.jsonl is no file"):
        read_questions(tmp_path / "nowhere.jsonl")


def test_groups_in_groups_are_their_tasks() -> None:
    groups = {"all": ["part", "c"], "part": ["a", "b"], "c": [], "one": ["a"]}
    assert _leaves(groups, {"a": 0, "b": 0, "c": 0}) == {"all": ["a", "b", "c"], "part": ["a", "b"]}


def test_the_thirty_questions_are_thirty() -> None:
    table = read_questions(FILE)
    counts: dict[str, int] = dict(table["Category"].value_counts().iter_rows())
    assert counts == SIZES
    assert table["answer"].n_unique() == 4
